"""Binding one Arrow column to one tensor, compared with a brute-force twin."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.models.errors import UsageError
from sluice.models.signature import ColumnSpec
from sluice.models.tensors.column_types import is_list, type_fits
from sluice.models.tensors.columns import RowErrors, bind_column, default_value
from tests.support.columns_twin import DTYPES, SHAPES, Misfit, arrays, expected_row, same
from tests.support.sizes import examples


def specs(*dtypes: str) -> st.SearchStrategy[ColumnSpec]:
    return st.builds(ColumnSpec, st.just("c"), st.sampled_from(dtypes), st.sampled_from(SHAPES))


def bound(array: pa.Array, spec: ColumnSpec, default: Any = None) -> tuple[list[np.ndarray | None], dict[int, str]]:
    """Returns the tensor of each row, None for bad rows; and the reasons."""
    errors = RowErrors(len(array))
    column = bind_column(array, spec, errors, default)
    rows: list[np.ndarray | None] = []
    for row in range(len(array)):
        if row in errors.reasons:
            rows.append(None)
        else:
            rows.append(column.take(np.array([row]), tuple(column.sizes[row].tolist()))[0, ...])
    return rows, errors.reasons


def twin(array: pa.Array, spec: ColumnSpec, default: Any = None) -> list[np.ndarray | None]:
    rows: list[np.ndarray | None] = []
    for value in array.to_pylist():
        try:
            rows.append(expected_row(value, array.type, spec, default))
        except Misfit:
            rows.append(None)
    return rows


def check(array: pa.Array, spec: ColumnSpec, default: Any = None) -> None:
    found, reasons = bound(array, spec, default)
    for row, (got, wanted) in enumerate(zip(found, twin(array, spec, default), strict=True)):
        if wanted is None:
            assert got is None, (row, got)
            assert "'c'" in reasons[row]
        else:
            assert got is not None, reasons[row]
            assert same(got, wanted), (row, got, wanted)


@pytest.mark.parametrize("dtype", DTYPES)
@examples(24)
@given(st.data())
def test_every_row_is_bound_as_it_is_alone_or_is_bad(dtype: str, data: st.DataObject) -> None:
    spec = data.draw(specs(dtype))
    check(data.draw(arrays(spec, data.draw(st.integers(0, 5)))), spec)


@examples(40)
@given(st.data())
def test_defaults_stand_for_nulls(data: st.DataObject) -> None:
    spec = ColumnSpec("c", data.draw(st.sampled_from(DTYPES)), data.draw(st.sampled_from([(), (1,)])))
    default = b"d" if spec.dtype == "string" else spec.dtype == "bool" or 7
    check(data.draw(arrays(spec, 4)), spec, default)


@examples(60)
@given(st.data())
def test_a_type_that_does_not_fit_has_no_good_row(data: st.DataObject) -> None:
    spec = data.draw(specs(*DTYPES))
    array = data.draw(arrays(spec, 3))
    if not type_fits(array.type, spec):
        assert set(bound(array, spec)[1]) == {0, 1, 2}
    elif not array.null_count and not is_list(array.type):
        assert all("has type" not in reason for reason in bound(array, spec)[1].values())


@examples(40)
@given(st.data())
def test_chunks_are_one_column(data: st.DataObject) -> None:
    spec = data.draw(specs(*DTYPES))
    array = data.draw(arrays(spec, 5))
    cut = data.draw(st.integers(0, 5))
    whole, chunked = bound(array, spec), bound(pa.chunked_array([array[:cut], array[cut:]]), spec)
    assert whole[1] == chunked[1]
    assert all(a is b is None or same(a, b) for a, b in zip(whole[0], chunked[0], strict=True))  # type: ignore[arg-type]


WORDS = pa.array(["a", None, "b", "a"]).dictionary_encode()
INNER = pa.array([9, 8, 1, 2, 3, 4], pa.int64())[2:]


@pytest.mark.parametrize(
    ("array", "spec"),
    [
        (pa.chunked_array([], pa.int64()), ColumnSpec("c", "int64")),
        (pa.ListArray.from_arrays(pa.array([0, 1, 1, 3, 4]), WORDS)[1:], ColumnSpec("c", "string", (None,))),
        (pa.ListArray.from_arrays(pa.array([0, 2, 4]), INNER)[1:], ColumnSpec("c", "float32", (2,))),
        (pa.array([[], None, [None]], pa.list_(pa.null())), ColumnSpec("c", "int32", (None,))),
        (pa.array([[], [[]], None], pa.list_(pa.list_(pa.float32()))), ColumnSpec("c", "float32", (None, 3))),
        (pa.array([[1, 2, 3, 4], [1, 2, 3]]), ColumnSpec("c", "int64", (2, 2))),
        (pa.array([[[1], [2]], [[1, 2]], [[1], []]]), ColumnSpec("c", "int64", (2,))),
        (pa.array([{"a": 1}, None]), ColumnSpec("c", "int64")),
        (pa.array([None, 0], pa.date32()), ColumnSpec("c", "string")),
        (pa.nulls(2, pa.decimal128(5, 2)), ColumnSpec("c", "float32")),
        (pa.DictionaryArray.from_arrays([0, 1, None], ["a", None]), ColumnSpec("c", "string")),
        (pa.array([None, None], pa.dictionary(pa.int8(), pa.string())), ColumnSpec("c", "string")),
    ],
)
def test_odd_arrays(array: pa.Array, spec: ColumnSpec) -> None:
    check(array, spec)


def test_extension_types_stand_for_their_storage() -> None:
    storage = pa.array([[1, 2], [3, 4]], pa.list_(pa.float32(), 2))
    tensors = pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.float32(), (2,)), storage)
    spec = ColumnSpec("c", "float32", (2,))
    assert type_fits(tensors.type, spec)
    assert [row.tolist() for row in bound(tensors, spec)[0] if row is not None] == [[1, 2], [3, 4]]


@pytest.mark.parametrize("kind", [pa.string_view(), pa.binary_view(), pa.list_(pa.string_view())])
def test_views_are_strings(kind: pa.DataType) -> None:
    values = ["a", "longer than a view holds itself", ""]
    array = pa.array([values] if pa.types.is_list(kind) else values, kind)
    spec = ColumnSpec("c", "string", (None,) if pa.types.is_list(kind) else ())
    assert type_fits(array.type, spec)
    errors = RowErrors(len(array))
    found = bind_column(array, spec, errors).values
    assert (errors.reasons, np.asarray(found).tolist()) == ({}, [value.encode() for value in values])


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.string(), pa.binary(4), pa.binary_view()])
@pytest.mark.parametrize("null", [False, True])
def test_bytes_are_a_tensor_of_uint8(kind: pa.DataType, null: bool) -> None:
    values = [b"junk", b"abcd", None if null else b"0000", b"wxyz", b"tail"]
    if kind != pa.binary(4):
        values[2:2] = [b"abc", b"abcde", b""]
    spec = ColumnSpec("c", "uint8", (2, 2))
    array = pa.array(values).cast(kind)[1:-1]
    found, reasons = bound(array, spec)
    for row, value in enumerate(values[1:-1]):
        if value is None or len(value) != 4:
            assert ("is null" if value is None else f"{len(value)} bytes") in reasons[row]
        else:
            assert found[row] is not None and found[row].tobytes() == value and found[row].shape == (2, 2)
    assert type_fits(kind, spec)


def test_no_rows_of_bytes() -> None:
    assert bound(pa.array([], pa.binary()), ColumnSpec("c", "uint8", (2, 2))) == ([], {})
    dictionary = pa.array([b"abcd"]).dictionary_encode()
    assert bound(dictionary, ColumnSpec("c", "uint8", (4,)))[0][0].tolist() == list(b"abcd")  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("array", "spec", "reason"),
    [
        (pa.array([300]), ColumnSpec("c", "uint8"), "column 'c': 300 does not fit uint8"),
        (pa.array([1.5]), ColumnSpec("c", "int64"), "column 'c': 1.5 does not fit int64"),
        (pa.array([[1.0, 1e39]]), ColumnSpec("c", "float32", (2,)), "column 'c': 1e+39 does not fit float32"),
        (pa.array(["7"]), ColumnSpec("c", "int64"), "column 'c' has type string, and the model takes int64"),
        (pa.array([[1]]), ColumnSpec("c", "int64", (2, 3)), "the model takes int64[2, 3], found a list of 1"),
        (
            pa.array([[[1], [2]]]),
            ColumnSpec("c", "int64", (2, None, 1)),
            "column 'c': the model takes int64[2, ?, 1], found lists of 2 x 1",
        ),
        (pa.array([[[1], []]]), ColumnSpec("c", "int64", (None, None)), "holds lists of unequal lengths"),
        (pa.array([[[1], None]]), ColumnSpec("c", "int64", (None, None)), "column 'c' holds a null"),
        (pa.array([None], pa.int64()), ColumnSpec("c", "int64"), "give one with --column_defaults c=VALUE"),
        (pa.array([[None]], pa.list_(pa.int64())), ColumnSpec("c", "int64", (1,)), "column 'c' holds a null"),
    ],
)
def test_reasons_say_what_was_wanted_and_found(array: pa.Array, spec: ColumnSpec, reason: str) -> None:
    assert reason in bound(array, spec)[1][0]


def test_the_first_wrong_value_of_a_row_is_named() -> None:
    array = pa.array([[1, 2], [400, -5], [3, 500]])
    assert bound(array, ColumnSpec("c", "uint8", (2,)))[1] == {
        1: "column 'c': 400 does not fit uint8",
        2: "column 'c': 500 does not fit uint8",
    }


@pytest.mark.parametrize(
    ("default", "spec", "value"),
    [
        (3, ColumnSpec("c", "float32"), np.float32(3)),
        (3.0, ColumnSpec("c", "int8"), np.int8(3)),
        ("x", ColumnSpec("c", "string"), b"x"),
        (True, ColumnSpec("c", "bool", (1,)), True),
    ],
)
def test_defaults_are_held_as_the_tensor_holds_them(default: Any, spec: ColumnSpec, value: Any) -> None:
    assert default_value(default, spec) == value
    column = bind_column(pa.array([None, None]), spec, RowErrors(2), default)
    assert column.values.tolist() == [value, value]


@pytest.mark.parametrize(
    ("default", "dtype"),
    [("3", "int64"), (300, "uint8"), (1.5, "int32"), (2**64, "int64"), (1, "bool"), (object(), "string")],
)
def test_a_default_that_does_not_fit_is_an_error(default: Any, dtype: str) -> None:
    with pytest.raises(UsageError, match="of column 'c' cannot stand for"):
        bind_column(pa.array([None]), ColumnSpec("c", dtype), RowErrors(1), default)


def test_a_default_larger_than_the_column_type_holds() -> None:
    array = pa.array([None, 5], pa.int8())
    assert [row.tolist() for row in bound(array, ColumnSpec("c", "int64"), 300)[0] if row is not None] == [300, 5]
