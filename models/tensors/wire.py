"""Protobuf's wire format, written for whole columns at once: https://protobuf.dev/programming-guides/encoding

Python's protobuf takes an object for each string, and some 100 ns; Arrow and NumPy write a string in 30, without one.
"""

import functools
import itertools
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import pyarrow.compute as pc

from sluice.models.tensors.strings import Strings, concatenate_values, offsets_of

# A piece of a message: bytes, or uint8 [size].
Part: TypeAlias = bytes | np.ndarray

_DELIMITED = 2
# Bytes of a tag and a length, at most.
_MOST_HEADER = 10


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


def string_fields(field: int, tensors: Sequence[Strings]) -> list[np.ndarray]:
    """Returns each tensor's strings as a repeated field: uint8 [size].

    Every length has as many bytes as the longest string needs, for a varint may have more than it needs. So Arrow puts
    one header before all strings, and NumPy writes the lengths into it. All tensors are written together: for a column
    of some hundred rows, the calls of Arrow and NumPy would take longer than the strings.
    """
    values = concatenate_values(tensors, more=_MOST_HEADER)
    if not len(values):
        return [np.empty(0, np.uint8) for _ in tensors]
    tag = varint(field << 3 | _DELIMITED)
    width = len(varint(int(np.diff(offsets_of(values)).max())))
    headed = pc.binary_replace_slice(values, start=0, stop=0, replacement=tag + bytes(width))
    offsets = offsets_of(headed)
    lengths = np.diff(offsets) - (len(tag) + width)
    written = np.frombuffer(headed.buffers()[2], np.uint8)  # Arrow's new buffer, which nobody else has
    for place in range(width):
        more = 0x80 if place < width - 1 else 0
        written[offsets[:-1] + (len(tag) + place)] = lengths >> 7 * place & 0x7F | more
    ends = offsets[np.cumsum([0, *(tensor.size for tensor in tensors)])].tolist()
    return [written[start:end] for start, end in itertools.pairwise(ends)]
