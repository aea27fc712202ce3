"""The errors that TF Serving's statuses stand for: a status code and its text -> a CallError.

models.error_table says what the codes mean. Here are the texts that tell more than their code. TF Serving cuts texts at
1024 characters.
"""

import contextlib
import math
import re
from collections.abc import Iterator, Mapping

from sluice.models.error_table import BY_NAME, NO_MEMORY, NOT_READY, has_any, http_status
from sluice.models.errors import (
    BadInput,
    BatchTooLarge,
    CallError,
    MessageTooLarge,
    ModelFault,
    OutOfMemory,
    Overloaded,
    ServerFault,
    SignatureChanged,
    Unavailable,
)
from sluice.models.saved_model.reasons import reason
from sluice.models.wording import message

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
# tensorflow_serving/core/basic_manager.cc, model_servers/server_core.cc and get_model_status_impl.cc: the model,
# version or label is not loaded, or no longer.
_NOT_SERVED = (
    "servable not found for request",
    "unrecognized servable version label",
    "could not find any versions of model",
    "could not find version",
    "model labels does not init yet",
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
    (("INVALID_ARGUMENT", "FAILED_PRECONDITION"), NOT_READY, Unavailable),
    (("RESOURCE_EXHAUSTED",), _TOO_MANY_BYTES, MessageTooLarge),
    # UNKNOWN: Envoy's tables have no code for 413. https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md
    (("RESOURCE_EXHAUSTED", "UNKNOWN"), _HTTP_413, MessageTooLarge),
    (("RESOURCE_EXHAUSTED",), NO_MEMORY, OutOfMemory),
    (("UNAVAILABLE",), _QUEUE_FULL, Overloaded),
)

# The texts of gRPC in C++ (http_client_filter.cc) and Go for an answer in plain HTTP.
_HTTP_ANSWER = re.compile(
    r"(?:received http2 header with status|unexpected http status code received from server): (\d{3})", re.IGNORECASE
)

# A longer wait is not believed; --max_retry_secs ends it in any case.
_MOST_WAIT_SECS = 86_400.0


def is_not_served(text: str) -> bool:
    """Whether the text says that the server has no such model, version or label (now)."""
    return has_any(text, _NOT_SERVED)


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
    if kind is ModelFault:
        return kind(f"{code}: {reason(text)}")
    if kind in (BatchTooLarge, OutOfMemory):
        return kind(text)
    return kind(message("{address}: {code}: {}", text, address=address, code=code))


@contextlib.contextmanager
def before_sending() -> Iterator[None]:
    """Marks errors of the context as such of a call of which nothing was sent."""
    try:
        yield
    except CallError as error:
        error.is_unsent = True
        raise


def with_wait(error: CallError, headers: Mapping[str, str]) -> CallError:
    """Returns the error of an answer over HTTP, with the wait that its header Retry-After asks for, if it has one."""
    secs = retry_after_secs(headers)
    if not secs or not isinstance(error, Unavailable):
        return error
    if type(error) is Unavailable:  # a server that says when to come again has too much to do
        error = Overloaded(str(error))
    error.retry_after_secs = secs
    return error


def retry_after_secs(headers: Mapping[str, str]) -> float:
    """Returns the seconds of Retry-After; 0: there are none. A date is not read."""
    try:
        secs = float(headers.get("retry-after", ""))
    except ValueError:
        return 0.0
    return min(secs, _MOST_WAIT_SECS) if math.isfinite(secs) and secs > 0 else 0.0


def _kind(code: str, text: str) -> type[CallError]:
    if answer := _HTTP_ANSWER.match(text):
        return http_status(int(answer[1])).alone
    for codes, words, kind in _BY_TEXT:
        if code in codes and has_any(text, words):
            return kind
    kind = BY_NAME[code].served if code in BY_NAME else ServerFault
    # FAILED_PRECONDITION is never about a connection.
    broken = kind is ServerFault and code != "FAILED_PRECONDITION" and has_any(text, _BROKEN)
    return Unavailable if broken and not has_any(text, _OF_AN_OP) else kind
