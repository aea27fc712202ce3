"""One loaded model and one scheduler per process, however many DoFns ask."""

import dataclasses
import threading
import time
from collections.abc import Callable

from sluice.models.batching.options import SchedulerOptions
from sluice.models.batching.scheduler import Scheduler
from sluice.models.files import LocalFiles, ModelFiles
from sluice.models.interface import Model, ModelOptions
from sluice.models.saved_model.followed import open_followed_model
from sluice.models.saved_model.loader import open_saved_model
from sluice.models.saved_model.versions import find_version
from sluice.models.signature import Signature
from sluice.models.uri import ModelSpec, parse_model_uri

# A client ends its calls at their deadline by itself; the scheduler gives up one that has not, so much later.
_GRACE_SECS = 5.0


@dataclasses.dataclass(frozen=True)
class ModelRecipe:
    """All that makes a model callable; small, hashable, picklable. A DoFn holds this and opens it in `setup`.

    Attributes:
      signature: as the launcher read it. Workers then need not ask a model's server for it, and of a model that follows
        its versions they take none that does not fit. None: they ask, and go by the version that they find first.
    """

    spec: ModelSpec
    model: ModelOptions = dataclasses.field(default_factory=ModelOptions)
    scheduler: SchedulerOptions = dataclasses.field(default_factory=SchedulerOptions)
    signature: Signature | None = None


def open_model(
    uri: str | ModelSpec,
    options: ModelOptions | None = None,
    files: ModelFiles | None = None,
    signature: Signature | None = None,
) -> Model:
    """Returns the model behind a --model URI, ready: loaded into this process, or a client of its server.

    Args:
      files: where a SavedModel is read from.
      signature: of a model that is served, or that follows its versions, if it is known; else it is asked for, or that
        of the version found first.

    Raises:
      UsageError: the URI, the signature or what stands there does not fit; the text says how.
    """
    spec = parse_model_uri(uri) if isinstance(uri, str) else uri
    options = options or ModelOptions()
    if spec.endpoint is None:
        files = files or LocalFiles()
        if options.poll_secs > 0 and spec.version is None and find_version(spec.uri, files).number is not None:
            return open_followed_model(spec, options, files, signature)
        return open_saved_model(spec, options, files)
    if spec.endpoint.protocol == "grpc":
        from sluice.models.endpoints.grpc import GrpcModel

        return GrpcModel(spec, options, signature)
    from sluice.models.endpoints.rest import RestModel

    return RestModel(spec, options, signature)


def open_scheduler(recipe: ModelRecipe, files: ModelFiles | None = None) -> Scheduler:
    """Returns a scheduler of one's own for this recipe, its model ready. See `shared_scheduler` for the process's."""
    started = time.monotonic()
    model = open_model(recipe.spec, recipe.model, files, recipe.signature)
    options = recipe.scheduler
    if recipe.spec.endpoint and not options.call_timeout_secs:
        options = dataclasses.replace(options, call_timeout_secs=recipe.model.endpoint.rpc_timeout_secs + _GRACE_SECS)
    scheduler = Scheduler(model, options)
    if not model.remote:
        scheduler.load_msec = 1000 * (time.monotonic() - started)
    return scheduler


class _Cache:
    """Strong references, for as long as the process lives: loading is what costs."""

    def __init__(self, open_: Callable[[ModelRecipe, ModelFiles | None], Scheduler]) -> None:
        self._open = open_
        self._lock = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        self._schedulers: dict[str, Scheduler] = {}

    def scheduler(self, recipe: ModelRecipe, files: ModelFiles | None) -> Scheduler:
        # Of equal recipes equal; a recipe that was pickled does not equal itself if a default is NaN.
        key = repr(dataclasses.astuple(recipe))
        with self._lock:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:  # others may load other models meanwhile
            scheduler = self._schedulers.get(key)
            if scheduler is None:
                scheduler = self._schedulers[key] = self._open(recipe, files)
            return scheduler

    def clear(self) -> None:
        with self._lock:
            schedulers, self._schedulers, self._locks = self._schedulers, {}, {}
        for scheduler in schedulers.values():
            scheduler.close()


_CACHE = _Cache(open_scheduler)


def shared_scheduler(recipe: ModelRecipe, files: ModelFiles | None = None) -> Scheduler:
    """Returns the process's scheduler for this recipe; the first caller loads the model, the others wait for it."""
    return _CACHE.scheduler(recipe, files)


def clear_cache() -> None:
    """Closes every model of the process; for tests, and for tools that score with many models in turn."""
    _CACHE.clear()
