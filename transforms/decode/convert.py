"""Text columns to typed columns: all at once where every value fits, and with the misfits marked where not."""

import base64
import binascii
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_Convert = Callable[[pa.Array], pa.Array]


def convert_or_mark(array: pa.Array, convert: _Convert, out: pa.DataType) -> tuple[pa.Array, np.ndarray | None]:
    """Returns the converted array, and where it failed (bool [n], or None if nowhere); failed values are null.

    Halves an array that does not convert as a whole until the misfits stand alone, so k of them in n values cost some
    k log n conversions.
    """
    try:
        return convert(array), None
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, ValueError, OverflowError):
        if len(array) == 1:
            return pa.nulls(1, out), np.ones(1, bool)
    middle = len(array) // 2
    halves = [convert_or_mark(part, convert, out) for part in (array[:middle], array[middle:])]
    masks = [np.zeros(len(part), bool) if mask is None else mask for part, mask in halves]
    return pa.concat_arrays([part for part, _ in halves]), np.concatenate(masks)


def text_converter(kind: pa.DataType) -> _Convert:
    """Returns what makes an array of texts, binary or string, into one of this type, which is neither list nor struct.

    An empty or blank text is a null, unless the type is string or binary (base64). The converter raises ValueError
    (ArrowInvalid is one) if a value does not fit.
    """
    prepare, convert = _steps(kind)
    return lambda array: convert(prepare(array))


def parse_texts(array: pa.Array, kind: pa.DataType) -> tuple[pa.Array, np.ndarray | None]:
    """Returns what `text_converter` does, null where a value does not fit, and where that is (bool [n])."""
    prepare, convert = _steps(kind)
    texts, not_text = convert_or_mark(array, prepare, pa.string())
    values, misfits = convert_or_mark(texts, convert, kind)
    if not_text is None or misfits is None:
        return values, misfits if not_text is None else not_text
    return values, not_text | misfits


def _steps(kind: pa.DataType) -> tuple[_Convert, _Convert]:
    """What all texts need, which seldom fails, and what makes values of them."""
    if pa.types.is_string(kind):
        return _as_text, _as_text
    if pa.types.is_binary(kind):
        return _as_text, _decode_base64
    convert: Callable[[pa.Array, pa.DataType], pa.Array] = _cast
    if pa.types.is_timestamp(kind):
        convert = _parse_timestamps
    elif pa.types.is_time(kind):
        convert = _parse_times
    elif pa.types.is_floating(kind):
        convert = _parse_floats
    elif pa.types.is_boolean(kind):
        convert = _parse_booleans
    return _trimmed, lambda array: convert(array, kind)


def _cast(array: pa.Array, kind: pa.DataType) -> pa.Array:
    return array.cast(kind)


def _parse_booleans(array: pa.Array, kind: pa.DataType) -> pa.Array:
    return pc.utf8_lower(array).cast(kind)


def _as_text(array: pa.Array) -> pa.Array:
    return array.cast(pa.string())


def _trimmed(array: pa.Array) -> pa.Array:
    return _empty_to_null(pc.utf8_trim_whitespace(_as_text(array)))


def _empty_to_null(array: pa.Array) -> pa.Array:
    return pc.if_else(pc.equal(pc.binary_length(array), 0), pa.scalar(None, array.type), array)


def _parse_floats(array: pa.Array, kind: pa.DataType) -> pa.Array:
    values = array.cast(kind)
    infinite = pc.is_inf(values)
    named = pc.match_substring(array.filter(infinite), "inf", ignore_case=True)
    if not pc.all(named, min_count=0).as_py():
        raise ValueError(f"out of the range of {kind}")
    return values


def _parse_timestamps(array: pa.Array, kind: pa.TimestampType) -> pa.Array:
    """Reads what ISO 8601 and BigQuery's exports ("2024-01-02 03:04:05 UTC") write; without a zone, UTC is meant."""
    try:
        return array.cast(kind)
    except pa.ArrowInvalid:
        zoneless = pc.replace_substring_regex(array, r" ?(UTC|Z)$", "")
        return zoneless.cast(pa.timestamp(kind.unit)).cast(kind)


def _parse_times(array: pa.Array, kind: pa.DataType) -> pa.Array:
    moments = pc.binary_join_element_wise("1970-01-01T", array, "")  # pyarrow casts no text to a time of day
    return moments.cast(pa.timestamp(kind.unit)).cast(kind)


def _decode_base64(array: pa.Array) -> pa.Array:
    try:
        values = [None if value is None else base64.b64decode(value, validate=True) for value in array.to_pylist()]
    except binascii.Error as error:
        raise ValueError(f"not base64: {error}") from error
    return pa.array(values, pa.binary())
