"""Avro container files: their header, the sync markers that cut them into ranges, and the rows of a block.

fastavro reads the header, the numbers before a block, and the rows in it. Blocks are read here, as fastavro's reader
drops a row silently where the count of a block is wrong, ignores snappy's checksum, and needs a package for each
codec.

Format: https://avro.apache.org/docs/1.11.1/specification/#object-container-files
"""

import bz2
import dataclasses
import io
import json
import lzma
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO, TypeAlias

import fastavro
import pyarrow as pa

from sluice.models.errors import CorruptFile
from sluice.transforms.decode.ranges import BlockTooLarge

# A schema as JSON has it: the name of a type, a union, or a type with its parameters.
AvroSchema: TypeAlias = str | list[Any] | dict[str, Any]

_MAGIC = b"Obj\x01"
SYNC_BYTES = 16
_SCAN_BYTES = 1 << 16
# A greater length is treated as damage. fastavro would allocate it.
_MAX_LENGTH = 1 << 30
# Of a block, unpacked; writers make blocks of some KB to some MB. A block with more fails as a block: packed a
# thousandfold it would need the memory of many ranges, and a row that takes no bytes can be there any number of times.
MAX_BLOCK_BYTES = 64 << 20
MAX_BLOCK_ROWS = 1 << 18
# Snappy's copies of 3 bytes stand for 64 at most.
_MOST_SNAPPY = 64
# The types that Arrow reads from plain numbers and texts; fastavro would make an object of each value.
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
# The header after the magic bytes.
_HEADER = fastavro.parse_schema(
    {
        "type": "record",
        "name": "Header",
        "fields": [
            {"name": "metadata", "type": {"type": "map", "values": "bytes"}},
            {"name": "sync", "type": {"type": "fixed", "name": "Sync", "size": SYNC_BYTES}},
        ],
    }
)
# The head of a block is two longs, its rows and its bytes: each takes 10 bytes at most.
_LONG = fastavro.parse_schema("long")
_BLOCK_HEAD_BYTES = 20


@dataclasses.dataclass(frozen=True)
class AvroHeader:
    """The header of a container file.

    Attributes:
      size: bytes. The sync marker is the last of them.
      sync: the marker after each block.
      schema: with every named type expanded, to look at; fastavro cannot read with it.
      rows: the parsed schema of an array of rows.
    """

    size: int
    sync: bytes
    schema: AvroSchema
    rows: AvroSchema
    codec: str


class _GuardedFile:
    """A file whose `read` refuses what a damaged length asks for, and never returns fewer bytes than asked for."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, count: int) -> bytes:
        if not 0 <= count <= _MAX_LENGTH:
            raise CorruptFile(f"it is damaged: it holds a length of {count} bytes")
        data = self._file.read(count)
        if len(data) < count:
            raise CorruptFile(f"the file ends {count - len(data)} bytes too early")
        return data


def read_header(file: BinaryIO) -> AvroHeader:
    """Returns the header of a file that is at its beginning.

    Raises:
      CorruptFile: the file is not an Avro container file, or its codec is unknown.
    """
    if file.read(len(_MAGIC)) != _MAGIC:
        raise CorruptFile("not an Avro container file: it does not begin with 'Obj' and 1")
    try:
        header = fastavro.schemaless_reader(_GuardedFile(file), _HEADER, None)
    except Exception as error:
        raise CorruptFile(f"the header cannot be read: {error or type(error).__name__}") from error
    metadata = header["metadata"]
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
    return AvroHeader(file.tell(), header["sync"], expanded, rows, codec)


def without_logical_types(schema: AvroSchema) -> AvroSchema:
    """Returns the schema without the logical types that Arrow reads from plain numbers and texts."""
    if isinstance(schema, list):
        return [without_logical_types(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: without_logical_types(value)
        for key, value in schema.items()
        if key != "logicalType" or value not in _PLAIN_LOGICAL_TYPES
    }


def find_marker(file: BinaryIO, header: AvroHeader, start: int, stop: int) -> int | None:
    """Returns the position of the first marker in [start, stop), with the file behind it; the header's is the first."""
    first = header.size - SYNC_BYTES
    if start <= first:
        file.seek(header.size)
        return first
    file.seek(start)
    position, data = start, b""
    while position < stop and (chunk := file.read(_SCAN_BYTES)):
        data += chunk
        found = data.find(header.sync)
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


@dataclasses.dataclass(frozen=True)
class SkippedBlock:
    """A block that is too large.

    Attributes:
      size: bytes, with the marker behind it.
    """

    error: BlockTooLarge
    size: int


