"""Avro container files: their schema as Arrow types, and the blocks of a byte range.

Format: https://avro.apache.org/docs/1.11.1/specification/#object-container-files
"""

import dataclasses
import io
import json
from collections.abc import Iterator
from typing import Any, BinaryIO

import fastavro
import numpy as np
import pyarrow as pa

from models.errors import CorruptFile
from transforms.batches import payload_of
from transforms.decode import Decoded, InputSpec, finish, row_failure

_MAGIC = b"Obj\x01"
_SYNC_BYTES = 16
# Blocks are decoded together up to this size; each call of fastavro parses the header's schema again.
_GROUP_BYTES = 1 << 20
_SCAN_BYTES = 1 << 16

_PRIMITIVES = {
    "boolean": pa.bool_(),
    "int": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "bytes": pa.binary(),
    "string": pa.string(),
    "null": pa.null(),
    "enum": pa.string(),
    "fixed": pa.binary(),
}
_LOGICAL = {
    "date": pa.date32(),
    "time-millis": pa.time32("ms"),
    "time-micros": pa.time64("us"),
    "timestamp-millis": pa.timestamp("ms", "UTC"),
    "timestamp-micros": pa.timestamp("us", "UTC"),
    "local-timestamp-millis": pa.timestamp("ms"),
    "local-timestamp-micros": pa.timestamp("us"),
    "uuid": pa.string(),
}


@dataclasses.dataclass(frozen=True)
class AvroHeader:
    """The head of a container file.

    Attributes:
      data: its bytes, which end with the sync marker.
    """

    data: bytes
    schema: Any

    @property
    def sync(self) -> bytes:
        return self.data[-_SYNC_BYTES:]


def read_header(file: BinaryIO) -> AvroHeader:
    """Returns the header of a file that stands at its beginning.

    Raises:
      CorruptFile: it is not an Avro container file.
    """
    recorder = _Recorder(file)
    if recorder.take(4) != _MAGIC:
        raise CorruptFile("not an Avro container file: it does not begin with 'Obj' and 1")
    metadata = {}
    while count := recorder.long():
        if count < 0:  # a negative count is followed by the size in bytes
            count = -count
            recorder.long()
        for _ in range(count):
            key = recorder.take(recorder.long()).decode()
            metadata[key] = recorder.take(recorder.long())
    recorder.take(_SYNC_BYTES)
    if "avro.schema" not in metadata:
        raise CorruptFile("not an Avro container file: its header holds no schema")
    schema = fastavro.parse_schema(json.loads(metadata["avro.schema"]), expand=True)
    return AvroHeader(bytes(recorder.seen), schema)


