"""What TF Serving's refusals mean: a status code and its text to the error that says what to do about it.

Codes are gRPC's (https://grpc.io/docs/guides/status-codes); TensorFlow's have the same names and numbers. REST answers
with an HTTP status, which TF Serving makes of the code.
"""

from models.errors import (
    BadInput,
    BatchTooLarge,
    CallError,
    Overloaded,
    Refused,
    ServerFault,
    TimedOut,
    Unavailable,
)

# Texts by which a code that means several things is told apart, lower case.
# tensorflow/core/kernels/batching_util/shared_batch_scheduler.h; grpc's message_size_filter; TensorFlow's allocators.
_TOO_LARGE = (
    "larger than maximum input batch size",
    "larger than max (",
    "message larger than max",
    "trying to allocate",
    "oom when allocating",
    "failed to allocate",
    "too large",
)
# tensorflow_serving/core/aspired_versions_manager.cc and server_core.cc: the model or version is not loaded (any more).
_NOT_SERVED = (
    "servable not found",
    "no versions of servable",
    "unrecognized servable version label",
    "could not find any versions",
)

_BY_CODE: dict[str, type[CallError]] = {
    "INVALID_ARGUMENT": BadInput,
    "OUT_OF_RANGE": BadInput,
    "FAILED_PRECONDITION": BadInput,
    "NOT_FOUND": BadInput,
    "ALREADY_EXISTS": BadInput,
    "RESOURCE_EXHAUSTED": Overloaded,
    "UNAVAILABLE": Unavailable,
    "CANCELLED": Unavailable,
    "ABORTED": Unavailable,
    "DEADLINE_EXCEEDED": TimedOut,
    "PERMISSION_DENIED": Refused,
    "UNAUTHENTICATED": Refused,
    "UNIMPLEMENTED": Refused,
}


def error_of(code: str, text: str, address: str) -> CallError:
    """Returns the error that a status stands for; a code that is not known is the server's fault.

    Args:
      code: gRPC's name of it, e.g. "INVALID_ARGUMENT".
      address: HOST:PORT, for errors that are not about the rows.
    """
    said = text.lower()
    if any(words in said for words in _NOT_SERVED):
        return Unavailable(f"{address} does not serve the model now: {text}")
    if code in ("INVALID_ARGUMENT", "RESOURCE_EXHAUSTED") and any(words in said for words in _TOO_LARGE):
        return BatchTooLarge(text)
    kind = _BY_CODE.get(code, ServerFault)
    return kind(text or code) if kind is BadInput else kind(f"{address}: {code}: {text}")
