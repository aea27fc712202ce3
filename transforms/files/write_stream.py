"""Batches and failures of a stream to files: at least one for each bundle, there with its rows before it is finished.

A file is written under a hidden name (.sluice-...tmp, in the directory that it belongs in) and renamed when the bundle
is finished: what has its final name is complete. A bundle that fails leaves nothing else; of a process that is killed
the hidden files stay. Names begin with the time at which a file was begun, so that they sort by it.
"""

import contextlib
import dataclasses
import datetime
import logging
import os
import uuid
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.io.filesystem import BeamIOError
from apache_beam.io.filesystems import FileSystems

from sluice.models.errors import SluiceError
from sluice.transforms.core.beam_files import HIDDEN, check_name
from sluice.transforms.core.composite import Composite
from sluice.transforms.core.failures import FULL, Failure
from sluice.transforms.encode.base import OutputSpec
from sluice.transforms.files.write import (
    BatchFormat,
    FailureFormat,
    Format,
    OpenFile,
    Target,
    check_writable,
    write_rows,
)

_LOG = logging.getLogger(__name__)

_MAX_ROWS = 1_000_000
_MAX_BYTES = 256 << 20


@dataclasses.dataclass(frozen=True)
class StreamTarget:
    """Where files go: PREFIX-20260131T235959.123456Z-89abcdefSUFFIX, by UTC.

    Attributes:
      max_rows, max_bytes: of a file; the batch that reaches either is its last. Parquet is held back and counted by
        row group, of 64 k rows.
    """

    prefix: str
    suffix: str
    max_rows: int = _MAX_ROWS
    max_bytes: int = _MAX_BYTES

    @property
    def directory(self) -> str:
        """With its slash; "" for the current one."""
        return self.prefix[: self.prefix.rfind("/") + 1]

    def name(self, begun: datetime.datetime, token: str) -> str:
        """Returns the final name of a file.

        Args:
          token: tells files apart that several workers begin at once.
        """
        return f"{self.prefix}-{begun:%Y%m%dT%H%M%S.%fZ}-{token}{self.suffix}"


def check_stream_target(prefix: str, suffix: str) -> None:
    """Checks at launch that files can be written to a place, by writing and deleting one.

    Raises:
      UsageError: they cannot, or the name is a pattern.
    """
    check_name(prefix + suffix, prefix + suffix)
    check_writable(Target(prefix, suffix, f"{StreamTarget(prefix, suffix).directory}{HIDDEN}{uuid.uuid4().hex}"))


class WriteStreamFiles(Composite):
    """Writes RecordBatches; gives the `Failure`s of rows that the format cannot hold.

    Args:
      max_rows, max_bytes: see StreamTarget.
    """

    def __init__(
        self, prefix: str, suffix: str, spec: OutputSpec, max_rows: int = _MAX_ROWS, max_bytes: int = _MAX_BYTES
    ) -> None:
        super().__init__()
        self._fn = _WriteStreamBatches(StreamTarget(prefix, suffix, max_rows, max_bytes), BatchFormat(spec))

    def expand(self, batches: beam.PCollection[pa.RecordBatch]) -> beam.PCollection[Failure]:
        return batches | "Files" >> beam.ParDo(self._fn)


class WriteFailureFiles(Composite):
    """Writes failures as JSON Lines; gives nothing.

    Args:
      payload_mode: see transforms.core.failures.to_record.
      suffix: one that ends in .gz makes packed files.
      max_rows, max_bytes: see StreamTarget.
    """

    def __init__(
        self,
        prefix: str,
        payload_mode: str = FULL,
        suffix: str = ".jsonl",
        max_rows: int = _MAX_ROWS,
        max_bytes: int = _MAX_BYTES,
    ) -> None:
        super().__init__()
        self._fn = _WriteStream(StreamTarget(prefix, suffix, max_rows, max_bytes), FailureFormat(payload_mode))

    def expand(self, failures: beam.PCollection[Failure]) -> beam.PCollection[Failure]:
        return failures | "Files" >> beam.ParDo(self._fn)


@beam.typehints.with_output_types(Failure)
class _WriteStream(beam.DoFn):
    def __init__(self, target: StreamTarget, format_: Format) -> None:
        self._target = target
        self._format = format_
        # Of this bundle, each with its final name; only the last may be open.
        self._files: list[tuple[OpenFile, str]] = []
        self._is_open = False

    def start_bundle(self) -> None:
        self.teardown()

    def process(self, element: Any) -> Iterator[Failure]:
        self._add(element)
        self._close_if_full()
        yield from ()

    def _add(self, element: Any) -> None:
        if not self._is_open:
            self._files.append(open_file(self._target, self._format))
            self._is_open = True
        self._files[-1][0].write(element)

    def _close_if_full(self) -> None:
        file, _ = self._files[-1]
        if file.rows >= self._target.max_rows or file.size >= self._target.max_bytes:
            self._close()

    def _close(self) -> None:
        self._files[-1][0].close(sync=True)
        self._is_open = False

    def finish_bundle(self) -> None:
        """Raises where a file cannot be put in place, so that its rows come again."""
        if self._is_open:
            self._close()
        for file, name in self._files:
            if file.rows:
                rename_finished(file.path, name)
            else:  # the format holds none of the bundle's rows
                file.drop()
        self._files = []

    def teardown(self) -> None:
        """Drops what a bundle that failed has left behind."""
        left, self._files, self._is_open = self._files, [], False
        for file, _ in left:
            file.drop()


class _WriteStreamBatches(_WriteStream):
    """Counts: rows_failed."""

    def process(self, element: pa.RecordBatch) -> Iterator[Failure]:
        yield from write_rows(element, self._add)
        self._close_if_full()


def open_file(target: StreamTarget, format_: Format) -> tuple[OpenFile, str]:
    """Returns a new file, under its hidden name, and the name for `rename_finished`."""
    token = uuid.uuid4().hex
    # Nothing that looks for the suffix finds it, whatever it thinks of hidden files.
    hidden = f"{target.directory}{HIDDEN}{token}.tmp"
    name = target.name(datetime.datetime.now(datetime.UTC), token[:8])
    return OpenFile(hidden, format_, target.suffix.endswith(".gz")), name


def rename_finished(path: str, name: str) -> None:
    """Renames a finished file. On a local disk the name, too, outlives a crash of the machine then.

    Raises:
      SluiceError: it cannot be done, or another file has the name.
    """
    try:
        if "://" in path:
            _rename_remote(path, name)
        else:
            _rename_local(path, name)
    except (OSError, BeamIOError) as error:
        raise SluiceError(f"{path} could not be renamed to {name}: {error}") from error


def _rename_local(path: str, name: str) -> None:
    """Unlike os.rename, a new hard link never replaces a file."""
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
    """An object store copies and then deletes; the copy is there as a whole or not at all."""
    try:
        FileSystems.rename([path], [name])
    except BeamIOError as error:
        if not FileSystems.exists(name):
            raise
        _LOG.warning("%s is copied to %s and could not be deleted: %s", path, name, error)
