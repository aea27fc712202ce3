"""A SavedModel that follows the versions under its base path while it is called.

The version to follow is the newest complete one that is there, so that going back is removing the newer one. As with TF
Serving's default policy (core/availability_preserving_policy.h) the next version is loaded before the last one goes,
and where it cannot be loaded the last one stays.
"""

import dataclasses
import logging
import random
import threading
import time
from collections.abc import Callable

import pyarrow as pa

from sluice.models.batching.mini_batch import byte_count, row_count, slice_feeds
from sluice.models.errors import BadOutput, CallError, ModelNotFound, SluiceError
from sluice.models.files import LocalFiles, ModelFiles
from sluice.models.interface import Model, ModelOptions, Outputs, check_outputs
from sluice.models.saved_model.generations import Generations
from sluice.models.saved_model.loader import SavedModel, read_signature
from sluice.models.saved_model.signature_fit import check_fit
from sluice.models.saved_model.versions import Version, list_versions, read_meta_graph, what_is_missing
from sluice.models.signature import Signature
from sluice.models.tensors.binding import Bound, Feeds, bind
from sluice.models.uri import ModelSpec

# Not this module's own logger: which version predicts is news of the job, and is shown with its other news.
_LOG = logging.getLogger(__name__)

# So much is kept of the rows that the model was called with, to try a new version on.
_SAMPLE_ROWS = 32
_SAMPLE_BYTES = 8 << 20
# Waits between two looks are drawn from this range, times poll_secs, so that workers do not all look at once.
_JITTER = (0.8, 1.2)

# (uri, version, options, files) to the version, loaded.
OpenVersion = Callable[[str, Version, ModelOptions, ModelFiles], Model]


@dataclasses.dataclass(frozen=True)
class Changes:
    """What became of a model, to be counted.

    Attributes:
      load_msecs: for each version that it went to, what loading and trying it took.
      rejected: how many versions were not taken.
    """

    load_msecs: tuple[float, ...] = ()
    rejected: int = 0


