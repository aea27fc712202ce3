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


class HttpStatus(NamedTuple):
    """What a status of HTTP stands for.

    Attributes:
      code: of the answer to a REST call.
      alone: what it means where a server or proxy that knows nothing of models answers a gRPC call with it: rows are
        never to blame.
    """

    code: str
    alone: type[CallError]


_HTTP_STATUSES = {
    400: HttpStatus("INVALID_ARGUMENT", Refused),  # also OUT_OF_RANGE, and FAILED_PRECONDITION, told by its texts
    401: HttpStatus("UNAUTHENTICATED", Refused),
    403: HttpStatus("PERMISSION_DENIED", Refused),
    404: HttpStatus("NOT_FOUND", Refused),
    408: HttpStatus("DEADLINE_EXCEEDED", TimedOut),
    409: HttpStatus("ABORTED", Refused),
    413: HttpStatus("RESOURCE_EXHAUSTED", MessageTooLarge),
    429: HttpStatus("RESOURCE_EXHAUSTED", Overloaded),
    499: HttpStatus("CANCELLED", Refused),
    501: HttpStatus("UNIMPLEMENTED", Refused),
    502: HttpStatus("UNAVAILABLE", Unavailable),
    503: HttpStatus("UNAVAILABLE", Unavailable),
    504: HttpStatus("DEADLINE_EXCEEDED", TimedOut),  # of a proxy too: the call took longer than it waits
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


def http_status(number: int) -> HttpStatus:
    """Returns what a status stands for. One that is not known is a refusal below 500, else a fault of the server."""
    code = "INTERNAL" if number >= 500 else "UNIMPLEMENTED"
    return _HTTP_STATUSES.get(number, HttpStatus(code, BY_NAME[code].served))


def has_any(text: str, words: tuple[str, ...]) -> bool:
    """Whether the text has one of these words, which are in lower case."""
    said = text.lower()
    return any(some in said for some in words)
