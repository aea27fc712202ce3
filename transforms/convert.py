"""Text columns to typed columns: all at once where every value fits, and with the misfits marked where not."""

import base64
import binascii
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pa_json


def convert_or_mark(array: pa.Array, convert: Callable[[pa.Array], pa.Array], out: pa.DataType) -> tuple[pa.Array, Any]:
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


def text_converter(kind: pa.DataType) -> Callable[[pa.Array], pa.Array]:
    """Returns what makes a binary array of CSV fields into an array of this type; an empty field is null.

    The converter raises ValueError (ArrowInvalid is one) if a value does not fit.
    """
    if pa.types.is_string(kind):
        return lambda array: array.cast(pa.string())
    if pa.types.is_binary(kind):
        return _decode_base64
    if pa.types.is_list(kind):
        return lambda array: _parse_lists(_empty_to_null(array.cast(pa.string())), kind)
    if pa.types.is_floating(kind):
        return lambda array: _parse_floats(_trimmed(array), kind)
    if pa.types.is_boolean(kind):
        return lambda array: pc.utf8_lower(_trimmed(array)).cast(kind)
    return lambda array: _trimmed(array).cast(kind)


def _trimmed(array: pa.Array) -> pa.Array:
    return _empty_to_null(pc.utf8_trim_whitespace(array.cast(pa.string())))


def _empty_to_null(array: pa.Array) -> pa.Array:
    return pc.if_else(pc.equal(pc.binary_length(array), 0), pa.scalar(None, array.type), array)


def _parse_floats(array: pa.Array, kind: pa.DataType) -> pa.Array:
    values = array.cast(kind)
    infinite = pc.is_inf(values)
    named = pc.match_substring(array.filter(infinite), "inf", ignore_case=True)
    if not pc.all(named).as_py():
        raise ValueError(f"out of the range of {kind}")
    return values


def _decode_base64(array: pa.Array) -> pa.Array:
    try:
        values = [None if value is None else base64.b64decode(value, validate=True) for value in array.to_pylist()]
    except binascii.Error as error:
        raise ValueError(f"not base64: {error}") from error
    return pa.array(values, pa.binary())


def _parse_lists(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """JSON lists, e.g. "[1, 2]", to a list type."""
    if not len(array):
        return pa.array([], kind)
    filled = array.fill_null("null")
    if pc.any(pc.match_substring_regex(filled, r"[\r\n]")).as_py():
        filled = pc.replace_substring_regex(filled, r"[\r\n]", " ")
    lines = pc.binary_join_element_wise('{"v":', filled, "}\n", "")
    data = pa.py_buffer(b"".join(lines.cast(pa.binary()).to_pylist()))
    try:
        table = pa_json.read_json(
            pa.BufferReader(data),
            pa_json.ReadOptions(use_threads=False, block_size=data.size + 1),
            pa_json.ParseOptions(explicit_schema=pa.schema([("v", kind)]), unexpected_field_behavior="error"),
        )
        if table.num_rows == len(array):
            return table.column(0).combine_chunks()
    except pa.ArrowInvalid:
        pass
    return pa.array([None if value is None else flat(orjson.loads(value), kind) for value in array.to_pylist()], kind)


def flat(value: Any, kind: pa.DataType) -> Any:
    """Returns nested lists flattened to the depth that an Arrow list type has.

    Raises:
      ValueError: they are not all of one length.
    """
    while isinstance(value, list) and value and isinstance(value[0], list) and not pa.types.is_list(kind.value_type):
        if len({len(part) if isinstance(part, list) else -1 for part in value}) > 1:
            raise ValueError("lists of unequal lengths")
        value = [entry for part in value for entry in part]
    return value
