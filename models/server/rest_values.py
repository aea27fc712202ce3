"""JSON values that each dtype accepts in REST requests: tensorflow_serving/util/json_tensor.cc, AddValueToTensor."""

import base64
import re
from typing import Any, NamedTuple

import numpy as np

from sluice.models.server.rest_json import json_text
from sluice.models.server.status import StatusError, invalid

# absl/strings/escaping.cc, Base64Unescape: spaces do not count; padding may be left out, but must not be wrong.
_SPACE = re.compile(r"[ \t\n\v\f\r]+")
# The one member of an object that is a value in base64.
BASE64_KEY = "b64"
_BASE64 = re.compile(r"([A-Za-z0-9+/]*)([=.]*)")
_INT32 = (-(2**31), 2**31 - 1)
_INT64 = (-(2**63), 2**63 - 1)
_UINT64_MAX = 2**64 - 1


class _Dtype(NamedTuple):
    """A dtype.

    Attributes:
      name: TensorFlow's.
      accepts: the Python types of the JSON values that it accepts.
      wide: the type that holds all accepted values. Narrower integers keep the low bits of larger values, as TensorFlow
        does.
      low, high: the accepted range of integers. A float accepts every number: it rounds, or is an infinity.
    """

    name: str
    numpy: type
    accepts: frozenset[type]
    wide: type
    low: int = 0
    high: int = 0


def _float(name: str, numpy: type) -> _Dtype:
    return _Dtype(name, numpy, frozenset((int, float)), np.float64)


def _int(name: str, numpy: type, limits: tuple[int, int], wide: type) -> _Dtype:
    return _Dtype(name, numpy, frozenset((int,)), wide, *limits)


_DTYPES = {
    1: _float("float", np.float32),
    2: _float("double", np.float64),
    3: _int("int32", np.int32, _INT32, np.int32),
    4: _int("uint8", np.uint8, _INT32, np.int32),
    5: _int("int16", np.int16, _INT32, np.int32),
    6: _int("int8", np.int8, _INT32, np.int32),
    7: _Dtype("string", object, frozenset((str,)), object),
    9: _int("int64", np.int64, _INT64, np.int64),
    10: _Dtype("bool", np.bool_, frozenset((bool,)), np.bool_),
    22: _int("uint32", np.uint32, (0, 2**32 - 1), np.uint32),
    23: _int("uint64", np.uint64, (0, _UINT64_MAX), np.uint64),
}
# Dtypes that REST does not accept (api_rest.md, "JSON mapping"), and their names for the error.
_REFUSED = {14: "bfloat16", 17: "uint16", 19: "half"}


def fits(values: list[Any], number: int) -> bool:
    """Whether the dtype of this number (types.proto) accepts all the values as they are."""
    dtype = _DTYPES.get(number)
    if dtype is None or not dtype.accepts.issuperset(map(type, values)):
        return False
    if not dtype.high or not values:
        return True
    return dtype.low <= min(values) and max(values) <= dtype.high


def read_value(value: object, number: int) -> object:
    """Returns one value in the form that `to_numpy` accepts.

    Raises:
      StatusError: the dtype cannot hold it.
    """
    dtype = _DTYPES.get(number)
    if dtype is None:
        name = _REFUSED.get(number, f"DataType {number}")
        raise StatusError("UNIMPLEMENTED", f"Conversion of JSON Value: {json_text(value)} to type: {name}")
    if isinstance(value, dict) and dtype.name == "string":
        return _read_base64(value)
    if not fits([value], number):
        raise invalid(f"JSON Value: {json_text(value)} Type: {_type_name(value)} is not of expected type: {dtype.name}")
    return value


def to_numpy(values: list[Any], number: int) -> np.ndarray:
    """Returns values that `fits` or `read_value` accepted as a flat array."""
    dtype = _DTYPES[number]
    if dtype.name == "string":
        values = [value if type(value) is bytes else value.encode("utf-8", "surrogateescape") for value in values]
    array: np.ndarray = np.array(values, dtype.wide)
    if dtype.wide is dtype.numpy:
        return array
    with np.errstate(over="ignore"):  # what exceeds a float32 is an infinity
        return array.astype(dtype.numpy)


def is_base64(value: object) -> bool:
    """Whether a value is bytes in base64: https://www.tensorflow.org/tfx/serving/api_rest#encoding_binary_values"""
    return isinstance(value, dict) and len(value) == 1 and type(value.get(BASE64_KEY)) is str


def _read_base64(value: dict[str, Any]) -> bytes:
    if not is_base64(value):
        raise invalid(f"JSON Value: {json_text(value)} not formatted correctly for base64 data")
    found = _BASE64.fullmatch(_SPACE.sub("", value[BASE64_KEY]))
    wanted = -len(found[1]) % 4 if found else 3
    if found is None or wanted == 3 or len(found[2]) not in (0, wanted):
        raise invalid("Unable to base64 decode")
    return base64.b64decode(found[1] + "=" * wanted)


def _type_name(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "Null", False: "False", True: "True"}[value]
    return {"dict": "Object", "str": "String"}.get(type(value).__name__, "Number")
