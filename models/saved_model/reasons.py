"""Finds the one useful line of TensorFlow's error messages, of this process or of a server, and what its codes mean."""

from sluice.models.error_table import BY_NUMBER, kind_here
from sluice.models.errors import BadInput, CallError

# Lines that say where in the graph the error was, and not what it was.
_WHERE = ("Graph execution error", "Detected at node", "[[")


# tensorflow/core/protobuf/error_codes.proto
INVALID_ARGUMENT = 3


class TensorFlowError(Exception):
    """An error status of TensorFlow's.

    Attributes:
      code: tensorflow/core/protobuf/error_codes.proto.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class SessionClosed(RuntimeError):
    """A session is called after it was closed, or in a fork of its process."""


class NoSuchTensor(TensorFlowError):
    """The graph has no tensor of this name."""

    def __init__(self, name: str) -> None:
        super().__init__(INVALID_ARGUMENT, f"the graph has no tensor '{name}'")
        self.name = name


def reason(text: str) -> str:
    """Returns the line of a TensorFlow error that a user can act on; "" if it has none."""
    lines = [line.strip() for line in text.splitlines()]
    begin = max((number for number, line in enumerate(lines, 1) if line.startswith("Node: ")), default=0)
    told = [line for line in lines[begin:] if line and not line.startswith(_WHERE)]
    return told[0] if told else ""


def call_error(error: TensorFlowError) -> CallError:
    """Returns what an error of a call in this process means."""
    kind, code = kind_here(error.code, error.message), BY_NUMBER.get(error.code)
    text = reason(error.message) or "no text"
    return kind(text if kind is BadInput else f"{code.name if code else error.code}: {text}")
