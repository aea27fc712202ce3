"""Binding a RecordBatch to a signature, compared with a brute-force twin."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.models.errors import UsageError
from sluice.models.signature import Signature, TensorSpec
from sluice.models.tensors.binding import Bound, bind
from tests.support.columns_twin import Misfit, arrays, expected_row, fitting_arrays, same
from tests.support.sizes import examples

INPUTS = st.builds(
    lambda dtype, shape: TensorSpec("", dtype, shape),
    st.sampled_from(["string", "int64", "float32", "uint8", "bool"]),
    st.sampled_from([None, (None,), (None,), (None, 1), (None, None), (None, 2), (None, None, 2), (8, None)]),
)


def signature(*inputs: TensorSpec) -> Signature:
    return Signature("serving_default", "", inputs, (TensorSpec("y", "float32", (None,)),))


@st.composite
def signatures(draw: st.DrawFn) -> Signature:
    inputs = draw(st.lists(INPUTS, min_size=1, max_size=3))
    return signature(*(TensorSpec(f"c{number}", spec.dtype, spec.shape) for number, spec in enumerate(inputs)))


@st.composite
def batches(draw: st.DrawFn, of: Signature) -> pa.RecordBatch:
    rows = draw(st.integers(1, 6))
    columns = {
        spec.name: draw(fitting_arrays(spec, rows) if draw(st.integers(0, 4)) else arrays(spec, rows))
        for spec in of.columns
    }
    columns["passthrough"] = pa.array(range(rows))
    return pa.RecordBatch.from_pydict(columns).slice(draw(st.integers(0, 1)))


def twin(batch: pa.RecordBatch, of: Signature) -> dict[int, dict[str, np.ndarray]]:
    """Returns the tensors of each row that fits, by row."""
    rows = {}
    for number in range(batch.num_rows):
        try:
            rows[number] = {
                spec.name: expected_row(batch[spec.name][number].as_py(), batch[spec.name].type, spec)
                for spec in of.columns
            }
        except Misfit:
            continue
    return rows


def rows_of(bound: Bound, total: int) -> list[tuple[int, dict[str, np.ndarray]]]:
    """Returns the tensors of each bound row, by row."""
    found = []
    for group in bound.groups:
        numbers = range(total) if group.rows is None else group.rows.tolist()
        assert len(numbers) == group.size
        assert {len(feed) for feed in group.feeds.values()} == {group.size}
        for place, number in enumerate(numbers):
            found.append((number, {name: feed[place, ...] for name, feed in group.feeds.items()}))
    return found


@examples(160)
@given(st.data())
def test_every_row_is_in_one_group_or_in_the_errors(data: st.DataObject) -> None:
    of = data.draw(signatures())
    batch = data.draw(batches(of))
    wanted = twin(batch, of)
    bound = bind(batch, of)
    found = rows_of(bound, batch.num_rows)
    assert sorted([*(number for number, _ in found), *bound.errors]) == list(range(batch.num_rows))
    assert {number for number, _ in found} == set(wanted)
    for number, tensors in found:
        assert list(tensors) == [spec.name for spec in of.inputs]
        assert all(same(tensors[name], wanted[number][name]) for name in tensors), (number, tensors, wanted[number])
    assert list(bound.errors) == sorted(bound.errors)
    assert np.flatnonzero(bound.bad_mask).tolist() == list(bound.errors)


@examples(60)
@given(st.data())
def test_groups_are_as_few_as_there_are_shapes_and_keep_the_order_of_rows(data: st.DataObject) -> None:
    of = data.draw(signatures())
    batch = data.draw(batches(of))
    shapes = {tuple(tensor.shape for tensor in tensors.values()) for tensors in twin(batch, of).values()}
    bound = bind(batch, of)
    assert len(bound.groups) == len(shapes)
    for group in bound.groups:
        assert group.rows is None or (np.diff(group.rows) > 0).all()


@examples(40)
@given(st.data())
def test_a_part_of_a_batch_is_bound_as_in_the_whole(data: st.DataObject) -> None:
    of = data.draw(signatures())
    batch = data.draw(batches(of))
    start = data.draw(st.integers(0, batch.num_rows))
    part = batch.slice(start, data.draw(st.integers(0, batch.num_rows - start)))
    whole, bound = bind(batch, of), bind(part, of)
    assert bound.errors == {row - start: why for row, why in whole.errors.items() if 0 <= row - start < part.num_rows}
    in_whole = dict(rows_of(whole, batch.num_rows))
    for number, tensors in rows_of(bound, part.num_rows):
        assert all(same(tensor, in_whole[number + start][name]) for name, tensor in tensors.items())


X = TensorSpec("x", "int64", (None,))
NAME = TensorSpec("name", "string", (None, 1))
SERIES = TensorSpec("series", "float32", (None, None))


def test_the_first_column_at_fault_gives_the_reason() -> None:
    batch = pa.RecordBatch.from_pydict({"name": [None, "b", None], "x": [1.5, 2.0, 3.0]})
    bound = bind(batch, signature(X, NAME))
    assert bound.errors[0] == "column 'x': 1.5 does not fit int64"
    assert bound.errors[2].startswith("column 'name' is null")
    (group,) = bound.groups
    assert group.rows is not None and group.rows.tolist() == [1]
    assert group.feeds["name"].tolist() == [[b"b"]]


def test_a_column_that_is_not_there_is_null() -> None:
    batch = pa.RecordBatch.from_pydict({"x": [1, 2]})
    assert bind(batch, signature(X, NAME)).errors.keys() == {0, 1}
    (group,) = bind(batch, signature(X, NAME), {"name": "nobody"}).groups
    assert group.rows is None
    assert group.feeds["name"].tolist() == [[b"nobody"], [b"nobody"]]


def test_a_default_that_is_needed_and_does_not_fit_is_the_users_error() -> None:
    batch = pa.RecordBatch.from_pydict({"x": [1, 2], "name": ["a", "b"]})
    assert not bind(batch, signature(X, NAME), {"x": "zero"}).errors
    with pytest.raises(UsageError, match="default 'zero' of column 'x'"):
        bind(batch.select(["name"]), signature(X, NAME), {"x": "zero"})


@pytest.mark.parametrize(
    ("series", "groups"),
    [
        ([[1.0], [2.0]], [None]),
        ([[1.0], [2.0, 3.0], [4.0], []], [[3], [0, 2], [1]]),
        ([[1.0], None, [2.0]], [[0, 2]]),
        ([None], []),
        ([], []),
    ],
)
def test_lengths_make_groups(series: list[Any], groups: list[Any]) -> None:
    batch = pa.RecordBatch.from_pydict({"series": pa.array(series, pa.list_(pa.float64()))})
    bound = bind(batch, signature(SERIES))
    assert [None if group.rows is None else group.rows.tolist() for group in bound.groups] == groups


def test_good_columns_of_the_tensors_dtype_are_not_copied() -> None:
    values, pixels = np.arange(4), np.arange(16, dtype=np.uint8)
    offsets = np.arange(0, 20, 4, np.int32)
    images = pa.Array.from_buffers(pa.binary(), 4, [None, pa.py_buffer(offsets), pa.py_buffer(pixels)])
    batch = pa.RecordBatch.from_arrays([pa.array(values), images], ["x", "image"])
    (group,) = bind(batch, signature(X, TensorSpec("image", "uint8", (None, 2, 2)))).groups
    assert np.shares_memory(group.feeds["x"], values)
    assert np.shares_memory(group.feeds["image"], pixels)
    assert group.feeds["image"][1].tolist() == [[4, 5], [6, 7]]
