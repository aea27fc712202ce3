"""A SavedModel that follows the versions under its base path while it is called.

It follows the newest complete version, so to roll back, remove the newer one. As in TF Serving's default policy
(core/availability_preserving_policy.h) the next version is loaded before the last one is unloaded; if the next one
cannot be loaded, the last one stays.
"""

import dataclasses
import logging
import random
import threading
import time
from collections.abc import Callable

import pyarrow as pa

from sluice.models.batching.invoke import call_once
from sluice.models.batching.mini_batch import byte_count, row_count, slice_feeds
from sluice.models.errors import BadOutput, CallError, ModelNotFound, SluiceError, UsageError
from sluice.models.files import LocalFiles, ModelFiles
from sluice.models.interface import LocalModel, Model, ModelOptions, Outputs, check_outputs
from sluice.models.saved_model.generations import Generations
from sluice.models.saved_model.loader import SavedModel, read_signature
from sluice.models.saved_model.signature_fit import check_fit
from sluice.models.saved_model.versions import Version, list_versions, read_meta_graph, what_is_missing
from sluice.models.signature import Signature
from sluice.models.tensors.binding import Bound, Feeds, bind
from sluice.models.uri import ModelSpec
from sluice.models.wording import log_text, message, text_of

_LOG = logging.getLogger(__name__)

# The most rows and bytes kept of a call, to try a new version with.
_SAMPLE_ROWS = 32
_SAMPLE_BYTES = 8 << 20
# A poll waits poll_secs times a random factor of this range, so that workers do not all poll at once.
_JITTER = (0.8, 1.2)

# Loads a version.
OpenVersion = Callable[[str, Version, ModelOptions, ModelFiles], Model]


@dataclasses.dataclass(frozen=True)
class Changes:
    """Changes of a model's version, for metrics.

    Attributes:
      load_msecs: the time to load and try each version that was accepted.
      rejected: how many versions were rejected.
    """

    load_msecs: tuple[float, ...] = ()
    rejected: int = 0


