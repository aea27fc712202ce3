"""Arrays as TensorProto: TensorFlow itself says what is right."""

from __future__ import annotations

import tracemalloc
from typing import Any

import ml_dtypes
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sluice.models.errors import BadOutput
from sluice.models.protos import message_class, packed_class
from sluice.models.signature import numpy_dtype
from sluice.models.tensors.strings import Tensor
from sluice.models.tensors.tensor_proto import from_tensor, tensor_parts
from sluice.models.tensors.wire import delimited, varint
from tests.support.serving.messages import plain_array, plain_tensor, tensor_bytes, to_tensor

TensorProto = message_class("tensorflow.TensorProto")

# By the number of tensorflow's DataType: the name, and the field that holds values one by one.
FIELDS = {
    1: ("float32", "float_val"),
    2: ("float64", "double_val"),
    3: ("int32", "int_val"),
    4: ("uint8", "int_val"),
    5: ("int16", "int_val"),
    6: ("int8", "int_val"),
    7: ("string", "string_val"),
    9: ("int64", "int64_val"),
    10: ("bool", "bool_val"),
    14: ("bfloat16", "half_val"),
    17: ("uint16", "int_val"),
    19: ("float16", "half_val"),
    22: ("uint32", "uint32_val"),
    23: ("uint64", "uint64_val"),
}
SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)


@pytest.fixture(scope="module")
def tf() -> Any:
    import tensorflow

    return tensorflow


def draw_array(data: st.DataObject, name: str, shape: tuple[int, ...]) -> np.ndarray:
    if name == "string":
        return data.draw(hnp.arrays(object, shape, elements=st.binary(max_size=200)))
    if name == "bfloat16":
        return data.draw(hnp.arrays(np.uint16, shape)).view(ml_dtypes.bfloat16)
    return data.draw(hnp.arrays(numpy_dtype(name), shape))


def parse(tf: Any, data: bytes) -> Any:
    return type(tf.make_tensor_proto(0)).FromString(data)


def assert_same(ours: Tensor, theirs: np.ndarray) -> None:
    assert ours.dtype == theirs.dtype
    assert ours.shape == theirs.shape
    same = ours.tolist() == theirs.tolist() if ours.dtype == object else ours.tobytes() == theirs.tobytes()
    assert same, f"{ours!r} != {theirs!r}"


@pytest.mark.parametrize("number", FIELDS)
@given(data=st.data())
def test_tensorflow_reads_what_is_written(tf: Any, number: int, data: st.DataObject) -> None:
    array = draw_array(data, FIELDS[number][0], data.draw(SHAPES))
    written = tensor_bytes(array)
    theirs = parse(tf, written)
    assert theirs.dtype == number
    assert_same(tf.make_ndarray(theirs), array)
    assert_same(from_tensor(TensorProto.FromString(written)), array)


@pytest.mark.parametrize("number", FIELDS)
@given(data=st.data())
def test_what_tensorflow_writes_is_read(tf: Any, number: int, data: st.DataObject) -> None:
    array = draw_array(data, FIELDS[number][0], data.draw(SHAPES))
    theirs = tf.make_tensor_proto(array, dtype=number, shape=array.shape)
    assert_same(from_tensor(TensorProto.FromString(theirs.SerializeToString())), array)
    serialized = tf.io.serialize_tensor(tf.constant(array, dtype=number, shape=array.shape)).numpy()
    assert_same(from_tensor(TensorProto.FromString(serialized)), array)


@pytest.mark.parametrize("number", FIELDS)
@given(data=st.data())
def test_fewer_values_than_elements(tf: Any, number: int, data: st.DataObject) -> None:
    """The last one is repeated, and without any all are zero: as TensorFlow's own reader has it."""
    name, field = FIELDS[number]
    shape = data.draw(SHAPES)
    count = data.draw(st.integers(0, int(np.prod(shape, dtype=int))))
    values = draw_array(data, name, (count,))
    message = TensorProto(dtype=number)
    for size in shape:
        message.tensor_shape.dim.add(size=size)
    stored = values.view(np.uint16) if field == "half_val" else values
    getattr(message, field).extend(stored.tolist())
    theirs = tf.io.parse_tensor(message.SerializeToString(), tf.as_dtype(number)).numpy()
    assert_same(from_tensor(message), np.asarray(theirs, numpy_dtype(name)))


@given(values=st.lists(st.binary(max_size=300), min_size=1, max_size=5))
def test_strings_as_content(tf: Any, values: list[bytes]) -> None:
    """A form that TF Serving may be told to answer in: lengths as varints, then the bytes."""
    message = TensorProto(dtype=7)
    message.tensor_shape.dim.add(size=len(values))
    lengths = [bytes([n]) if n < 128 else bytes([n & 127 | 128, n >> 7]) for n in map(len, values)]
    message.tensor_content = b"".join([*lengths, *values])
    assert tf.io.parse_tensor(message.SerializeToString(), tf.string).numpy().tolist() == values
    assert from_tensor(message).tolist() == values


@pytest.mark.parametrize("array", [np.arange(6).reshape(2, 3).T, np.arange(6)[::2], np.arange(3, dtype=">i4")])
def test_any_layout_is_written_row_by_row_in_little_endian(array: np.ndarray) -> None:
    assert from_tensor(to_tensor(array)).tolist() == array.tolist()


