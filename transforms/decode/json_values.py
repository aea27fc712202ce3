"""JSON values to Arrow types, in the forms of TF Serving's REST API and of proto3 JSON."""

import base64
import binascii
import decimal
import json
import math
import reprlib
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pa_json

from sluice.models.tensors.arrays import list_array
from sluice.models.wording import message
from sluice.transforms.decode.convert import EXACT, ROUNDED, may_round, rounds, text_converter

# What `json.loads` returns.
Json: TypeAlias = bool | int | float | str | list[Any] | dict[str, Any] | None

# The doubles that JSON has no numbers for: https://protobuf.dev/programming-guides/json/
NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_FLOATS = {pa.float16(): np.float16, pa.float32(): np.float32, pa.float64(): np.float64}
# A tensor has at most this many dimensions.
_MAX_DEPTH = 64
# https://www.tensorflow.org/tfx/serving/api_rest#encoding_binary_values
_B64 = pa.struct([("b64", pa.string())])


def form_of(value: Json, kind: pa.DataType, depth: int = 0) -> pa.DataType:
    """Returns the Arrow type to parse a column with, by the JSON form of one of its values.

    Raises:
      ValueError: the value has more levels of lists than a tensor.
    """
    if depth > _MAX_DEPTH:
        raise ValueError(f"more than {_MAX_DEPTH} lists within another")
    if isinstance(value, dict) and "b64" in value and is_text(kind):
        return _B64
    if isinstance(value, list):
        leaf = kind.value_type if pa.types.is_list(kind) else kind
        return pa.list_(form_of(value[0] if value else None, leaf, depth + 1))
    if pa.types.is_list(kind):
        return pa.list_(form_of(None, kind.value_type))
    if pa.types.is_struct(kind):
        found = value if isinstance(value, dict) else {}
        return pa.struct([(field.name, form_of(found.get(field.name), field.type)) for field in kind])
    if pa.types.is_binary(kind) or pa.types.is_temporal(kind):
        return pa.string()
    if isinstance(value, float) and pa.types.is_integer(kind):  # 1.0, as pandas writes integers beside nulls
        return pa.float64()
    return kind


def is_text(kind: pa.DataType) -> bool:
    """Whether the type is text or bytes, which JSON writes as strings."""
    return pa.types.is_string(kind) or pa.types.is_binary(kind)


def from_form(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """Returns a column, parsed with the type of `form_of`, in the job's type.

    Raises:
      ValueError: a value does not fit, such as bad base64 or two values for a scalar (ArrowInvalid is a ValueError).
    """
    if pa.types.is_list(array.type):
        return _lists_from_form(array, kind) if pa.types.is_list(kind) else from_form(_only_values(array), kind)
    if array.type == _B64 and is_text(kind):
        encoded = array.field("b64")
        if encoded.null_count != array.null_count:
            raise ValueError("an object without b64")
        return text_converter(pa.binary())(encoded).cast(kind)
    if pa.types.is_struct(kind):
        fields = [from_form(child, field.type) for child, field in zip(array.flatten(), kind, strict=True)]
        return pa.StructArray.from_arrays(fields, fields=list(kind), mask=array.is_null())
    if pa.types.is_floating(kind) and pc.any(pc.is_inf(array)).as_py():  # a literal, or a text that overflowed
        raise ValueError(f"out of the range of {kind}")
    if pa.types.is_floating(array.type) and pa.types.is_integer(kind):
        return _whole(array, kind)
    return array if array.type == kind else text_converter(kind)(array)


def _whole(array: pa.Array, kind: pa.DataType) -> pa.Array:
    if pc.any(may_round(array)).as_py():
        raise ValueError(f"a number that only {kind} holds exactly")
    return array.cast(kind)


def _only_values(array: pa.ListArray) -> pa.Array:
    """Returns the values of lists of one value each."""
    if not pc.all(pc.equal(pc.list_value_length(array), 1), min_count=0).as_py():
        raise ValueError("a list where one value is expected")
    return pc.list_element(array, 0) if array.null_count < len(array) else pa.nulls(len(array), array.type.value_type)


def _lists_from_form(array: pa.ListArray, kind: pa.DataType) -> pa.Array:
    if pa.types.is_list(array.type.value_type) and not pa.types.is_list(kind.value_type):
        return _lists_from_form(_joined(array), kind)
    values = from_form(array.flatten(), kind.value_type)
    lengths = np.asarray(pc.list_value_length(array).fill_null(0), np.int64)
    return list_array(lengths, values, _nulls(array))


def _joined(array: pa.ListArray) -> pa.ListArray:
    """Joins the inner lists of each list. They must have equal lengths."""
    inner = array.flatten()
    if inner.null_count:
        raise ValueError("a null among lists")
    counts = np.asarray(pc.list_value_length(inner), np.int64)
    outer = np.asarray(pc.list_value_length(array).fill_null(0), np.int64)
    owner = np.repeat(np.arange(len(array)), outer)
    if (counts != counts[np.searchsorted(owner, owner)]).any():
        raise ValueError("lists of unequal lengths")
    totals = np.bincount(owner, weights=counts, minlength=len(array)).astype(np.int64)
    return list_array(totals, inner.flatten(), _nulls(array))


def _nulls(array: pa.Array) -> pa.Array | None:
    return array.is_null() if array.null_count else None


def read_objects(data: bytes, schema: pa.Schema, unexpected: Literal["ignore", "error", "infer"]) -> pa.Table:
    """Returns lines of JSON objects as columns, parsed by pyarrow in one block.

    Args:
      unexpected: whether a key that `schema` lacks is ignored, an error, or a further column or field.
    """
    return pa_json.read_json(
        pa.BufferReader(pa.py_buffer(data)),
        pa_json.ReadOptions(use_threads=False, block_size=len(data) + 1),
        pa_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior=unexpected),
    )


