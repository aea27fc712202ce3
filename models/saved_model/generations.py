"""A model that is replaced while it is called: each call has one model to its end."""

import contextlib
import threading
from collections.abc import Iterator

from sluice.models.interface import Model


class _Generation:
    """A loaded version, and how many hold it: the calls under way, and one for being the version in use."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.holders = 1


class Generations:
    """The model in use, and those before it that are still being called. Thread-safe."""

    def __init__(self, model: Model) -> None:
        self._lock = threading.Lock()
        self._current = _Generation(model)

    @property
    def model(self) -> Model:
        """The one in use; only for whoever could replace it."""
        return self._current.model

    @contextlib.contextmanager
    def use(self) -> Iterator[Model]:
        """Gives the model in use, which stays open meanwhile."""
        with self._lock:
            generation = self._current
            generation.holders += 1
        try:
            yield generation.model
        finally:
            self._let_go(generation)

    def replace(self, model: Model) -> None:
        """Has the calls that begin from now on go to this model."""
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
