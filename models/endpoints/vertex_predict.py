"""The bodies of Vertex AI's predict, for containers that take no raw body.

It carries numbers as doubles: https://cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.endpoints/predict
A row with a number that would come out as another one is refused. Only the default signature can be called: a request
has no place for another's name.
"""

from typing import Any

import numpy as np

from sluice.models.endpoints.json_tensor import decode_predictions, encode_rows, parse_json
from sluice.models.errors import BadInput, BadOutput
from sluice.models.signature import DEFAULT_SIGNATURE, Signature
from sluice.models.tensors.binding import Feeds
from sluice.models.tensors.strings import Strings
from sluice.models.wording import message

# Whole numbers up to this are doubles, each of them.
_EXACT = 2**53
_WIDE = ("int64", "uint64")
_REMEDY = "leave ?method=predict out of --model if the model's container takes TF Serving's own requests"


def encode_instances(feeds: Feeds, signature: Signature) -> bytes:
    """Returns the body of a request.

    Raises:
      BadInput: some number cannot be sent.
    """
    for name, tensor in feeds.items():
        if not isinstance(tensor, Strings) and tensor.dtype != object:
            _check_input(name, tensor)
    named = encode_rows(feeds, signature)
    return b"{" + named[named.index(b'"instances":') :]


def decode_answer(body: bytes, signature: Signature) -> tuple[dict[str, np.ndarray], str]:
    """Returns the outputs, and the id of the deployed model that answered.

    Raises:
      BadOutput: the answer does not have the outputs of the signature.
      BadInput: a number may have been rounded on its way.
    """
    answer = parse_json(body)
    if not isinstance(answer, dict) or "predictions" not in answer:
        raise BadOutput(f"the answer has no 'predictions': {str(answer)[:100]}")
    arrays = decode_predictions(_with_whole_numbers(answer["predictions"], signature), signature)
    for spec in signature.outputs:
        if spec.dtype in _WIDE:
            _check_output(spec.name, arrays[spec.name])
    return arrays, str(answer.get("deployedModelId", ""))


def refusal(signature: Signature) -> str:
    """Returns why predict cannot call a signature; empty if it can."""
    if any(output.shape == () for output in signature.outputs):
        return f"an output has no batch dimension, and predict answers row by row; {_REMEDY}"
    if signature.name == DEFAULT_SIGNATURE:
        return ""
    return f"predict calls '{DEFAULT_SIGNATURE}' only, and no request can name another; {_REMEDY}"


def _check_input(name: str, array: np.ndarray) -> None:
    if array.dtype.name in _WIDE:
        bad = array[(array > _EXACT) | (array < -_EXACT)] if array.dtype.kind == "i" else array[array > _EXACT]
        why = "is not exact as a double, and predict carries numbers as doubles"
    elif array.dtype.kind in "iub":
        return
    else:
        wide = array.astype(np.float64)
        bad, why = wide[~np.isfinite(wide)], "has no form in JSON, which predict is"
    if bad.size:
        raise BadInput(message("input '{name}': {} {why}; {remedy}", bad.flat[0], name=name, why=why, remedy=_REMEDY))


def _check_output(name: str, array: np.ndarray) -> None:
    bad = array[(array >= _EXACT) | (array <= -_EXACT)] if array.dtype.kind == "i" else array[array >= _EXACT]
    if bad.size:
        why = "may have been rounded, as predict carries numbers as doubles"
        raise BadInput(message("output '{name}': {} {why}; {remedy}", bad.flat[0], name=name, why=why, remedy=_REMEDY))


def _with_whole_numbers(rows: Any, signature: Signature) -> Any:
    """Returns predictions with whole numbers in place of doubles such as 2.0, in outputs that hold whole numbers."""
    whole = {spec.name for spec in signature.outputs if spec.dtype.startswith(("int", "uint"))}
    if not whole or not isinstance(rows, list):
        return rows
    # One output comes without a name, unless it is one of several that the model has.
    if len(signature.outputs) == 1 and not (rows and isinstance(rows[0], dict)):
        return _whole(rows)
    return [
        {name: _whole(value) if name in whole else value for name, value in row.items()}
        if isinstance(row, dict)
        else row
        for row in rows
    ]


def _whole(value: Any) -> Any:
    if isinstance(value, list):
        return [_whole(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