def read_block(file: BinaryIO, header: AvroHeader, at: int) -> AvroBlock | SkippedBlock | None:
    """Returns the block that begins at byte `at`, where the file is; None at the end of the file.

    Raises:
      CorruptFile: the block is damaged.
    """
    start = file.read(_BLOCK_HEAD_BYTES)
    if not start:
        return None
    try:
        count, size, head_bytes = _read_block_head(start)
        file.seek(at + head_bytes)
        guarded = _GuardedFile(file)
        data = guarded.read(size)
        if guarded.read(SYNC_BYTES) != header.sync:
            raise CorruptFile("it does not end with the file's sync marker")
        rows = _read_rows(count, data, header)
    except BlockTooLarge as error:
        skipped = BlockTooLarge(f"the block at byte {at} is left out: {error}")
        return SkippedBlock(skipped, head_bytes + size + SYNC_BYTES)
    except CorruptFile as error:
        raise CorruptFile(f"the block at byte {at} is damaged: {error}") from error
    return AvroBlock(rows, head_bytes + size + SYNC_BYTES)


def _read_block_head(start: bytes) -> tuple[int, int, int]:
    """Returns the number of rows of a block, its bytes, and the bytes of these two numbers."""
    file = io.BytesIO(start)
    try:
        count, size = (fastavro.schemaless_reader(file, _LONG, None) for _ in range(2))
    except (EOFError, IndexError) as error:
        raise CorruptFile("its head is cut short, or a number in it is longer than 64 bits") from error
    return count, size, file.tell()


def _read_rows(count: int, data: bytes, header: AvroHeader) -> list[Any]:
    """Reads the rows as an array, which is a count, the items and a zero: one call reads them all."""
    if count > MAX_BLOCK_ROWS:
        raise BlockTooLarge(f"it has {count} rows, and {MAX_BLOCK_ROWS} are read at once")
    array = io.BytesIO()
    try:
        fastavro.schemaless_writer(array, _LONG, count)
        array.write(_unpacked(data, header.codec) + b"\0")
        array.seek(0)
        rows = fastavro.schemaless_reader(array, header.rows, None, handle_unicode_errors="surrogateescape")
    except BlockTooLarge:
        raise
    except Exception as error:
        raise CorruptFile(f"it does not decode: {type(error).__name__}: {error}") from error
    if array.read(1) or len(rows) != count:
        raise CorruptFile(f"its {count} rows do not fill it")
    return rows


def _unpacked(data: bytes, codec: str) -> bytes:
    unpacked = _CODECS[codec](data)
    if len(unpacked) > MAX_BLOCK_BYTES:
        raise BlockTooLarge(f"it unpacks to more than {MAX_BLOCK_BYTES} bytes")
    return unpacked


# Each of these unpacks no more than a byte beyond MAX_BLOCK_BYTES.


def _unpack_deflate(data: bytes) -> bytes:
    unpacker = zlib.decompressobj(-15)
    unpacked = unpacker.decompress(data, MAX_BLOCK_BYTES + 1)
    if len(unpacked) <= MAX_BLOCK_BYTES and not unpacker.eof:
        raise EOFError("the packed data are cut short")
    return unpacked


def _unpack_streams(data: bytes, unpacker_type: type[bz2.BZ2Decompressor] | type[lzma.LZMADecompressor]) -> bytes:
    """Unpacks one or more streams, one behind the other."""
    pieces: list[bytes] = []
    while data and (left := MAX_BLOCK_BYTES + 1 - sum(map(len, pieces))):
        unpacker = unpacker_type()
        pieces.append(unpacker.decompress(data, left))
        if not unpacker.eof and len(pieces[-1]) < left:
            raise EOFError("the packed data are cut short")
        data = unpacker.unused_data
    return b"".join(pieces)


def _unpack_snappy(data: bytes) -> bytes:
    """Unpacks a raw snappy block, which begins with its unpacked length, and checks the crc32 after it."""
    packed, crc = data[:-4], int.from_bytes(data[-4:])
    size = shift = 0
    for byte in packed[:5]:
        size |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    if size > _MOST_SNAPPY * len(packed):
        raise CorruptFile(f"it says that its {len(packed)} bytes unpack to {size}")
    if size > MAX_BLOCK_BYTES:
        raise BlockTooLarge(f"it says that it unpacks to {size} bytes, and {MAX_BLOCK_BYTES} are read at once")
    unpacked = pa.decompress(packed, size, "snappy", asbytes=True)
    if zlib.crc32(unpacked) != crc:
        raise CorruptFile("the block does not match its checksum")
    return unpacked


def _unpack_zstandard(data: bytes) -> bytes:
    pieces: list[bytes] = []
    with pa.CompressedInputStream(pa.BufferReader(data), "zstd") as stream:
        while (left := MAX_BLOCK_BYTES + 1 - sum(map(len, pieces))) and (piece := stream.read(min(left, 1 << 20))):
            pieces.append(piece)
    return b"".join(pieces)


# The codecs that are required, and the optional ones: https://avro.apache.org/docs/1.11.1/specification/#required-codecs
_CODECS: dict[str, Callable[[bytes], bytes]] = {
    "null": lambda data: data,
    "deflate": _unpack_deflate,
    "snappy": _unpack_snappy,
    "bzip2": lambda data: _unpack_streams(data, bz2.BZ2Decompressor),
    "xz": lambda data: _unpack_streams(data, lzma.LZMADecompressor),
    "zstandard": _unpack_zstandard,
}
