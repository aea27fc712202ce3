"""JSON of REST requests -> tensors, with the checks and texts of tensorflow_serving/util/json_tensor.cc.

The format: https://www.tensorflow.org/tfx/serving/api_rest. It shares no code with Sluice's client, so that each proves
the other.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Any, Literal, NoReturn, TypeGuard

import numpy as np

from sluice.models.server.rest_json import json_text, parse_json
from sluice.models.server.rest_values import BASE64_KEY, fits, is_base64, read_value, to_numpy
from sluice.models.server.status import StatusError, invalid

Form = Literal["instances", "inputs"]
# NumPy's. TensorFlow's is 254.
_MAX_RANK = 64
# Input name -> number of its dtype in tensorflow/core/framework/types.proto.
Dtypes = Mapping[str, int]


def parse_request(body: bytes, dtypes_of: Callable[[str], Dtypes]) -> tuple[str, dict[str, np.ndarray], Form]:
    """Returns the signature's name ("" if not given), the inputs by name, and the form of the request.

    Args:
      dtypes_of: returns the inputs of a signature.

    Raises:
      StatusError: the body is not JSON, or does not fit the signature.
    """
    request = parse_json(body)
    if type(request) is not dict:
        _bad(request, "Is not object")
    signature = request.get("signature_name", "")
    if type(signature) is not str:
        _bad(request, "not formatted correctly. 'signature_name' key must be a string value.")
    dtypes = dtypes_of(signature)
    if not dtypes:
        raise invalid(f"Failed to get input map for signature: {signature or 'DEFAULT'}")
    if "instances" in request and "inputs" in request:
        _bad(request, "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist ")
    if "instances" in request:
        rows = request["instances"]
        if type(rows) is not list:
            _bad(request, "Expecting 'instances' to be an list/array")
        if not rows:
            _bad(request, "No values in 'instances' array")
        return signature, _read_rows(rows, dtypes), "instances"
    if "inputs" in request:
        return signature, _read_columns(request["inputs"], dtypes), "inputs"
    raise invalid("Missing 'inputs' or 'instances' key")


def _read_columns(value: object, dtypes: Dtypes) -> dict[str, np.ndarray]:
    if not _is_named(value):
        if len(dtypes) > 1:
            raise invalid(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
                "tensorinfo_map"
            )
        return {name: to_array(value, dtype) for name, dtype in dtypes.items()}
    for name in dtypes:
        if name not in value:
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
    return {name: to_array(value[name], dtype) for name, dtype in dtypes.items()}


def _read_rows(rows: list[Any], dtypes: Dtypes) -> dict[str, np.ndarray]:
    if type(rows[0]) is not dict and len(dtypes) > 1:
        raise invalid(
            "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
            "tensorinfo_map"
        )
    named = _are_named(rows)
    try:
        if not named:
            name, dtype = _only(dtypes)
            return {name: to_array(rows, dtype)}
        if [None for row in rows if row.keys() != dtypes.keys()]:  # a list: a generator would be entered for each row
            raise KeyError
        return {name: to_array([row[name] for row in rows], dtype) for name, dtype in dtypes.items()}
    except (StatusError, KeyError) as error:
        _find_bad_row(rows, dtypes, named)
        raise error


def _are_named(rows: list[Any]) -> bool:
    """Whether the rows are objects that name inputs, which all are or none is. It calls nothing for each row.

    Raises:
      StatusError: some are, some are not.
    """
    kinds = {type(row) for row in rows}
    if dict not in kinds:
        return False
    if kinds == {dict} and not [None for row in rows if BASE64_KEY in row]:
        return True
    named = _is_named(rows[0])
    for number, row in enumerate(rows):
        if _is_named(row) != named:
            expected = "object but got list" if named else "value/list but got object"
            raise invalid(f"Expecting {expected} at item {number} of input list")
    return named


def _only(dtypes: Dtypes) -> tuple[str, int]:
    """Returns the input that rows without names are for. Of several, one: the call then lacks the others."""
    return next(iter(dtypes.items()))


def _find_bad_row(rows: list[Any], dtypes: Dtypes, named: bool) -> None:
    """Raises TF Serving's error for the first row that is wrong by itself, or in shape differs from those before."""
    shapes: dict[str, tuple[int, ...]] = {}
    for number, row in enumerate(rows):
        for key, value in row.items() if named else ((_only(dtypes)[0], row),):
            try:
                if key not in dtypes:
                    raise invalid(f"JSON object: does not have named input: {key}")
                shape = to_array(value, dtypes[key]).shape
                _compare(shapes.setdefault(key, shape), shape)
            except StatusError as error:
                where = f"{number} key: {key}" if named else f"{number}"
                raise invalid(
                    f"Failed to process element: {where} of 'instances' list. Error: {error.code}: {error.message}"
                ) from error
        if named and row.keys() != dtypes.keys():
            raise invalid(
                f"Failed to process element: {number} of 'instances' list. JSON object: {json_text(row)} keys must be "
                f"equal to: {','.join(sorted(dtypes))}"
            )


