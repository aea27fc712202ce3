"""NumPy tensors to and from the JSON of TF Serving's REST API.

https://www.tensorflow.org/tfx/serving/api_rest, in detail:
https://github.com/tensorflow/serving/blob/master/tensorflow_serving/util/json_tensor.cc

Requests are joined from the texts of whole columns: orjson, which writes the numbers and escapes here, would write the
same bytes from lists of Python values in 1.5 to 2 times the time. Arrow's joins make no object for a string and take
twice the time for 64 rows of 13 numbers and 26 strings, the same for 512, and a tenth less for 2048.
"""

import base64
import binascii
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import orjson

from sluice.models.errors import BadOutput
from sluice.models.signature import BYTES_SUFFIX, Signature, TensorSpec
from sluice.models.tensors.binding import Feeds

_FLOATS = ("float16", "bfloat16", "float32", "float64")
# TF Serving refuses doubles above the largest float32, and its parser (RapidJSON in its fast mode) reads all digits of
# that float as the next double above it. These nine digits are the same float32, and a double below it.
_MAX_FLOAT32 = float(np.finfo(np.float32).max)
_MAX_FLOAT32_TEXT = 3.40282346e38

_BASE64 = "b64"
_OPEN_BASE64, _CLOSE_BASE64 = b'{"b64":"', b'"}'
# Separates strings that are escaped together: a code point that is no character, and that JSON does not escape.
_MARK = "\U0010ffff".encode()


def encode_columns(feeds: Feeds, signature: Signature) -> bytes:
    """Returns the body of a request in the column form: `inputs`, nested lists by name.

    Floats are written as float64, so that a reader of doubles gets the same float back.
    """
    columns = [_text(spec.name) + b":" + _column(np.asarray(feeds[spec.name]), spec.name) for spec in signature.inputs]
    return _request(signature, b'"inputs":{' + b",".join(columns) + b"}")


def encode_rows(feeds: Feeds, signature: Signature) -> bytes:
    """Returns the body of a request in the row form: `instances`, an object for each row."""
    members, rows = row_members(feeds, signature)
    if [spec.name for spec in signature.inputs] == [_BASE64]:  # in an object it would be read as a value in base64
        form = members.removeprefix(_text(_BASE64) + b":")
    else:
        form = b"{" + members + b"}"
    return _request(signature, b'"instances":[' + b",".join([form % row for row in rows]) + b"]")


def row_members(feeds: Feeds, signature: Signature) -> tuple[bytes, Iterable[tuple[bytes, ...]]]:
    """Returns the members of a row's object in the row form, as a format of bytes, and what each row fills it with."""
    columns = [_rows(np.asarray(feeds[spec.name]), spec.name) for spec in signature.inputs]
    values = [column.opening + b"%b" + column.closing for column in columns]
    names = [_text(spec.name).replace(b"%", b"%%") for spec in signature.inputs]
    members = b",".join(map(b"%b:%b".__mod__, zip(names, values, strict=True)))
    return members, zip(*(column.rows for column in columns), strict=True)


def decode_outputs(body: bytes, signature: Signature) -> dict[str, np.ndarray]:
    """Returns the signature's outputs from an answer in either form, each [rows, ...] in the signature's dtype.

    A single output comes without a name. JSON does not show the dimensions after one of size 0; they come from the
    signature, or are 0 where it does not fix them.

    Raises:
      BadOutput: the answer is not JSON, lacks an output, or has one that is not a tensor of the signature's dtype and
        rank.
    """
    answer = parse_json(body)
    if isinstance(answer, dict) and "outputs" in answer:
        columns = _named_columns(answer["outputs"], signature)
        return {spec.name: _to_array(columns[spec.name], spec) for spec in signature.outputs}
    if isinstance(answer, dict) and "predictions" in answer:
        return decode_predictions(answer["predictions"], signature)
    raise BadOutput(f"the answer has neither 'outputs' nor 'predictions': {_shown(answer)}")


def decode_predictions(rows: object, signature: Signature) -> dict[str, np.ndarray]:
    """Returns the outputs of the row form of an answer, a value for each row; see `decode_outputs`."""
    columns = _named_rows(rows, signature)
    return {spec.name: _to_array(columns[spec.name], spec) for spec in signature.outputs}


class _Rows(NamedTuple):
    """A column as JSON: each row is `opening`, its text, `closing`. So rows are joined without a loop over them."""

    opening: bytes
    rows: Sequence[bytes]
    closing: bytes


