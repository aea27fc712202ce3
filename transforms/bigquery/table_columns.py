"""Scored rows as the Storage Write API accepts them: Arrow, in types that fit the fields of the table.

https://cloud.google.com/bigquery/docs/supported-data-types#supported-arrow-data-types
"""

import datetime
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sluice.models.errors import SluiceError
from sluice.models.tensors.column_types import is_list
from sluice.transforms.bigquery.schema import Field, bigquery_to_arrow_schema, by_name
from sluice.transforms.bigquery.table import PREDICTED_AT
from sluice.transforms.encode.base import find_column, same_kind, shown_type

_MICROSECONDS = pa.timestamp("us", "UTC")
# BigQuery's first and last times: 0001-01-01 to 9999-12-31, in days and in microseconds; and of a day.
_DAYS = (-719_162, 2_932_896)
_MICROS = (-62_135_596_800_000_000, 253_402_300_799_999_999)
_DAY_MICROS = (0, 86_399_999_999)


def append_schema(schema: pa.Schema, fields: Iterable[Field]) -> pa.Schema:
    """Returns the columns to append to a table, `_predicted_at` as the last of them.

    Args:
      schema: of the scored rows, without `_predicted_at`.
      fields: the table's; they fit (see transforms.bigquery.table).
    """
    there = by_name(fields)
    predicted_at = there[PREDICTED_AT]
    sent = [_sent_field(field, there[field.name.lower()]) for field in schema]
    return pa.schema([*sent, pa.field(PREDICTED_AT, _MICROSECONDS, predicted_at.get("mode") != "REQUIRED")])


def _sent_field(field: pa.Field, there: Field) -> pa.Field:
    kind = shown_type(field.type)
    if is_list(kind):
        return pa.field(field.name, pa.list_(_sent_type(kind.value_type, there)))
    return pa.field(field.name, _sent_type(kind, there), there.get("mode") != "REQUIRED")


def _sent_type(kind: pa.DataType, there: Field) -> pa.DataType:
    """Returns the type in which values are sent: the field's own, or a narrower one that they have already."""
    if pa.types.is_struct(kind):
        inner = by_name(there["fields"])
        return pa.struct([_sent_field(field, inner[field.name.lower()]) for field in kind])
    target = bigquery_to_arrow_schema([{**there, "mode": "NULLABLE"}]).field(0).type
    if pa.types.is_signed_integer(kind) and target == pa.int64():
        return kind
    return kind if kind == pa.float32() and target == pa.float64() else target


def append_columns(batch: pa.RecordBatch, schema: pa.Schema, predicted_at: datetime.datetime) -> pa.RecordBatch:
    """Returns a batch's rows as they are appended.

    Dictionaries become their values; a list that is null becomes an empty one.

    Args:
      schema: see `append_schema`.
      predicted_at: in UTC.

    Raises:
      SluiceError: a column is missing, is of another kind, or has a value that BigQuery refuses in it.
    """
    columns = [
        _convert(find_column(batch, field.name), field, field.name) for field in schema if field.name != PREDICTED_AT
    ]
    when = pa.repeat(pa.scalar(predicted_at, _MICROSECONDS), batch.num_rows)
    return pa.RecordBatch.from_arrays([*columns, when], schema=schema)


def _convert(array: pa.Array, field: pa.Field, path: str, absent: int = 0) -> pa.Array:
    """Returns the column in the field's type.

    Args:
      absent: how many of the nulls are in records that are null themselves.
    """
    if array.null_count > absent and not field.nullable:
        raise SluiceError(f"column '{path}' is REQUIRED in the table, and null here")
    try:
        array = _plain(array)
        if pa.types.is_null(array.type):
            array = array.cast(field.type)
        if pa.types.is_list(field.type):
            return _convert_lists(array, field, path)
        if pa.types.is_struct(field.type):
            return _convert_records(array, field, path)
        return _convert_values(array, field.type, path)
    except pa.ArrowException as error:
        raise SluiceError(f"column '{path}': {array.type} does not fit {field.type} of the table: {error}") from error


def _plain(array: pa.Array) -> pa.Array:
    """Returns the array without extension types, dictionaries and maps."""
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if isinstance(array, pa.DictionaryArray):
        return array.dictionary_decode()
    return array.cast(shown_type(array.type)) if isinstance(array, pa.MapArray) else array


def _convert_lists(array: pa.Array, field: pa.Field, path: str) -> pa.Array:
    _check_kind(is_list(array.type), array, field.type, path)
    values = array.flatten()
    if values.null_count:
        raise SluiceError(f"column '{path}' has a null in a list; BigQuery's REPEATED columns hold none")
    values = _convert(values, field.type.value_field, path)
    lengths = pc.list_value_length(array).fill_null(0).to_numpy()
    offsets = pa.array(np.append(0, np.cumsum(lengths)), pa.int32())
    return pa.ListArray.from_arrays(offsets, values, type=field.type)


def _convert_records(array: pa.Array, field: pa.Field, path: str) -> pa.Array:
    _check_kind(pa.types.is_struct(array.type), array, field.type, path)
    by_name = dict(zip((each.name for each in array.type), array.flatten(), strict=True))
    columns = [
        _convert(by_name[inner.name], inner, f"{path}.{inner.name}", absent=array.null_count) for inner in field.type
    ]
    mask = array.is_null() if array.null_count else None
    return pa.StructArray.from_arrays(columns, fields=list(field.type), mask=mask)


def _convert_values(array: pa.Array, kind: pa.DataType, path: str) -> pa.Array:
    if array.type != kind:
        shown = shown_type(array.type)
        fits = same_kind(shown, kind) or (pa.types.is_integer(shown) and pa.types.is_decimal(kind))
        _check_kind(fits, array, kind, path)
        array = array.cast(kind)
    if pa.types.is_string(kind):
        array.validate(full=True)  # nothing before has checked that it is UTF-8
    elif bounds := _bounds(kind):
        _check_range(array, bounds, path)
    return array


def _check_kind(fits: bool, array: pa.Array, kind: pa.DataType, path: str) -> None:
    if not fits:
        raise SluiceError(f"column '{path}' is {kind} in the table, found {array.type}")


def _bounds(kind: pa.DataType) -> tuple[int, int] | None:
    if pa.types.is_timestamp(kind):
        return _MICROS
    if pa.types.is_date(kind):
        return _DAYS
    return _DAY_MICROS if pa.types.is_time(kind) else None


def _check_range(array: pa.Array, bounds: tuple[int, int], path: str) -> None:
    found = pc.min_max(array.view(pa.int32() if bounds is _DAYS else pa.int64())).as_py()
    if found["min"] is not None and not bounds[0] <= found["min"] <= found["max"] <= bounds[1]:
        raise SluiceError(f"column '{path}' has a {array.type} out of BigQuery's range: years 1 to 9999, one day")
