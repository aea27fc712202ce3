"""The contract of every way to run a SavedModel in this process."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from sluice.models.tensors.strings import Tensor

Run = Callable[[Sequence[Tensor]], list[Any]]


class Way(Protocol):
    """A loaded SavedModel, whichever way it is run. Thread-safe.

    Attributes:
      runner: what runs it, for the log.
    """

    runner: str

    def prepare(self, feeds: Sequence[str], fetches: Sequence[str]) -> Run:
        """Returns what calls the model with tensors for `feeds` and answers with those of `fetches`.

        Raises:
          TensorFlowError: the graph has no tensor of some name.
        """

    def devices(self) -> dict[str, int]:
        """Returns the devices that TensorFlow sees, as TYPE:NUMBER, and the bytes of memory that each may use."""

    def close(self) -> None:
        """Frees the model; no call may follow."""
