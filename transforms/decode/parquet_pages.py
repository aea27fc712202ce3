"""The pages of a Parquet file: how far each would unpack, looked at before the reader makes room for it.

A reader believes the header of a page, so that some bytes can ask for 2 GB.

Formats: https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift (PageHeader)
https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

from typing import Any, BinaryIO, TypeAlias

from sluice.transforms.decode.parquet_dictionary import LargeValues, largest_value
from sluice.transforms.decode.ranges import BlockTooLarge

# Writers make pages of 1 MB, and of more where rows are large. A page may be as large as this, or so many times what
# it takes in the file, which is in memory anyway.
MAX_PAGE_BYTES = 64 << 20
MOST_FOLD = 32

# Fields of a PageHeader, and of the headers of dictionary pages and both kinds of data pages within it.
_UNPACKED, _PACKED, _DATA_PAGE, _DICTIONARY_PAGE, _DATA_PAGE_V2 = 2, 3, 5, 7, 8
_VALUES, _ENCODING, _ENCODING_V2 = 1, 2, 4
# Their decoders make room for the lengths of all values of a page, which may be packed to no bits.
_LENGTHS_AHEAD = (6, 7)  # DELTA_LENGTH_BYTE_ARRAY, DELTA_BYTE_ARRAY
_LENGTH_BYTES = 4
# What a dictionary of numbers is taken to hold.
_NUMBER_BYTES = 8

# Thrift's types, and how many bytes those of a fixed size take in a list.
_I16, _I32, _I64, _BINARY, _LIST, _SET, _MAP, _STRUCT = 4, 5, 6, 8, 9, 10, 11, 12
_FIXED = {1: 1, 2: 1, 3: 1, 7: 8, 13: 16}
_MOST_BITS = 63

# The numbers of a struct, and the structs in it, by the number of their field.
Struct: TypeAlias = dict[int, Any]


class PageGuard:
    """A file whose `read` refuses chunks of columns with pages that unpack too far.

    pyarrow reads a chunk of a column at once, and only then unpacks its pages.

    Attributes:
      watches: whether it does; not while the footer is read.
      most_value: values of dictionaries that are larger are not read either, nor lists of more together; 0: they are.
      most_rows: of a row group: a chunk with more values is one of lists; 0: not known.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.watches = False
        self.most_value = self.most_rows = 0

    def read(self, count: int = -1) -> bytes:
        data = self._file.read(count)
        if self.watches:
            check_pages(data, self.most_value, self.most_rows)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()

    @property
    def closed(self) -> bool:
        return self._file.closed


def check_pages(chunk: bytes, most_value: int = 0, most_rows: int = 0) -> None:
    """Looks at the pages of a column's chunk. Where no page begins the look ends: the reader will say what is wrong.

    Args:
      most_value, most_rows: see PageGuard.

    Raises:
      BlockTooLarge: one unpacks too far.
      LargeValues: a dictionary has larger values, or lists of more.
    """
    at = values = 0
    dictionary: tuple[bytes, Any, int] | None = None
    while at < len(chunk):
        try:
            header, at = _read_struct(chunk, at)
            packed, unpacked = header[_PACKED], max(header[_UNPACKED], _bytes_of_lengths(header))
            values += _values_in(header)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            break
        if packed < 0:
            break
        if unpacked > max(MAX_PAGE_BYTES, MOST_FOLD * packed):
            raise BlockTooLarge(
                f"a page of {packed} bytes would take {unpacked} bytes of memory; it may take {MAX_PAGE_BYTES}, or "
                f"{MOST_FOLD} times its own"
            )
        if most_value and _DICTIONARY_PAGE in header:
            dictionary = chunk[at : at + packed], header[_DICTIONARY_PAGE], unpacked
        at += packed
    if dictionary:
        _check_dictionary(*dictionary, most_value, _values_a_row(values, most_rows))


def _check_dictionary(page: bytes, header: Any, unpacked: int, most_value: int, a_row: int) -> None:
    values = header.get(_VALUES) if isinstance(header, dict) else None
    if not isinstance(values, int):
        return
    largest = largest_value(page, values, unpacked, most_value // a_row)
    size = largest if a_row == 1 else a_row * max(largest, _NUMBER_BYTES)
    if size > most_value:
        raise LargeValues(size)


def _values_a_row(values: int, most_rows: int) -> int:
    """Returns how many values rows have on average, at least: a chunk without lists has one for each row."""
    return -(-values // most_rows) if 0 < most_rows < values else 1


def _values_in(header: Struct) -> int:
    """Returns how many values a page of data has, nulls and empty lists included."""
    return sum(int(header[field].get(_VALUES, 0)) for field in (_DATA_PAGE, _DATA_PAGE_V2) if field in header)


def _bytes_of_lengths(header: Struct) -> int:
    for field, encoding in ((_DATA_PAGE, _ENCODING), (_DATA_PAGE_V2, _ENCODING_V2)):
        if field in header and header[field].get(encoding) in _LENGTHS_AHEAD:
            return int(header[field].get(_VALUES, 0)) * _LENGTH_BYTES
    return 0


def _read_struct(data: bytes, at: int) -> tuple[Struct, int]:
    """Returns a struct, and the position behind it. Raises IndexError or ValueError where there is none."""
    found: Struct = {}
    field = 0
    while head := data[at]:
        at += 1
        if head >> 4:
            field += head >> 4
        else:
            field, at = _read_int(data, at)
        kind = head & 15
        if kind in (_I16, _I32, _I64):
            found[field], at = _read_int(data, at)
        elif kind == _STRUCT:
            found[field], at = _read_struct(data, at)
        elif kind in (1, 2):  # true and false, which stand in the head
            found[field] = kind == 1
        else:
            at = _skip(data, at, kind)
    return found, at + 1


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, _MOST_BITS + 7, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number of more than 64 bits")


def _read_int(data: bytes, at: int) -> tuple[int, int]:
    """Returns a number of up to 32 bits, as all are that are looked at: readers cut off what is above."""
    value, at = _read_varint(data, at)
    value &= 0xFFFFFFFF
    return (value >> 1) ^ -(value & 1), at


def _skip(data: bytes, at: int, kind: int) -> int:
    """Returns the position behind a value."""
    if kind in (_I16, _I32, _I64):
        return _read_varint(data, at)[1]
    if kind == _BINARY:
        size, at = _read_varint(data, at)
        return at + size
    if kind == _STRUCT:
        return _read_struct(data, at)[1]
    if kind in (_LIST, _SET):
        return _skip_list(data, at)
    if kind == _MAP:
        return _skip_map(data, at)
    return at + _FIXED[kind]


def _skip_list(data: bytes, at: int) -> int:
    head = data[at]
    size, at = (head >> 4, at + 1) if head >> 4 < 15 else _read_varint(data, at + 1)
    return _skip_many(data, at, (head & 15,), size)


def _skip_map(data: bytes, at: int) -> int:
    size, at = _read_varint(data, at)
    if not size:
        return at
    kinds = data[at]
    return _skip_many(data, at + 1, (kinds >> 4, kinds & 15), size)


def _skip_many(data: bytes, at: int, kinds: tuple[int, ...], times: int) -> int:
    """Returns the position behind values of these types in turn; it takes no longer than the data are long."""
    if all(kind in _FIXED for kind in kinds):
        return at + times * sum(_FIXED[kind] for kind in kinds)
    for _ in range(times):
        for kind in kinds:
            at = _skip(data, at, kind)
            if at > len(data):
                raise IndexError("the data are cut short")
    return at
