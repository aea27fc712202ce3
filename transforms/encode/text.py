"""Columns of values as columns of text, for CSV and JSON."""

import binascii
import functools
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from sluice.models.errors import SluiceError
from sluice.models.tensors.column_types import is_list

_HAS_TEXT = (
    pa.types.is_boolean,
    pa.types.is_integer,
    pa.types.is_floating,
    pa.types.is_string,
    pa.types.is_binary,
    pa.types.is_decimal,
    pa.types.is_date,
    pa.types.is_time,
    pa.types.is_timestamp,
    pa.types.is_null,
)


def has_text(kind: pa.DataType) -> bool:
    """Whether `column_text` accepts arrays of this shown type."""
    return any(is_kind(kind) for is_kind in _HAS_TEXT)


# The first and last years, as days, and the end of a day, in seconds: ISO 8601 has four digits for a year.
_DAYS = (-719_162, 2_932_896)
_SECONDS = (-62_135_596_800, 253_402_300_800)
_DAY_SECONDS = (0, 86_400)
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def check_texts(batch: pa.RecordBatch) -> None:
    """Checks that dates and times have texts.

    Raises:
      SluiceError: a date is not in the years 1 to 9999, or a time not within a day. The text names the column.
    """
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if (found := _untold(column)) is not None:
            raise SluiceError(
                f"column '{name}': the {column.type} {found} has no text: it is not in the years 1 to 9999, or is no "
                "time of a day"
            )


def _untold(array: pa.Array) -> int | None:
    """Returns a date or time that has no text, as it is stored; None if there is none."""
    kind = array.type
    if is_list(kind) or pa.types.is_struct(kind):
        inner = array.flatten() if pa.types.is_struct(kind) else [array.flatten()]
        return next((found for each in inner if (found := _untold(each)) is not None), None)
    if not pa.types.is_temporal(kind) or not len(array):
        return None
    low, high = _limits(kind)
    bounds = pc.min_max(array.view(pa.int32() if kind.bit_width == 32 else pa.int64())).as_py()
    return next((found for found in bounds.values() if found is not None and not low <= found <= high), None)


def _limits(kind: pa.DataType) -> tuple[int, int]:
    if pa.types.is_date(kind):
        return _DAYS
    low, end = _SECONDS if pa.types.is_timestamp(kind) else _DAY_SECONDS
    return low * _PER_SECOND[kind.unit], end * _PER_SECOND[kind.unit] - 1


def column_text(array: pa.Array, nonfinite: tuple[str, str, str]) -> pa.Array:
    """Returns string [rows], null where the value is null.

    Binary is standard base64, as BigQuery's BYTES. A timestamp is ISO 8601, in UTC with Z if its column has a time
    zone, and with the decimals of its unit. A float is the shortest text that reads back as the same value of its
    width.

    Args:
      array: has a shown type that is not nested (see `has_text`).
      nonfinite: the texts of NaN, infinity and -infinity.
    """
    kind = array.type
    if pa.types.is_string(kind):
        return array
    if pa.types.is_floating(kind):
        return _floats(array, nonfinite)
    if pa.types.is_binary(kind):
        return _base64(array)
    if pa.types.is_timestamp(kind):
        # A column with a zone counts from the epoch in UTC, so without its zone it is UTC.
        text = pc.replace_substring(array.cast(pa.timestamp(kind.unit)).cast(pa.string()), " ", "T")
        return text if kind.tz is None else pc.binary_join_element_wise(text, "Z", "")
    return array.cast(pa.string())


def _base64(array: pa.Array) -> pa.Array:
    encode = binascii.b2a_base64
    return pa.array(
        [None if value is None else encode(value, newline=False) for value in array.to_pylist()], pa.binary()
    ).cast(pa.string())


def _floats(array: pa.Array, nonfinite: tuple[str, str, str]) -> pa.Array:
    values = array.drop_null().to_numpy() if array.null_count else array.to_numpy()
    text = _half_texts().take(pa.array(values.view(np.uint16))) if values.dtype == np.float16 else _shortest(values)
    finite = np.isfinite(values)
    if not finite.all():
        nan, infinity, minus_infinity = (pa.scalar(word) for word in nonfinite)
        signed = pc.if_else(pa.array(values > 0), infinity, minus_infinity)
        text = pc.if_else(pa.array(finite), text, pc.if_else(pa.array(np.isnan(values)), nan, signed))
    if not array.null_count:
        return text
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    places = np.where(valid, np.cumsum(valid) - 1, 0)
    return text.take(pa.array(places, mask=~valid))


def _shortest(values: np.ndarray) -> pa.Array:
    """Returns string [n] for float32 or float64 [n]. orjson prints the shortest text for the dtype."""
    if not len(values):
        return pa.array([], pa.string())
    listed = orjson.dumps(np.ascontiguousarray(values), option=orjson.OPT_SERIALIZE_NUMPY)
    text = np.frombuffer(listed, np.uint8)[1:-1]
    is_comma = text == ord(",")
    ends = np.append(np.flatnonzero(is_comma), len(text)) - np.arange(len(values))
    return _string_array(np.append(0, ends), text[~is_comma])


def _string_array(offsets: np.ndarray, data: np.ndarray) -> pa.Array:
    buffers: list[Any] = [None, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.string(), len(offsets) - 1, buffers)


@functools.cache
def _half_texts() -> pa.Array:
    """Returns string [65536]: the shortest text of every float16. orjson would print them as float32."""
    halves = np.arange(1 << 16).astype(np.uint16).view(np.float16)
    return pa.array(halves.astype(str).tolist(), pa.string())
