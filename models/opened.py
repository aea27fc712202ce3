"""Models that a program names at each call, kept open from call to call, and opened anew when their files change.

In a notebook a model is trained and exported again and again under one path, and the next call means the new one. A job
does not want this: `models.cache` keeps the model that it was launched with.
"""

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator

from sluice.models.batching.scheduler import Scheduler
from sluice.models.cache import ModelRecipe, open_scheduler
from sluice.models.files import ModelFiles
from sluice.models.saved_model.versions import find_version

# So many models stay open, those that were used last: who tries one after the other would fill the memory.
_MOST = 8


@dataclasses.dataclass
class _Opened:
    """An opened model.

    Attributes:
      stamp: of its files; "" if it has none here.
      users: the calls that use it now.
      is_replaced: no further call will use it.
    """

    scheduler: Scheduler
    stamp: str
    users: int = 0
    is_replaced: bool = False


class OpenedModels:
    """The models of one process. A model that is replaced is closed after the last call that uses it."""

    def __init__(self, open_: Callable[[ModelRecipe, ModelFiles], Scheduler] = open_scheduler) -> None:
        self._open = open_
        self._lock = threading.Lock()
        self._opened: dict[str, _Opened] = {}

    @contextlib.contextmanager
    def lend(self, recipe: ModelRecipe, files: ModelFiles) -> Iterator[Scheduler]:
        """Yields the scheduler of a model; opens it unless it is open and its files are what they were.

        Raises:
          UsageError: it cannot be opened. One that was open before stays so.
        """
        opened = self._take(recipe, files)
        try:
            yield opened.scheduler
        finally:
            self._give_back(opened)

    def close(self) -> None:
        """Closes all models that no call uses; the others when their calls end."""
        with self._lock:
            idle = [opened for opened in self._opened.values() if self._replace(opened)]
            self._opened = {}
        for opened in idle:
            opened.scheduler.close()

    def _take(self, recipe: ModelRecipe, files: ModelFiles) -> _Opened:
        key = repr(dataclasses.astuple(recipe))
        with self._lock:
            pinned, stamp = _find(recipe, files)
            opened = self._opened.get(key)
            if opened is None or opened.stamp != stamp:
                before, opened = opened, _Opened(self._open(pinned, files), stamp)
                if before is not None and self._replace(before):
                    before.scheduler.close()
            opened.users += 1
            self._opened.pop(key, None)
            self._opened[key] = opened  # the last one
            self._drop_oldest()
            return opened

    def _drop_oldest(self) -> None:
        for key in list(self._opened)[:-_MOST]:
            oldest = self._opened.pop(key)
            if self._replace(oldest):
                oldest.scheduler.close()

    def _give_back(self, opened: _Opened) -> None:
        with self._lock:
            opened.users -= 1
            is_over = opened.is_replaced and not opened.users
        if is_over:
            opened.scheduler.close()

    def _replace(self, opened: _Opened) -> bool:
        """Notes that no further call will use a model; returns whether none uses it now."""
        opened.is_replaced = True
        return not opened.users


def _find(recipe: ModelRecipe, files: ModelFiles) -> tuple[ModelRecipe, str]:
    """Returns the recipe with the version that is the newest now, and a text that changes when its files do."""
    if not recipe.spec.is_here or recipe.model.poll_secs:
        return recipe, ""
    found = find_version(recipe.spec.uri, files, recipe.spec.version)
    pinned = dataclasses.replace(recipe, spec=dataclasses.replace(recipe.spec, version=found.number))
    return pinned, files.fingerprint(found.directory)


OPENED = OpenedModels()
