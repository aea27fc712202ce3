"""Tensors of strings over Arrow's buffers: no Python object for each string between a column and a call."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# Arrow's 32-bit offsets reach so many bytes.
_MOST_BYTES = 2**31 - 1
# What a string costs beside its bytes: its entry in a TensorFlow tensor.
_ENTRY_BYTES = 24


@dataclasses.dataclass(frozen=True)
class Strings:
    """A tensor of byte strings. Behaves as the object array of bytes that `np.asarray` makes of it.

    Attributes:
      values: binary or large_binary [product of shape], without nulls, in C order.
    """

    dtype: ClassVar[np.dtype] = np.dtype(object)

    values: pa.Array
    shape: tuple[int, ...]

    @classmethod
    def of(cls, array: pa.Array, null: bytes = b"") -> "Strings":
        """Returns an Arrow array of text or bytes as a tensor [len(array)], with `null` in place of nulls."""
        if pa.types.is_dictionary(array.type):
            array = _decode(array)
        array = _as_binary(array)
        if array.null_count:
            array = pc.fill_null(array, pa.scalar(null, array.type))
        return cls(array, (len(array),))

    @classmethod
    def from_objects(cls, array: np.ndarray) -> "Strings":
        """Returns an object array of bytes as a tensor of its shape.

        Raises:
          pa.ArrowException: some object is not bytes or text.
        """
        values = _one_array(array.reshape(-1))
        if values.null_count:
            raise pa.ArrowInvalid("None is not a string")
        return cls(values, array.shape)

    @classmethod
    def of_list(cls, values: list[bytes]) -> "Strings":
        """Returns bytes as a tensor [len(values)]."""
        return cls(_one_array(values), (len(values),))

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return len(self.values)

    @property
    def nbytes(self) -> int:
        """The bytes of the strings, and of their entries in a TensorFlow tensor."""
        offsets = self.offsets
        return int(offsets[-1]) - int(offsets[0]) + _ENTRY_BYTES * self.size

    @property
    def offsets(self) -> np.ndarray:
        """Where each string begins in `data`, and where the last one ends: int32 or int64 [size + 1]."""
        return offsets_of(self.values)

    @property
    def data(self) -> pa.Buffer | None:
        """The bytes that `offsets` point into; None if all strings are empty."""
        return self.values.buffers()[2]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> Any:
        """Returns what the object array would: rows of a slice without a copy, those of an index array or a mask as
        Strings, all else as objects."""
        inner = self.shape[1:]
        count = math.prod(inner)
        if isinstance(key, slice):
            start, stop, step = key.indices(len(self))
            if step == 1:
                rows = max(0, stop - start)
                return Strings(self.values.slice(start * count, rows * count), (rows, *inner))
            key = np.arange(start, stop, step)
        if not isinstance(key, np.ndarray) or (key.dtype == bool and key.ndim > 1):
            return np.asarray(self)[key]
        index = np.flatnonzero(key) if key.dtype == bool else key
        index = np.where(index < 0, index + len(self), index).astype(np.int64)
        flat = index.reshape(-1, 1) * count + np.arange(count)
        return Strings(self.values.take(pa.array(flat.reshape(-1))), (*index.shape, *inner))

    def __iter__(self) -> Iterator[Any]:
        return iter(np.asarray(self))

    def reshape(self, *shape: Any) -> "Strings":
        """Returns the same strings in another shape; one size may be -1."""
        sizes = tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], Sequence) else shape
        known = math.prod(size for size in sizes if size >= 0)
        sizes = tuple(self.size // max(1, known) if size < 0 else int(size) for size in sizes)
        if math.prod(sizes) != self.size:
            raise ValueError(f"cannot reshape a tensor of {self.size} strings into {sizes}")
        return Strings(self.values, sizes)

    def copy(self) -> "Strings":
        """Returns the same strings in memory of their own, no more than they need."""
        return Strings(self.values.take(pa.array(np.arange(self.size))), self.shape)

    def tolist(self) -> list[Any]:
        """Returns bytes in lists for each dimension."""
        return np.asarray(self).tolist()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("strings in Arrow's buffers become objects only by a copy")
        objects = self.values.to_numpy(zero_copy_only=False).reshape(self.shape)
        return objects if dtype is None or np.dtype(dtype) == object else objects.astype(dtype)

    def __arrow_array__(self, type: pa.DataType | None = None) -> pa.Array:
        return self.values if type is None or type == self.values.type else self.values.cast(type)


def offsets_of(values: pa.Array) -> np.ndarray:
    """Returns where each value of a binary or large_binary array begins, and where the last one ends: [size + 1]."""
    kind = np.dtype(np.int64 if pa.types.is_large_binary(values.type) else np.int32)
    buffer = values.buffers()[1]
    if not len(values) or buffer is None:
        return np.zeros(1, kind)
    return np.frombuffer(buffer, kind, len(values) + 1, values.offset * kind.itemsize)


# What feeds, and the values of most outputs, are.
Tensor: TypeAlias = np.ndarray | Strings


def concatenate(parts: Sequence[Tensor]) -> Tensor:
    """Returns the rows of all parts, one after the other; their dtypes and inner shapes agree."""
    strings = [as_strings(part) for part in parts if part.dtype == object]
    if not strings or not any(isinstance(part, Strings) for part in parts):
        return np.concatenate(parts)
    return Strings(concatenate_values(strings), (sum(map(len, strings)), *strings[0].shape[1:]))


def concatenate_values(parts: Sequence[Strings], more: int = 0) -> pa.Array:
    """Returns the strings of all parts, of any shapes; the type has room for so many more bytes a string."""
    arrays = [part.values for part in parts] or [pa.array([], pa.binary())]
    total = sum(array.nbytes + more * len(array) for array in arrays)
    return pa.concat_arrays(_of_one_type(arrays, total))


def repeat_last(tensor: Tensor, times: int) -> Tensor:
    """Returns the last row, so many times."""
    row = tensor[-1:]
    if isinstance(row, Strings):
        (values,) = _of_one_type([row.values], row.nbytes * times)
        return Strings(values, row.shape)[np.zeros(times, np.int64)]
    return np.repeat(row, times, axis=0)


def as_strings(tensor: Tensor) -> Strings:
    """Returns strings, which may be objects holding bytes, as Strings."""
    return tensor if isinstance(tensor, Strings) else Strings.from_objects(tensor)


def _of_one_type(arrays: list[pa.Array], total_bytes: int) -> list[pa.Array]:
    """Returns the arrays as one type, whose offsets reach so many bytes."""
    if len({array.type for array in arrays}) == 1 and total_bytes <= _MOST_BYTES:
        return arrays
    return [array.cast(pa.large_binary()) for array in arrays]


def _one_array(values: Any) -> pa.Array:
    """Returns Python values as one binary array; large_binary where the other cannot hold them."""
    try:
        array = pa.array(values, pa.binary())
    except pa.ArrowCapacityError:
        return pa.array(values, pa.large_binary())
    return array if isinstance(array, pa.Array) else pa.array(values, pa.large_binary())


def _decode(array: pa.Array) -> pa.Array:
    """Returns what a dictionary array stands for; the same entry many times may need 64-bit offsets."""
    entries = _as_binary(array.dictionary)
    if entries.nbytes * max(1, len(array)) > _MOST_BYTES:
        entries = entries.cast(pa.large_binary())
    return entries.take(array.indices)


def _as_binary(array: pa.Array) -> pa.Array:
    """Returns the same bytes typed as binary or large_binary, without a copy where their size is free."""
    if pa.types.is_string(array.type):
        return array.view(pa.binary())
    if pa.types.is_large_string(array.type):
        return array.view(pa.large_binary())
    if pa.types.is_binary(array.type) or pa.types.is_large_binary(array.type):
        return array
    return array.cast(pa.binary())
