"""NumPy arrays to `tensorflow.TensorProto` and back, without TensorFlow.

Which field holds which dtype:
https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/framework/tensor.proto. Fewer values than elements
mean that the last one repeats, or zeros if there is none: tensor.cc beside it. TensorFlow's own functions make
a process of 620 MB, these one of 71.
"""

import functools
import itertools
import math
from collections.abc import Sequence

import numpy as np
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from sluice.models.errors import BadOutput
from sluice.models.protos import message_class, packed_class
from sluice.models.signature import dtype_name, has_column_form, numpy_dtype
from sluice.models.tensors.strings import Strings, Tensor, as_strings
from sluice.models.tensors.wire import Part, delimited, joined, read_varints, string_fields, varint

_NAMES = {number: name for number in range(1, 24) if has_column_form(name := dtype_name(number))}
# DataType numbers by the name of a NumPy dtype; strings are arrays of objects.
_NUMBERS = {"object" if name == "string" else name: number for number, name in _NAMES.items()}
_STRING = _NUMBERS["object"]

# Fields of TensorProto and of TensorShapeProto; those of numbers with their wire type.
_DTYPE, _SHAPE, _CONTENT, _STRING_VAL = b"\x08", 2, 4, 8
_DIM, _SIZE = 2, b"\x08"
# So many strings stay objects: Arrow's array and its way into a call take longer than they do.
_FEW = 256

_FIELDS = {
    "float32": "float_val",
    "float64": "double_val",
    "int64": "int64_val",
    "bool": "bool_val",
    "uint32": "uint32_val",
    "uint64": "uint64_val",
    "float16": "half_val",
    "bfloat16": "half_val",
    **dict.fromkeys(("int8", "int16", "int32", "uint8", "uint16"), "int_val"),
}


def tensor_parts(tensors: Sequence[Tensor]) -> list[list[Part]]:
    """Returns each tensor as the bytes of a TensorProto, in parts that may point into the tensor.

    Args:
      tensors: of dtypes in models.signature; strings as Strings, or objects holding bytes.

    Raises:
      TypeError: a dtype is not supported.
      pa.ArrowException: an object is not bytes.
    """
    strings = iter(string_fields(_STRING_VAL, [as_strings(each) for each in tensors if each.dtype == object]))
    return [
        [_head(each.dtype, each.shape), *([next(strings)] if each.dtype == object else _content(each))]
        for each in tensors
    ]


