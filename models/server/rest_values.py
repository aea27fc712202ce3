"""JSON values as each dtype takes them in REST requests: tensorflow_serving/util/json_tensor.cc, AddValueToTensor."""

import base64
import binascii
import json
from typing import Any, NamedTuple

import numpy as np

from sluice.models.server.status import StatusError, invalid

_INT32 = (-(2**31), 2**31 - 1)
_INT64 = (-(2**63), 2**63 - 1)
_UINT64_MAX = 2**64 - 1


class _Dtype(NamedTuple):
    """A dtype under TensorFlow's name for it.

    Attributes:
      accepts: the Python types that the JSON parser gives for values it takes.
      low, high: the range of whole numbers, and of others.
      exact: floats: the largest whole number taken, so that none loses digits.
      wide: what holds the range; narrower integers keep the low bits of what is out of theirs, as TensorFlow does.
    """

    name: str
    numpy: Any
    accepts: frozenset[type]
    low: float = 0
    high: float = 0
    exact: int = 0
    wide: Any = None


def _float(name: str, numpy: Any, digits: int) -> _Dtype:
    largest = float(np.finfo(numpy).max)
    return _Dtype(name, numpy, frozenset((int, float)), -largest, largest, 2**digits - 1, np.float64)


def _int(name: str, numpy: Any, limits: tuple[int, int], wide: Any) -> _Dtype:
    return _Dtype(name, numpy, frozenset((int,)), *limits, 0, wide)


_DTYPES = {
    1: _float("float", np.float32, 24),
    2: _float("double", np.float64, 53),
    3: _int("int32", np.int32, _INT32, np.int32),
    4: _int("uint8", np.uint8, _INT32, np.int32),
    5: _int("int16", np.int16, _INT32, np.int32),
    6: _int("int8", np.int8, _INT32, np.int32),
    7: _Dtype("string", object, frozenset((str,)), wide=object),
    9: _int("int64", np.int64, _INT64, np.int64),
    10: _Dtype("bool", np.bool_, frozenset((bool,)), wide=np.bool_),
    22: _int("uint32", np.uint32, (0, 2**32 - 1), np.uint32),
    23: _int("uint64", np.uint64, (0, _UINT64_MAX), np.uint64),
}
# Those that REST does not take (api_rest.md, "JSON mapping"): their names, for the error.
_REFUSED = {14: "bfloat16", 17: "uint16", 19: "half"}


def fits(values: list[Any], number: int) -> bool:
    """Whether the dtype of this number (types.proto) takes all the values as they are."""
    dtype = _DTYPES.get(number)
    if dtype is None or not dtype.accepts.issuperset(map(type, values)):
        return False
    if int not in dtype.accepts or not values:
        return True
    if not dtype.exact:
        return dtype.low <= min(values) and max(values) <= dtype.high
    return not any(_is_lossy(value, dtype) for value in values)


def _is_lossy(value: float, dtype: _Dtype) -> bool:
    if type(value) is int and _INT64[0] <= value <= _UINT64_MAX:
        return abs(value) > dtype.exact
    return value - value == 0 and not dtype.low <= value <= dtype.high  # NaN and infinities pass


def read_value(value: Any, number: int) -> Any:
    """Returns one value as `to_numpy` takes it.

    Raises:
      StatusError: the dtype does not hold it.
    """
    dtype = _DTYPES.get(number)
    if dtype is None:
        name = _REFUSED.get(number, f"DataType {number}")
        raise StatusError("UNIMPLEMENTED", f"Conversion of JSON Value: {json_text(value)} to type: {name}")
    if type(value) is dict and dtype.name == "string":
        return _read_base64(value)
    if dtype.exact and type(value) in dtype.accepts and _is_lossy(value, dtype):
        raise invalid(f"Cannot convert JSON value: {json_text(value)} to {dtype.name} without loss of precision.")
    if not fits([value], number):
        raise invalid(f"JSON Value: {json_text(value)} Type: {_type_name(value)} is not of expected type: {dtype.name}")
    return value


def to_numpy(values: list[Any], number: int) -> np.ndarray:
    """Returns values that `fits` or `read_value` let pass as a flat array."""
    dtype = _DTYPES[number]
    if dtype.name == "string":
        values = [value if type(value) is bytes else value.encode("utf-8", "surrogateescape") for value in values]
    return np.array(values, dtype.wide).astype(dtype.numpy)


def is_base64(value: Any) -> bool:
    """Whether a value is bytes in base64: https://www.tensorflow.org/tfx/serving/api_rest#encoding_binary_values"""
    return type(value) is dict and len(value) == 1 and type(value.get("b64")) is str


def _read_base64(value: dict[str, Any]) -> bytes:
    if not is_base64(value):
        raise invalid(f"JSON Value: {json_text(value)} not formatted correctly for base64 data")
    text = "".join(value["b64"].split()).rstrip("=")
    try:  # padding may be left out
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid("Unable to base64 decode") from error


def json_text(value: Any) -> str:
    """Returns a value as errors show it."""
    return json.dumps(value, indent=4, ensure_ascii=False)


def _type_name(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "Null", False: "False", True: "True"}[value]
    return {"dict": "Object", "str": "String"}.get(type(value).__name__, "Number")
