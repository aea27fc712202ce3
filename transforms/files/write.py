"""Batches and failures of a batch job to files, which appear only when the job succeeds.

Each bundle writes a file of its own in a hidden directory. The last step of the job gets the files of the bundles that
succeeded, checks the failure rate, and renames them to their final names. So a bundle that is retried, or a job that
dies, leaves nothing that looks like output.
"""

import dataclasses
import gzip
import logging
import os
import re
import uuid
from collections.abc import Callable, Iterator
from typing import BinaryIO, Generic, NamedTuple, Protocol, TypeAlias, TypeVar, cast

import apache_beam as beam
import pyarrow as pa
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from sluice.models.errors import SluiceError, UsageError
from sluice.models.isolate import isolate
from sluice.transforms.core.batches import failure_of
from sluice.transforms.core.beam_files import delete_files, match_files
from sluice.transforms.core.composite import Composite
from sluice.transforms.core.failures import ENCODE, FAILURES, FULL, FailedOutput, Failure, count_failures, to_json
from sluice.transforms.encode.base import OutputSpec
from sluice.transforms.encode.formats import open_encoder

_LOG = logging.getLogger(__name__)

_GZIP_LEVEL = 6


@dataclasses.dataclass(frozen=True)
class Target:
    """The names of a set of files: PREFIX-00000-of-00003SUFFIX, as Beam names shards.

    Attributes:
      temp: a directory of this job alone, on the same file system, for the unfinished files.
    """

    prefix: str
    suffix: str
    temp: str

    @property
    def pattern(self) -> str:
        """The glob of the files that any run may have left under this target."""
        return f"{self.prefix}-*-of-*{self.suffix}"

    def shard(self, number: int, count: int) -> str:
        """Returns the name of one file of the set."""
        return f"{self.prefix}-{number:05d}-of-{count:05d}{self.suffix}"


@dataclasses.dataclass(frozen=True)
class Shard:
    """A file that a bundle has finished, under its temporary name.

    Attributes:
      size: bytes.
    """

    path: str
    rows: int
    size: int


def existing_files(target: Target) -> list[str]:
    """Returns the files that have the names of the target's shards."""
    named = re.compile(re.escape(target.prefix) + r"-\d+-of-\d+" + re.escape(target.suffix) + "$")
    return [file.path for file in match_files(target.pattern) if named.match(file.path)]


Element = TypeVar("Element", contravariant=True)


class Writer(Protocol[Element]):
    """Writes elements to an open file."""

    def write(self, element: Element, /) -> int:
        """Writes an element; returns its number of rows.

        Raises:
          SluiceError: the format cannot hold a row of it. Nothing is written.
        """

    def close(self) -> None:
        """Writes the end of the format. The file itself stays open."""


class Format(Protocol[Element]):
    """How elements, batches or failures, become the bytes of a file. Picklable."""

    def open(self, file: BinaryIO) -> Writer[Element]:
        """Returns a writer to the file."""


@dataclasses.dataclass(frozen=True)
class BatchFormat:
    """RecordBatches in a format of transforms.encode.formats."""

    spec: OutputSpec

    def open(self, file: BinaryIO) -> Writer[pa.RecordBatch]:
        return _BatchWriter(file, self.spec)


class _BatchWriter:
    def __init__(self, file: BinaryIO, spec: OutputSpec) -> None:
        self._encoder = open_encoder(file, spec)

    def write(self, batch: pa.RecordBatch) -> int:
        self._encoder.write(batch)
        return batch.num_rows

    def close(self) -> None:
        self._encoder.close()


@dataclasses.dataclass(frozen=True)
class FailureFormat:
    """Failures as JSON Lines."""

    payload_mode: str

    def open(self, file: BinaryIO) -> Writer[Failure]:
        return _FailureWriter(file, self.payload_mode)


class _FailureWriter:
    def __init__(self, file: BinaryIO, payload_mode: str) -> None:
        self._file, self._mode = file, payload_mode

    def write(self, failure: Failure) -> int:
        self._file.write(to_json(failure, self._mode) + b"\n")
        return 1

    def close(self) -> None:
        pass


class WrittenFiles(NamedTuple):
    """The outputs of writing batches: the `Shard`s, and the rows that the format cannot hold."""

    shards: beam.PCollection
    failures: beam.PCollection


class WriteFiles(Composite):
    """Writes RecordBatches; returns `Shard`s, which `FilesCommitter` renames, and failures.

    Args:
      spec: the contents of the files, or the `Format` that writes them.
    """

    def __init__(self, target: Target, spec: OutputSpec | Format[pa.RecordBatch]) -> None:
        super().__init__()
        self._fn = _WriteShards(target, BatchFormat(spec) if isinstance(spec, OutputSpec) else spec, write_rows)

    def expand(self, batches: beam.PCollection[pa.RecordBatch]) -> WrittenFiles:
        written = batches | "Shards" >> beam.ParDo(self._fn).with_outputs(FAILURES, main="shards")
        return WrittenFiles(written.shards, written[FAILURES])


