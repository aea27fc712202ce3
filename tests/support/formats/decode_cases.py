"""Files of every format, read range by range; shared by the tests of decoders and readers."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
import pyarrow.parquet as pq

from sluice.models.protos import message_class
from sluice.models.reserved import is_reserved
from sluice.models.tensors.tfrecord import write_records
from sluice.transforms.core.batches import origin_of, payload_of
from sluice.transforms.core.formats import AVRO, CSV, JSONL, PARQUET, TFRECORD
from sluice.transforms.decode.formats import read_range, split_file
from sluice.transforms.decode.ranges import FileRange
from sluice.transforms.decode.spec import Decoded, InputSpec

FORMATS = (CSV, JSONL, PARQUET, AVRO, TFRECORD)
COLUMNS = (("id", pa.int64()), ("x", pa.float32()), ("name", pa.string()), ("tags", pa.list_(pa.int64())))


def sample_rows(count: int) -> list[dict[str, Any]]:
    """Returns rows of COLUMNS, each a case of its own."""
    return [
        {"id": row, "x": row / 4, "name": "né,\"'"[: row % 5] * (row % 3), "tags": list(range(1 + row % 3))}
        for row in range(count)
    ]


def example(**features: Any) -> bytes:
    """Returns a serialized tf.Example. A feature is an int, a float, bytes, a str, or a list of one of these."""
    message = message_class("tensorflow.Example")()
    for name, found in features.items():
        values = found if isinstance(found, list) else [found]
        feature = message.features.feature[name]
        for value in values:
            if isinstance(value, float):
                feature.float_list.value.append(value)
            elif isinstance(value, int):
                feature.int64_list.value.append(value)
            else:
                feature.bytes_list.value.append(value.encode() if isinstance(value, str) else value)
    return message.SerializeToString()


def to_csv(rows: Sequence[dict[str, Any]]) -> bytes:
    def field(value: Any) -> str:
        text = json.dumps(value) if isinstance(value, list) else str(value)
        return '"' + text.replace('"', '""') + '"' if set(text) & set(',"') else text

    return "".join(",".join(map(field, line)) + "\n" for line in (rows[0].keys(), *(r.values() for r in rows))).encode()


def to_jsonl(rows: Sequence[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def to_parquet(rows: Sequence[dict[str, Any]], **options: Any) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows), pa.schema(list(COLUMNS))), file, **options)
    return file.getvalue()


AVRO_SCHEMA = {
    "type": "record",
    "name": "row",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "x", "type": ["null", "float"]},
        {"name": "name", "type": "string"},
        {"name": "tags", "type": {"type": "array", "items": "long"}},
    ],
}


def to_avro(rows: Sequence[dict[str, Any]], schema: Any = AVRO_SCHEMA, **options: Any) -> bytes:
    file = io.BytesIO()
    fastavro.writer(file, schema, rows, **options)
    return file.getvalue()


def to_tfrecord(rows: Sequence[dict[str, Any]]) -> bytes:
    file = io.BytesIO()
    write_records(file, [example(**row) for row in rows])
    return file.getvalue()


WRITERS = {CSV: to_csv, JSONL: to_jsonl, PARQUET: to_parquet, AVRO: to_avro, TFRECORD: to_tfrecord}


def put(directory: Path, name: str, data: bytes) -> str:
    path = directory / name
    path.write_bytes(data)
    return str(path)


def read_parts(parts: Sequence[FileRange], spec: InputSpec) -> Decoded:
    whole = Decoded()
    for part in parts:
        for decoded, _ in read_range(part, spec):
            for batch in decoded.batches:
                batch.validate(full=True)
            whole.add(decoded)
    return whole


def read_file(path: str, spec: InputSpec, range_bytes: int = 1 << 24) -> Decoded:
    """Reads all ranges of a file in order."""
    return read_parts(split_file(path, Path(path).stat().st_size, spec, range_bytes), spec)


def rows_of(decoded: Decoded) -> list[dict[str, Any]]:
    """Returns the rows without the reserved columns."""
    names = [[name for name in batch.schema.names if not is_reserved(name)] for batch in decoded.batches]
    return [row for batch, kept in zip(decoded.batches, names, strict=True) for row in batch.select(kept).to_pylist()]


def origins_of(decoded: Decoded) -> list[str]:
    return [origin_of(batch, row) for batch in decoded.batches for row in range(batch.num_rows)]


def payloads_of(decoded: Decoded) -> list[bytes]:
    return [payload_of(batch, row) for batch in decoded.batches for row in range(batch.num_rows)]


def positions_of(origins: Sequence[str]) -> list[int]:
    return [int(origin.rsplit("=", 1)[1]) for origin in origins]
