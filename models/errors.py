"""The errors that Sluice raises, as a tree.

SluiceError
+-- UsageError            the user's command, model or input does not fit; exit code 2
|   +-- ModelNotFound     nothing loadable at the URI, or no server answers there
|   +-- SignatureError    no such signature, or one that cannot be served from columns
+-- CorruptFile           a file cannot be read past some point
+-- InputChanged          a file was changed while a job read it
+-- CallError             a call of the model failed
|   +-- BadInput          the model rejects some of these rows: bisect to find which
|   +-- BatchTooLarge     fewer rows may pass: halve and remember
|   |   +-- MessageTooLarge   fewer bytes may pass
|   |   +-- OutOfMemory       for now: other calls may have the memory
|   |   +-- TooSlow           fewer rows may be answered within the deadline
|   +-- BadOutput         the answer does not have the shape, dtype or outputs of the signature
|   +-- ModelFault        the model failed, and the error does not tell whether a row is at fault: bisect, and see
|   |   |                   whether a row that passed before passes still
|   |   +-- ServerFault       the server broke on the call: try again a few times before that
|   +-- Refused           the server accepts no such calls (credentials, unknown method): try again only if earlier
|   |   |                   calls succeeded
|   |   +-- SignatureChanged  the server has a model with another signature now: never try again
|   |   +-- ModelLost         the model in this process cannot be called any more: only a new process can help
|   |       +-- ModelHangs        its calls do not end
|   +-- Unavailable       the model cannot be reached now: try again
|   |   +-- Overloaded    the server asks for fewer calls: try again, with fewer in flight
|   |   +-- TimedOut      no answer within the deadline: try again a few times
|   +-- RowsFailed        some rows cannot be predicted; `failures` says which, and why
+-- Cancelled             the bundle that waited for the rows has failed
+-- TooManyFailures       more failures than are allowed; exit code 3
+-- NonePassed            rows failed, and no row has ever passed: whether they or the model are at fault is not known
"""

from collections.abc import Sequence
from typing import NamedTuple


class SluiceError(Exception):
    """The base of all errors that Sluice raises on purpose."""


class UsageError(SluiceError):
    """The user's command, model or input does not fit. The text says fact, values and remedy."""


class ModelNotFound(UsageError):
    """The model's URI has no model that can be loaded, or no server answers there."""


class SignatureError(UsageError):
    """The model has no such signature, or one that cannot be served from columns."""


class CorruptFile(SluiceError):
    """A file cannot be read past some point; the data before it is good."""


class InputChanged(SluiceError):
    """A file is not what it was when the job began, so rows of it may be missing, or wrong."""


class CallError(SluiceError):
    """A call of the model failed.

    Attributes:
      is_unsent: it failed before anything was sent, so that it says nothing about the server.
      version: of the model that failed; None: it has none, or the error does not tell.
    """

    is_unsent: bool = False
    version: int | None = None


class BadInput(CallError):
    """The model rejects these rows; some of them may pass."""


class BatchTooLarge(CallError):
    """The call had too many rows or bytes for the memory or the server; its halves may pass."""


class MessageTooLarge(BatchTooLarge):
    """The call had more bytes than the server, or a proxy before it, accepts."""


class OutOfMemory(BatchTooLarge):
    """There was no memory for the call; other calls may have it."""


class TooSlow(BatchTooLarge):
    """The call timed out repeatedly; one with fewer rows may be answered in time."""


class BadOutput(CallError):
    """The answer does not have the row count, shape, dtype or outputs of the signature."""


class Refused(CallError):
    """The server accepts no such calls: the credentials are wrong, or it is not a model server."""


class SignatureChanged(Refused):
    """The server now has a model with another signature than the one that rows were bound for."""


class ModelFault(CallError):
    """The model failed on the call, and the error does not tell whether one of its rows is at fault."""


class ServerFault(ModelFault):
    """The server broke on the call. The same call may pass later, or one of its rows may be at fault."""


class ModelLost(Refused):
    """The model in this process cannot be called any more: closed, not initialised, or without its device."""


class ModelHangs(ModelLost):
    """Calls of the model in this process do not end."""


class Unavailable(CallError):
    """The model cannot be reached now; the same call may pass later.

    Attributes:
      retry_after_secs: how long the server asks to wait before that; 0: it does not say.
    """

    retry_after_secs: float = 0.0


class Overloaded(Unavailable):
    """The server asks for fewer calls."""


class TimedOut(Unavailable):
    """The call was not answered within its deadline."""


# The stages at which a row fails that the model is called with.
BIND, PREDICT = "bind", "predict"


class FailedRow(NamedTuple):
    """A row that has no prediction.

    Attributes:
      row: its place among the rows that were given, from 0.
      stage: BIND: it does not fit the model; PREDICT: the model fails on it.
      error_type: the class of the error; "InvalidRow" if the row does not fit.
      version: of the model; None: it has none, or it is not known.
    """

    row: int
    stage: str
    error_type: str
    error_message: str
    version: int | None = None


# So many rows are named in the text of an error.
_NAMED_ROWS = 10


class RowsFailed(CallError):
    """Some rows cannot be predicted. The text names the first of them.

    Attributes:
      failures: all of them, in order.
    """

    def __init__(self, text: str, failures: Sequence[FailedRow] = ()) -> None:
        super().__init__(text)
        self.failures = tuple(failures)

    @classmethod
    def of(cls, failures: Sequence[FailedRow], rows: int) -> "RowsFailed":
        """Returns the error for these rows of so many, of which there is at least one."""
        named = ", ".join(str(failure.row) for failure in failures[:_NAMED_ROWS])
        more = f" and {len(failures) - _NAMED_ROWS} more" if len(failures) > _NAMED_ROWS else ""
        first = failures[0]
        return cls(
            f"{len(failures)} of {rows} rows cannot be predicted: {named}{more}. The first is row {first.row}: "
            f"{first.error_type}: {first.error_message}",
            failures,
        )


class Cancelled(SluiceError):
    """The bundle that waited for these rows has failed; nobody needs their predictions."""


class TooManyFailures(SluiceError):
    """More rows failed than --max_failure_rate allows, or all rows of a stream."""


class NonePassed(SluiceError):
    """Rows failed, and no row has passed before, so that it is not known whether they or the model are at fault."""
