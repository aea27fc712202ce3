"""TFRecord framing: `length u64, masked crc32c of length u32, data, masked crc32c of data u32`, little endian.

Source of the format: tensorflow/core/lib/io/record_writer.h.
"""

import functools
import struct
from collections.abc import Iterable, Iterator
from typing import BinaryIO

import google_crc32c
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sluice.models.errors import CorruptFile

HEADER_BYTES = 12
FOOTER_BYTES = 4
# A greater length is refused before so many bytes are read. A protocol buffer can have 2 GB.
MAX_RECORD_BYTES = 256 << 20
_MASK_DELTA = 0xA282EAD8
_LENGTH, _HEADER_FORM = struct.Struct("<Q"), struct.Struct("<QI")
_HEADER = np.dtype([("length", "<u8"), ("crc", "<u4")])
# A file is read in pieces of these bytes: the first one small, for readers that want a single record.
_FIRST_PIECE, _LARGEST_PIECE = 1 << 16, 1 << 20
_CRC = struct.Struct("<I")


def masked_crc(data: bytes) -> int:
    """Returns the masked crc32c that TFRecord stores: the crc of data that contains its own crc is weak."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF


def frame(record: bytes) -> bytes:
    """Returns the record with the header and footer of a TFRecord file."""
    length = struct.pack("<Q", len(record))
    return b"".join((length, _CRC.pack(masked_crc(length)), record, _CRC.pack(masked_crc(record))))


def write_records(file: BinaryIO, records: Iterable[bytes]) -> None:
    """Writes the records to a file open for writing."""
    for record in records:
        file.write(frame(record))


def frames(records: pa.Array) -> pa.Array:
    """Returns binary [n]: records (binary [n], without nulls) with the headers and footers of a TFRecord file."""
    listed = records.to_pylist()
    lengths = np.fromiter(map(len, listed), np.uint64, len(listed))
    bodies = np.fromiter(map(google_crc32c.value, listed), np.uint32, len(listed))
    headers = np.empty(len(listed), _HEADER)
    headers["length"], headers["crc"] = lengths, _masked(_length_crcs(lengths))
    return pc.binary_join_element_wise(_as_binary(headers), records, _as_binary(_masked(bodies)), b"")


def _as_binary(entries: np.ndarray) -> pa.Array:
    """Returns binary [n]: the bytes of each entry, in the machine's order, which is the format's."""
    kind = pa.binary(entries.dtype.itemsize)
    return pa.Array.from_buffers(kind, len(entries), [None, pa.py_buffer(entries)]).cast(pa.binary())


def read_records(file: BinaryIO, position: int = 0, end: int | None = None) -> Iterator[tuple[int, bytes]]:
    """Yields `(offset of its header, record)` for each record that begins in [position, end); see `read_pieces`."""
    for positions, records in read_pieces(file, position, end):
        yield from zip(positions.tolist(), records, strict=True)


def read_pieces(file: BinaryIO, position: int = 0, end: int | None = None) -> Iterator[tuple[np.ndarray, list[bytes]]]:
    """Yields the records that begin in [position, end), by the piece of the file that holds them.

    Each pair is the offsets of their headers (int64 [n]), and the records. Records before a damaged one are yielded.

    Args:
      file: a file open for reading, at offset `position`, which is the start of a record.

    Raises:
      CorruptFile: a length or a record does not match its checksum, or the file ends inside a record.
    """
    data, size = b"", _FIRST_PIECE
    while end is None or position < end:
        more = file.read(max(size, _missing(data, position)))
        if not more:
            if data:
                raise CorruptFile(_what_is_cut(data, position))
            return
        data, size = data + more, min(2 * size, _LARGEST_PIECE)
        starts, stop = _whole_records(data, len(data) if end is None else end - position)
        if len(starts):
            records, problem = _checked(data, starts, stop, position)
            if records:
                yield starts[: len(records)] + position, records
            if problem:
                raise CorruptFile(problem)
        data, position = data[stop:], position + stop


def _whole_records(data: bytes, end: int) -> tuple[np.ndarray, int]:
    """Returns where the records begin that begin before `end` and are whole, and where the last one of them ends."""
    starts, stop, unpack = [], 0, _LENGTH.unpack_from
    last = min(end - 1, len(data) - HEADER_BYTES - FOOTER_BYTES)
    while stop <= last:
        after = stop + HEADER_BYTES + FOOTER_BYTES + unpack(data, stop)[0]
        if after > len(data):
            break
        starts.append(stop)
        stop = after
    return np.array(starts, np.int64), stop


def _checked(data: bytes, starts: np.ndarray, stop: int, position: int) -> tuple[list[bytes], str]:
    """Returns the records up to the first damaged one, and what is wrong with that; "" if all are sound."""
    ends = np.append(starts[1:], stop) - FOOTER_BYTES
    bodies = starts + HEADER_BYTES
    records = [data[first:last] for first, last in zip(bodies.tolist(), ends.tolist(), strict=True)]
    sums = np.fromiter(map(google_crc32c.value, records), np.uint32, len(records))
    lengths = (ends - bodies).astype(np.uint64)
    raw = np.frombuffer(data, np.uint8)
    bad_length = _masked(_length_crcs(lengths)) != _stored(raw, bodies - FOOTER_BYTES)
    bad = np.flatnonzero(bad_length | (_masked(sums) != _stored(raw, ends)))
    if not len(bad):
        return records, ""
    first = int(bad[0])
    place = position + int(starts[first])
    if bad_length[first]:
        return records[:first], _wrong_length(place)
    return records[:first], f"the record at byte {place}, {lengths[first]} bytes, does not match its checksum"


def _missing(data: bytes, position: int) -> int:
    """Returns how many bytes a record lacks that begins in `data` at 0.

    Raises:
      CorruptFile: its length does not match its checksum, so the record may be of any length, or it is too long.
    """
    if len(data) < HEADER_BYTES:
        return HEADER_BYTES - len(data)
    length, crc = _HEADER_FORM.unpack_from(data)
    if masked_crc(data[:8]) != crc:
        raise CorruptFile(_wrong_length(position))
    if length > MAX_RECORD_BYTES:
        raise CorruptFile(f"the record at byte {position}, {length} bytes, is longer than {MAX_RECORD_BYTES} bytes")
    return HEADER_BYTES + length + FOOTER_BYTES - len(data)


def _what_is_cut(data: bytes, position: int) -> str:
    if len(data) < HEADER_BYTES:
        return f"the file ends inside the record header at byte {position}: it was cut short"
    (length,) = _LENGTH.unpack_from(data)
    return f"the file ends inside the record at byte {position}, {length} bytes: it was cut short"


def _wrong_length(position: int) -> str:
    return f"the record length at byte {position} does not match its checksum: not a TFRecord here"


def _masked(crcs: np.ndarray) -> np.ndarray:
    """Returns `masked_crc` of uint32 [n]."""
    return ((crcs >> np.uint32(15)) | (crcs << np.uint32(17))) + np.uint32(_MASK_DELTA)


def _length_crcs(lengths: np.ndarray) -> np.ndarray:
    """Returns the crc32c of lengths (uint64 [n]) as they are stored, uint32 [n]."""
    places = lengths.view(np.uint8).reshape(-1, 8)
    crcs = np.full(len(lengths), google_crc32c.value(bytes(8)), np.uint32)
    for place, table in enumerate(_crc_tables()):
        crcs ^= table[places[:, place]]
    return crcs


def _stored(raw: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Returns the numbers of four bytes at these places of uint8 [bytes], uint32 [n]."""
    return np.ascontiguousarray(raw[places[:, None] + np.arange(4)]).view(np.uint32).reshape(-1)


