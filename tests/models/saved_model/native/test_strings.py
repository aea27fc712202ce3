"""Strings to TensorFlow's entries and back; of TensorFlow only its own ways to make and read an entry."""

from __future__ import annotations

import ctypes

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.models.saved_model.native.entries import entries_of_each
from sluice.models.saved_model.native.library import load_library
from sluice.models.saved_model.native.strings import STRING_SIZE, read_strings
from sluice.models.saved_model.native.tensors import address_of
from sluice.models.tensors.strings import Strings, concatenate, repeat_last

# Lengths about the limits of entries (22) and of Arrow's views (12).
SIZES = st.one_of(st.integers(0, 30), st.sampled_from([11, 12, 13, 22, 23, 255, 256, 1000]))
VALUES = st.lists(st.builds(lambda size, fill: bytes([fill]) * size, SIZES, st.integers(0, 255)), max_size=40)
KINDS = st.sampled_from([pa.binary(), pa.large_binary()])


def slice_of(values: list[bytes], kind: pa.DataType, before: int) -> Strings:
    """The values behind others in the same buffers."""
    array = pa.array([b"-" * 17] * before + values + [b"+"], kind)
    return Strings.of(array.slice(before, len(values)))


@given(VALUES, KINDS, st.integers(0, 3))
def test_views_are_read_as_they_were_made(values: list[bytes], kind: pa.DataType, before: int) -> None:
    strings = slice_of(values, kind, before)  # owns what the views point to
    (views,), _ = entries_of_each([strings])
    assert read_strings(address_of(views), len(values)).to_pylist() == values


@given(VALUES, KINDS, st.integers(0, 3))
def test_tensorflow_reads_views(values: list[bytes], kind: pa.DataType, before: int) -> None:
    library = load_library()
    assert library is not None
    strings = slice_of(values, kind, before)
    (entries,), _ = entries_of_each([strings])
    start = address_of(entries)
    found = [
        ctypes.string_at(library.TF_StringGetDataPointer(at), library.TF_StringGetSize(at))
        for at in range(start, start + len(entries) * STRING_SIZE, STRING_SIZE)
    ]
    assert found == values


@given(st.lists(st.tuples(VALUES, st.booleans(), KINDS), max_size=4))
def test_strings_of_several_inputs_become_entries_together(inputs: list[tuple[list[bytes], bool, pa.DataType]]) -> None:
    tensors = [
        np.array([None, *values], object)[1:] if as_objects else slice_of(values, kind, 1)
        for values, as_objects, kind in inputs
    ]
    entries, kept = entries_of_each(tensors)
    found = [read_strings(address_of(each), len(each)).to_pylist() if len(each) else [] for each in entries]
    assert found == [values for values, _, _ in inputs]
    del kept


@pytest.mark.parametrize("others", [[b"bytes"], [b"x" * 1000]])
def test_text_among_objects_is_encoded_and_what_is_no_string_is_refused(others: list[bytes]) -> None:
    (entries,), kept = entries_of_each([np.array([*others, "é"], object)])
    assert read_strings(address_of(entries), 2).to_pylist() == [*others, "é".encode()]
    del kept
    with pytest.raises(pa.ArrowException):
        entries_of_each([np.array([*others, 1], object)])


@given(VALUES)
def test_entries_of_tensorflow_are_read(values: list[bytes]) -> None:
    library = load_library()
    assert library is not None
    entries = np.zeros((len(values), STRING_SIZE), np.uint8)
    for number, value in enumerate(values):
        library.TF_StringCopy(address_of(entries) + STRING_SIZE * number, value, len(value))
    assert read_strings(address_of(entries), len(values)).to_pylist() == values


def test_nulls_are_empty_strings_or_the_default() -> None:
    array = pa.array([None, "a" * 30, None], pa.string())
    assert Strings.of(array).tolist() == [b"", b"a" * 30, b""]
    assert Strings.of(array, b"none").tolist() == [b"none", b"a" * 30, b"none"]


@given(VALUES, VALUES, KINDS, KINDS, st.data())
def test_a_tensor_of_strings_behaves_as_the_array_of_objects(
    first: list[bytes], second: list[bytes], kind: pa.DataType, other: pa.DataType, data: st.DataObject
) -> None:
    parts = slice_of(first, kind, 2), slice_of(second, other, 1)
    twins = [np.asarray(part) for part in parts]
    whole, twin = concatenate(parts), np.concatenate(twins)
    assert isinstance(whole, Strings) and whole.tolist() == twin.tolist()
    start, stop = (data.draw(st.integers(-3, len(twin) + 3)) for _ in range(2))
    assert whole[start:stop].tolist() == twin[start:stop].tolist()
    if len(twin):
        rows = np.array(data.draw(st.lists(st.integers(-len(twin), len(twin) - 1))), np.int64)
        assert whole[rows].tolist() == twin[rows].tolist()
        assert repeat_last(whole, 3).tolist() == np.repeat(twin[-1:], 3, axis=0).tolist()
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=len(twin), max_size=len(twin))), bool)
    assert whole[mask].tolist() == twin[mask].tolist()
    assert concatenate([whole, twin]).tolist() == np.concatenate([twin, twin]).tolist()
    assert whole.copy().tolist() == twin.tolist() and (whole.shape, whole.dtype) == (twin.shape, twin.dtype)


@given(st.integers(0, 4), st.integers(0, 3), st.data())
def test_rows_of_several_strings(rows: int, size: int, data: st.DataObject) -> None:
    values = data.draw(st.lists(st.binary(max_size=25), min_size=rows * size, max_size=rows * size))
    tensor = Strings.of(pa.array(values, pa.binary())).reshape(rows, size)
    twin = np.array(values, object).reshape(rows, size)
    index = np.array(data.draw(st.lists(st.integers(0, rows - 1), max_size=5)) if rows else [], np.int64)
    for found, wanted in ((tensor[1:], twin[1:]), (tensor[index], twin[index]), (tensor.reshape(-1), twin.reshape(-1))):
        assert found.shape == wanted.shape and found.tolist() == wanted.tolist()


def test_a_dictionary_of_text_is_decoded() -> None:
    array = pa.array(["b", None, "a" * 40, "b"]).dictionary_encode()
    assert Strings.of(array.slice(1)).tolist() == [b"", b"a" * 40, b"b"]


def test_objects_that_are_no_bytes_are_refused() -> None:
    for values in ([1], [b"a", None]):
        with pytest.raises(pa.ArrowException):
            Strings.from_objects(np.array(values, object))