def _request(signature: Signature, inputs: bytes) -> bytes:
    return b'{"signature_name":' + _text(signature.name) + b"," + inputs + b"}"


def _text(value: str) -> bytes:
    return orjson.dumps(value)


def _column(array: np.ndarray, name: str) -> bytes:
    if array.dtype != object:
        return _numbers(array)
    column = _rows(array, name)
    if not column.rows:
        return b"[]"
    separator = column.closing + b"," + column.opening
    return b"[" + column.opening + separator.join(column.rows) + column.closing + b"]"


def _rows(array: np.ndarray, name: str) -> _Rows:
    if not array.size:
        return _Rows(b"", [orjson.dumps(row) for row in array.tolist()], b"")
    if array.dtype == object:
        return _strings(array, name)
    depth = array.ndim - 1
    opening, closing = b"[" * depth, b"]" * depth
    text = _numbers(array)
    return _Rows(opening, text[1 + depth : -1 - depth].split(closing + b"," + opening), closing)


def _numbers(array: np.ndarray) -> bytes:
    if array.dtype.name not in _FLOATS:
        return orjson.dumps(np.ascontiguousarray(array), option=orjson.OPT_SERIALIZE_NUMPY)
    values = np.ascontiguousarray(array, np.float64)
    if array.dtype == np.float32:
        largest = np.abs(values) == _MAX_FLOAT32
        if largest.any():
            values[largest] = np.copysign(_MAX_FLOAT32_TEXT, values[largest])
    if np.isfinite(values).all():
        return orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY)
    return json.dumps(values.tolist(), separators=(",", ":")).encode()  # NaN, Infinity, -Infinity, as TF Serving reads


def _strings(array: np.ndarray, name: str) -> _Rows:
    values: list[bytes] = array.reshape(-1).tolist()
    if name.endswith(BYTES_SUFFIX):
        opening, closing = _OPEN_BASE64, _CLOSE_BASE64
        values = [_base64(value) for value in values]
    elif _is_plain(values):
        opening = closing = b'"'
    elif escaped := _escape(values):
        opening, values, closing = b'"', escaped, b'"'
    else:
        opening = closing = b""
        values = [_string(value) for value in values]
    for size in reversed(array.shape[1:]):
        if size > 1:
            separator = closing + b"," + opening
            values = [separator.join(values[start : start + size]) for start in range(0, len(values), size)]
        opening, closing = b"[" + opening, closing + b"]"
    return _Rows(opening, values, closing)


def _is_plain(values: list[bytes]) -> bool:
    """Whether all are UTF-8 that needs no escapes: no quotes, backslashes or control characters."""
    joined = b'"'.join(values)
    if not joined:
        return True
    if joined.count(b'"') != len(values) - 1 or b"\\" in joined or np.frombuffer(joined, np.uint8).min() < 0x20:
        return False
    try:
        return joined.isascii() or bool(joined.decode())
    except UnicodeDecodeError:
        return False


def _escape(values: list[bytes]) -> list[bytes] | None:
    """Returns the values with JSON's escapes, without quotes; None if they are not all UTF-8."""
    joined = _MARK.join(values)
    try:
        escaped = _text(joined.decode())[1:-1].split(_MARK)
    except UnicodeDecodeError:
        return None
    return escaped if len(escaped) == len(values) else None


def _string(value: bytes) -> bytes:
    try:
        return _text(value.decode())
    except UnicodeDecodeError:
        return _OPEN_BASE64 + _base64(value) + _CLOSE_BASE64


def _base64(value: bytes) -> bytes:
    return binascii.b2a_base64(value, newline=False)


