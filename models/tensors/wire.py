"""Protobuf's wire format, written for whole columns at once: https://protobuf.dev/programming-guides/encoding

Python's protobuf takes an object for each string, and some 100 ns; Arrow and NumPy write a string in 30, without one.
"""

import functools
import itertools
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sluice.models.tensors.strings import Strings, concatenate_values, offsets_of

# A piece of a message: bytes, or uint8 [size].
Part: TypeAlias = bytes | np.ndarray

_DELIMITED = 2
# Bytes of a tag and a length, at most.
_MOST_HEADER = 10
# Bytes of a varint of 64 bits.
_MOST_DIGITS = 10
# Fewer strings than this are written one by one: the calls of Arrow and NumPy take as long as some 500.
_MANY = 512


@functools.lru_cache(maxsize=4096)
def varint(value: int) -> bytes:
    """Returns a number that is not negative: seven bits a byte, the lowest first."""
    digits = bytearray()
    while value > 0x7F:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    digits.append(value)
    return bytes(digits)


def delimited(field: int, parts: Sequence[Part]) -> list[Part]:
    """Returns a field that holds bytes, packed numbers, or a message of these parts."""
    return [varint(field << 3 | _DELIMITED) + varint(sum(map(len, parts))), *parts]


def joined(parts: Sequence[Part]) -> bytes:
    """Returns the parts as one message."""
    return b"".join(parts)  # type: ignore[arg-type]  # NumPy's arrays are buffers, which its types do not say


def packed_varints(values: np.ndarray) -> np.ndarray:
    """Returns integers or booleans as packed varints: uint8 [size]. Negative ones have ten bytes, as protobuf's."""
    wide = values.reshape(-1)
    wide = (wide if wide.dtype == np.uint64 else wide.astype(np.int64)).view(np.uint64)
    if not wide.size or wide.max() < 0x80:
        return wide.astype(np.uint8)
    widths = np.ones(len(wide), np.int8)
    for count in range(1, _MOST_DIGITS):
        widths += wide >= 1 << 7 * count
    places = np.arange(widths.max())
    digits = (wide[:, None] >> (7 * places).astype(np.uint64)).astype(np.uint8) & 0x7F
    digits[places < widths[:, None] - 1] |= 0x80
    return digits[places < widths[:, None]]


def read_varints(data: bytes) -> np.ndarray:
    """Returns packed varints: uint64 [count].

    Raises:
      ValueError: the last one has no end, or one has more than ten bytes.
    """
    digits = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(digits < 0x80)
    if len(ends) == len(digits):
        return digits.astype(np.uint64)
    starts = np.append(0, ends[:-1] + 1)
    widths = ends + 1 - starts
    if digits[-1] >= 0x80 or widths.max() > _MOST_DIGITS:
        raise ValueError("a varint without an end")
    places = np.arange(len(digits)) - np.repeat(starts, widths)
    shifted = (digits & 0x7F).astype(np.uint64) << (7 * places).astype(np.uint64)
    return np.bitwise_or.reduceat(shifted, starts)


def string_fields(field: int, tensors: Sequence[Strings]) -> list[Part]:
    """Returns each tensor's strings as a repeated field.

    All tensors are written together: for a column of some hundred rows, the calls of Arrow and NumPy would take longer
    than the strings.
    """
    values = concatenate_values(tensors, more=_MOST_HEADER)
    bounds = list(itertools.accumulate((tensor.size for tensor in tensors), initial=0))
    tag = varint(field << 3 | _DELIMITED)
    if len(values) < _MANY:
        fields = [tag + varint(len(value)) + value for value in values.to_numpy(zero_copy_only=False).tolist()]
        return [b"".join(fields[start:end]) for start, end in itertools.pairwise(bounds)]
    written, offsets = _headed(values, tag)
    return [written[start:end] for start, end in itertools.pairwise(offsets[bounds].tolist())]


def _headed(values: pa.Array, tag: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Returns strings with a tag and a length before each (uint8 [size]), and where each begins.

    Every length has as many bytes as the longest string needs, for a varint may have more than it needs. So Arrow puts
    one header before all strings, and NumPy writes the lengths into it.
    """
    ends = offsets_of(values)
    lengths = ends[1:] - ends[:-1]
    width = len(varint(int(lengths.max())))
    headed = pc.binary_replace_slice(values, start=0, stop=0, replacement=tag + bytes(width))
    written, offsets = np.frombuffer(headed.buffers()[2], np.uint8), offsets_of(headed)  # new buffers, nobody else's
    for place in range(width):
        more = 0x80 if place < width - 1 else 0
        written[offsets[:-1] + (len(tag) + place)] = lengths >> 7 * place & 0x7F | more
    return written, offsets
