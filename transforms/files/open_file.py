"""A file that is being written: the formats of batches and of failures, and the rows that a format refuses."""

import dataclasses
import gzip
import logging
import os
from collections.abc import Callable, Iterator
from typing import BinaryIO, Generic, Protocol, TypeAlias, TypeVar, cast

import pyarrow as pa
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from sluice.models.errors import SluiceError, UsageError
from sluice.models.isolate import isolate
from sluice.models.reserved import is_reserved
from sluice.models.wording import text_of
from sluice.transforms.core.beam_files import delete_files
from sluice.transforms.core.failures import ENCODE, Failure, count_failures, to_json
from sluice.transforms.encode.base import Encoder, OutputSpec
from sluice.transforms.encode.formats import check_output_spec, open_encoder
from sluice.transforms.encode.rows import scored_failure

_LOG = logging.getLogger(__name__)

_GZIP_LEVEL = 6

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
class FirstBatchFormat:
    """RecordBatches, with the columns that the first one of a file has, but for our own.

    Attributes:
      format: see OutputSpec, as for `flatten`.
    """

    format: str
    flatten: bool = False

    def open(self, file: BinaryIO) -> Writer[pa.RecordBatch]:
        return _FirstBatchWriter(file, self)


def columns_text(batch: pa.RecordBatch) -> str:
    """Returns the names and types of the columns of a batch, but for our own."""
    return ", ".join(f"{field.name} {field.type}" for field in batch.schema if not is_reserved(field.name))


def different_columns(one: str, other: str) -> str:
    """Returns the text of the error for batches with different `columns_text`."""
    return f"batches have different columns: {one}; and {other}. Give all of them the same before they are written"


class _FirstBatchWriter:
    def __init__(self, file: BinaryIO, format_: FirstBatchFormat) -> None:
        self._file, self._format = file, format_
        self._encoder: Encoder | None = None
        self._columns = ""

    def write(self, batch: pa.RecordBatch) -> int:
        columns = columns_text(batch)
        if self._encoder is None:
            self._encoder, self._columns = open_encoder(self._file, self._spec(batch.schema)), columns
        if columns != self._columns:
            raise TypeError(different_columns(self._columns, columns))
        self._encoder.write(batch)
        return batch.num_rows

    def _spec(self, schema: pa.Schema) -> OutputSpec:
        """Returns what the file holds. Columns that no row of could be written are not the fault of rows."""
        kept = pa.schema([field for field in schema if not is_reserved(field.name)])
        spec = OutputSpec(self._format.format, kept, flatten=self._format.flatten)
        try:
            check_output_spec(spec)
        except UsageError as error:
            raise TypeError(str(error)) from error
        return spec

    def close(self) -> None:
        if self._encoder is not None:
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


# What files are written from, and a function that writes one of them by another: `write_rows` or `write_whole`.
BatchOrFailure: TypeAlias = pa.RecordBatch | Failure
WriteElement: TypeAlias = Callable[[BatchOrFailure, Callable[[BatchOrFailure], None]], Iterator[Failure]]


def write_rows(batch: pa.RecordBatch, write: Callable[[pa.RecordBatch], None]) -> Iterator[Failure]:
    """Writes a batch; if that is refused, writes halves until each row at fault is alone, and yields their failures.

    Counts: rows_failed.

    Args:
      write: raises SluiceError, before it has written anything, if it refuses a row of its batch.
    """
    for part in isolate(batch.num_rows, lambda start, stop: write(batch.slice(start, stop - start)), SluiceError):
        if part.error is not None:
            failure = scored_failure(batch, part.start, ENCODE, type(part.error).__name__, text_of(part.error))
            count_failures([failure])
            yield failure


def write_whole(element: BatchOrFailure, write: Callable[[BatchOrFailure], None]) -> Iterator[Failure]:
    """Writes an element that no format refuses."""
    write(element)
    return iter(())