def parse_json(body: bytes) -> Any:
    """Returns TF Serving's JSON, which may hold NaN, Infinity and strings that are not UTF-8; or raises BadOutput."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(body.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError) as error:
        raise BadOutput(f"the answer is not JSON: {error}; it begins with {body[:100]!r}") from error


def _named_columns(outputs: object, signature: Signature) -> dict[str, Any]:
    if not isinstance(outputs, dict):
        return _only_output(outputs, signature)
    for spec in signature.outputs:
        if spec.name not in outputs:
            raise BadOutput(f"the answer lacks output '{spec.name}'; it has {sorted(outputs)}")
    return outputs


def _named_rows(rows: object, signature: Signature) -> dict[str, Any]:
    if not isinstance(rows, list) or not rows or not isinstance(rows[0], dict) or _is_base64(rows[0]):
        return _only_output(rows, signature)
    names = [spec.name for spec in signature.outputs]
    try:
        return {name: [row[name] for row in rows] for name in names}
    except (KeyError, TypeError):
        for number, row in enumerate(rows):
            lacking = [name for name in names if not isinstance(row, dict) or name not in row]
            if lacking:
                raise BadOutput(f"row {number} of the answer lacks output '{lacking[0]}': {_shown(row)}") from None
        raise


def _only_output(values: object, signature: Signature) -> dict[str, Any]:
    names = [spec.name for spec in signature.outputs]
    if len(names) != 1:
        raise BadOutput(f"the answer has one output without a name, and the signature has {names}: {_shown(values)}")
    return {names[0]: values}


def _to_array(value: object, spec: TensorSpec) -> np.ndarray:
    leaves, shape = _flatten(value, spec)
    if spec.shape is not None:  # after a dimension of 0 no lists show the next ones
        shape += [size or 0 for size in spec.shape[len(shape) :]]
    wanted = _leaf_types(spec.dtype)
    if not wanted.issuperset(map(type, leaves)):
        bad = next(number for number, leaf in enumerate(leaves) if type(leaf) not in wanted)
        row = bad // math.prod(shape[1:])
        raise BadOutput(f"output '{spec.name}', row {row}: {_shown(leaves[bad])}, and the signature says {spec}")
    try:
        return _leaf_array(leaves, spec).reshape(shape)
    except (ValueError, OverflowError) as error:
        raise BadOutput(f"output '{spec.name}': {error}, and the signature says {spec}") from error


def _flatten(value: object, spec: TensorSpec) -> tuple[list[Any], list[int]]:
    """Returns the values in order, and the sizes of the nested lists that hold them."""
    rank = None if spec.shape is None else len(spec.shape)
    level: list[Any] = [value]
    shape: list[int] = []
    while level and len(shape) != rank:
        types = set(map(type, level))
        if rank is None and shape and list not in types:
            break
        if types != {list}:
            bad = next(number for number, item in enumerate(level) if type(item) is not list)
            where = f", row {bad // math.prod(shape[1:])}" if shape else ""
            raise BadOutput(
                f"output '{spec.name}'{where}: {_shown(level[bad])} is not a list; the signature says {spec}"
            )
        sizes = set(map(len, level))
        if len(sizes) > 1:
            raise BadOutput(f"output '{spec.name}': lists of {min(sizes)} and of {max(sizes)} values are not a tensor")
        shape.append(sizes.pop())
        level = list(chain.from_iterable(level))
    return level, shape


def _leaf_types(dtype: str) -> set[type]:
    if dtype == "string":
        return {str, dict}
    if dtype == "bool":
        return {bool}
    return {float, int} if dtype in _FLOATS else {int}


def _leaf_array(leaves: list[Any], spec: TensorSpec) -> np.ndarray:
    """Returns the values in the dtype; raises ValueError or OverflowError if it cannot hold one."""
    dtype = spec.numpy_dtype
    if spec.dtype == "string":
        array = np.empty(len(leaves), object)
        array[:] = _string_values(leaves)
        return array
    if spec.dtype in _FLOATS:
        with np.errstate(over="ignore"):
            return np.array(leaves, np.float64).astype(dtype)
    if dtype.kind in "iu" and leaves:
        limits = np.iinfo(dtype)
        for value in (min(leaves), max(leaves)):
            if not limits.min <= value <= limits.max:
                raise ValueError(f"{value} is out of range")
    return np.array(leaves, dtype)


def _string_values(leaves: list[Any]) -> list[bytes]:
    try:
        return list(map(str.encode, leaves))
    except (TypeError, UnicodeEncodeError):  # base64, or not UTF-8
        return [leaf.encode("utf-8", "surrogateescape") if type(leaf) is str else _bytes(leaf) for leaf in leaves]


def _bytes(value: dict[str, Any]) -> bytes:
    if not _is_base64(value):
        raise ValueError(f"{_shown(value)} is not a string")
    return base64.b64decode(value[_BASE64], validate=True)


def _is_base64(value: Mapping[str, object]) -> bool:
    return len(value) == 1 and type(value.get(_BASE64)) is str


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 100 else text[:100] + "..."
