"""What TF Serving's refusals mean: a status code and its text to the error that says what to do about it.

Codes are gRPC's (https://grpc.io/docs/guides/status-codes); TensorFlow's have the same names and numbers. REST answers
with an HTTP status, which TF Serving makes of the code. It cuts a text at 1024 characters.
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
from models.reasons import reason

# Texts by which a code that means several things is told apart, lower case.
# tensorflow/core/kernels/batching_util/shared_batch_scheduler.h, INVALID_ARGUMENT: more rows than max_batch_size.
_TOO_MANY_ROWS = ("larger than maximum input batch size",)
# RESOURCE_EXHAUSTED. gRPC's servers in C++ ("Received message larger than max (11 vs. 10)") and Go, and in Java; then
# TensorFlow's allocators; then the 413 of a proxy.
_TOO_LARGE = (
    "message larger than max",
    "exceeds maximum size",
    "oom when allocating",
    "out of memory",
    "trying to allocate",
    "failed to allocate",
    "too large",
)
# The same scheduler, UNAVAILABLE: its queue holds max_enqueued_batches.
_QUEUE_FULL = ("batch scheduling queue to which this task was submitted is full",)
# tensorflow_serving/core/basic_manager.cc, model_servers/server_core.cc and get_model_status_impl.cc: the model,
# version or label is not loaded, or not any more.
_NOT_SERVED = (
    "servable not found for request",
    "unrecognized servable version label",
    "could not find any versions of model",
    "could not find version",
)
# tensorflow_serving/servables/tensorflow/predict_util.cc and tfrt_predict_util.cc: the model has another signature than
# the one that was read, whatever the rows are.
_OTHER_SIGNATURE = (
    "serving signature key",
    "input size does not match signature",
    "request inputs do not match required inputs",
    "output tensor alias not found in signature",
    "output_filter contains non-existed",
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


def is_not_served(text: str) -> bool:
    """Whether the server says that it has no such model, version or label (now)."""
    return _has(text, _NOT_SERVED)


def error_of(code: str, text: str, address: str) -> CallError:
    """Returns the error that a status stands for; a code that is not known is the server's fault.

    Args:
      code: gRPC's name of it, e.g. "INVALID_ARGUMENT".
      address: HOST:PORT, for errors that are not about the rows.
    """
    if is_not_served(text):
        return Unavailable(f"{address} does not serve the model now: {text}")
    if _has(text, _OTHER_SIGNATURE):
        return Refused(f"{address} serves a model of another signature now: {text}; start the job anew")
    if code == "INVALID_ARGUMENT" and _has(text, _TOO_MANY_ROWS):
        return BatchTooLarge(text)
    if code == "RESOURCE_EXHAUSTED" and _has(text, _TOO_LARGE):
        return BatchTooLarge(text)
    kind = Overloaded if _has(text, _QUEUE_FULL) else _BY_CODE.get(code, ServerFault)
    return kind(reason(text) or code) if kind is BadInput else kind(f"{address}: {code}: {text}")


def _has(text: str, words: tuple[str, ...]) -> bool:
    said = text.lower()
    return any(some in said for some in words)
