"""Tensors over gRPC: TensorFlow reads what the reference server writes, value by value or as bytes."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from sluice.models.protos import message_class
from sluice.models.server.status import StatusError
from sluice.models.server.tensors import read_tensor, write_tensor
from tests.support.serving.messages import plain_array

ARRAYS = [
    *(np.array([[0, 1, 2], [7, 100, 127]], dtype) for dtype in ("int8", "uint8", "int16", "uint16", "int32", "uint32")),
    np.array([-(2**63), 2**63 - 1]),
    np.array([0, 2**64 - 1], np.uint64),
    *(np.array([[0.5], [-0.0], [np.nan], [np.inf]], dtype) for dtype in ("float16", "float32", "float64")),
    np.array([1.5, -2.0], ml_dtypes.bfloat16),
    np.array([True, False]),
    np.array([[b"", b"\xff\x00"]], object),
    np.array([1 + 2j], np.complex64),
    np.array(3.0, np.float32),
    np.zeros((0, 3), np.float32),
    np.zeros((2, 0), object),
]


@pytest.mark.parametrize("as_content", [False, True])
@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}{list(array.shape)}")
def test_what_is_written_can_be_read(array: np.ndarray, as_content: bool) -> None:
    import tensorflow as tf
    from tensorflow.core.framework import tensor_pb2

    proto = tensor_pb2.TensorProto()
    write_tensor(array, proto, as_content)
    in_bytes = array.size and array.dtype != object and (as_content or array.dtype == np.complex64)
    assert len(proto.tensor_content) == (array.nbytes if in_bytes else 0)
    for found in (tf.make_ndarray(proto), read_tensor("x", proto)):
        assert (found.dtype, found.shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(found, array)
    in_cpp = tf.io.parse_tensor(proto.SerializeToString(), tf.as_dtype(array.dtype)).numpy()
    np.testing.assert_array_equal(in_cpp, array)


@pytest.mark.parametrize("as_content", [False, True])
@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}{list(array.shape)}")
def test_a_plain_reader_agrees(array: np.ndarray, as_content: bool) -> None:
    """As TensorFlow's, above, but without importing it."""
    if array.dtype == np.complex64:
        return
    proto = message_class("tensorflow.TensorProto")()
    write_tensor(array, proto, as_content)
    for found in (plain_array(proto), read_tensor("x", proto)):
        assert (found.dtype, found.shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(found, array)


def broken(**fields: Any) -> Any:
    proto = message_class("tensorflow.TensorProto")(**fields)
    proto.tensor_shape.dim.add().size = 2
    return proto


def test_values_beyond_the_shape_are_not_read() -> None:  # tensorflow/core/framework/tensor.cc
    tensor_class = message_class("tensorflow.TensorProto")
    assert read_tensor("x", tensor_class(dtype=1, float_val=[1.0, 2.0])).tolist() == 1.0
    assert read_tensor("x", tensor_class(dtype=7, string_val=[b"a", b"b"])).tolist() == b"a"
    packed = tensor_class(dtype=7, tensor_content=b"\1\2abc")
    packed.tensor_shape.dim.add(size=2)
    assert read_tensor("x", packed).tolist() == [b"a", b"bc"]


@pytest.mark.parametrize("fields", [{}, {"dtype": 1, "tensor_content": b"123"}])
def test_what_is_no_tensor_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(StatusError, match="tensor parsing error: x"):
        read_tensor("x", broken(**fields))
