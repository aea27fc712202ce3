"""Tensors -> JSON of REST answers, as in tensorflow_serving/util/json_tensor.cc (MakeJsonFromTensors)."""

import base64
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson

from sluice.models.server.rest_request import Form
from sluice.models.server.status import invalid
from sluice.models.signature import BYTES_SUFFIX

# Dtypes without a JSON form: NumPy's name -> TensorFlow's, for the error.
_REFUSED = {"float16": "half", "bfloat16": "bfloat16", "uint16": "uint16"}


def render_answer(outputs: Mapping[str, np.ndarray], form: Form) -> bytes:
    """Returns the body of an answer in the form of the request. A single output has no name.

    Strings that are not UTF-8 are written as they are, so the JSON is invalid. Outputs named *_bytes are in base64.

    Raises:
      StatusError: an output has no JSON form, or, in the row form, outputs differ in their numbers of rows.
    """
    if not outputs:
        raise invalid("Cannot convert empty tensor map to JSON")
    if form == "instances":
        _check_rows(outputs)
    columns = {name: _plain(name, array) for name, array in sorted(outputs.items())}
    if len(columns) == 1:
        (answer,) = columns.values()
    elif form == "inputs":
        answer = columns
    else:
        answer = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return render({"outputs" if form == "inputs" else "predictions": answer})


def render(value: object) -> bytes:
    """Returns JSON, with NaN and Infinity as in JavaScript."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogateescape")


def _check_rows(outputs: Mapping[str, np.ndarray]) -> None:
    rows = None
    for name, array in sorted(outputs.items()):
        if not array.ndim:
            raise invalid(f"Tensor name: {name} has no shape information ")
        if rows is not None and len(array) != rows:
            raise invalid(f"Tensor name: {name} has inconsistent batch size: {len(array)} expecting: {rows}")
        rows = len(array)


def _plain(name: str, array: np.ndarray) -> Any:
    """Returns the values as nested lists that `json` can write."""
    if array.dtype.name in _REFUSED or array.dtype.kind not in "fiubO":
        type_name = _REFUSED.get(array.dtype.name, array.dtype.name)
        raise invalid(f"Failed to write JSON value for tensor type: {type_name}")
    if array.dtype == np.float32:
        return _shortest(array)
    if array.dtype == object:
        write = _base64 if name.endswith(BYTES_SUFFIX) else _text
        flat = np.empty(array.size, object)
        flat[:] = [write(value) for value in array.reshape(-1)]
        return flat.reshape(array.shape).tolist()
    return array.tolist()


def _shortest(array: np.ndarray) -> Any:
    """Returns doubles that have the shortest digits of the float32, and not those of its own double."""
    if array.ndim and np.isfinite(array).all():  # orjson writes the others as null; it is ten times as fast as NumPy
        return orjson.loads(orjson.dumps(np.ascontiguousarray(array), option=orjson.OPT_SERIALIZE_NUMPY))
    return array.astype(str).astype(np.float64).tolist()


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def _base64(value: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(value).decode()}
