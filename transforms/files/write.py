"""Batches and failures to files that appear only once they are finished, and only if the job is a success.

Each bundle writes a file of its own in a hidden directory. One last step sees the files of the bundles that succeeded,
judges the job, and renames them into place: a bundle that is tried again, or a job that dies, leaves nothing that looks
like output.
"""

import dataclasses
import gzip
import logging
import os
import re
import uuid
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Literal, NamedTuple, Protocol, TypeAlias, cast

import apache_beam as beam
import pyarrow as pa
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from sluice.models.errors import SluiceError, UsageError
from sluice.transforms.core import metrics
from sluice.transforms.core.batches import failure_of
from sluice.transforms.core.beam_files import delete_files, match_files
from sluice.transforms.core.composite import Composite
from sluice.transforms.core.failures import ENCODE, FULL, Failure, to_json
from sluice.transforms.encode.base import OutputSpec
from sluice.transforms.encode.encoders import open_encoder

_LOG = logging.getLogger(__name__)

FAILURES = "failures"

_Failed: TypeAlias = beam.pvalue.TaggedOutput[Literal["failures"], Failure]

_GZIP_LEVEL = 6


@dataclasses.dataclass(frozen=True)
class Target:
    """Where a set of files goes: PREFIX-00000-of-00003SUFFIX, as Beam names shards.

    Attributes:
      temp: a directory of this job alone, on the same file system, that the files are written to first.
    """

    prefix: str
    suffix: str
    temp: str

    @property
    def pattern(self) -> str:
        """A glob of the files that this target may have from any run."""
        return f"{self.prefix}-*-of-*{self.suffix}"

    def shard(self, number: int, count: int) -> str:
        """Returns the name of one file of the set."""
        return f"{self.prefix}-{number:05d}-of-{count:05d}{self.suffix}"


@dataclasses.dataclass(frozen=True)
class Shard:
    """A file that one bundle has finished, under its temporary name.

    Attributes:
      size: bytes.
    """

    path: str
    rows: int
    size: int


def existing_files(target: Target) -> list[str]:
    """Returns the files that stand where the target's would go."""
    named = re.compile(re.escape(target.prefix) + r"-\d+-of-\d+" + re.escape(target.suffix) + "$")
    return [file.path for file in match_files(target.pattern) if named.match(file.path)]


class Format(Protocol):
    """What elements become bytes by. Picklable."""

    def open(self, file: BinaryIO) -> Any:
        """Returns an object with `write(element) -> rows` and `close()`."""


@dataclasses.dataclass(frozen=True)
class BatchFormat:
    spec: OutputSpec

    def open(self, file: BinaryIO) -> "_BatchWriter":
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
    payload_mode: str

    def open(self, file: BinaryIO) -> "_FailureWriter":
        return _FailureWriter(file, self.payload_mode)


class _FailureWriter:
    def __init__(self, file: BinaryIO, payload_mode: str) -> None:
        self._file, self._mode = file, payload_mode

    def write(self, failure: Failure) -> int:
        self._file.write(to_json(failure, self._mode) + b"\n")
        return 1

    def close(self) -> None:
        pass


class Written(NamedTuple):
    """What writing batches gives: the files' `Shard`s, and the rows that the format cannot hold."""

    shards: beam.PCollection
    failures: beam.PCollection


class WriteFiles(Composite):
    """Writes RecordBatches; gives the `Shard`s, which `FilesCommitter` puts in their place, and failures.

    Args:
      spec: what the files hold, or the `Format` that writes them.
    """

    def __init__(self, target: Target, spec: OutputSpec | Format) -> None:
        super().__init__()
        self._fn = _WriteBatches(target, BatchFormat(spec) if isinstance(spec, OutputSpec) else spec)

    def expand(self, batches: beam.PCollection[pa.RecordBatch]) -> Written:
        written = batches | "Shards" >> beam.ParDo(self._fn).with_outputs(FAILURES, main="shards")
        return Written(written.shards, written[FAILURES])


class WriteFailures(beam.PTransform):
    """Writes failures as JSON Lines; gives the `Shard`s, which `FilesCommitter` puts in their place.

    Args:
      payload_mode: see transforms.core.failures.to_record.
    """

    def __init__(self, target: Target, payload_mode: str = FULL) -> None:
        super().__init__()
        self._fn = _WriteShards(target, FailureFormat(payload_mode))

    def expand(self, failures: beam.PCollection[Failure]) -> beam.PCollection[Shard]:
        return failures | "Shards" >> beam.ParDo(self._fn)


