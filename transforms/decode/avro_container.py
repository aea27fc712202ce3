"""Avro container files: their header, the sync markers that cut them into ranges, and the rows of a block.

Format: https://avro.apache.org/docs/1.11.1/specification/#object-container-files
"""

import bz2
import dataclasses
import io
import json
import lzma
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO

import fastavro
import pyarrow as pa

from sluice.models.errors import CorruptFile

_MAGIC = b"Obj\x01"
SYNC_BYTES = 16
_SCAN_BYTES = 1 << 16
# A block of more is taken for damage in its head.
_MAX_BLOCK_BYTES = 1 << 30
# Those that Arrow takes as the plain numbers and texts that they are; fastavro would make an object of each.
_PLAIN_LOGICAL_TYPES = (
    "date",
    "time-millis",
    "time-micros",
    "timestamp-millis",
    "timestamp-micros",
    "local-timestamp-millis",
    "local-timestamp-micros",
    "uuid",
)


@dataclasses.dataclass(frozen=True)
class AvroHeader:
    """The head of a container file.

    Attributes:
      data: its bytes, which end with the sync marker.
      schema: with every named type written out; of no use for reading.
      rows: the schema of an array of rows, parsed.
    """

    data: bytes
    schema: Any
    rows: Any
    codec: str

    @property
    def sync(self) -> bytes:
        return self.data[-SYNC_BYTES:]


def read_header(file: BinaryIO) -> AvroHeader:
    """Returns the header of a file that stands at its beginning.

    Raises:
      CorruptFile: it is not an Avro container file, or of a codec that is not known.
    """
    recorder = _Recorder(file)
    if recorder.take(4) != _MAGIC:
        raise CorruptFile("not an Avro container file: it does not begin with 'Obj' and 1")
    metadata = _read_metadata(recorder)
    recorder.take(SYNC_BYTES)
    codec = metadata.get("avro.codec", b"null").decode(errors="replace")
    if codec not in _CODECS:
        raise CorruptFile(f"the blocks are packed with '{codec}'; known are {', '.join(_CODECS)}")
    if "avro.schema" not in metadata:
        raise CorruptFile("not an Avro container file: its header holds no schema")
    try:
        schema = json.loads(metadata["avro.schema"])
        expanded = fastavro.parse_schema(schema, expand=True)
        rows = fastavro.parse_schema({"type": "array", "items": without_logical_types(schema)})
    except Exception as error:
        raise CorruptFile(f"the header's schema is damaged: {type(error).__name__}: {error}") from error
    return AvroHeader(bytes(recorder.seen), expanded, rows, codec)


def without_logical_types(schema: Any) -> Any:
    """Returns the schema without those that Arrow takes as plain numbers and text: fastavro would make objects."""
    if isinstance(schema, list):
        return [without_logical_types(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: without_logical_types(value)
        for key, value in schema.items()
        if key != "logicalType" or value not in _PLAIN_LOGICAL_TYPES
    }


def _read_metadata(recorder: "_Recorder") -> dict[str, bytes]:
    metadata = {}
    while count := recorder.long():
        if count < 0:  # a negative count is followed by the size in bytes
            count = -count
            recorder.long()
        for _ in range(count):
            key = recorder.take(recorder.long()).decode(errors="replace")
            metadata[key] = recorder.take(recorder.long())
    return metadata


class _Recorder:
    """Reads Avro's primitives and keeps the bytes it has read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seen = bytearray()

    def take(self, count: int) -> bytes:
        if not 0 <= count <= _MAX_BLOCK_BYTES:
            raise CorruptFile(f"a length of {count} bytes stands in a head: it is damaged")
        data = self._file.read(count)
        if len(data) < count:
            raise CorruptFile(f"the file ends {len(self.seen) + len(data)} bytes into its header or a block")
        self.seen += data
        return data

    def long(self) -> int:
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return (value >> 1) ^ -(value & 1)
            if shift > 63:
                raise CorruptFile("a number in a block's head is longer than 64 bits: not an Avro block here")


def find_marker(file: BinaryIO, sync: bytes, start: int, first: int) -> int | None:
    """Returns where the first marker at or behind `start` begins; `first` is that of the header."""
    if start <= first:
        file.seek(first + SYNC_BYTES)
        return first
    file.seek(start)
    position, data = start, b""
    while chunk := file.read(_SCAN_BYTES):
        data += chunk
        found = data.find(sync)
        if found >= 0:
            file.seek(position + found + SYNC_BYTES)
            return position + found
        keep = data[-(SYNC_BYTES - 1) :]
        position, data = position + len(data) - len(keep), keep
    return None


@dataclasses.dataclass(frozen=True)
class AvroBlock:
    rows: list[Any]
    size: int


def read_block(file: BinaryIO, header: AvroHeader, at: int) -> AvroBlock | None:
    """Returns a block, which stands with its head at byte `at`; None at the end of the file."""
    recorder = _Recorder(file)
    if not file.read(1):
        return None
    file.seek(at)
    try:
        count = recorder.long()
        data = recorder.take(recorder.long())
        if recorder.take(SYNC_BYTES) != header.sync:
            raise CorruptFile("it does not end with the file's sync marker")
        rows = _read_rows(count, data, header)
    except CorruptFile as error:
        raise CorruptFile(f"the block at byte {at} is damaged: {error}") from error
    return AvroBlock(rows, len(recorder.seen))


def _read_rows(count: int, data: bytes, header: AvroHeader) -> list[Any]:
    """Reads the rows as an array of records, which is a count, the records and a zero; so they are read in one call."""
    try:
        array = io.BytesIO(_long(count) + _CODECS[header.codec](data) + _long(0))
        rows = fastavro.schemaless_reader(array, header.rows, None, handle_unicode_errors="surrogateescape")
    except Exception as error:
        raise CorruptFile(f"it does not decode: {type(error).__name__}: {error}") from error
    if array.read(1) or len(rows) != count:
        raise CorruptFile(f"its {count} rows do not fill it")
    return rows


def _long(value: int) -> bytes:
    """Returns a number that is not negative, as Avro writes it."""
    value <<= 1
    data = bytearray()
    while value > 0x7F:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    data.append(value)
    return bytes(data)


def _unpack_snappy(data: bytes) -> bytes:
    """A raw snappy block, which begins with the length of what it holds, and the crc32 of that."""
    packed, crc = data[:-4], int.from_bytes(data[-4:])
    size = shift = 0
    for byte in packed[:5]:
        size |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    if size > _MAX_BLOCK_BYTES:
        raise CorruptFile(f"a block of {size} bytes")
    unpacked = pa.decompress(packed, size, "snappy", asbytes=True)
    if zlib.crc32(unpacked) != crc:
        raise CorruptFile("the block does not match its checksum")
    return unpacked


def _unpack_zstandard(data: bytes) -> bytes:
    with pa.CompressedInputStream(pa.BufferReader(data), "zstd") as stream:
        return stream.read()


# https://avro.apache.org/docs/1.11.1/specification/#required-codecs and the optional ones; unpacked here because
# fastavro needs a package for each of them.
_CODECS: dict[str, Callable[[bytes], bytes]] = {
    "null": lambda data: data,
    "deflate": lambda data: zlib.decompress(data, -15),
    "snappy": _unpack_snappy,
    "bzip2": bz2.decompress,
    "xz": lzma.decompress,
    "zstandard": _unpack_zstandard,
}
