"""Batches and failures of a stream to files: one or more for each bundle, complete before the bundle is finished.

A file is written under a hidden name (.sluice-...tmp, in its final directory) and renamed when the bundle is finished,
so a file under its final name is complete. A failed bundle leaves nothing; a killed process leaves its hidden files.
Names begin with the time at which the file was begun, so they sort by time.
"""

import contextlib
import dataclasses
import datetime
import functools
import logging
import os
import uuid
from collections.abc import Iterator

import apache_beam as beam
import pyarrow as pa
from apache_beam.coders import Coder, PickleCoder
from apache_beam.io.filesystem import BeamIOError
from apache_beam.io.filesystems import FileSystems

from sluice.models.errors import SluiceError
from sluice.transforms.core.batches import RecordBatchCoder
from sluice.transforms.core.beam_files import HIDDEN, check_name
from sluice.transforms.core.composite import Composite
from sluice.transforms.core.failures import FAILURES, FULL, Failure
from sluice.transforms.encode.base import OutputSpec
from sluice.transforms.files.gather import Gathering, Pack, Rename, gather_step
from sluice.transforms.files.open_file import (
    BatchFormat,
    BatchOrFailure,
    Element,
    FailureFormat,
    FirstBatchFormat,
    Format,
    OpenFile,
    WriteElement,
    write_rows,
    write_whole,
)
from sluice.transforms.files.write import Target, check_writable

_LOG = logging.getLogger(__name__)

_MAX_ROWS = 1_000_000
_MAX_BYTES = 256 << 20
# Of rows that gather in a runner's state, for one worker process.
_GATHER_BYTES = 64 << 20


@dataclasses.dataclass(frozen=True)
class StreamTarget:
    """The names of files, PREFIX-20260131T235959.123456Z-89abcdefSUFFIX in UTC, and their sizes.

    Attributes:
      max_rows, max_bytes: the batch that reaches either is the last of its file. Parquet is held back, and its bytes
        counted, by row groups of 64 k rows.
    """

    prefix: str
    suffix: str
    max_rows: int = _MAX_ROWS
    max_bytes: int = _MAX_BYTES

    @property
    def directory(self) -> str:
        """The directory with its slash; "" for the current one."""
        return self.prefix[: self.prefix.rfind("/") + 1]

    def name(self, begun: datetime.datetime, token: str) -> str:
        """Returns the final name of a file.

        Args:
          token: distinguishes files that several workers begin at once.
        """
        return f"{self.prefix}-{begun:%Y%m%dT%H%M%S.%fZ}-{token}{self.suffix}"


def check_stream_target(prefix: str, suffix: str) -> None:
    """Checks at launch that files can be written under these names, with a small file.

    Raises:
      UsageError: they cannot, or the name is a pattern.
    """
    check_name(prefix + suffix, prefix + suffix)
    check_writable(Target(prefix, suffix, f"{StreamTarget(prefix, suffix).directory}{HIDDEN}{uuid.uuid4().hex}"))


class WriteStreamFiles(Composite):
    """Writes RecordBatches; returns the `Failure`s of rows that the format cannot hold.

    Args:
      spec: what the files hold; or their format, and then what the first batch of each has.
      max_rows, max_bytes: see StreamTarget.
      interval_secs: rows gather for so long before they become a file: see transforms.files.gather. 0: each bundle
        makes a file. Above 0 only for a runner that keeps state safe; a local one does not.
    """

    def __init__(
        self,
        prefix: str,
        suffix: str,
        spec: OutputSpec | FirstBatchFormat,
        max_rows: int = _MAX_ROWS,
        max_bytes: int = _MAX_BYTES,
        interval_secs: float = 0.0,
    ) -> None:
        super().__init__()
        self._target = StreamTarget(prefix, suffix, max_rows, max_bytes)
        self._format = BatchFormat(spec) if isinstance(spec, OutputSpec) else spec
        self._interval_secs = interval_secs

    def expand(self, batches: beam.PCollection[pa.RecordBatch]) -> beam.PCollection[Failure]:
        if self._interval_secs:
            return _gathered(batches, self._target, self._format, write_rows, RecordBatchCoder(), self._interval_secs)
        return batches | "Files" >> beam.ParDo(_WriteStream(self._target, self._format, write_rows))


class WriteFailureFiles(Composite):
    """Writes failures as JSON Lines; returns nothing.

    Args:
      payload_mode: see transforms.core.failures.to_record.
      suffix: .gz at its end makes gzipped files.
      max_rows, max_bytes, interval_secs: see WriteStreamFiles.
    """

    def __init__(
        self,
        prefix: str,
        payload_mode: str = FULL,
        suffix: str = ".jsonl",
        max_rows: int = _MAX_ROWS,
        max_bytes: int = _MAX_BYTES,
        interval_secs: float = 0.0,
    ) -> None:
        super().__init__()
        self._target, self._format = StreamTarget(prefix, suffix, max_rows, max_bytes), FailureFormat(payload_mode)
        self._interval_secs = interval_secs

    def expand(self, failures: beam.PCollection[Failure]) -> beam.PCollection[Failure]:
        if self._interval_secs:
            return _gathered(failures, self._target, self._format, write_whole, PickleCoder(), self._interval_secs)
        return failures | "Files" >> beam.ParDo(_WriteStream(self._target, self._format, write_whole))


