"""Opens models, and keeps one model and one scheduler for each recipe in a process, for all its DoFns.

The clients of served models are imported where they are used: a SavedModel needs neither gRPC nor an HTTP client.
"""

import dataclasses
import logging
import os
import threading
import time
from collections.abc import Callable
from typing import TypeAlias

from sluice.models.batching.options import SchedulerOptions
from sluice.models.batching.scheduler import Scheduler
from sluice.models.batching.watchdog import give_up_after
from sluice.models.endpoints.base import ServedModel
from sluice.models.errors import UsageError
from sluice.models.files import LocalFiles, ModelFiles
from sluice.models.interface import Model, ModelOptions
from sluice.models.saved_model.followed import open_followed_model
from sluice.models.saved_model.loader import open_saved_model
from sluice.models.saved_model.start_line import served_line
from sluice.models.saved_model.versions import find_version
from sluice.models.signature import Signature
from sluice.models.uri import ModelSpec, parse_model_uri

_LOG = logging.getLogger(__name__)

# A call of a model in this process that does not end is tried once more; see Invoker.
_REPETITIONS_HERE = 1


@dataclasses.dataclass(frozen=True)
class ModelRecipe:
    """Everything needed to open a model. Small, hashable, picklable: a DoFn has a recipe and opens it in `setup`.

    Attributes:
      signature: as the launcher read it. Workers then do not ask a model's server for it, and accept only versions that
        fit it. None: workers ask the server, or use the signature of the version that they find first.
    """

    spec: ModelSpec
    model: ModelOptions = dataclasses.field(default_factory=ModelOptions)
    scheduler: SchedulerOptions = dataclasses.field(default_factory=SchedulerOptions)
    signature: Signature | None = None


# What names a model wherever a recipe is accepted: its URI, or path, or the recipe.
ModelLike: TypeAlias = str | os.PathLike[str] | ModelSpec | ModelRecipe


def recipe_of(model: ModelLike) -> ModelRecipe:
    """Returns the recipe of a model: of a URI, or of a path, that with all defaults.

    Raises:
      UsageError: the URI is none.
    """
    if isinstance(model, ModelRecipe):
        return model
    if isinstance(model, ModelSpec):
        return ModelRecipe(model)
    if isinstance(model, str | os.PathLike):
        return ModelRecipe(parse_model_uri(os.fspath(model)))
    raise UsageError(f"a model is a path, a URI or a ModelRecipe; found {type(model).__name__}")


def open_model(
    uri: str | os.PathLike[str] | ModelSpec,
    options: ModelOptions | None = None,
    files: ModelFiles | None = None,
    signature: Signature | None = None,
) -> Model:
    """Returns the model at a --model URI, ready to be called: loaded into this process, or a client of its server.

    Args:
      files: the file system of a SavedModel, or of the artifacts of Vertex AI; None: the local disk.
      signature: of a served model, or of one that follows its versions; None: asks the server, or uses the version
        found first.

    Raises:
      UsageError: the URI, the signature or the model does not fit; the text says why.
    """
    spec = uri if isinstance(uri, ModelSpec) else parse_model_uri(os.fspath(uri))
    options = options or ModelOptions()
    if spec.managed is not None:
        raise UsageError(f"--model {spec.uri}: a managed model cannot be called, only be scored with by `sluice batch`")
    if spec.endpoint is None:
        files = files or LocalFiles()
        if options.poll_secs > 0 and spec.version is None and find_version(spec.uri, files).number is not None:
            return open_followed_model(spec, options, files, signature)
        return open_saved_model(spec, options, files)
    _LOG.info("%s", served_line(spec.uri))
    if spec.endpoint.protocol == "grpc":
        from sluice.models.endpoints.grpc import GrpcModel

        return GrpcModel(spec, options, signature)
    if spec.endpoint.protocol == "vertex":
        from sluice.models.endpoints.vertex import VertexModel

        return VertexModel(spec, options, files or LocalFiles(), signature)
    from sluice.models.endpoints.rest import RestModel

    return RestModel(spec, options, signature)


def open_scheduler(recipe: ModelRecipe, files: ModelFiles | None = None) -> Scheduler:
    """Returns a new scheduler for this recipe, with its model opened. `shared_scheduler` returns the process's."""
    started = time.monotonic()
    scheduler = schedule(open_model(recipe.spec, recipe.model, files, recipe.signature), recipe.scheduler, recipe.model)
    if not scheduler.model.remote:
        scheduler.load_msec = 1000 * (time.monotonic() - started)
    return scheduler


def schedule(model: Model, options: SchedulerOptions, how: ModelOptions) -> Scheduler:
    """Returns a new scheduler for an opened model.

    Args:
      how: the model was opened.
    """
    if how.private:
        options = dataclasses.replace(options, private=True)
    limit = model.timeout_secs if isinstance(model, ServedModel) else how.time_limit_secs
    if limit and not options.call_timeout_secs:
        options = dataclasses.replace(options, call_timeout_secs=give_up_after(limit))
    if not model.remote and not options.max_in_flight:  # one call for each copy
        options = dataclasses.replace(options, max_in_flight=max(1, len(how.devices.devices)))
    if isinstance(model, ServedModel) and model.max_tensor_bytes:
        options = dataclasses.replace(options, max_batch_bytes=min(options.max_batch_bytes, model.max_tensor_bytes))
    return Scheduler(model, options)