@functools.lru_cache(maxsize=1024)
def _head(dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    """Returns the dtype and the shape."""
    number = _NUMBERS.get(dtype.name)
    if number is None:
        raise TypeError(f"dtype {dtype} cannot be sent; those that can: {', '.join(sorted(_NUMBERS))}")
    dims = [joined(delimited(_DIM, [_SIZE + varint(size)])) for size in shape]
    return _DTYPE + varint(number) + joined(delimited(_SHAPE, dims))


def _content(array: Tensor) -> list[Part]:
    """Returns the values in little endian, row by row; a copy only of what is in another order."""
    values = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(-1)
    return delimited(_CONTENT, [values.view(np.uint8)])


def from_tensor(message: Message, drop_surplus: bool = False) -> Tensor:
    """Returns a TensorProto's values in its shape, maybe read-only; few strings are objects holding bytes.

    Args:
      message: of `packed_class`, or of any other class, which takes longer.
      drop_surplus: take no notice of values beyond the shape, as TensorFlow (core/framework/tensor.cc, FromProtoField).

    Raises:
      BadOutput: the content does not fit the shape and dtype, or the dtype has no column form.
    """
    message = packed(message)
    name = _NAMES.get(message.dtype)
    if name is None:
        raise BadOutput(f"a tensor of TensorFlow's DataType {message.dtype}, which has no column form")
    shape = tuple(dim.size for dim in message.tensor_shape.dim)
    if message.tensor_shape.unknown_rank or any(size < 0 for size in shape):
        raise BadOutput(f"a {name} tensor of unknown shape: {list(shape)}")
    count = math.prod(shape)
    if name == "string":
        values = _strings(message, count)
    elif message.tensor_content:
        values = _from_content(message.tensor_content, name, count)
    else:
        values = _values(getattr(message, _FIELDS[name]), name)
    if drop_surplus:
        values = values[:count]
    if len(values) > count:
        raise BadOutput(f"a {name} tensor of shape {list(shape)} has {len(values)} values")
    if len(values) < count:
        values = _repeat_last(values, count)
    return values.reshape(shape)


def _from_content(content: bytes, name: str, count: int) -> np.ndarray:
    dtype = numpy_dtype(name).newbyteorder("<")
    if len(content) != count * dtype.itemsize:
        raise BadOutput(f"a {name} tensor of {count} values has {len(content)} bytes, not {count * dtype.itemsize}")
    if name == "bool":
        return np.frombuffer(content, np.uint8).astype(bool)
    return np.frombuffer(content, dtype).astype(numpy_dtype(name), copy=False)


def packed(message: Message) -> Message:
    """Returns a TensorProto with its numbers packed; the same one if they are.

    Raises:
      BadOutput: some are packed and some are not, as no writer leaves them: their order is lost.
    """
    packed_tensor = packed_class("tensorflow.TensorProto")
    if isinstance(message, packed_tensor):
        if not len(UnknownFieldSet(message)):
            return message
        if any(b"".join(getattr(message, field)) for field in set(_FIELDS.values())):
            raise BadOutput("a tensor of packed numbers has others besides")
    plain = message_class("tensorflow.TensorProto").FromString(message.SerializeToString())
    return packed_tensor.FromString(plain.SerializeToString())


def _values(runs: Sequence[bytes], name: str) -> np.ndarray:
    """Returns packed numbers; those of narrow types are in a field of wider ones."""
    dtype, data = numpy_dtype(name), b"".join(runs)
    if name in ("float32", "float64"):
        if len(data) % dtype.itemsize:
            raise BadOutput(f"a {name} tensor has {len(data)} bytes, which are no whole values")
        return np.frombuffer(data, dtype.newbyteorder("<")).astype(dtype, copy=False)
    try:
        varints = read_varints(data)
    except ValueError as error:
        raise BadOutput(f"a {name} tensor has {error}") from error
    if _FIELDS[name] not in ("int_val", "half_val"):
        return varints.astype(dtype)
    wide = varints.astype(np.int32)  # the lower bits, as protobuf
    stored = wide.astype(np.uint16 if _FIELDS[name] == "half_val" else dtype)
    if (stored != wide).any():
        raise BadOutput(f"a {name} tensor has the value {wide[stored != wide][0]}, which its dtype cannot hold")
    return stored.view(dtype)


def _strings(message: Message, count: int) -> Tensor:
    listed = _decode_strings(message.tensor_content, count) if message.tensor_content else list(message.string_val)
    if len(listed) > _FEW:
        return Strings.of_list(listed)
    values = np.empty(len(listed), object)
    values[:] = listed
    return values


def _decode_strings(content: bytes, count: int) -> list[bytes]:
    """Returns strings from tensor_content: lengths as varints, then bytes (tensorflow/core/platform/coding.cc)."""
    position = 0
    sizes: list[int] = []
    while len(sizes) < count and position < len(content):
        size = shift = 0
        while position < len(content):
            byte = content[position]
            size |= (byte & 0x7F) << shift
            shift += 7
            position += 1
            if byte < 0x80:
                break
        sizes.append(size)
    if len(sizes) != count or position + sum(sizes) != len(content):
        raise BadOutput(f"a string tensor of {count} values has {len(content)} bytes, which do not match")
    ends = itertools.accumulate(sizes, initial=position)
    return [content[start:end] for start, end in itertools.pairwise(ends)]


def _repeat_last(values: Tensor, count: int) -> np.ndarray:
    last = values[-1] if len(values) else (b"" if values.dtype == object else 0)
    padded = np.full(count, last, values.dtype)
    padded[: len(values)] = values
    return padded
