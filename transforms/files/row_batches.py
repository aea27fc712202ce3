"""Single rows on their way to files: gathered into RecordBatches."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from sluice.transforms.core.rows import MISFIT, fields_of, is_number, listed, row_bytes

# A batch has so many rows, or bytes of values, at most.
_MAX_ROWS, _MAX_BYTES = 4096, 16 << 20


@beam.typehints.with_output_types(pa.RecordBatch)
class GatherRows(beam.DoFn):
    """Gathers the dicts, NamedTuples and beam.Rows of a bundle. RecordBatches pass as they are.

    Args:
      schema: of the batches; None: as the rows of each batch have it.
    """

    def __init__(self, schema: pa.Schema | None) -> None:
        self._schema = schema

    def start_bundle(self) -> None:
        self._rows: list[Mapping[str, Any]] = []
        self._bytes = 0

    def process(self, row: Any) -> Iterator[pa.RecordBatch]:
        if isinstance(row, pa.RecordBatch):
            yield row
            return
        fields = fields_of(row)
        if fields is None:
            raise TypeError(f"files are written of RecordBatches, dicts, NamedTuples or beam.Rows, found {type(row)}")
        self._rows.append(fields)
        self._bytes += row_bytes(row)
        if len(self._rows) >= _MAX_ROWS or self._bytes >= _MAX_BYTES:
            yield self._take()

    def finish_bundle(self) -> Iterator[WindowedValue]:
        if self._rows:
            yield WindowedValue(self._take(), GlobalWindow().max_timestamp(), [GlobalWindow()])

    def _take(self) -> pa.RecordBatch:
        rows, self._rows, self._bytes = self._rows, [], 0
        return rows_to_batch(rows, self._schema)


def rows_to_batch(rows: Sequence[Mapping[str, Any]], schema: pa.Schema | None) -> pa.RecordBatch:
    """Returns rows as columns, in the order in which their names first come. A field that a row lacks is null.

    Raises:
      TypeError: the values of a column are of different types, or not of that of the schema.
    """
    if schema is not None:
        columns = [_column(rows, field.name, field.type) for field in schema]
        return pa.RecordBatch.from_arrays(columns, schema=schema)
    names = list(dict.fromkeys(name for row in rows for name in row))
    return pa.RecordBatch.from_arrays([_column(rows, name, None) for name in names], names)


def _column(rows: Sequence[Mapping[str, Any]], name: str, kind: pa.DataType | None) -> pa.Array:
    values = [listed(row.get(name)) for row in rows]
    try:
        if kind is not None and is_number(kind):  # else pyarrow would cut 1.5 to 1
            return pa.array(values).cast(kind)
        return pa.array(values, kind)
    except MISFIT as error:
        raise TypeError(f"column '{name}': {error}; give the types of all columns, as a pyarrow schema") from error
