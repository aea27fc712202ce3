"""Avro container files: their schema as Arrow types, and the rows of a byte range as columns."""

from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from sluice.models.errors import CorruptFile
from sluice.models.wording import message, text_of
from sluice.transforms.core.beam_files import open_binary
from sluice.transforms.core.render import json_payload
from sluice.transforms.decode.avro_container import (
    SYNC_BYTES,
    AvroHeader,
    AvroSchema,
    SkippedBlock,
    find_marker,
    read_block,
    read_header,
)
from sluice.transforms.decode.ranges import FileRange, Look, Read, beginning, opened, typed_look
from sluice.transforms.decode.spec import (
    CsvOptions,
    Decoded,
    InputSpec,
    check_columns,
    file_failure,
    finish,
    without_bad,
)

# A batch gathers the rows of several blocks until it has this many.
_BATCH_ROWS = 4096

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


def look_avro(path: str, _: CsvOptions) -> Look:
    """Returns the columns of a file."""
    with open_binary(path) as file:
        return typed_look(arrow_schema(read_header(file).schema))


def read_avro_range(part: FileRange, spec: InputSpec) -> Read:
    """Yields the rows of a range."""
    with opened(part.path, open_binary) as file:
        with beginning():
            header = read_header(file)
            check_columns(spec, arrow_schema(header.schema).names, "the file")
        yield from read_avro(file, header, part.start, part.stop or part.stored_bytes, spec, part.path)


def arrow_schema(schema: AvroSchema) -> pa.Schema:
    """Returns the fields of an Avro record as Arrow fields.

    Raises:
      CorruptFile: the schema is not a record, or a field is a union of more than null and one type.
    """
    if not isinstance(schema, dict) or schema.get("type") != "record":
        raise CorruptFile("the Avro schema is not a record, so it has no columns")
    return pa.schema([(field["name"], _arrow_type(field["type"], field["name"])) for field in schema["fields"]])


def _arrow_type(kind: AvroSchema, name: str) -> pa.DataType:
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
        precision, scale = kind["precision"], kind.get("scale", 0)
        return pa.decimal128(precision, scale) if precision <= 38 else pa.decimal256(precision, scale)
    if logical in _LOGICAL:
        return _LOGICAL[logical]
    return _complex_type(kind, name)


def _complex_type(kind: dict[str, Any], name: str) -> pa.DataType:
    if kind["type"] == "array":
        if not _takes_bytes(kind["items"]):
            raise CorruptFile(f"field '{name}' is an array of items that take no bytes, which can be of any length")
        return pa.list_(_arrow_type(kind["items"], name))
    if kind["type"] == "map":
        return pa.map_(pa.string(), _arrow_type(kind["values"], name))
    if kind["type"] == "record":
        return pa.struct([(field["name"], _arrow_type(field["type"], field["name"])) for field in kind["fields"]])
    return _arrow_type(kind["type"], name)


def _takes_bytes(kind: AvroSchema) -> bool:
    """Whether every value of a type takes at least one byte."""
    if isinstance(kind, dict) and kind["type"] == "record":
        return any(_takes_bytes(field["type"]) for field in kind["fields"])
    if isinstance(kind, dict) and kind["type"] == "fixed":
        return bool(kind["size"])
    return (kind["type"] if isinstance(kind, dict) else kind) != "null"


def read_avro(file: BinaryIO, header: AvroHeader, start: int, stop: int, spec: InputSpec, path: str) -> Read:
    """Yields the rows of the blocks that belong to bytes [start, stop) of a file.

    A block belongs to the range that holds the first byte of the sync marker before it.

    Args:
      header: has the columns of the job.

    Raises:
      CorruptFile: a block is cut short, does not end with the marker, or does
        not decode.
    """
    marker = find_marker(file, header, start, stop)
    if marker is None:
        return
    begin = at = marker + SYNC_BYTES
    rows: list[Any] = []

    def flush(end: int) -> tuple[Decoded, int, int]:
        return avro_columns(rows, np.arange(len(rows)), spec, f"{path}#block={begin}&row="), end - begin, end

    try:
        while at - SYNC_BYTES < stop and (block := read_block(file, header, at)):
            at += block.size
            if isinstance(block, SkippedBlock):
                if rows:
                    yield flush(at - block.size)
                failure = file_failure(block.error, f"{path}#block={at - block.size}")
                yield Decoded(failures=[failure]), block.size, at
                begin, rows = at, []
                continue
            rows += block.rows
            if len(rows) >= _BATCH_ROWS:
                yield flush(at)
                begin, rows = at, []
    except CorruptFile:
        if rows:
            yield flush(at)
        raise
    if rows:
        yield flush(at)


def avro_columns(rows: Sequence[Any], positions: np.ndarray, spec: InputSpec, origin: str) -> Decoded:
    """Returns rows, dicts of fastavro, as columns.

    Args:
      positions: int64 [rows]: the position of each row.
      origin: the origin of a row up to its position, e.g. "data.avro#block=123&row=".
    """
    bad: dict[int, str] = {}
    arrays = [_column(rows, name, kind, bad) for name, kind in spec.columns]
    batch = finish(arrays, spec, origin, positions, None)
    return without_bad(batch, bad, origin, positions, lambda row: json_payload(rows[row]))


def _column(rows: Sequence[Any], name: str, kind: pa.DataType, bad: dict[int, str]) -> pa.Array:
    values = [row[name] for row in rows]
    try:
        return pa.array(values, kind)
    except (pa.ArrowException, ValueError, TypeError, OverflowError):
        return pa.concat_arrays([_value(value, name, kind, row, bad) for row, value in enumerate(values)])


def _value(value: object, name: str, kind: pa.DataType, row: int, bad: dict[int, str]) -> pa.Array:
    try:
        return pa.array([value], kind)
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        bad.setdefault(row, message("column '{name}': {}", text_of(error), name=name))
        return pa.nulls(1, kind)
