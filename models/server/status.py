"""TF Serving's statuses: a code, a text, and the HTTP status of the code."""

from sluice.models.error_table import CODES as TABLE
from sluice.models.saved_model.reasons import TensorFlowError

# By TensorFlow's numbers, which are gRPC's.
CODES = ("OK", *(code.name for code in TABLE))

# tensorflow_serving/model_servers/http_server.cc, ToHTTPStatusCode; the others are 500.
_HTTP = {
    "OK": 200,
    "CANCELLED": 499,
    "INVALID_ARGUMENT": 400,
    "DEADLINE_EXCEEDED": 504,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "PERMISSION_DENIED": 403,
    "RESOURCE_EXHAUSTED": 429,
    "FAILED_PRECONDITION": 400,
    "ABORTED": 409,
    "OUT_OF_RANGE": 400,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "UNAUTHENTICATED": 401,
}


class StatusError(Exception):
    """A request that fails.

    Attributes:
      code: gRPC's name, one of CODES.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    @property
    def http_status(self) -> int:
        return _HTTP.get(self.code, 500)


def invalid(message: str) -> StatusError:
    """Returns the error of a request that is wrong in itself."""
    return StatusError("INVALID_ARGUMENT", message)


def tensorflow_status(error: TensorFlowError) -> StatusError:
    """Returns the status of a TensorFlow error; errors of the model's own keep their code."""
    return StatusError(CODES[error.code], error.message)
