"""Instances with keys, and the answers under the keys."""

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from sluice.models.endpoints.instances import Answer, decode_answers, encode_instances, read_answer
from sluice.models.endpoints.json_tensor import encode_rows
from sluice.models.errors import BadOutput
from sluice.models.signature import Signature, TensorSpec
from sluice.models.tensors.binding import bind
from tests.support.fakes import X_TO_Y


def signature(*inputs: TensorSpec, outputs: tuple[TensorSpec, ...] = X_TO_Y.outputs) -> Signature:
    return Signature("serving_default", "tensorflow/serving/predict", inputs, outputs)


def test_each_row_that_was_bound_is_a_line_with_its_key() -> None:
    batch = pa.RecordBatch.from_pydict({"x": pa.array([5, None, 7, 8], pa.int64())})
    bound = bind(batch, X_TO_Y)
    assert list(bound.errors) == [1]
    assert encode_instances(bound, X_TO_Y, "a1", 40) == [
        b'{"_sluice_key":"a1:40","x":5}',
        b'{"_sluice_key":"a1:41","x":7}',
        b'{"_sluice_key":"a1:42","x":8}',
    ]


def test_rows_of_different_shapes_keep_the_order_of_the_batch() -> None:
    lists = signature(TensorSpec("x", "int64", (None, None)))
    batch = pa.RecordBatch.from_pydict({"x": pa.array([[1], [2, 3], None, [4], [5, 6]], pa.list_(pa.int64()))})
    bound = bind(batch, lists)
    assert len(bound.groups) == 2
    lines = [json.loads(line) for line in encode_instances(bound, lists, "s", 0)]
    assert [line["x"] for line in lines] == [[1], [2, 3], [4], [5, 6]]
    assert [line["_sluice_key"] for line in lines] == ["s:0", "s:1", "s:2", "s:3"]


def test_without_its_key_an_instance_is_that_of_the_row_form() -> None:
    specs = signature(
        TensorSpec("a%d", "float32", (None, 2)),
        TensorSpec("image_bytes", "string", (None,)),
        TensorSpec("word", "string", (None, 1)),
        TensorSpec("big", "int64", (None,)),
    )
    batch = pa.RecordBatch.from_pydict(
        {
            "a%d": pa.array([[0.1, 3.5], [1e-9, 2.0]], pa.list_(pa.float32())),
            "image_bytes": pa.array([b"\xff%s", b""], pa.binary()),
            "word": pa.array(['say "%b"', "ä"], pa.string()),
            "big": pa.array([2**53 + 1, -(2**63)], pa.int64()),
        }
    )
    bound = bind(batch, specs)
    lines = [json.loads(line) for line in encode_instances(bound, specs, "s", 9)]
    assert [line.pop("_sluice_key") for line in lines] == ["s:9", "s:10"]
    assert lines == json.loads(encode_rows(bound.groups[0].feeds, specs))["instances"]


def test_no_row_is_no_line() -> None:
    batch = pa.RecordBatch.from_pydict({"x": pa.array([None], pa.int64())})
    assert encode_instances(bind(batch, X_TO_Y), X_TO_Y, "s", 0) == []


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"half a li",
        b"[1]",
        b'"text"',
        b'{"key": "s:1"}',
        b'{"prediction": 1}',
        b'{"key": "s", "prediction": 1}',
        b'{"key": "s:", "prediction": 1}',
        b'{"key": "s:-1", "prediction": 1}',
        b'{"key": "s:1e9", "prediction": 1}',
        b'{"key": "s:99999999999999999999", "prediction": 1}',
        b'{"key": 7, "prediction": 1}',
        b'{"instance": {"x": 1}, "prediction": 1}',
    ],
)
def test_other_lines_are_no_answers(line: bytes) -> None:
    assert read_answer(line) is None


def test_an_answer_is_found_under_its_key() -> None:
    assert read_answer(b'{"key": "s:12", "prediction": [0.5]}\n') == Answer("s", 12, [0.5])
    (found,) = read_answer(b'{"prediction": [NaN], "key": "s:0"}').prediction  # type: ignore[union-attr]
    assert np.isnan(found)


def decoded(predictions: list[Any], specs: Signature) -> list[Any]:
    parts = []
    for part in decode_answers(predictions, specs, 3):
        if part.result is None:
            assert isinstance(part.error, BadOutput)
            parts.append(str(part.error))
        else:
            assert part.result.version == 3
            parts.append({name: array.tolist() for name, array in part.result.arrays.items()})
    return parts


def test_answers_become_outputs_of_the_signature() -> None:
    outputs = (
        TensorSpec("score", "float32", (None, 1)),
        TensorSpec("raw_bytes", "string", (None,)),
        TensorSpec("n", "int64", (None,)),
    )
    rows = [
        {"score": [0.1], "raw_bytes": {"b64": "/w=="}, "n": 2**53 + 1, "not asked for": 1},
        {"score": [0.25], "raw_bytes": {"b64": ""}, "n": -1},
    ]
    (found,) = decoded(rows, signature(outputs=outputs))
    assert found == {
        "score": [[float(np.float32(0.1))], [0.25]],
        "raw_bytes": [b"\xff", b""],
        "n": [2**53 + 1, -1],
    }


def test_a_single_output_has_no_name() -> None:
    (found,) = decoded([[0.5], [1]], signature(outputs=(TensorSpec("score", "float32", (None, 1)),)))
    assert found == {"score": [[0.5], [1.0]]}


def test_a_row_that_has_no_such_outputs_fails_alone() -> None:
    rows: list[Any] = [{"text": str(n), "y": n} for n in range(5)]
    rows[3] = {"text": "3"}
    parts = decoded(rows, X_TO_Y)
    assert sum(len(part["y"]) for part in parts if isinstance(part, dict)) == 4
    assert [part for part in parts if isinstance(part, str)] == [
        'row 0 of the answer lacks output \'y\': {"text": "3"}'
    ]


def test_rows_of_different_sizes_are_decoded_each_with_its_like() -> None:
    lists = signature(outputs=(TensorSpec("v", "int64", (None, None)),))
    assert [part["v"] for part in decoded([[1], [2], [3, 4], [5, 6]], lists)] == [[[1], [2]], [[3, 4], [5, 6]]]