def parse_json(array: pa.Array, kind: pa.DataType, exact: bool = False) -> pa.Array:
    """Returns JSON texts, such as "[1, 2]", as a list or struct type. An empty text is a null.

    Args:
      exact: whole numbers that float64 can only hold rounded do not fit lists of floats.

    Raises:
      ValueError: a text is not JSON of that type (ArrowInvalid is a ValueError).
    """
    texts = array.cast(pa.string())
    texts = pc.if_else(pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(texts)), 0), None, texts)
    values = texts.fill_null("null")
    if pc.any(pc.match_substring_regex(values, r"[\r\n]")).as_py():
        values = pc.replace_substring_regex(values, r"[\r\n]", " ")
    lines = pc.binary_join_element_wise('{"v":', values, "}\n", "")
    data = b"".join(lines.cast(pa.binary()).to_pylist())
    try:
        table = read_objects(data, pa.schema([("v", form_of(None, kind))]), "error")
        if table.num_rows == len(array):
            lists = from_form(table.column(0).combine_chunks(), kind)
            if not (exact and holds_rounded(lists)):
                return lists
    except ValueError:
        pass
    loaded = [None if text is None else orjson.loads(text) for text in texts.to_pylist()]
    # orjson returns whole numbers of more than 64 bits as floats.
    if exact and any(
        rounds(json.loads(text, parse_float=decimal.Decimal)) for text in texts.to_pylist() if text is not None
    ):
        raise ValueError(ROUNDED)
    return pa.array([coerce(value, kind) for value in loaded], kind)


def holds_rounded(array: pa.Array) -> bool:
    """Whether floats, or lists of them, hold a number that may be another whole number in the source."""
    while pa.types.is_list(array.type):
        array = array.flatten()
    return pa.types.is_floating(array.type) and bool(pc.any(may_round(array)).as_py())


def holds_decimal(kind: pa.DataType) -> bool:
    """Whether values of a type have decimals among them, which no float holds."""
    if pa.types.is_list(kind):
        return holds_decimal(kind.value_type)
    if pa.types.is_struct(kind):
        return any(holds_decimal(field.type) for field in kind)
    return pa.types.is_decimal(kind)