@functools.cache
def _crc_tables() -> np.ndarray:
    """Returns uint32 [8, 256]: by position of eight, and byte value, its share in their crc32c (which is affine)."""
    zero = google_crc32c.value(bytes(8))
    tables = np.empty((8, 256), np.uint32)
    for place in range(8):
        for value in range(256):
            word = bytearray(8)
            word[place] = value
            tables[place, value] = google_crc32c.value(bytes(word)) ^ zero
    return tables


def candidate_starts(data: bytes) -> np.ndarray:
    """Returns int64 [k]: the offsets in `data` where eight bytes and their checksum could be a record header.

    TFRecord has no sync marker. A random offset passes with probability 2**-32, so the caller checks the record too.
    """
    raw = np.frombuffer(data, np.uint8)
    count = len(raw) - HEADER_BYTES + 1
    if count <= 0:
        return np.empty(0, np.int64)
    crc = np.full(count, google_crc32c.value(bytes(8)), np.uint32)
    for place, table in enumerate(_crc_tables()):
        crc ^= table[raw[place : place + count]]
    stored = np.zeros(count, np.uint32)
    for place in range(4):
        stored |= raw[8 + place : 8 + place + count].astype(np.uint32) << np.uint32(8 * place)
    return np.flatnonzero(_masked(crc) == stored).astype(np.int64)
