"""What the error codes of TensorFlow and gRPC and the statuses of HTTP mean: one table for all backends.

TensorFlow's codes have gRPC's names and numbers: tensorflow/core/protobuf/error_codes.proto and
https://grpc.io/docs/guides/status-codes. TF Serving maps them to HTTP statuses: ToHTTPStatusCode in
tensorflow_serving/model_servers/http_server.cc.
"""

from typing import NamedTuple

from sluice.models.errors import (
    BadInput,
    CallError,
    MessageTooLarge,
    ModelFault,
    ModelLost,
    OutOfMemory,
    Overloaded,
    Refused,
    ServerFault,
    TimedOut,
    Unavailable,
)


class Code(NamedTuple):
    """An error code.

    Attributes:
      here: what it means from TensorFlow in this process.
      served: what it means from a server.
    """

    number: int
    name: str
    here: type[CallError]
    served: type[CallError]


# BadInput blames the rows. ModelFault and ServerFault do not tell: ops return these codes for their rows as for what is
# around them. The others are faults of the environment.
CODES = (
    Code(1, "CANCELLED", Unavailable, Unavailable),
    Code(2, "UNKNOWN", ModelFault, ServerFault),
    Code(3, "INVALID_ARGUMENT", BadInput, BadInput),
    Code(4, "DEADLINE_EXCEEDED", TimedOut, TimedOut),
    Code(5, "NOT_FOUND", ModelFault, ModelFault),  # a key of a row, or a file of the model's
    Code(6, "ALREADY_EXISTS", ModelFault, ModelFault),
    Code(7, "PERMISSION_DENIED", ModelFault, Refused),
    Code(8, "RESOURCE_EXHAUSTED", OutOfMemory, Overloaded),
    Code(9, "FAILED_PRECONDITION", ModelFault, ServerFault),
    Code(10, "ABORTED", Unavailable, Unavailable),
    Code(11, "OUT_OF_RANGE", BadInput, BadInput),
    Code(12, "UNIMPLEMENTED", ModelFault, Refused),
    Code(13, "INTERNAL", ModelFault, ServerFault),
    Code(14, "UNAVAILABLE", Unavailable, Unavailable),
    Code(15, "DATA_LOSS", ModelFault, ServerFault),
    Code(16, "UNAUTHENTICATED", ModelFault, Refused),
)
BY_NUMBER = {code.number: code for code in CODES}
BY_NAME = {code.name: code for code in CODES}

# What the statuses of HTTP mean where the answer has no text of TF Serving's; and the code that each stands for where
# it has. Others below 500 are refusals, those above faults of the server.
BY_HTTP_STATUS: dict[int, type[CallError]] = {
    408: TimedOut,
    413: MessageTooLarge,
    429: Overloaded,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}
HTTP_CODES = {
    400: "INVALID_ARGUMENT",  # also OUT_OF_RANGE, which means the same, and FAILED_PRECONDITION, told by its texts
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}

# Texts that tell more than their code, in lower case.
# tensorflow/core/kernels/lookup_util.cc, variable_ops.cc and resource_variable_ops.cc. TF Serving's REST API gives them
# as INVALID_ARGUMENT.
NOT_READY = ("table not initialized", "attempting to use uninitialized value", "could not find variable")
# TensorFlow's and XLA's allocators.
NO_MEMORY = ("oom when allocating", "out of memory", "failed to allocate", "trying to allocate")
# tensorflow/core/common_runtime/direct_session.cc
_CLOSED = ("session has been closed",)
# CUDA's names of errors after which a process cannot use the device any more, and of a device that is gone.
_NO_DEVICE = (
    "cuda_error_illegal_address",
    "cuda_error_launch_failed",
    "cuda_error_ecc_uncorrectable",
    "cuda_error_device_unavailable",
    "cuda_error_no_device",
    "cuda_error_deinitialized",
    "no cuda-capable device",
    "unspecified launch failure",
)

# In this process; the first entry with the code and the text counts.
_HERE_BY_TEXT: tuple[tuple[tuple[str, ...], tuple[str, ...], type[CallError]], ...] = (
    (("FAILED_PRECONDITION", "NOT_FOUND"), NOT_READY, ModelLost),
    (("CANCELLED", "FAILED_PRECONDITION", "INTERNAL"), _CLOSED, ModelLost),
    (("INTERNAL", "UNKNOWN", "ABORTED"), NO_MEMORY, OutOfMemory),
    (("INTERNAL", "UNKNOWN", "UNAVAILABLE"), _NO_DEVICE, ModelLost),
)


def kind_here(number: int, text: str) -> type[CallError]:
    """Returns what an error of TensorFlow's in this process means."""
    code = BY_NUMBER.get(number)
    if code is None:
        return ModelFault
    for names, words, kind in _HERE_BY_TEXT:
        if code.name in names and has_any(text, words):
            return kind
    return code.here


def kind_of_http(status: int) -> type[CallError]:
    """Returns what an HTTP status by itself means."""
    return BY_HTTP_STATUS.get(status, Refused if status < 500 else ServerFault)


def has_any(text: str, words: tuple[str, ...]) -> bool:
    """Whether the text has one of these words, which are in lower case."""
    said = text.lower()
    return any(some in said for some in words)
