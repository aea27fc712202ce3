"""Tensors of requests and answers: TensorProto -> array by TensorFlow's own function, and back as in TF Serving."""

import numpy as np
from google.protobuf.message import Message

from sluice.models.saved_model.tensorflow_import import tensorflow
from sluice.models.server.status import invalid

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


def read_tensor(name: str, proto: Message) -> np.ndarray:
    """Returns the array that a `tensorflow.TensorProto` holds; strings are objects holding bytes.

    Args:
      name: the input, for the error.

    Raises:
      StatusError: the message does not hold a tensor.
    """
    try:
        return tensorflow().make_ndarray(proto)
    except (TypeError, ValueError) as error:
        raise invalid(f"tensor parsing error: {name}") from error


def write_tensor(array: np.ndarray, proto: Message, as_content: bool) -> None:
    """Fills a `tensorflow.TensorProto`.

    Args:
      as_content: writes all values as one run of bytes, except strings, which have no such form. Dtypes that Sluice's
        signatures do not have, such as complex64, are always written so.
    """
    proto.dtype = tensorflow().as_dtype(array.dtype).as_datatype_enum
    for size in array.shape:
        proto.tensor_shape.dim.add().size = size
    field = _FIELDS.get(array.dtype.name)
    if field is None or (as_content and field != "string_val"):
        proto.tensor_content = array.tobytes()
        return
    flat = array.reshape(-1)
    getattr(proto, field).extend((flat.view(np.uint16) if field == "half_val" else flat).tolist())
