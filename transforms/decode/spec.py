"""What decoding is told, and what it gives."""

import collections
import dataclasses
import zlib
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa

from sluice.transforms.core import metrics
from sluice.transforms.core.batches import with_origin, with_payload
from sluice.transforms.core.failures import DECODE, READ, Failure

CSV, JSONL, PARQUET, AVRO, TFRECORD = "csv", "jsonl", "parquet", "avro", "tfrecord"
# Of no file: a table, or what a query gives.
BIGQUERY = "bigquery"
# Their columns have types, and all rows the same columns.
TYPED = (PARQUET, AVRO, BIGQUERY)

# The error_type of a row that does not fit: there is no exception behind it.
INVALID_ROW = "InvalidRow"


@dataclasses.dataclass(frozen=True)
class CsvOptions:
    """How CSV files are written.

    Attributes:
      column_names: of files without a header line; empty: the first line of each file is its header.
      quote_char: "" if quotes have no meaning.
      allow_quoted_newlines: values may hold newlines; files are then read unsplit.
    """

    delimiter: str = ","
    quote_char: str = '"'
    column_names: tuple[str, ...] = ()
    allow_quoted_newlines: bool = False

    @property
    def quote(self) -> bytes:
        return self.quote_char.encode()


@dataclasses.dataclass(frozen=True)
class InputSpec:
    """What the files of a job hold, decided once at launch: nothing is inferred from a block.

    Attributes:
      format: "csv", "jsonl", "parquet", "avro", "tfrecord" or "bigquery".
      columns: (name, type) of those that are read, in order. In text formats a binary column is base64.
      examples: of TFRecords for a model that parses tf.Examples itself: the column that holds them whole.
      payload: carry each row's source text to where a failure or a writer may need it.
      header: of CSV whose lines are written as they are: the header that every file must have.
      added: of JSON objects that are written as they are: the names that the output adds to them.
    """

    format: str
    columns: tuple[tuple[str, pa.DataType], ...]
    csv: CsvOptions = dataclasses.field(default_factory=CsvOptions)
    examples: str = ""
    payload: bool = True
    header: tuple[str, ...] = ()
    added: tuple[str, ...] = ()

    @property
    def schema(self) -> pa.Schema:
        return pa.schema(list(self.columns))


@dataclasses.dataclass
class Decoded:
    """Rows in order, and what failed of them.

    Attributes:
      batches: of the job's columns and the reserved ones.
    """

    batches: list[pa.RecordBatch] = dataclasses.field(default_factory=list)
    failures: list[Failure] = dataclasses.field(default_factory=list)

    @property
    def rows(self) -> int:
        """Rows in: good and bad."""
        return sum(batch.num_rows for batch in self.batches) + len(self.failures)

    def joined(self) -> "Decoded":
        """Returns the same rows in one batch."""
        if len(self.batches) < 2:
            return self
        return Decoded(pa.Table.from_batches(self.batches).combine_chunks().to_batches(), self.failures)

    def add(self, other: "Decoded") -> None:
        """Appends what came after."""
        self.batches += other.batches
        self.failures += other.failures


def row_failure(message: str, origin: str, payload: bytes) -> Failure:
    """Returns the failure of a row that could not be decoded."""
    return Failure(DECODE, INVALID_ROW, message, origin, payload)


def file_failure(error: Exception, origin: str) -> Failure:
    """Returns the failure of a file that cannot be read past `origin`."""
    # zlib calls its own "error"; an error that says nothing, such as EOFError, is at least named.
    name = f"zlib.{type(error).__name__}" if isinstance(error, zlib.error) else type(error).__name__
    return Failure(READ, name, str(error) or name, origin)


def finish(
    arrays: Sequence[pa.Array],
    spec: InputSpec,
    origin: str,
    positions: np.ndarray,
    payload: pa.Array | None,
) -> pa.RecordBatch:
    """Returns the batch of the job's columns with the reserved ones behind them."""
    batch = pa.RecordBatch.from_arrays(list(arrays), schema=spec.schema)
    batch = with_origin(batch, origin, positions)
    return with_payload(batch, payload) if spec.payload and payload is not None else batch


def halve(count: int, decode: Callable[[int, int], Decoded]) -> Decoded:
    """Decodes items [0, count) as two halves, in order."""
    decoded = decode(0, count // 2)
    decoded.add(decode(count // 2, count))
    return decoded


def count_decoded(decoded: Decoded, size: int) -> None:
    """Counts rows_read, bytes_read and rows_failed. On the bundle's thread, as `metrics.count`."""
    metrics.count(metrics.ROWS_READ, decoded.rows)
    metrics.count(metrics.BYTES_READ, size)
    kinds = collections.Counter((failure.stage, failure.error_type) for failure in decoded.failures)
    for (stage, error_type), failures in kinds.items():
        metrics.count_failure(stage, error_type, failures)
