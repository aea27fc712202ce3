"""Outputs of a model: checked against the signature, sliced and concatenated."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pyarrow as pa
import pytest

from sluice.models.errors import BadOutput
from sluice.models.interface import Outputs, arrow_values, check_outputs, concat_outputs
from sluice.models.saved_model.loader import _as_array
from sluice.models.signature import TensorSpec

SCORES = TensorSpec("scores", "float32", (None, 2))
WORDS = TensorSpec("words", "string", (None, None), ("v", "s"), "ragged")
ANY = TensorSpec("any", "int64", None)
GOOD = np.zeros((3, 2), np.float32)


@pytest.mark.parametrize(
    ("spec", "array", "words"),
    [
        (SCORES, None, "lacks output 'scores'"),
        (SCORES, np.float32(1), "no batch dimension for a batch of 3 rows"),
        (SCORES, np.array(1, np.float32), "no batch dimension"),
        (SCORES, [1.0, 2.0, 3.0], "no batch dimension"),
        (SCORES, np.zeros((2, 2), np.float32), "2 rows for a batch of 3 rows"),
        (SCORES, np.zeros((3, 2)), "is float64, and the signature says float32"),
        (SCORES, np.zeros((3, 3), np.float32), r"has shape \[3, 3\], and the signature says float32 \[batch, 2\]"),
        (SCORES, np.zeros(3, np.float32), r"has shape \[3\]"),
        (SCORES, np.zeros((3, 2, 1), np.float32), r"has shape \[3, 2, 1\]"),
        (WORDS, pa.array([["a"], []]), "2 rows for a batch of 3 rows"),
    ],
)
def test_an_answer_that_is_not_what_the_signature_promises(spec: TensorSpec, array: Any, words: str) -> None:
    arrays = {} if array is None else {spec.name: array}
    with pytest.raises(BadOutput, match=words):
        check_outputs(Outputs(arrays), (spec,), 3)


def test_a_good_answer_loses_what_the_signature_does_not_name() -> None:
    good = Outputs({"scores": GOOD, "words": pa.array([["a"], [], []]), "any": np.zeros((3, 1, 1), np.int64)}, 2)
    assert check_outputs(good, (SCORES, WORDS, ANY), 3) is good
    assert check_outputs(good, (SCORES,), 3) == Outputs({"scores": GOOD}, 2)


def test_an_output_of_no_known_rank_is_one_value_a_row() -> None:
    with pytest.raises(BadOutput, match=r"'any' has shape \[3, 5\], and the signature says no rank"):
        check_outputs(Outputs({"any": np.zeros((3, 5), np.int64)}), (ANY,), 3)


def test_slices() -> None:
    part = Outputs({"scores": np.arange(6).reshape(3, 2), "words": pa.array([["a"], [], ["b"]])}, 2).slice(1, 3)
    assert part.version == 2
    assert part.arrays["scores"].tolist() == [[2, 3], [4, 5]]
    assert part.arrays["words"].to_pylist() == [[], ["b"]]


@pytest.mark.parametrize(
    ("array", "kind"),
    [
        (np.array([b"a", b"\xff"], object), pa.binary()),
        (np.array([], object), pa.binary()),
        (np.array([[b"a"], [b"b"]], object), pa.list_(pa.binary())),
        (np.zeros((2, 3), np.int32), pa.list_(pa.int32())),
        (np.arange(12, dtype=np.uint64).reshape(2, 3, 2), pa.list_(pa.list_(pa.uint64()))),
        (np.zeros((2, 0), np.float32), pa.list_(pa.float32())),
        (np.zeros((0, 2), np.float32), pa.list_(pa.float32())),
        (np.zeros((2, 0, 3), np.int8), pa.list_(pa.list_(pa.int8()))),
        (np.zeros((2, 3, 0), np.int8), pa.list_(pa.list_(pa.int8()))),
        (np.array([1, 2], np.float16), pa.float32()),
        (np.array([[1, 2]], ml_dtypes.bfloat16), pa.list_(pa.float32())),
        (np.array([[True], [False]]), pa.list_(pa.bool_())),
    ],
)
def test_arrays_become_lists_of_their_own_type(array: np.ndarray, kind: pa.DataType) -> None:
    values = arrow_values(array)
    assert values.type == kind
    assert values.to_pylist() == array.tolist()


def test_answers_of_one_shape_are_concatenated() -> None:
    parts = [Outputs({"y": np.array([[1], [2]])}), Outputs({"y": np.array([[3]])})]
    assert concat_outputs(parts)["y"].tolist() == [[1], [2], [3]]
    assert concat_outputs(parts[:1])["y"] is parts[0].arrays["y"]


@pytest.mark.parametrize("dtype", [np.int32, np.float32, object])
def test_answers_of_several_lengths_are_lists_of_the_tensors_type(dtype: Any) -> None:
    arrays = [np.zeros((2, 0), dtype), np.full((1, 3), b"x" if dtype is object else 1, dtype), np.zeros((0, 2), dtype)]
    joined = concat_outputs([Outputs({"y": array}) for array in arrays])["y"]
    assert joined.type == pa.list_(pa.binary() if dtype is object else pa.from_numpy_dtype(dtype))
    assert joined.to_pylist() == [[], [], arrays[1][0].tolist()]


def test_ragged_answers_are_concatenated_though_one_is_empty() -> None:
    kind = pa.list_(pa.binary())
    parts = [Outputs({"y": pa.array([[], []], kind)}), Outputs({"y": pa.array([[b"a"]], kind)})]
    assert concat_outputs(parts)["y"].to_pylist() == [[], [], [b"a"]]


@pytest.mark.parametrize(
    ("indices", "values", "rows"),
    [
        ([[0, 0], [0, 1], [2, 0]], [1, 2, 3], [[1, 2], [], [3]]),
        ([[2, 0], [0, 0], [0, 1]], [3, 1, 2], [[1, 2], [], [3]]),
        (np.zeros((0, 2)), [], [[], [], []]),
    ],
)
def test_a_sparse_output_is_the_values_of_each_row(indices: Any, values: list[int], rows: list[list[int]]) -> None:
    spec = TensorSpec("y", "int64", (None, None), ("v", "i", "s"), "sparse")
    parts = [np.array(values, np.int64), np.array(indices, np.int64), np.array([3, 2])]
    assert _as_array(spec, parts).to_pylist() == rows


def test_a_ragged_output_keeps_its_type_when_every_row_is_empty() -> None:
    spec = TensorSpec("y", "string", (None, None), ("v", "s"), "ragged")
    assert _as_array(spec, [np.array([], object), np.zeros(3, np.int64)]).type == pa.list_(pa.binary())
    inner = _as_array(spec, [np.array([[1, 2], [3, 4]], np.int32), np.array([0, 0, 2])])
    assert inner.to_pylist() == [[], [[1, 2], [3, 4]]]
