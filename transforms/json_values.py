"""Values of JSON in the forms that TF Serving's REST API and proto3 JSON give them, to Arrow types."""

import base64
import binascii
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.convert import flat, text_converter

# https://protobuf.dev/programming-guides/json/: what a double that JSON cannot write looks like.
_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
# https://www.tensorflow.org/tfx/serving/api_rest#encoding_binary_values
_B64 = pa.struct([("b64", pa.string())])


def form_of(value: Any, kind: pa.DataType) -> pa.DataType:
    """Returns the Arrow type to parse a column with, given the JSON form that one of its values has."""
    if isinstance(value, dict) and set(value) == {"b64"} and is_text(kind):
        return _B64
    if isinstance(value, list):
        depth, leaf, inner = 0, kind, value
        while pa.types.is_list(leaf):
            leaf = leaf.value_type
        while isinstance(inner, list):
            depth, inner = depth + 1, inner[0] if inner else None
        form = form_of(inner, leaf)
        for _ in range(depth):
            form = pa.list_(form)
        return form
    if pa.types.is_binary(kind) or pa.types.is_date(kind) or pa.types.is_time(kind):
        return pa.string()
    return kind


def is_text(kind: pa.DataType) -> bool:
    """Whether values of the type are strings in JSON because they are text or bytes."""
    return pa.types.is_string(kind) or pa.types.is_binary(kind)


def from_form(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """Returns a column that was parsed with `form_of`'s type in the job's type.

    Raises:
      ValueError: a value does not fit, such as bad base64 or a list of two for a scalar (ArrowInvalid is one).
    """
    if array.type == kind and not pa.types.is_floating(kind) and not pa.types.is_list(kind):
        return array
    if array.type == _B64:
        decoded = text_converter(pa.binary())(array.field("b64"))
        return decoded.cast(kind)
    if pa.types.is_list(array.type) and not pa.types.is_list(kind):
        if not pc.all(pc.equal(pc.list_value_length(array), 1).fill_null(False)).as_py():
            raise ValueError("a list where one value is taken")
        return from_form(array.flatten(), kind)
    if pa.types.is_list(array.type):
        return _lists_from_form(array, kind)
    if pa.types.is_floating(kind):
        if pc.any(pc.is_inf(array)).as_py():  # JSON has no infinite numbers: the text overflowed
            raise ValueError(f"out of the range of {kind}")
        return array
    return text_converter(kind)(array)


def _lists_from_form(array: pa.ListArray, kind: pa.DataType) -> pa.Array:
    if pa.types.is_list(array.type.value_type) and not pa.types.is_list(kind.value_type):
        inner = array.flatten()  # one level deeper than the column: join the inner lists
        if inner.null_count:
            raise ValueError("a null among lists")
        counts = np.asarray(pc.list_value_length(inner), np.int64)
        outer = np.asarray(pc.list_value_length(array).fill_null(0), np.int64)
        owner = np.repeat(np.arange(len(array)), outer)
        if (counts != counts[np.searchsorted(owner, owner)]).any():
            raise ValueError("lists of unequal lengths")
        totals = np.bincount(owner, weights=counts, minlength=len(array)).astype(np.int64)
        offsets = pa.array(np.append(0, np.cumsum(totals)).astype(np.int32))
        mask = array.is_null() if array.null_count else None
        return from_form(pa.ListArray.from_arrays(offsets, inner.flatten(), mask=mask), kind)
    values = from_form(array.flatten(), kind.value_type)
    lengths = np.asarray(pc.list_value_length(array).fill_null(0), np.int64)
    offsets = pa.array(np.append(0, np.cumsum(lengths)).astype(np.int32))
    return pa.ListArray.from_arrays(offsets, values, mask=array.is_null() if array.null_count else None)


def coerce(value: Any, kind: pa.DataType) -> Any:
    """Returns one JSON value as `pa.array` takes it for this type.

    Raises:
      ValueError: it does not fit; the text says what was found.
    """
    if value is None:
        return None
    if pa.types.is_list(kind):
        if not isinstance(value, list):
            raise ValueError(f"a list is expected, found {_show(value)}")
        return [coerce(entry, kind.value_type) for entry in flat(value, kind)]
    if isinstance(value, list) and len(value) == 1 and not isinstance(value[0], list):
        return coerce(value[0], kind)
    for fits, convert in _COERCIONS:
        if fits(kind):
            return convert(value, kind)
    return value


def _text(value: Any, kind: pa.DataType) -> Any:
    binary = pa.types.is_binary(kind)
    encoded = value["b64"] if isinstance(value, dict) and set(value) == {"b64"} else value if binary else None
    if encoded is None:
        if isinstance(value, str):
            return value
        raise ValueError(f"a string is expected, found {_show(value)}")
    if not isinstance(encoded, str):
        raise ValueError(f"base64 text is expected, found {_show(value)}")
    try:
        data = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"{_show(encoded)} is not base64: {error}") from error
    return data if binary else data.decode()


def _integer(value: Any, kind: pa.DataType) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{kind} is expected, found {_show(value)}")
    limits = np.iinfo(kind.to_pandas_dtype())
    if not limits.min <= value <= limits.max:
        raise ValueError(f"{value} is out of the range of {kind}")
    return value


def _float(value: Any, kind: pa.DataType) -> float:
    if isinstance(value, str) and value in _NOT_FINITE:
        return _NOT_FINITE[value]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"a number is expected, found {_show(value)}")
    with np.errstate(over="ignore"):
        if np.isinf(kind.to_pandas_dtype()(value)):
            raise ValueError(f"{value} is out of the range of {kind}")
    return float(value)


def _boolean(value: Any, kind: pa.DataType) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"true or false is expected, found {_show(value)}")
    return value


def _cast(value: Any, kind: pa.DataType) -> Any:
    return pa.array([value if isinstance(value, str) else str(value)]).cast(kind)[0].as_py()


_COERCIONS: tuple[tuple[Callable[[pa.DataType], bool], Callable[[Any, pa.DataType], Any]], ...] = (
    (is_text, _text),
    (pa.types.is_integer, _integer),
    (pa.types.is_floating, _float),
    (pa.types.is_boolean, _boolean),
    (pa.types.is_temporal, _cast),
    (pa.types.is_decimal, _cast),
)


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