class FollowedModel:
    """The newest complete version under a base path, whichever that is by now. See models.interface.Model.

    A version that is not yet followed has to be unchanged from one look to the next. Then it is loaded, compared with
    the signature, and called with rows that the version in use has answered. If all that goes well, it gets the calls
    that begin from then on, and the version before is closed when its last call ends: two versions are in memory
    meanwhile. A version that fails is rejected, and tried again only once its files change. Where no version is left,
    the last one stays. Files of the version in use that are overwritten in place are not read again.

    Args:
      signature: which every version has to fit; None: the signature of the version that is found first.
      open_version: loads a version.
      clock: seconds, monotonic.
      sleep: waits so many seconds between two looks; by default until the model is closed at the latest.
      uniform: random in [0, 1), for the jitter of those waits.

    Raises:
      ModelNotFound, SignatureError: no version is fit for use; what is wrong with the newest one.
    """

    remote = False

    def __init__(
        self,
        spec: ModelSpec,
        options: ModelOptions,
        files: ModelFiles,
        signature: Signature | None = None,
        open_version: OpenVersion = SavedModel,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] | None = None,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        self.uri = spec.uri
        self.version: int | None = None  # until the first one is loaded
        self._options, self._files = options, files
        self._defaults = dict(options.defaults)
        self._wanted = signature
        self._open_version, self._clock, self._uniform = open_version, clock, uniform
        self._closing = threading.Event()
        self._sleep = sleep or self._sleep_until_closed
        self._thread: threading.Thread | None = None
        self._looks: dict[int | None, str] = {}  # fingerprints of the versions that the last look came upon
        self._rejected: dict[int | None, str] = {}  # fingerprints of those that were not taken
        self._troubled = self._deserted = False  # what has been said already
        self._sample: Feeds | None = None
        self._sample_due = True
        self._lock = threading.Lock()  # guards what is to be counted
        self._changes = Changes()
        first = self._open_first()
        self.version = first.version
        self.signature = self._wanted = first.signature
        self._generations = Generations(first)

    def bind(self, batch: pa.RecordBatch) -> Bound:
        """Returns the batch as the tensors that the signature takes, which is that of every version."""
        return bind(batch, self.signature, self._defaults)

    def call(self, feeds: Feeds) -> Outputs:
        """Returns the outputs of the version that is followed now, and which one that is.

        Raises:
          CallError: as the version's own model.
        """
        with self._generations.use() as model:
            outputs = model.call(feeds)
        if self._sample_due:
            self._sample_due = False
            self._sample = _sample(feeds, self.signature) or self._sample
        return outputs

    def start(self) -> None:
        """Begins to look for other versions."""
        self._thread = threading.Thread(target=self._run, name="sluice-follow", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the thread and closes the version in use; no call may follow."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()
        self._generations.close()

    def take_changes(self) -> Changes:
        """Returns what is to be counted, once."""
        with self._lock:
            changes, self._changes = self._changes, Changes()
        return changes

    def poll(self) -> None:
        """Looks once whether another version is to be followed, and goes to it. What goes wrong is logged."""
        try:
            self._follow()
        except Exception as error:  # noqa: BLE001  the thread has to live on, and the model to stay
            if not self._troubled:
                self._troubled = True
                text = "Model %s: looking for other versions fails, and version %s stays until it works again: %s: %s"
                _LOG.warning(text, self.uri, self.version, type(error).__name__, error)
        else:
            if self._troubled:
                self._troubled = False
                _LOG.info("Model %s: looking for other versions works again", self.uri)
        self._sample_due = True

    def _run(self) -> None:
        low, high = _JITTER
        while True:
            self._sleep(self._options.poll_secs * (low + (high - low) * self._uniform()))
            if self._closing.is_set():
                return
            self.poll()

    def _sleep_until_closed(self, secs: float) -> None:
        self._closing.wait(secs)

    def _follow(self) -> None:
        found = list_versions(self.uri, self._files)
        if not found and not self._deserted:
            _LOG.warning("Model %s: no version is there any more, and version %s stays", self.uri, self.version)
        self._deserted = not found
        before, self._looks = self._looks, {}
        for version in found:
            if version.number == self.version:
                return
            look = self._looks[version.number] = self._files.fingerprint(version.directory)
            is_steady = look == before.get(version.number)
            if is_steady and look != self._rejected.get(version.number) and self._take(version, look):
                return

    def _take(self, version: Version, look: str) -> bool:
        """Goes to the version, if it is fit for use; returns whether it is."""
        started = self._clock()
        try:
            model = self._open(version)
        except SluiceError as error:
            self._reject(version, look, error)
            return False
        secs = self._clock() - started
        before, self.version = self.version, version.number
        self._generations.replace(model)
        with self._lock:
            self._changes = Changes((*self._changes.load_msecs, 1000 * secs), self._changes.rejected)
        _LOG.info("Model %s: version %s -> %s (loaded in %.1f s)", self.uri, before, self.version, secs)
        return True

    def _reject(self, version: Version, look: str, error: Exception) -> None:
        self._rejected[version.number] = look
        with self._lock:
            self._changes = dataclasses.replace(self._changes, rejected=self._changes.rejected + 1)
        stays = "" if self.version is None else f", and version {self.version} stays"
        _LOG.warning("Model %s: version %s is not taken%s: %s", self.uri, version.number, stays, error)

    def _open_first(self) -> Model:
        """Opens the newest version that is fit for use: a worker that starts late must not die of a bad one."""
        errors: list[Exception] = []
        for version in list_versions(self.uri, self._files):
            look = self._files.fingerprint(version.directory)
            try:
                return self._open(version)
            except OSError as error:  # it may be readable at the next look
                _LOG.warning("Model %s: version %s cannot be read: %s", self.uri, version.number, error)
                errors.append(error)
            except SluiceError as error:
                self._reject(version, look, error)
                errors.append(error)
        raise errors[0] if errors else ModelNotFound(f"--model {self.uri}: no version is there any more")

    def _open(self, version: Version) -> Model:
        """Returns the version, loaded and found fit for use.

        Raises:
          SluiceError: it is not; the text says why.
          OSError: it cannot be read now, which says nothing about it.
        """
        local = Version(self._files.local_copy(version.directory), version.number)
        try:
            return self._load(local)
        except Exception as error:
            if isinstance(error.__cause__, OSError):
                raise OSError(str(error)) from error
            if isinstance(error, SluiceError | OSError):
                raise
            raise ModelNotFound(f"{type(error).__name__}: {error}") from error

    def _load(self, version: Version) -> Model:
        options, files = self._options, LocalFiles()
        if self._wanted is not None:  # outputs that it has besides are not computed
            options = dataclasses.replace(options, outputs=tuple(spec.name for spec in self._wanted.outputs))
        read_meta_graph.cache_clear()  # the directory may have been overwritten since it was read
        signature = read_signature(version.directory, options, files)
        if missing := what_is_missing(version.directory, files):
            raise ModelNotFound(missing)
        if self._wanted is not None:
            check_fit(signature, self._wanted)
        _LOG.debug("Model %s: version %s is being loaded", self.uri, version.number)
        model = self._open_version(self.uri, version, options, files)
        try:
            self._try(model)
        except BaseException:
            model.close()
            raise
        return model

    def _try(self, model: Model) -> None:
        """Calls a model before it is used, which also spares the job its slow first call.

        Raises:
          BadOutput: it does not answer rows that the version in use answers.
        """
        if self._sample is None:
            return
        feeds, rows = self._sample, row_count(self._sample)
        try:
            check_outputs(model.call(feeds), self.signature.outputs, rows)
        except CallError as error:
            try:
                check_outputs(self._generations.model.call(feeds), self.signature.outputs, rows)
            except CallError:
                return  # in so small a call neither does
            raise BadOutput(f"it fails on {rows} rows that version {self.version} answers: {error}") from error


def _sample(feeds: Feeds, signature: Signature) -> Feeds | None:
    """Returns a copy of a few of the rows; None if they are large. All of them, where the signature fixes how many."""
    rows = row_count(feeds)
    is_fixed = any(spec.shape and spec.shape[0] is not None for spec in signature.inputs)
    for size in (rows,) if is_fixed else (min(rows, _SAMPLE_ROWS), 1):
        part = slice_feeds(feeds, 0, size)
        if byte_count(part, exact=True) <= _SAMPLE_BYTES:
            return {name: array.copy() for name, array in part.items()}
    return None


def open_followed_model(
    spec: ModelSpec, options: ModelOptions, files: ModelFiles, signature: Signature | None = None
) -> FollowedModel:
    """Returns the newest version that is fit for use, and begins to look for others. See FollowedModel."""
    model = FollowedModel(spec, options, files, signature)
    model.start()
    return model


def take_changes(model: Model) -> Changes:
    """Returns what has become of a model since it was asked last; nothing of one that follows no versions."""
    return model.take_changes() if isinstance(model, FollowedModel) else Changes()
