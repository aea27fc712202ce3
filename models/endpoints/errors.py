"""What TF Serving's refusals mean: a status code and its text to the error that says what to do about it.

Codes are gRPC's (https://grpc.io/docs/guides/status-codes); TensorFlow's have the same names and numbers. REST answers
with an HTTP status, which TF Serving makes of the code. It cuts a text at 1024 characters.
"""

import re

from sluice.models.errors import (
    BadInput,
    BatchTooLarge,
    CallError,
    MessageTooLarge,
    OutOfMemory,
    Overloaded,
    Refused,
    ServerFault,
    SignatureChanged,
    TimedOut,
    Unavailable,
)
from sluice.models.saved_model.reasons import reason

# Texts by which a code that means several things is told apart, lower case.
# tensorflow/core/kernels/batching_util/shared_batch_scheduler.h, new and old: more rows than max_batch_size.
_TOO_MANY_ROWS = ("larger than maximum input batch size", "larger than maximum batch size")
# gRPC's servers in C++ (message_size_filter.cc), Go (rpc_util.go) and Java (MessageDeframer).
_TOO_MANY_BYTES = (
    "message larger than max",
    "after decompression larger than max",
    "larger than max (",
    "message exceeds maximum size",
)
# The reason phrases of HTTP 413, which Envoy gives as a text. "Too large" alone may be a rate of requests.
_HTTP_413 = ("entity too large", "payload too large", "content too large")
# TensorFlow's and XLA's allocators.
_NO_MEMORY = ("oom when allocating", "out of memory", "failed to allocate", "trying to allocate")
# The same scheduler: its queue holds max_enqueued_batches.
_QUEUE_FULL = ("batch scheduling queue to which this task was submitted is full",)
# A connection that broke under a call, as gRPC in C++, Go and Java and Envoy put it; with codes that say nothing where
# the server or a proxy does not know better.
_BROKEN = (
    "rst_stream with error code",
    "rst_stream closed stream",
    "goaway",
    "stream removed",
    "socket closed",
    "transport closed",
    "connection reset",
    "broken pipe",
    "upstream connect error",
    "no healthy upstream",
)
# What the errors of TensorFlow's ops have, which may be about other connections than ours.
_OF_AN_OP = ("{{node ", "graph execution error", "detected at node")
# tensorflow/core/kernels/lookup_util.cc, variable_ops.cc and resource_variable_ops.cc, FAILED_PRECONDITION, which over
# REST looks like INVALID_ARGUMENT: it is not the rows.
_NOT_READY = ("table not initialized", "attempting to use uninitialized value", "could not find variable")
# tensorflow_serving/core/basic_manager.cc, model_servers/server_core.cc and get_model_status_impl.cc: the model,
# version or label is not loaded, or not any more.
_NOT_SERVED = (
    "servable not found for request",
    "unrecognized servable version label",
    "could not find any versions of model",
    "could not find version",
)
# tensorflow_serving/servables/tensorflow/predict_util.cc and tfrt_predict_util.cc, and for REST
# model_servers/http_rest_api_handler.cc and util/json_tensor.cc: the model has another signature than the one that was
# read, whatever the rows are.
_OTHER_SIGNATURE = (
    "serving signature key",
    "serving signature name",
    "input size does not match signature",
    "request inputs do not match required inputs",
    "does not have named input",
    "missing named input",
    "output tensor alias not found in signature",
    "output_filter contains non-existed",
)

# The first that has the code and the text.
_BY_TEXT: tuple[tuple[tuple[str, ...], tuple[str, ...], type[CallError]], ...] = (
    (("INVALID_ARGUMENT", "FAILED_PRECONDITION"), _OTHER_SIGNATURE, SignatureChanged),
    (("INVALID_ARGUMENT",), _TOO_MANY_ROWS, BatchTooLarge),
    (("INVALID_ARGUMENT",), _NOT_READY, ServerFault),
    (("RESOURCE_EXHAUSTED",), _TOO_MANY_BYTES, MessageTooLarge),
    # UNKNOWN: Envoy has 413 from no table. https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md
    (("RESOURCE_EXHAUSTED", "UNKNOWN"), _HTTP_413, MessageTooLarge),
    (("RESOURCE_EXHAUSTED",), _NO_MEMORY, OutOfMemory),
    (("UNAVAILABLE",), _QUEUE_FULL, Overloaded),
)

_BY_CODE: dict[str, type[CallError]] = {
    "INVALID_ARGUMENT": BadInput,
    "OUT_OF_RANGE": BadInput,
    "FAILED_PRECONDITION": ServerFault,
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


# What gRPC says of an answer that is none of gRPC's, in C++ (http_client_filter.cc) and Go, and what the HTTP status
# means; as in models.endpoints.rest, others are a refusal below 500 and a fault above.
_HTTP_ANSWER = re.compile(
    r"(?:received http2 header with status|unexpected http status code received from server): (\d{3})", re.IGNORECASE
)
_BY_HTTP_STATUS: dict[int, type[CallError]] = {
    408: TimedOut,
    413: MessageTooLarge,
    429: Overloaded,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
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
    kind = _kind(code, text)
    if kind is SignatureChanged:
        return kind(f"{address} serves a model of another signature now: {text}; start the job anew")
    if kind is BadInput:
        return kind(reason(text) or code)
    return kind(text if kind in (BatchTooLarge, OutOfMemory) else f"{address}: {code}: {text}")


def _kind(code: str, text: str) -> type[CallError]:
    if answer := _HTTP_ANSWER.match(text):
        status = int(answer[1])
        return _BY_HTTP_STATUS.get(status, Refused if status < 500 else ServerFault)
    for codes, words, kind in _BY_TEXT:
        if code in codes and _has(text, words):
            return kind
    kind = _BY_CODE.get(code, ServerFault)
    # FAILED_PRECONDITION is never a connection's, whose other codes mean what they say.
    broken = kind is ServerFault and code != "FAILED_PRECONDITION" and _has(text, _BROKEN)
    return Unavailable if broken and not _has(text, _OF_AN_OP) else kind


def _has(text: str, words: tuple[str, ...]) -> bool:
    said = text.lower()
    return any(some in said for some in words)
