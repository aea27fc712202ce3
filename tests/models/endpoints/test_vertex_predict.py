"""The bodies of predict: what they hold, and which numbers they refuse to hold."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from sluice.models.endpoints.vertex_predict import decode_answer, encode_instances, refusal
from sluice.models.errors import BadInput, BadOutput
from sluice.models.signature import Signature, TensorSpec
from tests.support.fakes import X_TO_Y, x_feeds

EXACT = 2**53


def signature(inputs: dict[str, str], outputs: dict[str, str], name: str = "serving_default") -> Signature:
    specs = [
        tuple(TensorSpec(key, dtype, (None,), (f"{key}:0",)) for key, dtype in sorted(each.items()))
        for each in (inputs, outputs)
    ]
    return Signature(name, "tensorflow/serving/predict", *specs)


def test_a_request_names_no_signature() -> None:
    assert json.loads(encode_instances(x_feeds(1, -2), X_TO_Y)) == {"instances": [{"x": 1}, {"x": -2}]}


def test_bytes_are_base64() -> None:
    feeds = {"s_bytes": np.array([b"\xff\x00"], object)}
    body = json.loads(encode_instances(feeds, signature({"s_bytes": "string"}, {"y": "int64"})))
    assert body == {"instances": [{"s_bytes": {"b64": "/wA="}}]}


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("int64", EXACT + 1),
        ("int64", -EXACT - 1),
        ("int64", 2**63 - 1),
        ("int64", -(2**63)),
        ("uint64", EXACT + 1),
        ("uint64", 2**64 - 1),
        ("float32", math.nan),
        ("float64", math.inf),
        ("float64", -math.inf),
    ],
)
def test_a_number_that_would_not_come_through(dtype: str, value: Any) -> None:
    feeds = {"x": np.array([1, value], dtype)}
    with pytest.raises(BadInput, match=r"^input 'x': .* predict.*; leave \?method=predict out of --model") as error:
        encode_instances(feeds, signature({"x": dtype}, {"y": dtype}))
    public = error.value.args[0].public
    assert "withheld" in public and "input 'x'" in public, "values of rows can be kept out"


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("int64", EXACT),
        ("int64", -EXACT),
        ("uint64", EXACT),
        ("int32", 2**31 - 1),
        ("uint8", 255),
        ("bool", True),
        ("float32", 3.4e38),
        ("float64", 5e-324),
    ],
)
def test_a_number_that_comes_through(dtype: str, value: Any) -> None:
    feeds = {"x": np.array([value], dtype)}
    body = json.loads(encode_instances(feeds, signature({"x": dtype}, {"y": dtype})))
    assert np.array([body["instances"][0]["x"]], dtype) == feeds["x"]


def answer(predictions: Any, **more: Any) -> bytes:
    return json.dumps({"predictions": predictions, **more}).encode()


def test_whole_numbers_may_come_as_doubles() -> None:
    two = signature({"x": "int64"}, {"n": "int64", "score": "float64"})
    rows = [{"n": 2.0, "score": 1.0}, {"n": -3, "score": -0.0}]
    arrays, deployed = decode_answer(answer(rows, deployedModelId="77"), two)
    assert arrays["n"].tolist() == [2, -3] and arrays["n"].dtype == np.int64
    assert [math.copysign(1, value) for value in arrays["score"]] == [1.0, -1.0], "floats are left alone"
    assert deployed == "77"
    arrays, deployed = decode_answer(answer([5.0, 6]), signature({"x": "int64"}, {"n": "int32"}))
    assert (arrays["n"].tolist(), deployed) == ([5, 6], "")


def test_a_whole_number_may_come_as_a_double_among_outputs_that_are_not_wanted() -> None:
    rows = [{"n": 2.0, "score": 1.5}, {"n": -3.0, "score": 1.0}]
    arrays, _ = decode_answer(answer(rows), signature({"x": "int64"}, {"n": "int64"}))
    assert arrays["n"].tolist() == [2, -3]


def test_a_fraction_is_no_whole_number() -> None:
    with pytest.raises(BadOutput, match=r"output 'n', row 1: 2\.5"):
        decode_answer(answer([1, 2.5]), signature({"x": "int64"}, {"n": "int64"}))


@pytest.mark.parametrize("value", [EXACT, -EXACT, float(EXACT), 2**62])
def test_an_answer_that_may_have_been_rounded_is_refused(value: Any) -> None:
    with pytest.raises(BadInput, match=r"^output 'n': -?\d+ may have been rounded, as predict carries"):
        decode_answer(answer([1, value]), signature({"x": "int64"}, {"n": "int64"}))
    arrays, _ = decode_answer(answer([EXACT - 1]), signature({"x": "int64"}, {"n": "int64"}))
    assert arrays["n"].tolist() == [EXACT - 1]


@pytest.mark.parametrize("body", [b"[]", b"{}", b'{"outputs": 3}', b"<html>"])
def test_an_answer_without_predictions(body: bytes) -> None:
    with pytest.raises(BadOutput, match=r"the answer (has no 'predictions'|is not JSON)"):
        decode_answer(body, X_TO_Y)


def test_only_the_default_signature_can_be_called() -> None:
    assert refusal(X_TO_Y) == ""
    assert "predict calls 'serving_default' only" in refusal(signature({"x": "int64"}, {"y": "int64"}, "other"))


def test_an_output_without_rows_cannot_be_predicted() -> None:
    scalar = TensorSpec("limit", "float32", (), ("limit:0",))
    limited = Signature("serving_default", "m", X_TO_Y.inputs, (*X_TO_Y.outputs, scalar))
    assert "an output has no batch dimension, and predict answers row by row" in refusal(limited)
