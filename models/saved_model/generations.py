"""Replaces a model while it is called: each call keeps its model until it ends."""

import contextlib
import threading
from collections.abc import Iterator

from sluice.models.interface import Model


class _Generation:
    """A loaded version and the number of its holders: each call in flight is one; being the version in use is one."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.holders = 1


class Generations:
    """The model in use, and its predecessors until their last calls end. Thread-safe."""

    def __init__(self, model: Model) -> None:
        self._lock = threading.Lock()
        self._current = _Generation(model)

    @property
    def model(self) -> Model:
        """The model in use. Only the thread that may replace it reads this: the model could be closed meanwhile."""
        return self._current.model

    @contextlib.contextmanager
    def use(self) -> Iterator[Model]:
        """Yields the model in use, and keeps it open until the context ends."""
        with self._lock:
            generation = self._current
            generation.holders += 1
        try:
            yield generation.model
        finally:
            self._let_go(generation)

    def replace(self, model: Model) -> None:
        """Directs calls that begin from now on to this model; closes the one before when its last call ends."""
        with self._lock:
            before, self._current = self._current, _Generation(model)
        self._let_go(before)

    def close(self) -> None:
        """Closes the model in use when its last call ends."""
        self._let_go(self._current)

    def _let_go(self, generation: _Generation) -> None:
        with self._lock:
            generation.holders -= 1
            is_last = not generation.holders
        if is_last:
            generation.model.close()
