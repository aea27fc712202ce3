"""Batches and failures of a batch job to files, which appear only when the job succeeds.

Each bundle writes a file of its own in a hidden directory. The last step of the job gets the files of the bundles that
succeeded, checks the failure rate, and renames them to their final names. So a bundle that is retried, or a job that
dies, leaves nothing that looks like output.
"""

import dataclasses
import logging
import re
import uuid
from collections.abc import Iterator
from typing import NamedTuple

import apache_beam as beam
import pyarrow as pa
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from sluice.models.errors import UsageError
from sluice.transforms.core.beam_files import delete_tree, match_files
from sluice.transforms.core.composite import Composite
from sluice.transforms.core.failures import FAILURES, FULL, FailedOutput, Failure
from sluice.transforms.encode.base import OutputSpec
from sluice.transforms.files.open_file import (
    BatchFormat,
    BatchOrFailure,
    Element,
    FailureFormat,
    Format,
    OpenFile,
    WriteElement,
    write_rows,
    write_whole,
)

_LOG = logging.getLogger(__name__)


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


class WrittenFiles(NamedTuple):
    """The outputs of writing batches: the `Shard`s, and the rows that the format cannot hold."""

    shards: beam.PCollection
    failures: beam.PCollection


class WriteShards(Composite):
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


class WriteFailureShards(beam.PTransform):
    """Writes failures as JSON Lines; returns `Shard`s, which `FilesCommitter` renames.

    Args:
      payload_mode: see transforms.core.failures.to_record; or the `Format` that writes them.
    """

    def __init__(self, target: Target, payload_mode: str | Format[Failure] = FULL) -> None:
        super().__init__()
        format_ = FailureFormat(payload_mode) if isinstance(payload_mode, str) else payload_mode
        self._fn = _WriteShards(target, format_, write_whole)

    def expand(self, failures: beam.PCollection[Failure]) -> beam.PCollection[Shard]:
        return failures | "Shards" >> beam.ParDo(self._fn)


@beam.typehints.with_output_types(Shard)
class _WriteShards(beam.DoFn):
    """Counts: rows_failed."""

    def __init__(self, target: Target, format_: Format[BatchOrFailure], write: WriteElement) -> None:
        self._target = target
        self._format = format_
        self._write = write
        self._open: OpenShard[BatchOrFailure] | None = None

    def start_bundle(self) -> None:
        self.teardown()

    def process(self, element: BatchOrFailure) -> Iterator[Shard | FailedOutput]:
        for failure in self._write(element, self._add):
            yield beam.pvalue.TaggedOutput(FAILURES, failure)

    def _add(self, element: BatchOrFailure) -> None:
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
        delete_tree(target.temp)
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
