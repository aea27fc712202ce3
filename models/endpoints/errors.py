"""The errors that TF Serving's statuses stand for: a status code and its text -> a CallError.

Codes are gRPC's (https://grpc.io/docs/guides/status-codes); TensorFlow's have the same names and numbers. Over REST TF
Serving maps the code to an HTTP status. It cuts texts at 1024 characters.
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

# Some codes mean several things. Their texts, in lower case, tell which.
# tensorflow/core/kernels/batching_util/shared_batch_scheduler.h, new and old: more rows than max_batch_size.
_TOO_MANY_ROWS = ("larger than maximum input batch size", "larger than maximum batch size")
# gRPC's servers in C++ (message_size_filter.cc), Go (rpc_util.go) and Java (MessageDeframer).
_TOO_MANY_BYTES = (
    "message larger than max",
    "after decompression larger than max",
    "larger than max (",
    "message exceeds maximum size",
)
# The reason phrases of HTTP 413, which Envoy returns as text. "Too large" alone may be a rate of requests.
_HTTP_413 = ("entity too large", "payload too large", "content too large")
# TensorFlow's and XLA's allocators.
_NO_MEMORY = ("oom when allocating", "out of memory", "failed to allocate", "trying to allocate")
# The same scheduler: its queue holds max_enqueued_batches.
_QUEUE_FULL = ("batch scheduling queue to which this task was submitted is full",)
# A connection that broke during a call, in the words of gRPC in C++, Go and Java and of Envoy. Their code is generic
# where the server or proxy knows no better.
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
# Marks of errors of TensorFlow's ops, which may be about connections of the model's own.
_OF_AN_OP = ("{{node ", "graph execution error", "detected at node")
# tensorflow/core/kernels/lookup_util.cc, variable_ops.cc and resource_variable_ops.cc, FAILED_PRECONDITION, which over
# REST looks like INVALID_ARGUMENT: the rows are not at fault.
_NOT_READY = ("table not initialized", "attempting to use uninitialized value", "could not find variable")
# tensorflow_serving/core/basic_manager.cc, model_servers/server_core.cc and get_model_status_impl.cc: the model,
# version or label is not loaded, or no longer.
_NOT_SERVED = (
    "servable not found for request",
    "unrecognized servable version label",
    "could not find any versions of model",
    "could not find version",
)
# tensorflow_serving/servables/tensorflow/predict_util.cc and tfrt_predict_util.cc, and for REST
# model_servers/http_rest_api_handler.cc and util/json_tensor.cc: the model's signature is not the one that was read,
# whatever the rows are.
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

# The first entry with the code and the text counts.
_BY_TEXT: tuple[tuple[tuple[str, ...], tuple[str, ...], type[CallError]], ...] = (
    (("INVALID_ARGUMENT", "FAILED_PRECONDITION"), _OTHER_SIGNATURE, SignatureChanged),
    (("INVALID_ARGUMENT",), _TOO_MANY_ROWS, BatchTooLarge),
    (("INVALID_ARGUMENT",), _NOT_READY, ServerFault),
    (("RESOURCE_EXHAUSTED",), _TOO_MANY_BYTES, MessageTooLarge),
    # UNKNOWN: Envoy's tables have no code for 413. https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md
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


# The texts of gRPC in C++ (http_client_filter.cc) and Go for an answer in plain HTTP, and what its status means. As in
# models.endpoints.rest, others below 500 are refusals, those above faults.
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
    """Whether the text says that the server has no such model, version or label (now)."""
    return _has(text, _NOT_SERVED)


def error_of(code: str, text: str, address: str) -> CallError:
    """Returns the error that a status stands for; an unknown code is a ServerFault.

    Args:
      code: gRPC's name, e.g. "INVALID_ARGUMENT".
      address: HOST:PORT, for errors that are not about the rows.
    """
    if is_not_served(text):
        return Unavailable(f"{address} does not serve the model now: {text}")
    kind = _kind(code, text)
    if kind is SignatureChanged:
        return kind(f"{address} now serves a model with another signature: {text}; start the job anew")
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
    # FAILED_PRECONDITION is never about a connection.
    broken = kind is ServerFault and code != "FAILED_PRECONDITION" and _has(text, _BROKEN)
    return Unavailable if broken and not _has(text, _OF_AN_OP) else kind


def _has(text: str, words: tuple[str, ...]) -> bool:
    said = text.lower()
    return any(some in said for some in words)