@beam.typehints.with_output_types(Shard)
class _WriteShards(beam.DoFn):
    def __init__(self, target: Target, format_: Format) -> None:
        self._target = target
        self._format = format_
        self._open: OpenShard | None = None

    def start_bundle(self) -> None:
        self.teardown()

    def process(self, element: Any) -> Iterator[Any]:
        self._add(element)
        yield from ()

    def _add(self, element: Any) -> None:
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


class _WriteBatches(_WriteShards):
    """Counts: rows_failed."""

    def process(self, element: pa.RecordBatch) -> Iterator[Shard | _Failed]:
        for failure in write_rows(element, self._add):
            yield beam.pvalue.TaggedOutput(FAILURES, failure)


def write_rows(batch: pa.RecordBatch, write: Callable[[pa.RecordBatch], None]) -> Iterator[Failure]:
    """Writes a batch; where an encoder refuses it, its halves, until the rows at fault stand alone: those are given.

    Counts: rows_failed.
    """
    try:
        write(batch)
    except SluiceError as error:  # raised before a byte of the batch is written
        if batch.num_rows > 1:
            middle = batch.num_rows // 2
            yield from write_rows(batch.slice(0, middle), write)
            yield from write_rows(batch.slice(middle), write)
        else:
            failure = failure_of(batch, 0, ENCODE, type(error).__name__, str(error))
            metrics.count_failure(failure.stage, failure.error_type)
            yield failure


class OpenFile:
    """A file that is being written under a temporary name.

    Attributes:
      rows: written so far.
    """

    def __init__(self, path: str, format_: Format, gzipped: bool) -> None:
        self.path = path
        self.rows = 0
        self._file = cast(BinaryIO, FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED))
        self._sink = self._file
        if gzipped:
            self._sink = cast(BinaryIO, gzip.GzipFile("", "wb", _GZIP_LEVEL, self._file, mtime=0))
        self._writer = format_.open(self._sink)

    @property
    def size(self) -> int:
        """Bytes so far, without what the format's encoder still holds back."""
        return self._file.tell()

    def write(self, element: Any) -> None:
        self.rows += self._writer.write(element)

    def close(self, sync: bool = False) -> None:
        """Completes the file.

        Args:
          sync: returns only when a file on a local disk would outlive a crash of the machine.
        """
        self._writer.close()
        if self._sink is not self._file:
            self._sink.close()
        if sync and "://" not in self.path:
            self._file.flush()
            os.fsync(self._file.fileno())
        self._file.close()

    def drop(self) -> None:
        """Gives up a file of a bundle that failed; that it cannot be deleted must not fail the next one."""
        try:
            self._file.close()
            delete_files([self.path])
        except Exception as error:  # noqa: BLE001
            _LOG.warning("%s of a bundle that failed is left behind: %s", self.path, error)


class OpenShard(OpenFile):
    """A file of a target's set."""

    def __init__(self, target: Target, format_: Format) -> None:
        super().__init__(f"{target.temp}/{uuid.uuid4().hex}{target.suffix}", format_, target.suffix.endswith(".gz"))

    def finish(self) -> Shard:
        self.close()
        (written,) = FileSystems.match([self.path])[0].metadata_list
        return Shard(self.path, self.rows, written.size_in_bytes)


def remove_temp(target: Target) -> None:
    """Deletes the temporary directory with whatever bundles that failed have left in it."""
    try:
        FileSystems.delete([f"{target.temp}/" if "://" in target.temp else target.temp])
    except Exception as error:  # noqa: BLE001  the job's outcome stands, whatever a file system says to this
        _LOG.debug("%s is not removed: %s", target.temp, error)


def check_writable(target: Target) -> None:
    """Writes and deletes a small file where the job would write.

    Raises:
      UsageError: the place cannot be written to.
    """
    path = f"{target.temp}/writable"
    try:
        with FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
            file.write(b"Sluice was here.\n")
    except Exception as error:
        raise UsageError(f"{target.prefix} cannot be written to: {error}") from error
    remove_temp(target)
