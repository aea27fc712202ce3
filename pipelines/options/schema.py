"""The options of `sluice schema`, and of schemas that are made from rows."""

import argparse
import dataclasses

from sluice.models.errors import UsageError
from sluice.pipelines.options.flags import flag, parse_paths
from sluice.transforms.core.formats import FORMATS

# What --input_schema is instead of a file.
AUTO = "auto"
# Enough to see what is rare, and few enough for a second.
SAMPLED_ROWS = 10_000
_ALL = "all"


def parse_rows(text: str) -> int:
    """Returns a number of rows; 0 for all."""
    if text == _ALL:
        return 0
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"expected a number above 0, or {_ALL}, found {text!r}")
    return int(text)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SchemaOptions:
    """Options of `sluice schema`. Checks itself: an invalid value raises UsageError."""

    input: tuple[str, ...] = flag(
        "JSON files to look at: a path, a glob or a directory, local or gs://; may be repeated", (), parse_paths,
        group="Input", metavar="GLOB", repeated=True,
    )  # fmt: skip
    input_format: str = flag("Format of the input; default: by the file's ending", "", choices=FORMATS, group="Input")
    rows: int = flag(
        f"How many rows to look at, of up to 20 of the files; {_ALL}: all of them", SAMPLED_ROWS, parse_rows,
        group="Run", metavar=f"N|{_ALL}",
    )  # fmt: skip

    def __post_init__(self) -> None:
        if not self.input:
            raise UsageError("give --input: the JSON files whose schema is wanted")
        messages = next((path for path in self.input if path.startswith("projects/")), "")
        if messages:
            raise UsageError(
                f"--input {messages}: messages would have to be taken away to look at them; save some in a file, one a "
                "line, and give that"
            )