class FollowedModel:
    """The current newest complete version under a base path. Implements models.interface.Model.

    A new version must be unchanged between two polls. Then it is loaded, its signature is compared, and it is called
    with rows that the version in use has answered. If all three succeed, calls that begin from then on go to it, and
    the version before is closed when its last call ends: until then both are in memory. A version that fails is
    rejected, and tried again only after its files change. If no version is left, the last one stays. Files of the
    version in use that are overwritten in place are not read again.

    Args:
      signature: every version must fit it; None: the signature of the first version found.
      open_version: loads a version.
      clock: seconds, monotonic.
      sleep: waits this many seconds between two polls; the default wakes when the model is closed.
      uniform: random in [0, 1), for the jitter of those waits.

    Raises:
      ModelNotFound, SignatureError: no version can be used; the text is about the newest one.
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
        self.version: int | None = None  # until the first version is loaded
        self._options, self._files = options, files
        self._defaults = dict(options.defaults)
        self._wanted = signature
        self._open_version, self._clock, self._uniform = open_version, clock, uniform
        self._closing = threading.Event()
        self._sleep = sleep or self._sleep_until_closed
        self._thread: threading.Thread | None = None
        self._looks: dict[int | None, str] = {}  # fingerprints of the versions that the last poll found
        self._rejected: dict[int | None, str] = {}  # fingerprints of the rejected versions
        self._troubled = self._deserted = False  # whether a failing poll, or a lack of versions, was logged already
        self._sample: Feeds | None = None
        self._sample_due = True
        self._lock = threading.Lock()  # guards _changes
        self._changes = Changes()
        first = self._open_first()
        self.version = first.version
        self.signature = self._wanted = first.signature
        self._generations = Generations(first)

    def bind(self, batch: pa.RecordBatch) -> Bound:
        """Returns the batch as the signature's input tensors; the signature is the same for every version."""
        return bind(batch, self.signature, self._defaults)

    def call(self, feeds: Feeds) -> Outputs:
        """Returns the outputs and the number of the version in use.

        Raises:
          CallError: from the version's own model.
        """
        with self._generations.use() as model:
            try:
                outputs = model.call(feeds)
            except CallError as error:
                error.version = model.version  # by the time that somebody reads it, another may be in use
                raise
        if self._sample_due:
            self._sample_due = False
            self._sample = _sample(feeds, self.signature) or self._sample
        return outputs

    @property
    def first_answered(self) -> Feeds | None:
        """A request that the version in use answered when it was loaded; None: there is none."""
        model = self._generations.model
        return model.first_answered if isinstance(model, LocalModel) else None

    def renew(self) -> None:
        """Loads the version in use anew; see models.interface.LocalModel."""
        with self._generations.use() as model:
            if isinstance(model, LocalModel):
                model.renew()

    def abandon(self) -> None:
        """Makes `close` leave the session of the version in use alone."""
        with self._generations.use() as model:
            if isinstance(model, LocalModel):
                model.abandon()

    def start(self) -> None:
        """Starts the thread that polls for other versions."""
        self._thread = threading.Thread(target=self._run, name="sluice-follow", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the thread and closes the version in use. No call may follow."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()
        self._generations.close()

    def take_changes(self) -> Changes:
        """Returns the changes since the last call of this method."""
        with self._lock:
            changes, self._changes = self._changes, Changes()
        return changes

    def poll(self) -> None:
        """Switches to another version if one must be followed. Logs errors and raises none."""
        try:
            self._follow()
        except Exception as error:  # noqa: BLE001  the thread must live on, and the model must stay
            if not self._troubled:
                self._troubled = True
                text = "Model %s: looking for other versions fails, and version %s stays until it works again: %s: %s"
                _LOG.warning(text, self.uri, self.version, type(error).__name__, self._words(error))
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
        """Switches to the version if it can be used; returns whether it can."""
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
        _LOG.warning("Model %s: version %s is not taken%s: %s", self.uri, version.number, stays, self._words(error))

    def _words(self, error: Exception) -> str:
        about_files = isinstance(error, OSError | UsageError)  # which have no rows
        return log_text(error, self._options.private and not about_files)

    def _open_first(self) -> Model:
        """Opens the newest version that can be used: a worker that starts late must not fail on a bad one."""
        errors: list[Exception] = []
        for version in list_versions(self.uri, self._files):
            look = self._files.fingerprint(version.directory)
            try:
                return self._open(version)
            except OSError as error:  # the next poll may be able to read it
                _LOG.warning("Model %s: version %s cannot be read: %s", self.uri, version.number, error)
                errors.append(error)
            except SluiceError as error:
                self._reject(version, look, error)
                errors.append(error)
        raise errors[0] if errors else ModelNotFound(f"--model {self.uri}: no version is there any more")

    def _open(self, version: Version) -> Model:
        """Returns the version, loaded and tried.

        Raises:
          SluiceError: it cannot be used; the text says why.
          OSError: it cannot be read now, so whether it can be used is not known.
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
        if self._wanted is not None:  # do not compute outputs that the job does not use
            options = dataclasses.replace(options, outputs=tuple(spec.name for spec in self._wanted.outputs))
        read_meta_graph.cache_clear()  # the files may have been overwritten since they were read
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
        """Calls a model with the sample before it is used. Its first call, a slow one, is made here too.

        Raises:
          BadOutput: it fails on rows that the version in use answers.
        """
        if self._sample is None:
            return
        feeds, rows, limit = self._sample, row_count(self._sample), self._options.time_limit_secs
        try:
            check_outputs(call_once(model, feeds, limit), self.signature.outputs, rows)
        except CallError as error:
            try:
                check_outputs(call_once(self._generations.model, feeds, limit), self.signature.outputs, rows)
            except CallError:
                return  # both versions fail on so small a call, so the new one is no worse
            text = "it fails on {rows} rows that version {version} answers: {}"
            raise BadOutput(message(text, text_of(error), rows=rows, version=self.version)) from error


def _sample(feeds: Feeds, signature: Signature) -> Feeds | None:
    """Returns a copy of a few rows, or of all if the signature fixes the batch size; None if they are too large."""
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
    """Returns a FollowedModel on the newest version that can be used, already polling for others."""
    model = FollowedModel(spec, options, files, signature)
    model.start()
    return model


def is_followed(model: Model) -> bool:
    """Whether the version of a model in this process may change."""
    return isinstance(model, FollowedModel)


def take_changes(model: Model) -> Changes:
    """Returns a model's changes since the last call of this function; none for a model that follows no versions."""
    return model.take_changes() if isinstance(model, FollowedModel) else Changes()
