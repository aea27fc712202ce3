"""The errors that Sluice raises, as a tree.

SluiceError
+-- UsageError            the user's command, model or input does not fit; exit code 2
|   +-- ModelNotFound     nothing loadable at the URI, or no server answers there
|   +-- SignatureError    no such signature, or one that cannot be served from columns
+-- CorruptFile           a file cannot be read past some point
+-- CallError             a call of the model failed
|   +-- BadInput          the model rejects some of these rows: bisect to find which
|   +-- BatchTooLarge     fewer rows may pass: halve and remember
|   |   +-- MessageTooLarge   fewer bytes may pass
|   |   +-- OutOfMemory       for now: other calls may have the memory
|   |   +-- TooSlow           fewer rows may be answered within the deadline
|   +-- BadOutput         the answer does not have the shape, dtype or outputs of the signature
|   +-- Refused           the server accepts no such calls (credentials, unknown method): try again only if earlier
|   |   |                   calls succeeded
|   |   +-- SignatureChanged  the server has a model with another signature now: never try again
|   +-- ServerFault       the server broke on the call: try again a few times, then bisect as for BadInput
|   +-- Unavailable       the model cannot be reached now: try again
|       +-- Overloaded    the server asks for fewer calls: try again, with fewer in flight
|       +-- TimedOut      no answer within the deadline: try again a few times
+-- Cancelled             the bundle that waited for the rows has failed
+-- TooManyFailures       more failures than --max_failure_rate; exit code 3
"""


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


class CallError(SluiceError):
    """A call of the model failed."""


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


class ServerFault(CallError):
    """The server broke on the call. The same call may pass later, or one of its rows may be at fault."""


class Unavailable(CallError):
    """The model cannot be reached now; the same call may pass later."""


class Overloaded(Unavailable):
    """The server asks for fewer calls."""


class TimedOut(Unavailable):
    """The call was not answered within its deadline."""


class Cancelled(SluiceError):
    """The bundle that waited for these rows has failed; nobody needs their predictions."""


class TooManyFailures(SluiceError):
    """More rows failed than --max_failure_rate allows."""


# What the codes of TensorFlow's errors mean where the model runs in this process
# (tensorflow/core/protobuf/error_codes.proto); all others are about the rows.
CALL_ERRORS: dict[int, type[CallError]] = {
    4: TimedOut,  # DEADLINE_EXCEEDED: the time limit of a call
    8: BatchTooLarge,  # RESOURCE_EXHAUSTED: memory
}
