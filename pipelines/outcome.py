"""How a job ended: exit codes, the text of an error, and the one way from an error to both."""

import logging
import re

from sluice.models.errors import (
    ModelHangs,
    ModelLost,
    NonePassed,
    Overloaded,
    Refused,
    SluiceError,
    TimedOut,
    TooManyFailures,
    Unavailable,
)
from sluice.models.wording import WITHHELD
from sluice.pipelines.logs import tell

_LOG = logging.getLogger(__name__)

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_FAILURES, EXIT_INTERRUPTED = 0, 1, 2, 3, 130


def _named(*kinds: type[SluiceError]) -> re.Pattern[str]:
    """Matches at the start of `error_text`, or as a traceback names the kind: not ServiceUnavailable of Google's."""
    return re.compile(rf"(^|\bmodels\.errors\.)({'|'.join(kind.__name__ for kind in kinds)})\b")


_ABOUT_SERVER = _named(Unavailable, Overloaded, TimedOut, Refused)
_FINAL = _named(TooManyFailures, ModelLost, ModelHangs)
_NONE_PASSED = _named(NonePassed)

# Errors whose words are of the command, the model or the place of files, and never of a row.
_QUOTES_NOTHING = re.compile(
    r"(^|\bmodels\.errors\.)(TooManyFailures:? [0-9]+ of [0-9]+ rows|ModelNotFound|SignatureError)\b"
    r"|(^|\bmodels\.errors\.)(UsageError|InputChanged|JobServerLost|JobCancelled)\b"
    r"|^(FileNotFoundError|FileExistsError|PermissionError|Forbidden|RefreshError|DefaultCredentialsError)\b"
)

# Lines of a trace of Java, and what closes one of Prism.
_FRAME = re.compile(r"\s*(at [\w.$/<>@]+\(|\.\.\. \d+ (more|common)|[)\]}>]+\s*$)")
# What Beam and Java put before the words of an error.
_WRAPPED = re.compile(r"^(Pipeline \S+ failed in state [A-Z]+: |Caused by: )+")


def error_text(error: BaseException) -> str:
    """Returns the error's type and text: a runner passes on text, not the exception that a worker raised."""
    return f"{type(error).__name__} {error}"


def is_about_server(error: BaseException) -> bool:
    """Whether a model's server was unavailable or refused calls."""
    return _ABOUT_SERVER.search(error_text(error)) is not None


def is_final(error: BaseException) -> bool:
    """Whether the same would happen again in this process: the model is lost to it, or fails on all rows."""
    return _FINAL.search(error_text(error)) is not None


def is_doubtful(error: BaseException) -> bool:
    """Whether rows failed before any row had passed."""
    return _NONE_PASSED.search(error_text(error)) is not None


def is_interrupt(error: BaseException | None) -> bool:
    """Whether ctrl-C has ended the job, here or where it runs."""
    return error is not None and KeyboardInterrupt.__name__ in error_text(error)


def is_refused(error: BaseException) -> bool:
    """Whether the job has ended because of more failures than are allowed."""
    return TooManyFailures.__name__ in error_text(error)


def reason(error: BaseException, private: bool = False) -> str:
    """Returns the error's own words, without what Beam and a runner add around them.

    Args:
      private: the values of rows are: words that may quote some, such as a model's, are withheld.
    """
    if private and not _QUOTES_NOTHING.search(error_text(error)):
        return f"{type(error).__name__}: {WITHHELD}"
    text = str(error).split(" [while running")[0].strip()
    lines = [line.strip() for line in text.split("\n") if line.strip() and not _FRAME.match(line)]
    return _WRAPPED.sub("", lines[-1]) if lines else type(error).__name__


def failure_text(error: BaseException, private: bool = False) -> str:
    """Returns what to print on a job that failed: the reason, and what may help. For `private` see `reason`."""
    hint = "; --on_unavailable=dead_letter makes such rows failures" if is_about_server(error) else ""
    return f"{reason(error, private)}{hint} (--verbose shows where)"


def tell_end(
    error: BaseException | None, left: str, private: bool, failed: str = "the job failed", refused: str = ""
) -> int:
    """Tells how a job has ended, unless it ended well; returns the exit code of the command.

    Args:
      error: what ended it; None: it ended well.
      left: what becomes of its output or its messages, if it failed or was interrupted.
      private: see `reason`.
      failed: begins the text of a job that failed.
      refused: begins that of a job with more failures than are allowed.
    """
    if error is None:
        return EXIT_OK
    if is_interrupt(error):
        tell(f"sluice: interrupted; {left}\n", logging.WARNING)
        return EXIT_INTERRUPTED
    if is_refused(error):
        tell(f"sluice: {refused}{reason(error, private)}\n", logging.ERROR)
        return EXIT_FAILURES
    tell(f"sluice: {failed}; {left}: {failure_text(error, private)}\n", logging.ERROR)
    if not private:  # a traceback has the texts of errors
        _LOG.debug("The job failed", exc_info=error)
    return EXIT_FAILED


def tell_end_of_stream(error: BaseException | None, private: bool, failed: str = "the job failed") -> int:
    """Does the same for a stream. For the arguments see `tell_end`."""
    left, refused = "messages that were not acknowledged come again", "the job ends, and acknowledged nothing of this: "
    return tell_end(error, left, private, failed, refused)
