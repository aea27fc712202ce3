"""Tensors of requests and answers: TensorProto -> array, and back as in TF Serving."""

import numpy as np
from google.protobuf.message import Message

from sluice.models.errors import BadOutput
from sluice.models.saved_model.native.tensors import number_of
from sluice.models.server.status import invalid
from sluice.models.tensors.strings import Tensor
from sluice.models.tensors.tensor_proto import from_tensor, packed
from sluice.models.tensors.wire import delimited, joined, packed_varints

# The field of tensorflow/core/framework/tensor.proto that Tensor::AsProtoField fills for each dtype. TF Serving answers
# in this way (servables/tensorflow/predict_util.cc, kAsProtoField), unless --enable_serialization_as_tensor_content.
_FIELDS = {
    "float32": "float_val",
    "float64": "double_val",
    "int32": "int_val",
    "int16": "int_val",
    "int8": "int_val",
    "uint16": "int_val",
    "uint8": "int_val",
    "int64": "int64_val",
    "uint32": "uint32_val",
    "uint64": "uint64_val",
    "bool": "bool_val",
    "object": "string_val",
    "float16": "half_val",
    "bfloat16": "half_val",
}

# DataTypes that no signature of Sluice's can have: their fields hold real and imaginary parts in turns.
_COMPLEX = {8: ("scomplex_val", np.complex64), 18: ("dcomplex_val", np.complex128)}


def read_tensor(name: str, proto: Message) -> Tensor:
    """Returns the array that a `tensorflow.TensorProto` holds; few strings are objects holding bytes.

    Args:
      name: the input, for the error.

    Raises:
      StatusError: the message does not hold a tensor.
    """
    try:
        return _complex(proto) if proto.dtype in _COMPLEX else from_tensor(proto, drop_surplus=True)
    except (BadOutput, ValueError) as error:
        raise invalid(f"tensor parsing error: {name}") from error


def write_tensor(array: np.ndarray, proto: Message, as_content: bool) -> None:
    """Fills a `tensorflow.TensorProto`.

    Args:
      as_content: writes all values as one run of bytes, except strings, which have no such form. Dtypes that Sluice's
        signatures do not have, such as complex64, are always written so.
    """
    number = number_of(array.dtype)
    if number is None:
        raise invalid(f"an output of dtype {array.dtype} cannot be written")
    proto.dtype = number
    for size in array.shape:
        proto.tensor_shape.dim.add().size = size
    field = _FIELDS.get(array.dtype.name)
    if field == "string_val":
        proto.string_val.extend(array.reshape(-1).tolist())  # 50 ns a string; by the wire, as numbers, it takes 70
    elif field is None or as_content:
        proto.tensor_content = array.tobytes()
    else:
        number = proto.DESCRIPTOR.fields_by_name[field].number
        proto.MergeFromString(joined(delimited(number, [_packed(array, field)])))


def _packed(array: np.ndarray, field: str) -> np.ndarray:
    """Returns the values as they are in a packed field: uint8 [size]."""
    flat = np.ascontiguousarray(array).reshape(-1)
    if field in ("float_val", "double_val"):
        return flat.astype(flat.dtype.newbyteorder("<"), copy=False).view(np.uint8)
    return packed_varints(flat.view(np.uint16) if field == "half_val" else flat)


def _complex(proto: Message) -> np.ndarray:
    field, dtype = _COMPLEX[proto.dtype]
    content = proto.tensor_content or b"".join(getattr(packed(proto), field))
    values: np.ndarray = np.frombuffer(content, dtype)
    shape = tuple(dim.size for dim in proto.tensor_shape.dim)
    return np.broadcast_to(values, shape) if values.size == 1 else values.reshape(shape)
