"""Whole columns in protobuf's wire format; protobuf's own parser says what is right."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sluice.models.protos import message_class
from sluice.models.tensors import wire
from sluice.models.tensors.strings import Strings
from sluice.models.tensors.tensor_proto import tensor_parts
from sluice.models.tensors.wire import delimited, packed_varints, read_varints, string_fields, varint

TensorProto = message_class("tensorflow.TensorProto")
# About the limits of a varint's bytes; those of four are tested apart.
SIZES = st.one_of(st.integers(0, 20), st.sampled_from([126, 127, 128, 129, 2**14 - 1, 2**14]))
VALUES = st.lists(st.builds(lambda size, fill: bytes([fill]) * size, SIZES, st.integers(0, 255)), max_size=20)
KINDS = st.sampled_from([pa.binary(), pa.large_binary()])


def slice_of(values: list[bytes], kind: pa.DataType, before: int) -> Strings:
    """The values behind others in the same buffers."""
    return Strings.of(pa.array([b"-" * 17] * before + values + [b"+"], kind).slice(before, len(values)))


def read(content: Any) -> list[bytes]:
    return list(TensorProto.FromString(bytes(content)).string_val)


@pytest.fixture(params=[1, 1000], ids=["together", "one by one"])
def many(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Strings are written in both ways, however few they are."""
    monkeypatch.setattr(wire, "_MANY", request.param)


@pytest.mark.usefixtures("many")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(VALUES, KINDS, st.integers(0, 3)), max_size=4))
def test_strings_of_several_tensors(drawn: list[tuple[list[bytes], pa.DataType, int]]) -> None:
    fields = string_fields(8, [slice_of(*each) for each in drawn])
    assert [read(field) for field in fields] == [values for values, _, _ in drawn]


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize("size", [0, 1, 127, 128, 2**14 - 1, 2**14, 2**21 - 1, 2**21, 2**21 + 5])
def test_every_width_of_a_length(size: int) -> None:
    values = [b"", b"a" * size, b"b"]
    (field,) = string_fields(8, [Strings.of(pa.array(values))])
    assert read(field) == values


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize(
    "array",
    [
        pa.array(["é", None, "", "b"]),
        pa.array(["é", "b" * 30], pa.large_string()),
        pa.array([b"abc", b"def"], pa.binary(3)),
        pa.array(["b", None, "a" * 40, "b"]).dictionary_encode(),
        pa.array(["é", None, "b" * 30]).cast(pa.string_view()),
        pa.array([b"", None, b"b" * 30]).cast(pa.binary_view()),
    ],
    ids=lambda array: str(array.type),
)
def test_every_type_of_text(array: pa.Array) -> None:
    (field,) = string_fields(8, [Strings.of(array.slice(1), b"none")])
    wanted = ["none" if value is None else value for value in array.slice(1).to_pylist()]
    assert read(field) == [value.encode() if isinstance(value, str) else value for value in wanted]


def test_a_field_of_two_bytes() -> None:
    """Fields above 15 have a longer tag."""
    (field,) = string_fields(500, [Strings.of(pa.array(["a", "b" * 200] * 300))])
    header = varint(500 << 3 | 2)
    assert bytes(field).count(header) == 600 and bytes(field).startswith(header)
    assert len(field) == 600 * (len(header) + 2) + 300 * 201


@given(st.integers(0, 2**63 - 1))
def test_a_varint_is_the_one_of_protobuf(value: int) -> None:
    tensor = TensorProto(version_number=min(value, 2**31 - 1))
    assert tensor.SerializeToString() == (b"\x18" + varint(min(value, 2**31 - 1)) if value else b"")
    assert TensorProto.FromString(b"".join(delimited(10, [varint(value)]))).int64_val == [value]


def test_no_object_is_made_for_a_string() -> None:
    """10,000 bytes objects would take 33 bytes each, and their list 8."""
    strings = Strings.of(pa.array(["abcdefgh"] * 10_000))
    tensor_parts([strings])
    tracemalloc.start()
    try:
        parts = tensor_parts([strings])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sum(map(len, parts[0])) > 100_000
    assert peak < 10_000 * 33, "offsets and lengths take 24 bytes a string at most, and are no objects"


def test_numbers_are_not_copied() -> None:
    array = np.arange(1000.0)
    _, content = tensor_parts([array])[0][-2:]
    assert np.shares_memory(content, array)


@given(st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 300)))
def test_packed_integers(values: list[int]) -> None:
    array = np.array(values, np.int64)
    written = b"".join(bytes(part) for part in delimited(10, [packed_varints(array)]))
    assert list(TensorProto.FromString(written).int64_val) == values
    assert TensorProto(int64_val=values).SerializeToString() == (written if values else b"")
    assert read_varints(bytes(packed_varints(array))).astype(np.int64).tolist() == values


@given(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 300)))
def test_packed_integers_without_a_sign(values: list[int]) -> None:
    packed = bytes(packed_varints(np.array(values, np.uint64)))
    assert TensorProto(uint64_val=values).SerializeToString().endswith(packed)
    assert read_varints(packed).tolist() == values


@pytest.mark.parametrize("data", [b"\x80", b"\x01\xff", b"\x80" * 10 + b"\x01"])
def test_a_varint_without_an_end(data: bytes) -> None:
    with pytest.raises(ValueError, match="without an end"):
        read_varints(data)
