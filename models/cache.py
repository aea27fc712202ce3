"""One loaded model and one scheduler per process, however many DoFns ask."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from models.files import LocalFiles, ModelFiles
from models.interface import Model, ModelOptions
from models.saved_model import open_saved_model
from models.scheduler import Scheduler, SchedulerOptions
from models.uri import ModelSpec, parse_model_uri


@dataclass(frozen=True)
class ModelRecipe:
    """All that makes a model callable; small, hashable, picklable. A DoFn holds this and opens it in `setup`."""

    spec: ModelSpec
    model: ModelOptions = field(default_factory=ModelOptions)
    scheduler: SchedulerOptions = field(default_factory=SchedulerOptions)


def open_model(uri: str | ModelSpec, options: ModelOptions | None = None, files: ModelFiles | None = None) -> Model:
    """Returns the model behind a --model URI, loaded and ready.

    Raises:
      UsageError: the URI, the signature or what stands there does not fit; the text says how.
    """
    spec = parse_model_uri(uri) if isinstance(uri, str) else uri
    return open_saved_model(spec, options or ModelOptions(), files or LocalFiles())


class _Cache:
    """Strong references, for as long as the process lives: loading is what costs."""

    def __init__(self, open_: Callable[[ModelSpec, ModelOptions, ModelFiles | None], Model]) -> None:
        self._open = open_
        self._lock = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        self._schedulers: dict[str, Scheduler] = {}

    def scheduler(self, recipe: ModelRecipe, files: ModelFiles | None) -> Scheduler:
        key = repr(recipe)  # a recipe that was pickled does not equal itself if a default is NaN
        with self._lock:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:  # others may load other models meanwhile
            scheduler = self._schedulers.get(key)
            if scheduler is None:
                started = time.monotonic()
                scheduler = Scheduler(self._open(recipe.spec, recipe.model, files), recipe.scheduler)
                scheduler.load_msec = 1000 * (time.monotonic() - started)
                self._schedulers[key] = scheduler
            return scheduler

    def clear(self) -> None:
        with self._lock:
            schedulers, self._schedulers, self._locks = self._schedulers, {}, {}
        for scheduler in schedulers.values():
            scheduler.close()


_CACHE = _Cache(open_model)


def shared_scheduler(recipe: ModelRecipe, files: ModelFiles | None = None) -> Scheduler:
    """Returns the process's scheduler for this recipe; the first caller loads the model, the others wait for it."""
    return _CACHE.scheduler(recipe, files)


def clear_cache() -> None:
    """Closes every model of the process; for tests, and for tools that score with many models in turn."""
    _CACHE.clear()
