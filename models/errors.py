"""What goes wrong, as a tree.

SluiceError
+-- UsageError            the user's command, model or input does not fit; exit code 2
|   +-- ModelNotFound     nothing loadable at the URI, or nobody answers there
|   +-- SignatureError    no such signature, or one that cannot be served from columns
+-- CorruptFile           a file cannot be read past some point
+-- CallError             a call of the model failed
|   +-- BadInput          the model refuses these rows: bisect to find which
|   +-- BatchTooLarge     fewer rows may pass: halve and remember
|   |   +-- MessageTooLarge   fewer bytes may pass
|   |   +-- OutOfMemory       for now: others may have the memory
|   |   +-- TooSlow           fewer rows may be answered within the deadline
|   +-- BadOutput         the answer does not have the shape, dtype or outputs that the signature promises
|   +-- Refused           the server will not take these calls at all (credentials, unknown method): if it never
|   |   |                   has, there is no use in trying again
|   |   +-- SignatureChanged  the server has a model of another signature now: never try again
|   +-- ServerFault       the server broke on the call: try again a few times, then bisect as for BadInput
|   +-- Unavailable       the model cannot be reached now: try again
|       +-- Overloaded    the server asks for fewer calls: try again, with fewer under way
|       +-- TimedOut      no answer within the deadline: try again a few times
+-- Cancelled             the bundle that waited for the rows has failed
+-- TooManyFailures       more failures than --max_failure_rate; exit code 3
"""


class SluiceError(Exception):
    """The root of what Sluice raises on purpose."""


class UsageError(SluiceError):
    """The user's command, model or input does not fit. Its text says fact, values and remedy."""


class ModelNotFound(UsageError):
    """Nothing loadable stands at the model's URI."""


class SignatureError(UsageError):
    """The model has no such signature, or one that cannot be served from columns."""


class CorruptFile(SluiceError):
    """A file cannot be read past some point; what came before it is good."""


class CallError(SluiceError):
    """A call of the model failed."""


class BadInput(CallError):
    """The model refuses these rows; a part of them may pass."""


class BatchTooLarge(CallError):
    """The call had too many rows or bytes for the memory or the server; halves may pass."""


class MessageTooLarge(BatchTooLarge):
    """The call had more bytes than the server, or a proxy before it, takes."""


class OutOfMemory(BatchTooLarge):
    """There was no memory for the call; it may be others' that have it."""


class TooSlow(BatchTooLarge):
    """The call was not answered within its deadline, again and again; one with fewer rows may be."""


class BadOutput(CallError):
    """The answer does not have the row count, shape, dtype or outputs that the signature promises."""


class Refused(CallError):
    """The server will not take these calls at all: wrong credentials, or not a model server."""


class SignatureChanged(Refused):
    """The server has a model of another signature than the one that rows were bound for."""


class ServerFault(CallError):
    """The server broke on the call; the same call may pass, or some row of it may be at fault."""


class Unavailable(CallError):
    """The model cannot be reached now; the same call may pass later."""


class Overloaded(Unavailable):
    """The server asks for fewer calls."""


class TimedOut(Unavailable):
    """No answer within the call's deadline."""


class Cancelled(SluiceError):
    """The bundle that waited for these rows has failed; nobody needs their predictions."""


class TooManyFailures(SluiceError):
    """More rows failed than --max_failure_rate allows."""