def coerce(value: Json, kind: pa.DataType) -> Any:
    """Returns a JSON value in the form that `pa.array` accepts for this type.

    Raises:
      ValueError: the value does not fit. The text says what was found.
    """
    if value is None:
        return None
    if pa.types.is_list(kind):
        if not isinstance(value, list):
            raise ValueError(f"a list is expected, found {_show(value)}")
        return [coerce(entry, kind.value_type) for entry in _flat(value, kind)]
    while isinstance(value, list):
        if len(value) != 1:
            raise ValueError(f"one value is expected, found {_show(value)}")
        value = value[0]
    if value is None:
        return None
    if isinstance(value, decimal.Decimal) and not pa.types.is_decimal(kind):
        value = float(value)
    for fits, convert in _COERCIONS:
        if fits(kind):
            return convert(value, kind)
    return value


def _flat(value: list[Any], kind: pa.DataType) -> list[Any]:
    """Returns nested lists flattened to the depth of an Arrow list type."""
    if pa.types.is_list(kind.value_type):
        return value
    while any(isinstance(part, list) for part in value):
        if len({len(part) if isinstance(part, list) else -1 for part in value}) > 1:
            raise ValueError(message("lists of unequal lengths: {}", _show(value)))
        value = [entry for part in value for entry in part]
    return value


def _text(value: Json, kind: pa.DataType) -> str | bytes:
    binary = pa.types.is_binary(kind)
    encoded = value["b64"] if isinstance(value, dict) and "b64" in value else value if binary else None
    if encoded is None and isinstance(value, str):
        return value
    if not isinstance(encoded, str):
        raise _expected("base64 text" if binary else "a string", value)
    try:
        data = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(message("{} is not base64: {}", _show(encoded), error)) from error
    try:
        return data if binary else data.decode()
    except UnicodeDecodeError as error:
        text = "the bytes of {} are not UTF-8; declare it BYTES in --input_schema"
        raise ValueError(message(text, _show(encoded))) from error


def _numpy_type(kind: pa.DataType) -> Any:
    """Returns the type of numbers of an Arrow type. Arrow's own `to_pandas_dtype` imports pandas, which takes 0.5 s."""
    return _FLOATS.get(kind) or np.dtype(str(kind)).type


def _integer(value: Json, kind: pa.DataType) -> int:
    if isinstance(value, float) and value.is_integer() and abs(value) < EXACT:  # 1.0 and 1e3
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise _expected(kind, value)
    limits = np.iinfo(_numpy_type(kind))
    if not limits.min <= value <= limits.max:
        raise ValueError(message("{} is out of the range of {kind}", value, kind=kind))
    return value


def _float(value: Json, kind: pa.DataType) -> float:
    if isinstance(value, str) and value in NOT_FINITE:
        return NOT_FINITE[value]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _expected("a number", value)
    with np.errstate(over="ignore"):
        if math.isfinite(value) and np.isinf(_numpy_type(kind)(value)):
            raise ValueError(message("{} is out of the range of {kind}", value, kind=kind))
    return float(value)


def _boolean(value: Json, kind: pa.DataType) -> bool:
    if not isinstance(value, bool):
        raise _expected("true or false", value)
    return value


def _time(value: Json, kind: pa.DataType) -> object:
    if not isinstance(value, str):
        raise _expected(f"{kind} as text", value)
    # As it is stored: a zone may take a time out of the years 1 to 9999, and Python has no others.
    return text_converter(kind)(pa.array([value]))[0].value


def _decimal(value: Json, kind: pa.DataType) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float | str | decimal.Decimal):
        raise _expected(kind, value)
    return pa.array([str(value)]).cast(kind)[0].as_py()


def _struct(value: Json, kind: pa.DataType) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _expected("an object", value)
    return {field.name: coerce(value.get(field.name), field.type) for field in kind}


_COERCIONS: tuple[tuple[Callable[[pa.DataType], bool], Callable[[Json, pa.DataType], object]], ...] = (
    (is_text, _text),
    (pa.types.is_integer, _integer),
    (pa.types.is_floating, _float),
    (pa.types.is_boolean, _boolean),
    (pa.types.is_temporal, _time),
    (pa.types.is_decimal, _decimal),
    (pa.types.is_struct, _struct),
)


_REPR = reprlib.Repr()  # bounded in depth and length
_REPR.maxstring = _REPR.maxlong = _REPR.maxother = 100


def _expected(wanted: object, value: Json) -> ValueError:
    return ValueError(message("{wanted} is expected, found {}", _show(value), wanted=wanted))


def _show(value: Json) -> str:
    text = _REPR.repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
