"""A SavedModel that is loaded several times, once on each device; calls are spread over the copies."""

import threading
from collections.abc import Sequence
from typing import Any

from sluice.models.saved_model.way import Run, Way
from sluice.models.tensors.strings import Tensor


class Copies:
    """Several copies of a model, which are called as one. Thread-safe.

    Args:
      ways: the copies, each with a session and variables of its own.
    """

    def __init__(self, ways: Sequence[Way]) -> None:
        self._ways = ways
        self.runner = ways[0].runner

    def prepare(self, feeds: Sequence[str], fetches: Sequence[str]) -> Run:
        """Returns what calls the copy with the least calls in flight.

        Raises:
          TensorFlowError: the graph has no tensor of some name.
        """
        return Spread([way.prepare(feeds, fetches) for way in self._ways])

    def devices(self) -> dict[str, int]:
        """Returns the devices that TensorFlow sees, as TYPE:NUMBER, and the bytes of memory that each may use."""
        return self._ways[0].devices()

    def close(self) -> None:
        """Frees all copies; no call may follow."""
        for way in self._ways:
            way.close()


class Spread:
    """Calls the one of several functions with the least calls in flight; of equals, the one with the least so far."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self._runs = runs
        self._lock = threading.Lock()
        self._active = [0] * len(runs)
        self._begun = [0] * len(runs)

    def __call__(self, tensors: Sequence[Tensor]) -> list[Any]:
        with self._lock:
            chosen = min(range(len(self._runs)), key=lambda at: (self._active[at], self._begun[at]))
            self._active[chosen] += 1
            self._begun[chosen] += 1
        try:
            return self._runs[chosen](tensors)
        finally:
            with self._lock:
                self._active[chosen] -= 1
