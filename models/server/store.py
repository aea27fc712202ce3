"""The models of a server: finds versions on disk, loads, replaces and removes them."""

import contextlib
import dataclasses
import itertools
import os
import threading
from collections.abc import Collection, Iterator, Mapping

from sluice.models.errors import ModelNotFound
from sluice.models.files import LocalFiles
from sluice.models.saved_model.versions import find_version, find_versions
from sluice.models.server.servable import Servable, Watch
from sluice.models.server.status import StatusError, invalid

LATEST = "latest"
_FILES = LocalFiles()


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """One model to serve, as TF Serving's ModelConfig (config/model_server_config.proto).

    Attributes:
      base: a local directory of numbered versions, or one SavedModel, whose version is the name of its directory, or 1
        if that is not a number. TF Serving accepts only the former.
      versions: "latest" (the newest complete one), "all", or numbers.
      labels: label -> version. The version need not be loaded (in TF Serving:
        --allow_version_labels_for_unavailable_models).
    """

    base: str
    versions: str | tuple[int, ...] = LATEST
    labels: Mapping[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Spec:
    """The model that a request is for: `tensorflow.serving.ModelSpec`. Without version and label, the newest loaded."""

    name: str
    version: int | None = None
    label: str | None = None


@dataclasses.dataclass(frozen=True)
class VersionState:
    """A name of `ModelVersionStatus.State`; code and message say why a version ended."""

    version: int
    state: str
    code: str = "OK"
    message: str = ""


class _Model:
    """One model's directory and its loaded versions.

    Attributes:
      failed: versions that could not be loaded -> the state of their files, and the error. They are tried again when
        their files change.
    """

    def __init__(self, name: str, config: ModelConfig, watch: Watch) -> None:
        self.name, self.config, self._watch = name, config, watch
        self.labels = dict(config.labels)
        self.loaded: dict[int, Servable] = {}
        self.states: dict[int, VersionState] = {}
        self.failed: dict[int, tuple[object, ModelNotFound]] = {}

    @property
    def named(self) -> tuple[int, ...]:
        """The versions that the configuration names by number."""
        return () if isinstance(self.config.versions, str) else self.config.versions

    def directory(self, number: int | None) -> str:
        """Returns the directory of a complete version; None: of the newest.

        Raises:
          ModelNotFound: it is not there, or parts of it are missing.
        """
        if self._is_single and number not in (None, self._single_number):
            raise ModelNotFound(
                f"--model {self.config.base} is one SavedModel, served as version {self._single_number}; "
                f"it has no version {number}"
            )
        return find_version(self.config.base, _FILES, None if self._is_single else number).directory

    def wanted(self) -> list[int]:
        """Returns the versions that should be loaded now, and for all that is known can be, newest first."""
        numbers = [self._single_number] if self._is_single else find_versions(self.config.base, _FILES)
        usable = (n for n in numbers if (not self.named or n in self.named) and (n in self.loaded or self._loadable(n)))
        return list(itertools.islice(usable, 1 if self.config.versions == LATEST else None))

    @property
    def _is_single(self) -> bool:
        return os.path.exists(os.path.join(self.config.base, "saved_model.pb"))

    @property
    def _single_number(self) -> int:
        name = os.path.basename(os.path.abspath(self.config.base))
        return int(name) if name.isdecimal() else 1

    def _loadable(self, number: int) -> bool:
        try:
            directory = self.directory(number)
        except ModelNotFound:
            return False
        return number not in self.failed or self.failed[number][0] != _look(directory)

    def load(self, number: int) -> Servable | None:
        """Loads a version; None if that fails, with the reason in `failed` and `states`."""
        self.set_state(number, "LOADING")
        look: object = None
        try:
            directory = self.directory(number)
            look = _look(directory)
            return Servable(self.name, number, directory, self._watch)
        except ModelNotFound as error:
            self.failed[number] = (look, error)
            self.set_state(number, "END", "INTERNAL", str(error))
            return None

    def set_state(self, number: int, state: str, code: str = "OK", message: str = "") -> None:
        self.states[number] = VersionState(number, state, code, message)


class Store:
    """The models of a server. Thread-safe.

    Args:
      models: by name.
      watch: bounds the time of calls; None: nothing does.

    Raises:
      ModelNotFound: a model has no complete version, or not all that were named. TensorFlow loads nothing yet.
    """

    def __init__(self, models: Mapping[str, ModelConfig], watch: Watch | None = None) -> None:
        watch = watch or Watch()
        self._models = {name: _Model(name, config, watch) for name, config in models.items()}
        self._lock, self._poll_lock = threading.Lock(), threading.Lock()
        for model in self._models.values():
            for number in model.named or (None,):
                model.directory(number)

    def load(self) -> None:
        """Loads all models.

        Raises:
          ModelNotFound: a model has no version that can be loaded, or not all that were named.
        """
        self.poll()
        for model in self._models.values():
            if not model.loaded or not model.loaded.keys() >= set(model.named):
                raise next(error for _, error in model.failed.values())

    def poll(self) -> None:
        """Loads new versions, and unloads those that are gone or no longer wanted.

        As with TF Serving's default policy (core/availability_preserving_policy.h) the new version is loaded before the
        old one is unloaded; if loading fails, the old one stays.
        """
        with self._poll_lock:
            for model in self._models.values():
                while missing := [number for number in model.wanted() if number not in model.loaded]:
                    self._load(model, missing[0])
                self._unload(model, keep=model.wanted())

    def _load(self, model: _Model, number: int) -> None:
        servable = model.load(number)
        if servable is not None:
            with self._lock:
                model.loaded[number] = servable
                model.set_state(number, "AVAILABLE")

    def _unload(self, model: _Model, keep: Collection[int] = ()) -> None:
        with self._lock:
            gone = [model.loaded.pop(number) for number in sorted(model.loaded.keys() - set(keep))]
        for servable in gone:
            model.set_state(servable.version, "UNLOADING")
            servable.close()
            model.set_state(servable.version, "END")

    def close(self) -> None:
        """Unloads everything."""
        with self._poll_lock:
            for model in self._models.values():
                self._unload(model)

    def loaded(self) -> dict[str, list[int]]:
        """Returns the versions that are served, by model."""
        with self._lock:
            return {name: sorted(model.loaded) for name, model in self._models.items()}

    def set_labels(self, name: str, labels: Mapping[str, int]) -> None:
        """Replaces the labels of a model."""
        with self._lock:
            self._models[name].labels = dict(labels)

    @contextlib.contextmanager
    def use(self, spec: Spec) -> Iterator[Servable]:
        """Yields the version that a request is for, and keeps it open meanwhile.

        Raises:
          StatusError: it is not served. Codes and texts: tensorflow_serving/model_servers/server_core.cc and
            core/basic_manager.cc.
        """
        with self._lock:
            servable = self._find(spec)
            servable.acquire()
        try:
            yield servable
        finally:
            servable.release()

    def _find(self, spec: Spec) -> Servable:
        if not spec.name:
            raise invalid("ModelSpec has no name specified.")
        model = self._models.get(spec.name)
        version = spec.version
        if spec.label is not None:
            if model is None or spec.label not in model.labels:
                raise invalid(f"Unrecognized servable version label: {spec.label}")
            version = model.labels[spec.label]
        loaded = model.loaded if model else {}
        found = loaded.get(max(loaded, default=0) if version is None else version)
        if found is None:
            request = f"Latest({spec.name})" if version is None else f"Specific({spec.name}, {version})"
            raise StatusError("NOT_FOUND", f"Servable not found for request: {request}")
        return found

    def states(self, spec: Spec) -> list[VersionState]:
        """Returns the states of a model's versions, newest first, or of the version that the request names by number.

        Labels are ignored, as in tensorflow_serving/model_servers/get_model_status_impl.cc.

        Raises:
          StatusError: there is no such model or version.
        """
        with self._lock:
            known = dict(self._models[spec.name].states) if spec.name in self._models else {}
        if spec.version is not None:
            if spec.version not in known:
                raise StatusError("NOT_FOUND", f"Could not find version {spec.version} of model {spec.name}")
            return [known[spec.version]]
        if not known:
            raise StatusError("NOT_FOUND", f"Could not find any versions of model {spec.name}")
        return [known[number] for number in sorted(known, reverse=True)]


def _look(directory: str) -> object:
    """Returns a value that changes when a file under the directory does."""
    look = []
    for path in (os.path.join(parent, name) for parent, _, names in os.walk(directory) for name in names):
        with contextlib.suppress(FileNotFoundError):
            status = os.stat(path)
            look.append((path, status.st_mtime_ns, status.st_size))
    return sorted(look)