class WriteFailures(beam.PTransform):
    """Writes failures as JSON Lines; returns `Shard`s, which `FilesCommitter` renames.

    Args:
      payload_mode: see transforms.core.failures.to_record.
    """

    def __init__(self, target: Target, payload_mode: str = FULL) -> None:
        super().__init__()
        self._fn = _WriteShards(target, FailureFormat(payload_mode), write_whole)

    def expand(self, failures: beam.PCollection[Failure]) -> beam.PCollection[Shard]:
        return failures | "Shards" >> beam.ParDo(self._fn)


# What files are written from, and a function that writes one of them by another: `write_rows` or `write_whole`.
Written: TypeAlias = pa.RecordBatch | Failure
WriteElement: TypeAlias = Callable[[Written, Callable[[Written], None]], Iterator[Failure]]


@beam.typehints.with_output_types(Shard)
class _WriteShards(beam.DoFn):
    """Counts: rows_failed."""

    def __init__(self, target: Target, format_: Format[Written], write: WriteElement) -> None:
        self._target = target
        self._format = format_
        self._write = write
        self._open: OpenShard[Written] | None = None

    def start_bundle(self) -> None:
        self.teardown()

    def process(self, element: Written) -> Iterator[Shard | FailedOutput]:
        for failure in self._write(element, self._add):
            yield beam.pvalue.TaggedOutput(FAILURES, failure)

    def _add(self, element: Written) -> None:
        if self._open is None:
            self._open = OpenShard(self._target, self._format)
        self._open.write(element)

    def finish_bundle(self) -> Iterator[WindowedValue]:
        if self._open is not None:
            shard, self._open = self._open.finish(), None
            yield WindowedValue(shard, GlobalWindow().max_timestamp(), [GlobalWindow()])

    def teardown(self) -> None:
        left, self._open = self._open, None
        if left is not None:
            left.drop()


def write_rows(batch: pa.RecordBatch, write: Callable[[pa.RecordBatch], None]) -> Iterator[Failure]:
    """Writes a batch; if that is refused, writes halves until each row at fault is alone, and yields their failures.

    Counts: rows_failed.

    Args:
      write: raises SluiceError, before it has written anything, if it refuses a row of its batch.
    """
    for part in isolate(batch.num_rows, lambda start, stop: write(batch.slice(start, stop - start)), SluiceError):
        if part.error is not None:
            failure = failure_of(batch, part.start, ENCODE, type(part.error).__name__, str(part.error))
            count_failures([failure])
            yield failure


def write_whole(element: Written, write: Callable[[Written], None]) -> Iterator[Failure]:
    """Writes an element that no format refuses."""
    write(element)
    return iter(())


class OpenFile(Generic[Element]):
    """An unfinished file under a temporary name.

    Attributes:
      rows: the number written so far.
    """

    def __init__(self, path: str, format_: Format[Element], gzipped: bool) -> None:
        self.path = path
        self.rows = 0
        self._file = cast(BinaryIO, FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED))
        self._sink = self._file
        if gzipped:
            self._sink = cast(BinaryIO, gzip.GzipFile("", "wb", _GZIP_LEVEL, self._file, mtime=0))
        self._writer = format_.open(self._sink)

    @property
    def size(self) -> int:
        """The bytes written so far, without those that the encoder holds back."""
        return self._file.tell()

    def write(self, element: Element) -> None:
        self.rows += self._writer.write(element)

    def close(self, sync: bool = False) -> None:
        """Completes the file.

        Args:
          sync: returns only when the contents of a local file would survive a crash of the machine.
        """
        self._writer.close()
        if self._sink is not self._file:
            self._sink.close()
        if sync and "://" not in self.path:
            self._file.flush()
            os.fsync(self._file.fileno())
        self._file.close()

    def drop(self) -> None:
        """Deletes the file of a failed bundle. An error is logged only: it must not fail the next bundle."""
        try:
            self._file.close()
            delete_files([self.path])
        except Exception as error:  # noqa: BLE001
            _LOG.warning("%s of a failed bundle is left behind: %s", self.path, error)


class OpenShard(OpenFile[Element]):
    """An unfinished file of a target's set."""

    def __init__(self, target: Target, format_: Format[Element]) -> None:
        super().__init__(f"{target.temp}/{uuid.uuid4().hex}{target.suffix}", format_, target.suffix.endswith(".gz"))

    def finish(self) -> Shard:
        self.close()
        (written,) = FileSystems.match([self.path])[0].metadata_list
        return Shard(self.path, self.rows, written.size_in_bytes)


def remove_temp(target: Target) -> None:
    """Deletes the temporary directory, with the files of failed bundles in it."""
    try:
        FileSystems.delete([f"{target.temp}/" if "://" in target.temp else target.temp])
    except Exception as error:  # noqa: BLE001  the outcome of the job is known by now
        _LOG.debug("%s is not removed: %s", target.temp, error)


def check_writable(target: Target) -> None:
    """Checks at launch that the job can write, with a small file.

    Raises:
      UsageError: it cannot.
    """
    path = f"{target.temp}/writable"
    try:
        with FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
            file.write(b"Sluice was here.\n")
    except Exception as error:
        raise UsageError(f"{target.prefix} cannot be written to: {error}") from error
    remove_temp(target)