class _Recorder:
    """Reads Avro's primitives and keeps the bytes it has read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seen = bytearray()

    def take(self, count: int) -> bytes:
        data = self._file.read(count)
        if len(data) < count:
            raise CorruptFile(f"the file ends at byte {len(self.seen) + len(data)}, in the middle of a block")
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


def arrow_schema(schema: Any) -> pa.Schema:
    """Returns an Avro record schema as Arrow fields.

    Raises:
      CorruptFile: it is not a record, or a field is a union of more than null and one type.
    """
    if not isinstance(schema, dict) or schema.get("type") != "record":
        raise CorruptFile("the Avro schema is not a record, so it has no columns")
    return pa.schema([(field["name"], _arrow_type(field["type"], field["name"])) for field in schema["fields"]])


def _arrow_type(kind: Any, name: str) -> pa.DataType:
    if isinstance(kind, list):
        others = [branch for branch in kind if branch != "null"]
        if len(others) != 1:
            raise CorruptFile(
                f"field '{name}' is a union of {len(others)} types; only null and one other can be a column"
            )
        return _arrow_type(others[0], name)
    if isinstance(kind, str):
        if kind not in _PRIMITIVES:
            raise CorruptFile(f"field '{name}' has a recursive type '{kind}', which cannot be a column")
        return _PRIMITIVES[kind]
    logical = kind.get("logicalType")
    if logical == "decimal":
        return pa.decimal128(kind["precision"], kind.get("scale", 0))
    if logical in _LOGICAL:
        return _LOGICAL[logical]
    return _complex_type(kind, name)


def _complex_type(kind: dict[str, Any], name: str) -> pa.DataType:
    if kind["type"] == "array":
        return pa.list_(_arrow_type(kind["items"], name))
    if kind["type"] == "map":
        return pa.map_(pa.string(), _arrow_type(kind["values"], name))
    if kind["type"] == "record":
        return pa.struct([(field["name"], _arrow_type(field["type"], field["name"])) for field in kind["fields"]])
    return _arrow_type(kind["type"], name)


def read_avro(
    file: BinaryIO, header: AvroHeader, start: int, stop: int, spec: InputSpec, path: str
) -> Iterator[tuple[Decoded, int]]:
    """Yields (rows, bytes read) of the blocks that belong to [start, stop) of a file.

    A block belongs to the range that holds the first byte of the sync marker before it.

    Raises:
      CorruptFile: a block is cut short, does not end with the marker, or does not decode.
    """
    marker = _find_marker(file, header.sync, start, len(header.data) - _SYNC_BYTES)
    group: list[bytes] = []
    begin = marker or 0
    while marker is not None and marker < stop:
        try:
            block = _read_block(file, header.sync, marker + _SYNC_BYTES)
        except CorruptFile:
            yield from _decode_group(group, begin + _SYNC_BYTES, header, spec, path)
            raise
        if block is None:
            break
        group.append(block)
        marker += len(block)
        if marker - begin >= _GROUP_BYTES:
            yield from _decode_group(group, begin + _SYNC_BYTES, header, spec, path)
            group, begin = [], marker
    yield from _decode_group(group, begin + _SYNC_BYTES, header, spec, path)


def _decode_group(
    blocks: list[bytes], at: int, header: AvroHeader, spec: InputSpec, path: str
) -> Iterator[tuple[Decoded, int]]:
    """Decodes blocks together; one by one where that fails, so that those before a damaged one are kept."""
    if not blocks:
        return
    try:
        yield _decode(b"".join(blocks), header, at, spec, path), sum(map(len, blocks))
    except CorruptFile:
        if len(blocks) == 1:
            raise
        for block in blocks:
            yield _decode(block, header, at, spec, path), len(block)
            at += len(block)


def _find_marker(file: BinaryIO, sync: bytes, start: int, first: int) -> int | None:
    """Returns where the first marker at or behind `start` begins; `first` is that of the header."""
    if start <= first:
        file.seek(first + _SYNC_BYTES)
        return first
    file.seek(start)
    position, data = start, b""
    while chunk := file.read(_SCAN_BYTES):
        data += chunk
        found = data.find(sync)
        if found >= 0:
            file.seek(position + found + _SYNC_BYTES)
            return position + found
        keep = data[-(_SYNC_BYTES - 1) :]
        position, data = position + len(data) - len(keep), keep
    return None


def _read_block(file: BinaryIO, sync: bytes, position: int) -> bytes | None:
    """Returns a block with its head and marker; None at the end of the file."""
    recorder = _Recorder(file)
    probe = file.read(1)
    if not probe:
        return None
    file.seek(position)
    recorder.long()
    size = recorder.long()
    if size < 0:
        raise CorruptFile(f"the block at byte {position} has a negative size")
    recorder.take(size)
    if recorder.take(_SYNC_BYTES) != sync:
        raise CorruptFile(f"the block at byte {position} does not end with the file's sync marker: it is damaged")
    return bytes(recorder.seen)


def _decode(blocks: bytes, header: AvroHeader, at: int, spec: InputSpec, path: str) -> Decoded:
    try:
        rows = list(fastavro.reader(io.BytesIO(header.data + blocks)))
    except Exception as error:
        raise CorruptFile(f"the block at byte {at} does not decode: {type(error).__name__}: {error}") from error
    origin = f"{path}#block={at}&row="
    bad: dict[int, str] = {}
    arrays = [_column(rows, name, kind, bad) for name, kind in spec.columns]
    batch = finish(arrays, spec, origin, np.arange(len(rows)), None)
    if not bad:
        return Decoded([batch])
    failures = [row_failure(text, f"{origin}{row}", payload_of(batch, row)) for row, text in sorted(bad.items())]
    keep = np.ones(len(rows), bool)
    keep[list(bad)] = False
    return Decoded([batch.filter(pa.array(keep))], failures)


def _column(rows: list[Any], name: str, kind: pa.DataType, bad: dict[int, str]) -> pa.Array:
    values = [row.get(name) for row in rows]
    try:
        return pa.array(values, kind)
    except (pa.ArrowException, ValueError, TypeError, OverflowError):
        return pa.concat_arrays([_value(value, name, kind, row, bad) for row, value in enumerate(values)])


def _value(value: Any, name: str, kind: pa.DataType, row: int, bad: dict[int, str]) -> pa.Array:
    try:
        return pa.array([value], kind)
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        bad.setdefault(row, f"column '{name}': {error}")
        return pa.nulls(1, kind)
