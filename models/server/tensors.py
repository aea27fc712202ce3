"""Tensors of requests and answers: TensorProto -> array, and back as in TF Serving."""

import math

import numpy as np
from google.protobuf.message import Message

from sluice.models.errors import BadOutput
from sluice.models.saved_model.native.tensors import number_of
from sluice.models.server.status import invalid
from sluice.models.signature import dtype_name
from sluice.models.tensors.tensor_proto import from_tensor

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
_COMPLEX = {8: ("scomplex_val", np.float32, np.complex64), 18: ("dcomplex_val", np.float64, np.complex128)}


def read_tensor(name: str, proto: Message) -> np.ndarray:
    """Returns the array that a `tensorflow.TensorProto` holds; strings are objects holding bytes.

    Args:
      name: the input, for the error.

    Raises:
      StatusError: the message does not hold a tensor.
    """
    _drop_surplus(proto)
    try:
        return _complex(proto) if proto.dtype in _COMPLEX else from_tensor(proto)
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
    if field is None or (as_content and field != "string_val"):
        proto.tensor_content = array.tobytes()
        return
    flat = array.reshape(-1)
    getattr(proto, field).extend((flat.view(np.uint16) if field == "half_val" else flat).tolist())


def _drop_surplus(proto: Message) -> None:
    """Takes away values beyond the shape, which TensorFlow does not read (core/framework/tensor.cc, FromProtoField)."""
    field = _FIELDS.get(dtype_name(proto.dtype).replace("string", "object"))
    count = math.prod(dim.size for dim in proto.tensor_shape.dim)
    if field is None or proto.tensor_content or count < 0:
        return
    values = getattr(proto, field)
    if len(values) > count:
        del values[count:]


def _complex(proto: Message) -> np.ndarray:
    field, part, dtype = _COMPLEX[proto.dtype]
    content = proto.tensor_content or np.array(getattr(proto, field), part).tobytes()
    values: np.ndarray = np.frombuffer(content, dtype)
    shape = tuple(dim.size for dim in proto.tensor_shape.dim)
    return np.broadcast_to(values, shape) if values.size == 1 else values.reshape(shape)
