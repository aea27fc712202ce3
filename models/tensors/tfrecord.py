"""TFRecord framing: `length u64, masked crc32c of length u32, data, masked crc32c of data u32`, little endian.

Source of the format: tensorflow/core/lib/io/record_writer.h.
"""

import functools
import struct
from collections.abc import Iterable, Iterator
from typing import BinaryIO

import google_crc32c
import numpy as np

from sluice.models.errors import CorruptFile

HEADER_BYTES = 12
FOOTER_BYTES = 4
_MASK_DELTA = 0xA282EAD8
_LENGTH = struct.Struct("<QI")
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


def read_records(file: BinaryIO, position: int = 0, end: int | None = None) -> Iterator[tuple[int, bytes]]:
    """Yields `(offset of its header, record)` for each record that begins in [position, end).

    Args:
      file: a file open for reading, at offset `position`, which is the start of a record.

    Raises:
      CorruptFile: a length or a record does not match its checksum, or the file ends inside a record.
    """
    while end is None or position < end:
        header = file.read(HEADER_BYTES)
        if not header:
            return
        if len(header) < HEADER_BYTES:
            raise CorruptFile(f"the file ends inside the record header at byte {position}: it was cut short")
        length, length_crc = _LENGTH.unpack(header)
        if masked_crc(header[:8]) != length_crc:
            raise CorruptFile(f"the record length at byte {position} does not match its checksum: not a TFRecord here")
        body = file.read(length + FOOTER_BYTES)
        if len(body) < length + FOOTER_BYTES:
            raise CorruptFile(f"the file ends inside the record at byte {position}, {length} bytes: it was cut short")
        record = body[:length]
        if masked_crc(record) != _CRC.unpack(body[length:])[0]:
            raise CorruptFile(f"the record at byte {position}, {length} bytes, does not match its checksum")
        yield position, record
        position += HEADER_BYTES + length + FOOTER_BYTES


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
    masked = ((crc >> np.uint32(15)) | (crc << np.uint32(17))) + np.uint32(_MASK_DELTA)
    stored = np.zeros(count, np.uint32)
    for place in range(4):
        stored |= raw[8 + place : 8 + place + count].astype(np.uint32) << np.uint32(8 * place)
    return np.flatnonzero(masked == stored).astype(np.int64)
