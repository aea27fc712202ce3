"""Rows as Python has them, as columns."""

from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest

from sluice.models.errors import UsageError
from sluice.models.signature import ColumnSpec, Signature, TensorSpec
from sluice.models.tensors.binding import bind
from sluice.transforms.core.rows import fields_of, input_columns, joined, row_bytes, to_batch


class Tensor:
    """A tensor of some library, known by its method."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def numpy(self) -> Any:
        return self._value


class Point(NamedTuple):
    x: int
    y: str


def signature_of(*inputs: TensorSpec, features: tuple[ColumnSpec, ...] | None = None) -> Signature:
    return Signature("s", "", inputs, (TensorSpec("out", "float32", (None,)),), features)


XY = signature_of(TensorSpec("x", "int64", (None,)), TensorSpec("y", "string", (None,)))
VECTOR = signature_of(TensorSpec("x", "float32", (None, 2)))


def test_what_has_fields() -> None:
    assert fields_of({"x": 1}) == fields_of(beam.Row(x=1)) == {"x": 1}
    assert fields_of(Point(1, "a")) == {"x": 1, "y": "a"}
    assert fields_of((1, "a")) is fields_of(7) is fields_of(np.zeros(2)) is None


@pytest.mark.parametrize("row", [{"x": 1, "y": "a"}, Point(1, "a"), beam.Row(x=1, y="a"), beam.Row(y="a", x=1, z=2)])
def test_rows_of_each_kind(row: Any) -> None:
    batch, misfits = to_batch([row, row], XY)
    assert batch.to_pydict() == {"x": [1, 1], "y": [b"a", b"a"]} and not misfits


@pytest.mark.parametrize(
    "value",
    [
        Tensor(np.array([1.5, 2.5], np.float32)),
        [Tensor(np.float32(1.5)), 2.5],
        np.array([1.5, 2.5]),
        [np.float64(1.5), np.float32(2.5)],
        (1.5, 2.5),
        np.array([[1.5], [2.5]]),
    ],
    ids=["tensor", "tensors", "array", "numbers", "tuple", "nested"],
)
def test_values_of_each_kind(value: Any) -> None:
    for row in (value, {"x": value}, beam.Row(x=value)):
        batch, misfits = to_batch([row], VECTOR)
        assert not misfits and bind(batch, VECTOR).groups[0].feeds["x"].tolist() == [[1.5, 2.5]]


def test_a_row_that_is_none_of_these() -> None:
    batch, misfits = to_batch([{"x": 1, "y": "a"}, 5, None], XY)
    assert batch.num_rows == 3 and misfits.keys() == {1, 2} and "a int, not a mapping" in misfits[1]


def test_whole_examples_where_rows_have_them() -> None:
    features = (ColumnSpec("a", "int64"),)
    examples = signature_of(TensorSpec("inputs", "string", (None,)), features=features)
    assert [spec.name for spec in input_columns(examples)] == ["a"]
    assert [spec.name for spec in input_columns(examples, ["inputs"])] == ["inputs"]
    unknown = signature_of(TensorSpec("inputs", "string", (None,)), features=())
    assert to_batch([{"inputs": b"x"}], unknown)[0].to_pydict() == {"inputs": [b"x"]}


def test_outputs_follow_the_fields_of_a_row() -> None:
    assert list(joined({"b": 1, "a": 2}, {"c": 3})) == ["b", "a", "c"]
    with pytest.raises(UsageError, match=r"outputs \(a, b\)"):
        joined({"b": 1, "a": 2, "x": 3}, {"a": 3, "b": 4})


def test_bytes_are_reckoned() -> None:
    rows = [{"x": np.zeros(10), "s": "abc"}, {"x": 1}, b"12", beam.Row(t=Tensor(np.zeros(2, np.int8)), l=[1, 2.0])]
    assert list(map(row_bytes, rows)) == [83, 8, 2, 18]


@pytest.mark.parametrize("beside", [[], [1], [0.5], ["text"]], ids=str)
@pytest.mark.parametrize(
    ("dtype", "value", "bound"),
    [
        ("int64", 2.7, None),
        ("int64", 2.0, 2),
        ("int64", (1 << 53) + 1, (1 << 53) + 1),
        ("int64", 1 << 63, None),
        ("int64", True, None),
        ("uint8", 300, None),
        ("uint64", (1 << 64) - 1, (1 << 64) - 1),
        ("float32", 1e39, None),
        ("float32", 20240101, 20240100.0),
        ("float32", (1 << 53) + 1, 9007199254740992.0),
        ("float32", float("inf"), float("inf")),
        ("float64", 53.3, 53.3),
        ("float64", 1 << 2000, None),
        ("float32", "53.3", None),
    ],
)
@pytest.mark.parametrize("length", [0, 1, 2])
def test_values_are_bound_as_in_a_batch_job(dtype: str, value: Any, bound: Any, beside: list[Any], length: int) -> None:
    """The rows beside it decide in what type pyarrow holds the column. They change nothing."""
    shape = (None, length) if length else (None,)
    signature = Signature("s", "", (TensorSpec("x", dtype, shape),), (TensorSpec("y", dtype, (None,)),))
    cells = [{"x": [each] * length if length else each} for each in (value, *beside)]
    batch, misfits = to_batch(cells, signature)
    found = bind(batch, signature)
    assert (0 in found.errors or 0 in misfits) == (bound is None)
    if bound is not None:
        assert np.asarray(found.groups[0].feeds["x"])[0].tolist() == ([bound] * length if length else bound)


def test_an_empty_batch_has_its_columns() -> None:
    assert to_batch([], XY)[0].schema.names == ["x"]
    assert pa.types.is_integer(to_batch([{"x": 1, "y": ""}], XY)[0].schema.field("x").type)
