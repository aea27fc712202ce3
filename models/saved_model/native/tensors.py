"""Tensors of TensorFlow's C API, made over memory that Python owns or copied into TensorFlow's, and read.

TensorFlow aborts the process for dims that are negative or whose product overflows, and for a rank above 254; none of
these can an array have. What it silently accepts instead, a wrong dtype or shape, `models.saved_model.native.checks`
refuses.
"""

import ctypes
import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from sluice.models.errors import BadOutput, OutOfMemory
from sluice.models.saved_model.native.entries import entries_of_each
from sluice.models.saved_model.native.library import STRING, Library
from sluice.models.saved_model.native.strings import STRING_SIZE, read_strings
from sluice.models.signature import dtype_name, has_column_form, numpy_dtype
from sluice.models.tensors.strings import Strings, Tensor

# tensorflow/core/framework/types.proto: what has no column form, and can be an output that a server is asked for.
_OTHERS = {8: "complex64", 18: "complex128", 11: "int8", 12: "uint8", 13: "int32", 15: "int16", 16: "uint16"}
_MAX_DTYPE = 23
_QUANTIZED = (11, 12, 13, 15, 16)


@functools.cache
def dtype_of(number: int) -> np.dtype | None:
    """Returns the NumPy dtype of a TensorFlow DataType; None if it has none here."""
    name = dtype_name(number)
    if not has_column_form(name):
        name = _OTHERS.get(number, "")
    return numpy_dtype(name) if name else None


@functools.cache
def _numbers() -> dict[np.dtype, int]:
    numbers = [number for number in range(1, _MAX_DTYPE + 1) if number not in _QUANTIZED]
    return {dtype: number for number in numbers if (dtype := dtype_of(number)) is not None}


def number_of(dtype: np.dtype) -> int | None:
    """Returns the TensorFlow DataType of a NumPy dtype; None if it has none here."""
    return _numbers().get(dtype)


def address_of(array: np.ndarray) -> int:
    """Returns where the array begins; `array.ctypes.data` takes twice as long."""
    return array.__array_interface__["data"][0]


def memories_of(tensors: Sequence[Tensor]) -> tuple[list[np.ndarray], object]:
    """Returns for each tensor the array whose memory a TensorFlow tensor is made over; of strings it is their entries,
    int64 [size, 3], which point into the second thing that is returned. Keep both.

    Raises:
      pa.ArrowException: an object is neither bytes nor text.
    """
    entries, kept = entries_of_each([each for each in tensors if each.dtype == object])
    left = iter(entries)
    return [next(left) if each.dtype == object else np.asarray(each, order="C") for each in tensors], kept


def view_tensor(library: Library, number: int, shape: tuple[int, ...], memory: np.ndarray) -> int:
    """Returns a TF_Tensor over memory that has to outlive it. TensorFlow copies numbers that are not aligned."""
    dims = _dims(shape)
    handle = library.TF_NewTensor(number, dims, len(shape), address_of(memory), memory.nbytes, library.no_op, None)
    return _not_null(handle, number, shape)


def copy_tensor(library: Library, number: int, shape: tuple[int, ...], memory: np.ndarray) -> int:
    """Returns a TF_Tensor that holds a copy of numbers."""
    handle = library.TF_AllocateTensor(number, _dims(shape), len(shape), memory.nbytes)
    _not_null(handle, number, shape)
    ctypes.memmove(library.TF_TensorData(handle), address_of(memory), memory.nbytes)
    return handle


def read_tensor(library: Library, handle: int) -> Tensor:
    """Returns a copy of a TF_Tensor, which may point into the tensors that were fed.

    Raises:
      BadOutput: its dtype has no array.
    """
    number = library.TF_TensorType(handle)
    shape = tuple(library.TF_Dim(handle, axis) for axis in range(library.TF_NumDims(handle)))
    data = library.TF_TensorData(handle)
    if number == STRING:
        count = math.prod(shape)
        if library.TF_TensorByteSize(handle) != count * STRING_SIZE:
            raise BadOutput(f"a tensor of {count} strings has {library.TF_TensorByteSize(handle)} bytes")
        return Strings(read_strings(data, count), shape)
    dtype = dtype_of(number)
    if dtype is None:
        raise BadOutput(f"a tensor of TensorFlow's DataType {number}, which has no array")
    array = np.empty(shape, dtype)
    if array.nbytes != library.TF_TensorByteSize(handle):
        raise BadOutput(f"a {dtype} tensor of {shape} has {library.TF_TensorByteSize(handle)} bytes")
    if array.nbytes:
        ctypes.memmove(address_of(array), data, array.nbytes)
    return array


@functools.lru_cache(1024)
def _dims(shape: tuple[int, ...]) -> Any:
    return (ctypes.c_int64 * len(shape))(*shape)


def _not_null(handle: int | None, number: int, shape: tuple[int, ...]) -> int:
    """TensorFlow would crash on a null tensor."""
    if not handle:
        raise OutOfMemory(f"TensorFlow makes no tensor of DataType {number} and shape {list(shape)}")
    return handle
