"""Values that stand in a Parquet file once, and in many rows: a batch that repeats a large one must not be read whole.

A dictionary page holds each value of a column's chunk once; rows are numbers into it. So 4,096 rows of one value of
1 MB are some bytes in the file, and 4 GB as a column. Where a dictionary holds large values, few rows are read at once.

Format of the page: https://github.com/apache/parquet-format/blob/master/Encodings.md (PLAIN, BYTE_ARRAY)
"""

import contextlib
import struct
from collections.abc import Iterator

import pyarrow as pa

_LENGTH = struct.Struct("<I")
# The page does not say which it is packed with: that stands in the footer.
_CODECS = ("snappy", "zstd", "gzip", "brotli", "lz4_raw")


class LargeValues(Exception):
    """A dictionary has values that rows cannot repeat as they like.

    Attributes:
      size: the most bytes of one.
    """

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size


def largest_value(packed: bytes, values: int, unpacked: int, enough: int) -> int:
    """Returns the most bytes that a value of a dictionary page has; 0: all have the same few.

    Args:
      packed: the page.
      values: how many it holds.
      unpacked: its size, unpacked.
      enough: that no value is larger need not be known better.
    """
    bound = unpacked - _LENGTH.size * values
    if bound <= enough:
        return max(bound, 0)
    forms = list(_unpacked(packed, unpacked))
    found = [size for form in forms if (size := _largest(form, values)) is not None]
    # What unpacks and is no list of lengths and values holds numbers. What does not unpack is not known.
    return max(found, default=0 if forms else bound)


def _unpacked(packed: bytes, size: int) -> Iterator[bytes]:
    """Yields what the page may be, unpacked."""
    if len(packed) == size:
        yield packed
    for name in _CODECS:
        with contextlib.suppress(pa.ArrowException, OSError, ValueError):
            yield pa.Codec(name).decompress(packed, size, asbytes=True)


def _largest(data: bytes, values: int) -> int | None:
    """Returns the largest size of so many values, each after its size; None: the data are something else."""
    at = largest = 0
    try:
        for _ in range(values):
            (size,) = _LENGTH.unpack_from(data, at)
            at += _LENGTH.size + size
            largest = max(largest, size)
    except struct.error:
        return None
    return largest if at == len(data) else None


def fixed_bytes(kind: pa.DataType) -> int:
    """Returns the bytes of each value of a type of bytes whose size the type says, which a dictionary may hold too."""
    if pa.types.is_nested(kind):
        return sum(fixed_bytes(kind.field(number).type) for number in range(kind.num_fields))
    return int(kind.byte_width) if pa.types.is_fixed_size_binary(kind) else 0
