"""TensorFlow's entries for strings to Arrow's buffers, without an object for each.

An entry (TF_TString, tensorflow/core/platform/ctstring_internal.h) has 24 bytes, and its form in the lowest two bits:
- small: the size in one byte, shifted by two, and up to 22 bytes behind it;
- large: the size, shifted by two, the capacity, and the address of memory that the entry owns;
- view: the size, shifted by two, and the address of memory that somebody else owns;
- offset: for memory-mapped files; no op makes one.
"""

import numpy as np
import pyarrow as pa

_SMALL, _LARGE, _OFFSET, VIEW = range(4)
STRING_SIZE = 24
MOST_SMALL = 22
_MOST_BYTES = 2**31 - 1
# Arrow's binary views keep so many bytes in the view; for others they have a 32-bit offset into some buffer.
_INLINE = 12
_WINDOW_BITS = 30


def read_strings(address: int, count: int) -> pa.Array:
    """Returns a copy of so many entries, as binary [count]; large_binary where they need it.

    Arrow copies them: they are described as views of whatever memory they are in, and cast.
    """
    if not count:
        return pa.array([], pa.binary())
    entries = _memory(address, count * STRING_SIZE).reshape(count, STRING_SIZE)
    words = entries.view(np.int64)
    forms = entries[:, 0] & 3
    is_small = forms == _SMALL
    if (forms == _OFFSET).any():
        raise ValueError("a string of a memory-mapped file, which no op should make")
    sizes = np.where(is_small, entries[:, 0] >> 2, words[:, 0] >> 2)
    inside = address + 1 + STRING_SIZE * np.arange(count)
    addresses = np.where(is_small, inside, np.where(forms == _LARGE, words[:, 2], words[:, 1]))
    return _gather(addresses, sizes, entries, is_small)


def _gather(addresses: np.ndarray, sizes: np.ndarray, entries: np.ndarray, is_small: np.ndarray) -> pa.Array:
    total, longest = int(sizes.sum()), int(sizes.max())
    kind = pa.binary()
    if total > _MOST_BYTES:
        kind = pa.large_binary()
    if longest > _MOST_BYTES:
        raise ValueError(f"a string of {longest} bytes; 2 GiB are the most that Arrow's views hold")
    views = np.zeros((len(sizes), 4), np.int32)  # size; then 12 bytes, or prefix, buffer and offset
    views[:, 0] = sizes
    is_short = sizes <= _INLINE
    windows, window = np.unique(addresses[~is_short] >> _WINDOW_BITS, return_inverse=True)
    views[~is_short, 2] = window
    views[~is_short, 3] = addresses[~is_short] & ((1 << _WINDOW_BITS) - 1)
    held = views.view(np.uint8)[:, 4:]
    within = is_short & is_small
    held[within] = entries[within, 1 : 1 + _INLINE]
    _hold_short(held, addresses, sizes, is_short & ~is_small & (sizes > 0))
    # Only the bytes that a view names are read: what else lies in such a window may not even be mapped.
    buffers = [pa.foreign_buffer(int(each) << _WINDOW_BITS, (1 << _WINDOW_BITS) + longest) for each in windows]
    array = pa.Array.from_buffers(pa.binary_view(), len(sizes), [None, pa.py_buffer(views), *buffers])
    return array.cast(kind)


def _hold_short(held: np.ndarray, addresses: np.ndarray, sizes: np.ndarray, rows: np.ndarray) -> None:
    """Copies the bytes of short strings that their entries only point to."""
    if not rows.any():
        return
    starts = addresses[rows]
    first = int(starts.min())
    memory = _memory(first, int(starts.max()) - first + _INLINE)
    has = np.arange(_INLINE) < sizes[rows, None]
    short = np.zeros(has.shape, np.uint8)
    short[has] = memory[((starts - first)[:, None] + np.arange(_INLINE))[has]]
    held[rows] = short


def _memory(address: int, size: int) -> np.ndarray:
    """Returns uint8 [size]: memory as it is, nothing of it copied or kept alive. Not all of it need be mapped."""
    return np.frombuffer(pa.foreign_buffer(address, size), np.uint8)