class _Cache:
    """Keeps schedulers for the life of the process, because loading a model is expensive."""

    def __init__(self, open_: Callable[[ModelRecipe, ModelFiles | None], Scheduler]) -> None:
        self._open = open_
        self._lock = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        self._schedulers: dict[str, Scheduler] = {}
        self._failed: dict[str, Exception] = {}  # why a model could not be opened ahead
        self._openers: list[threading.Thread] = []

    def open_ahead(self, recipe: ModelRecipe, files: ModelFiles | None) -> threading.Thread:
        key = _key(recipe)
        lock = self._lock_of(key)
        lock.acquire()  # so that whoever comes now waits for the thread

        def open_() -> None:
            try:
                self._opened(key, recipe, files)
            except Exception as error:  # noqa: BLE001  the first caller raises it
                self._failed[key] = error
            finally:
                lock.release()

        # No daemon: the process must not end while TensorFlow loads.
        thread = threading.Thread(target=open_, name="sluice-open", daemon=False)
        try:
            thread.start()
        except RuntimeError:  # the machine has no more threads: whoever comes opens it
            lock.release()
            return thread
        self._openers.append(thread)
        return thread

    def scheduler(self, recipe: ModelRecipe, files: ModelFiles | None) -> Scheduler:
        key = _key(recipe)
        with self._lock_of(key):  # meanwhile other threads may load other models
            if failed := self._failed.pop(key, None):
                raise failed
            return self._opened(key, recipe, files)

    def opened(self, recipe: ModelRecipe) -> Scheduler | None:
        return self._schedulers.get(_key(recipe))

    def _lock_of(self, key: str) -> threading.Lock:
        with self._lock:
            return self._locks.setdefault(key, threading.Lock())

    def _opened(self, key: str, recipe: ModelRecipe, files: ModelFiles | None) -> Scheduler:
        scheduler = self._schedulers.get(key)
        if scheduler is None:
            scheduler = self._schedulers[key] = self._open(recipe, files)
        return scheduler

    def clear(self) -> None:
        for thread in self._openers:
            thread.join()
        self._openers.clear()
        self._failed.clear()
        with self._lock:
            schedulers, self._schedulers, self._locks = self._schedulers, {}, {}
        for scheduler in schedulers.values():
            scheduler.close()


def _key(recipe: ModelRecipe) -> str:
    # Not the recipe itself: with a default of NaN, a recipe does not equal its pickled copy.
    return repr(dataclasses.astuple(recipe))


_CACHE = _Cache(open_scheduler)


def shared_scheduler(recipe: ModelRecipe, files: ModelFiles | None = None) -> Scheduler:
    """Returns the process's scheduler for this recipe. The first caller opens the model, the others wait for it."""
    return _CACHE.scheduler(recipe, files)


def longest_call_secs(scheduler: Scheduler) -> float | None:
    """Returns for how long a call of the model may go on, with its repetitions; None: for any time."""
    limit = scheduler.options.call_timeout_secs
    repetitions = scheduler.options.max_retries if scheduler.model.remote else _REPETITIONS_HERE
    return (1 + repetitions) * limit if limit else None


class OpenedScheduler:
    """Looks for the process's scheduler of a recipe, for those who must not open its model. Picklable."""

    def __init__(self, recipe: ModelRecipe) -> None:
        self.recipe = recipe
        self._found: Scheduler | None = None  # for the key of a recipe takes a millisecond to make

    def __call__(self) -> Scheduler | None:
        """Returns the scheduler; None: the model is not open yet."""
        self._found = self._found or _CACHE.opened(self.recipe)
        return self._found

    @property
    def away_secs(self) -> float:
        """For how long the model has been away for all calls; 0: it is not, or not open yet."""
        scheduler = self()
        return scheduler.away_secs if scheduler else 0.0

    @property
    def call_secs(self) -> float | None:
        """For how long a call of the model may go on, with its repetitions; 0: it is not open; None: for any time."""
        scheduler = self()
        return longest_call_secs(scheduler) if scheduler else 0.0

    def __getstate__(self) -> ModelRecipe:
        return self.recipe

    def __setstate__(self, recipe: ModelRecipe) -> None:
        self.__init__(recipe)  # type: ignore[misc]


def open_ahead(recipe: ModelRecipe, files: ModelFiles | None = None) -> threading.Thread:
    """Opens the model of a recipe in a thread, which is returned, before `shared_scheduler` is called for it.

    If that fails, the first call of `shared_scheduler` raises the error. No process may be forked from this one after.
    """
    return _CACHE.open_ahead(recipe, files)


def clear_cache() -> None:
    """Closes all models of the process; for tests, and for tools that use many models in turn."""
    _CACHE.clear()