def _gathered(
    elements: beam.PCollection,
    target: StreamTarget,
    format_: Format[BatchOrFailure],
    write: WriteElement,
    coder: Coder,
    interval_secs: float,
) -> beam.PCollection[Failure]:
    """Writes elements to files at intervals; returns the failures of those that the format cannot hold."""
    open_hidden, max_bytes = functools.partial(open_file, target), min(target.max_bytes, _GATHER_BYTES)
    gathering = Gathering(coder, format_, write, open_hidden, interval_secs, max_bytes)
    step = elements.pipeline.transforms_stack[-1].full_label
    packed = elements | "Pack" >> beam.ParDo(Pack(coder))
    written = packed | "Gather" >> beam.ParDo(gather_step(step, gathering)).with_outputs(FAILURES, main="files")
    written.files | "Stable" >> beam.Reshuffle() | "Rename" >> beam.ParDo(Rename(rename_finished))
    return written[FAILURES]


@beam.typehints.with_output_types(Failure)
class _WriteStream(beam.DoFn):
    """Counts: rows_failed."""

    def __init__(self, target: StreamTarget, format_: Format[BatchOrFailure], write: WriteElement) -> None:
        self._target = target
        self._format = format_
        self._write = write
        # The files of this bundle with their final names. Only the last one may be open.
        self._files: list[tuple[OpenFile[BatchOrFailure], str]] = []
        self._is_open = False

    def start_bundle(self) -> None:
        self.teardown()

    def process(self, element: BatchOrFailure) -> Iterator[Failure]:
        yield from self._write(element, self._add)
        self._close_if_full()

    def _add(self, element: BatchOrFailure) -> None:
        if not self._is_open:
            self._files.append(open_file(self._target, self._format))
            self._is_open = True
        self._files[-1][0].write(element)

    def _close_if_full(self) -> None:
        if not self._is_open:
            return
        file, _ = self._files[-1]
        if file.rows >= self._target.max_rows or file.size >= self._target.max_bytes:
            self._close()

    def _close(self) -> None:
        self._files[-1][0].close(sync=True)
        self._is_open = False

    def finish_bundle(self) -> None:
        """Raises if a file cannot be renamed, so that its rows are delivered again."""
        if self._is_open:
            self._close()
        for file, name in self._files:
            if file.rows:
                rename_finished(file.path, name)
            else:  # the format cannot hold any row of the bundle
                file.drop()
        self._files = []

    def teardown(self) -> None:
        """Drops the files of a failed bundle."""
        left, self._files, self._is_open = self._files, [], False
        for file, _ in left:
            file.drop()


def open_file(target: StreamTarget, format_: Format[Element]) -> tuple[OpenFile[Element], str]:
    """Returns a new file under its hidden name, and its final name for `rename_finished`."""
    token = uuid.uuid4().hex
    # The hidden name has another suffix: a reader that ignores the dot does not find it either.
    hidden = f"{target.directory}{HIDDEN}{token}.tmp"
    name = target.name(datetime.datetime.now(datetime.UTC), token[:8])
    return OpenFile(hidden, format_, target.suffix.endswith(".gz")), name


def rename_finished(path: str, name: str) -> None:
    """Renames a finished file. On a local disk the name, too, survives a crash of the machine.

    Raises:
      SluiceError: the rename fails, or another file has the name.
    """
    try:
        if "://" in path:
            _rename_remote(path, name)
        else:
            _rename_local(path, name)
    except (OSError, BeamIOError) as error:
        raise SluiceError(f"{path} could not be renamed to {name}: {error}") from error


def _rename_local(path: str, name: str) -> None:
    """Renames by a hard link, which, unlike os.rename, never replaces a file."""
    try:
        os.link(path, name)
    except FileExistsError:
        raise
    except OSError as error:  # a file system without hard links
        if os.path.lexists(name):
            raise FileExistsError(f"{name} exists") from error
        os.rename(path, name)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    directory = os.open(os.path.dirname(name) or os.curdir, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _rename_remote(path: str, name: str) -> None:
    """Renames in an object store: it copies, all or nothing, and then deletes."""
    try:
        FileSystems.rename([path], [name])
    except BeamIOError as error:
        if not FileSystems.exists(name):
            raise
        _LOG.warning("%s is copied to %s and could not be deleted: %s", path, name, error)
