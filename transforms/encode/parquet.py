"""Scored rows as Parquet."""

import io
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from sluice.models.tensors.column_types import is_list
from sluice.transforms.encode.base import OutputSpec, select_columns

# A reader reads a row group at once. A row group for each batch, of some hundred rows, would be tiny.
_GROUP_ROWS = 64 << 10
_GROUP_BYTES = 64 << 20


def parquet_unsupported(kind: pa.DataType) -> str | None:
    """Returns the type if pyarrow cannot write it to Parquet, or None."""
    try:
        pq.ParquetWriter(io.BytesIO(), pa.schema([("column", kind)])).close()
    except (pa.ArrowException, NotImplementedError, OSError):
        return str(kind)
    return None


def _written_type(kind: pa.DataType) -> pa.DataType:
    """Returns the type with lists of variable size in place of fixed ones, and the units of Parquet.

    pyarrow cannot read a null among lists of fixed size: https://github.com/apache/arrow/issues/35692. Parquet has no
    seconds, and counts dates in 32 bits of days. pyarrow converts them when it writes a row group; an overflow then
    fails all its rows, or passes unseen.
    """
    if pa.types.is_date64(kind):
        return pa.date32()
    if pa.types.is_timestamp(kind) and kind.unit == "s":
        return pa.timestamp("ms", kind.tz)
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_written_type(field.type)) for field in kind])
    if not is_list(kind):
        return kind
    item = kind.value_field.with_type(_written_type(kind.value_type))
    return pa.large_list(item) if pa.types.is_large_list(kind) else pa.list_(item)


class _Sink:
    """A file for pyarrow: it has `tell` and `closed`, which a stream may lack, and `close` leaves the file open."""

    closed = False

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._position = 0

    def write(self, data: bytes) -> int:
        self._file.write(data)
        self._position += len(data)
        return len(data)

    def tell(self) -> int:
        return self._position

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


class ParquetEncoder:
    """A Parquet file with pyarrow's defaults (snappy), in row groups of up to 64 k rows or 64 MB.

    Batches are held until they fill a row group, so memory is bounded by a row group and one batch.
    """

    def __init__(self, file: BinaryIO, spec: OutputSpec) -> None:
        fields = [field.with_type(_written_type(field.type)) for field in spec.schema]
        self._schema = pa.schema(fields, spec.schema.metadata)
        self._writer = pq.ParquetWriter(pa.PythonFile(_Sink(file), mode="w"), self._schema)
        self._batches: list[pa.RecordBatch] = []
        self._rows = 0
        self._bytes = 0

    def write(self, batch: pa.RecordBatch) -> None:
        selected = select_columns(batch, self._schema)
        self._batches.append(selected)
        self._rows += selected.num_rows
        self._bytes += selected.nbytes
        if self._rows >= _GROUP_ROWS or self._bytes >= _GROUP_BYTES:
            self._write_group()

    def close(self) -> None:
        if self._rows:
            self._write_group()
        self._writer.close()

    def _write_group(self) -> None:
        table = pa.Table.from_batches(self._batches, self._schema)
        self._writer.write_table(table, row_group_size=self._rows)
        self._batches, self._rows, self._bytes = [], 0, 0
