"""Strings to TensorFlow's entries, whose forms `models.saved_model.native.strings` describes.

All strings of a call become entries together: NumPy's steps for each input would take most of a small call. They would
also let Python's lock go some 200 times a call, each time for another thread to take it.
"""

import ctypes
import itertools
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from sluice.models.saved_model.native.strings import MOST_SMALL, STRING_SIZE, VIEW
from sluice.models.tensors.strings import Strings, Tensor, as_strings

# So many strings that are objects become entries one by one, each of which holds its bytes.
_FEW = 64
# Any address that is not null, for strings without bytes.
_NOWHERE = ctypes.create_string_buffer(8)


def entries_of(tensors: Sequence[Tensor]) -> tuple[np.ndarray, object]:
    """Returns the entries of all tensors, one after the other: int64 [sum of sizes, 3]; and what they point into, which
    has to be kept meanwhile.

    Args:
      tensors: Strings, or objects holding bytes or text.

    Raises:
      pa.ArrowException: some object is neither.
    """
    objects = [each for each in tensors if not isinstance(each, Strings)]
    found = None
    if len(objects) == len(tensors):
        found = _of_objects(list(itertools.chain.from_iterable([each.ravel().tolist() for each in objects])))
    if found is None:
        strings = [as_strings(each) for each in tensors]
        found = _of_arrow(strings), strings
    return found


def entries_of_each(tensors: Sequence[Tensor]) -> tuple[list[np.ndarray], object]:
    """Returns the entries of each tensor, int64 [size, 3], and what they point into. Raises as `entries_of`."""
    entries, kept = entries_of(tensors)
    ends = list(itertools.accumulate((each.size for each in tensors), initial=0))
    return [entries[start:end] for start, end in itertools.pairwise(ends)], kept


def _of_objects(values: list[object]) -> tuple[np.ndarray, object] | None:
    """Returns the entries, and what they point into; None if some value is not bytes."""
    if not {bytes}.issuperset(map(type, values)):
        return None
    strings: list[bytes] = values  # type: ignore[assignment]
    if len(strings) <= _FEW and max(map(len, strings), default=0) <= MOST_SMALL:
        held = b"".join([(len(value) << 2).to_bytes() + value.ljust(STRING_SIZE - 1, b"\0") for value in strings])
        return np.frombuffer(held, np.int64).reshape(-1, 3), None
    data = b"".join(strings)
    sizes = np.fromiter(map(len, strings), np.int64, len(strings))
    return _views(sizes, np.cumsum(sizes) - sizes + _address(pa.py_buffer(data))), data


def _of_arrow(tensors: Sequence[Strings]) -> np.ndarray:
    offsets = [each.offsets for each in tensors]
    starts = np.concatenate([each[:-1] for each in offsets], dtype=np.int64)
    ends = np.concatenate([each[1:] for each in offsets], dtype=np.int64)
    bases = np.repeat([_address(each.data) for each in tensors], [each.size for each in tensors])
    return _views(ends - starts, starts + bases)


def _views(sizes: np.ndarray, addresses: np.ndarray) -> np.ndarray:
    entries = np.empty((len(sizes), 3), np.int64)
    entries[:, 0] = sizes << 2 | VIEW
    entries[:, 1] = addresses
    entries[:, 2] = 0
    return entries


def _address(data: pa.Buffer | None) -> int:
    return data.address if data is not None and data.size else ctypes.addressof(_NOWHERE)
