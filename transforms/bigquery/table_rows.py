"""Rows of a batch as BigQuery's tabledata.insertAll takes them.

https://cloud.google.com/bigquery/docs/reference/rest/v2/tabledata/insertAll
"""

import collections
import dataclasses
import datetime
import io
import json
from collections.abc import Sequence
from typing import Any

import orjson
import pyarrow as pa

from sluice.models.errors import SluiceError
from sluice.models.reserved import MESSAGE_ID
from sluice.transforms.bigquery.table import PREDICTED_AT
from sluice.transforms.encode.base import OutputSpec
from sluice.transforms.encode.json import JsonEncoder

# Of a row, as the client sends it: what its envelope leaves of a request's 10 MB.
MAX_ROW_BYTES = 9_500_000
# Texts of up to this size stand for what the client makes of them, which has spaces too.
_SMALL_BYTES = 100_000
# Whole numbers that are larger come out changed where JSON's numbers are read as doubles; as text they do not.
_MAX_EXACT = 1 << 53


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """A row on its way into a table.

    Attributes:
      values: as insertAll takes them.
      size: bytes of the values as JSON.
      id: BigQuery drops rows whose id it has just seen; None: it does not look.
    """

    values: dict[str, Any]
    size: int
    id: str | None


@dataclasses.dataclass(frozen=True, slots=True)
class BatchRow(Row):
    """A row, and where it came from."""

    batch: pa.RecordBatch
    number: int


def coarse_schema(schema: pa.Schema) -> pa.Schema:
    """Returns the schema with microseconds for nanoseconds: BigQuery's times are no finer."""
    return pa.schema([field.with_type(_coarse(field.type)) for field in schema])


def table_rows(batch: pa.RecordBatch, schema: pa.Schema, predicted_at: datetime.datetime) -> list[BatchRow]:
    """Returns a batch's rows as insertAll takes them.

    Args:
      schema: which columns, and their types as `coarse_schema` gives them.
      predicted_at: in UTC.

    Raises:
      SluiceError: a column is missing, or has a value that its type or JSON cannot hold.
    """
    file = io.BytesIO()
    JsonEncoder(file, OutputSpec("jsonl", schema)).write(_cut(batch))
    when = predicted_at.isoformat(timespec="microseconds")
    return [
        _row(text, row_id, batch, number, when)
        for number, (text, row_id) in enumerate(zip(file.getvalue().split(b"\n")[:-1], _row_ids(batch), strict=True))
    ]


def _row(text: bytes, row_id: str | None, batch: pa.RecordBatch, number: int, predicted_at: str) -> BatchRow:
    try:
        values = insertable(orjson.loads(text)) | {PREDICTED_AT: predicted_at}
    except orjson.JSONDecodeError as error:
        raise SluiceError(f"the row holds text that is not UTF-8: {error}") from error
    is_small = len(text) <= _SMALL_BYTES and text.isascii()
    return BatchRow(values, len(text) if is_small else len(json.dumps(values)), row_id, batch, number)


def insertable(value: Any) -> Any:
    """Returns a value of JSON as insertAll takes it: no fields that are null (it refuses REPEATED ones then)."""
    if isinstance(value, dict):
        return {name: insertable(entry) for name, entry in value.items() if entry is not None}
    if isinstance(value, list):
        return [insertable(entry) for entry in value]
    if isinstance(value, int) and abs(value) > _MAX_EXACT:
        return str(value)
    return value


def _row_ids(batch: pa.RecordBatch) -> Sequence[str | None]:
    """Returns the ids of the rows' messages; None for those that share one, lest all but the first be dropped."""
    index = batch.schema.get_field_index(MESSAGE_ID)
    if index < 0:
        return [None] * batch.num_rows
    ids = batch.column(index).to_pylist()
    times = collections.Counter(ids)
    return [each if each and times[each] == 1 else None for each in ids]


def _coarse(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        return pa.timestamp("us", kind.tz)
    return pa.time64("us") if kind == pa.time64("ns") else kind


def _cut(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Returns the batch with nanoseconds cut off."""
    for place, name in enumerate(batch.schema.names):
        column = batch.column(place)
        if (kind := _coarse(column.type)) != column.type:
            batch = batch.set_column(place, name, column.cast(kind, safe=False))
    return batch