def _compare(expected: tuple[int, ...], shape: tuple[int, ...]) -> None:
    sizes = [int(np.prod(each)) for each in (expected, shape)]
    if sizes[0] != sizes[1]:
        raise invalid(f"Expecting tensor size: {sizes[0]} but got: {sizes[1]}")
    if expected != shape:
        texts = ["[" + ",".join(map(str, each)) + "]" for each in (expected, shape)]
        raise invalid(f"Expecting shape {texts[0]} but got: {texts[1]}")


def to_array(value: object, dtype: int) -> np.ndarray:
    """Returns nested lists of JSON values as a tensor; the first list at each level sets its size.

    Raises:
      StatusError: lists of uneven sizes or depths, or values that the dtype cannot hold.
    """
    if type(value) is list and value and fits(value, dtype):  # a scalar of each row: the most of all requests
        return to_numpy(value, dtype)
    shape = _shape(value)
    leaves = _flatten(value, shape)
    if leaves is None or not fits(leaves, dtype):
        leaves = list(_walk(value, 0, shape, dtype))
    if len(shape) > _MAX_RANK:
        raise invalid(f"tensor parsing error: a tensor of rank {len(shape)}")
    return to_numpy(leaves, dtype).reshape(shape)


def _shape(value: object) -> tuple[int, ...]:
    shape = []
    while isinstance(value, list):
        shape.append(len(value))
        value = value[0] if value else None
    return tuple(shape)


def _flatten(value: object, shape: tuple[int, ...]) -> list[Any] | None:
    """Returns the values in order; None if the lists are not all of this shape."""
    level: list[Any] = [value]
    for size in shape:
        if any(type(item) is not list or len(item) != size for item in level):
            return None
        level = list(chain.from_iterable(level))
    return level


def _walk(value: object, depth: int, shape: tuple[int, ...], dtype: int) -> Iterator[Any]:
    """Yields the values one by one; slower than `_flatten`, but the error says what is wrong, and where."""
    if not isinstance(value, list):
        if depth != len(shape):
            raise invalid(
                f"JSON Value: {json_text(value)} found at incorrect level: {depth + 1} in the JSON DOM. "
                f"Expected at level: {len(shape)}"
            )
        yield read_value(value, dtype)
        return
    if depth >= len(shape):
        raise invalid(f"Encountered list at unexpected level: {depth} expected < {len(shape)}")
    if len(value) != shape[depth]:
        raise invalid(
            f"Encountered list at unexpected size: {len(value)} at level: {depth} expected size: {shape[depth]}"
        )
    for item in value:
        yield from _walk(item, depth + 1, shape, dtype)


def _is_named(value: object) -> TypeGuard[dict[str, Any]]:
    """Whether it is an object that names inputs, and not one value in base64."""
    return isinstance(value, dict) and not is_base64(value)


def _bad(value: object, what: str) -> NoReturn:
    raise invalid(f"JSON Value: {json_text(value)} {what}")