@pytest.mark.parametrize("array", [np.array(["text"]), np.array([1j]), np.array([0], "datetime64[s]")])
def test_a_dtype_that_cannot_be_sent(array: np.ndarray) -> None:
    with pytest.raises(TypeError, match="cannot be sent"):
        tensor_parts([array])


def test_objects_that_are_not_bytes() -> None:
    with pytest.raises(pa.ArrowException):
        tensor_parts([np.array([1.5, None], object)])


def tensor(dtype: int, sizes: list[int], **content: Any) -> Any:
    message = TensorProto(dtype=dtype, **content)
    for size in sizes:
        message.tensor_shape.dim.add(size=size)
    return message


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (tensor(0, [1]), "DataType 0"),
        (tensor(8, [1]), "DataType 8"),
        (tensor(101, [1]), "DataType 101"),
        (tensor(1, [-1]), r"float32 tensor of unknown shape: \[-1\]"),
        (TensorProto(dtype=1, tensor_shape={"unknown_rank": True}), "of unknown shape"),
        (tensor(1, [2], float_val=[1, 2, 3]), r"float32 tensor of shape \[2\] has 3 values"),
        (tensor(1, [0], float_val=[1]), r"of shape \[0\] has 1 values"),
        (tensor(7, [1], string_val=[b"a", b"b"]), r"string tensor of shape \[1\] has 2 values"),
        (tensor(1, [2], tensor_content=b"1234567"), "2 values has 7 bytes, not 8"),
        (tensor(9, [2, 3], tensor_content=b"12345678"), "6 values has 8 bytes, not 48"),
        (tensor(7, [2], tensor_content=b"\x01\x02ab"), "string tensor of 2 values has 4 bytes"),
        (tensor(7, [2], tensor_content=b"\xff\xff"), "do not match"),
        (tensor(7, [0], tensor_content=b"\x00"), "do not match"),
        (tensor(6, [1], int_val=[300]), "int8 tensor has the value 300"),
        (tensor(4, [2], int_val=[1, -1]), "uint8 tensor has the value -1"),
        (tensor(19, [1], half_val=[65536]), "float16 tensor has the value 65536"),
    ],
)
def test_content_that_does_not_fit(message: Any, words: str) -> None:
    with pytest.raises(BadOutput, match=words):
        from_tensor(message)


@given(data=st.binary(max_size=60))
def test_any_content_is_strings_or_a_bad_output(data: bytes) -> None:
    message = TensorProto(dtype=7, tensor_content=data)
    message.tensor_shape.dim.add(size=3)
    try:
        assert from_tensor(message).shape == (3,)
    except BadOutput as error:
        assert str(error)


@pytest.mark.parametrize("message", [message_class, packed_class])
@given(runs=st.lists(st.tuples(st.booleans(), st.lists(st.integers(-(2**31), 2**31 - 1) | st.integers(0, 9)))))
def test_numbers_in_runs_packed_or_not(message: Any, runs: list[tuple[bool, list[int]]]) -> None:
    """A writer may use either form; one that mixes them is refused where the order would be lost."""
    values = [value for _, run in runs for value in run]
    parts = [TensorProto(dtype=3, tensor_shape={"dim": [{"size": len(values)}]}).SerializeToString()]
    for in_one, run in runs:
        digits = [varint(value % 2**64) for value in run]
        parts += delimited(7, digits) if in_one else [b"\x38" + each for each in digits]
    written = b"".join(bytes(part) for part in parts)
    assert list(TensorProto.FromString(written).int_val) == values
    tensor_proto = message("tensorflow.TensorProto").FromString(written)
    if message is packed_class and len({in_one for in_one, run in runs if run}) > 1:
        with pytest.raises(BadOutput, match="others besides"):
            from_tensor(tensor_proto)
    else:
        assert from_tensor(tensor_proto).tolist() == values


def test_no_object_is_made_for_a_number() -> None:
    """10,000 floats would take 24 bytes each."""
    message = packed_class("tensorflow.TensorProto")(dtype=1, float_val=[bytes(40_000)])
    message.tensor_shape.dim.add(size=10_000)
    from_tensor(message)
    tracemalloc.start()
    try:
        assert from_tensor(message).shape == (10_000,)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10_000 * 12


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"dtype": 1, "float_val": [b"123"]}, "no whole values"),
        ({"dtype": 9, "int64_val": [b"\x80"]}, "without an end"),
    ],
)
def test_packed_numbers_that_are_cut_short(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(BadOutput, match=words):
        from_tensor(packed_class("tensorflow.TensorProto")(**fields))


def test_a_bool_is_true_if_any_bit_is_set() -> None:
    assert from_tensor(tensor(10, [3], tensor_content=b"\x00\x01\x02")).tolist() == [False, True, True]


@pytest.mark.parametrize("number", FIELDS)
@given(data=st.data())
def test_a_plain_writer_and_reader_agree(number: int, data: st.DataObject) -> None:
    """As TensorFlow's, above, but without importing it."""
    array = draw_array(data, FIELDS[number][0], data.draw(SHAPES))
    assert_same(plain_array(TensorProto.FromString(tensor_bytes(array))), array)
    assert_same(from_tensor(plain_tensor(array)), array)
