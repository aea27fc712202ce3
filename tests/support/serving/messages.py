"""TensorProto messages of tensors."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from sluice.models.protos import message_class
from sluice.models.tensors.strings import Tensor
from sluice.models.tensors.tensor_proto import tensor_parts


def tensor_bytes(tensor: Tensor) -> bytes:
    """Returns a serialized TensorProto."""
    return b"".join(tensor_parts([tensor])[0])


def to_tensor(tensor: Tensor, message: Any = None) -> Any:
    """Returns the tensor as a TensorProto; fills `message` if it is given."""
    message = message_class("tensorflow.TensorProto")() if message is None else message
    message.MergeFromString(tensor_bytes(tensor))
    return message


# By the number of TensorFlow's DataType: the NumPy dtype, and the field that TF Serving writes the values to.
DTYPES: dict[int, tuple[np.dtype, str]] = {
    number: (np.dtype(dtype), field)
    for number, dtype, field in (
        (1, np.float32, "float_val"),
        (2, np.float64, "double_val"),
        (3, np.int32, "int_val"),
        (4, np.uint8, "int_val"),
        (5, np.int16, "int_val"),
        (6, np.int8, "int_val"),
        (7, object, "string_val"),
        (9, np.int64, "int64_val"),
        (10, np.bool_, "bool_val"),
        (14, ml_dtypes.bfloat16, "half_val"),
        (17, np.uint16, "int_val"),
        (19, np.float16, "half_val"),
        (22, np.uint32, "uint32_val"),
        (23, np.uint64, "uint64_val"),
    )
}
_NUMBERS = {dtype: number for number, (dtype, _) in DTYPES.items()}


def plain_tensor(array: np.ndarray) -> Any:
    """Returns an array as the TensorProto that TensorFlow's make_tensor_proto makes, without Sluice's own code."""
    message = message_class("tensorflow.TensorProto")(dtype=_NUMBERS[array.dtype])
    for size in array.shape:
        message.tensor_shape.dim.add(size=size)
    if array.dtype == object:
        message.string_val.extend(array.reshape(-1).tolist())
    else:
        message.tensor_content = array.tobytes()
    return message


def plain_array(message: Any) -> np.ndarray:
    """Returns what TensorFlow's make_ndarray does for an answer of TF Serving, without Sluice's own code."""
    dtype, field = DTYPES[message.dtype]
    shape = [dim.size for dim in message.tensor_shape.dim]
    if message.tensor_content:
        return np.frombuffer(message.tensor_content, dtype).reshape(shape)
    values = list(getattr(message, field))
    if field == "half_val":
        return np.array(values, np.uint16).view(dtype).reshape(shape)
    array = np.empty(len(values), dtype)
    array[:] = values
    return array.reshape(shape)
