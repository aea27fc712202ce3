"""A command line that is not parsed yet: what has to be known before."""

from collections.abc import Sequence

from sluice.pipelines.logs import FORMATS, TEXT

_LOG_FORMAT = "--log_format"


def typed_value(words: Sequence[str], flag: str) -> str | None:
    """Returns the value of a flag, the last one as argparse does; None: it is not there."""
    found = None
    for at, word in enumerate(words):
        name, joined, value = word.partition("=")
        if name == flag:
            found = value if joined else "".join(words[at + 1 : at + 2])
    return found


def format_in(words: Sequence[str]) -> str:
    """Returns the --log_format, for what is wrong with the command line."""
    found = typed_value(words, _LOG_FORMAT)
    return found if found in FORMATS else TEXT
