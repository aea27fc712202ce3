import bz2
import datetime
import decimal
import io
import itertools
import json
import lzma
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.models.errors import CorruptFile
from sluice.transforms.core.formats import AVRO
from sluice.transforms.decode import avro_container
from sluice.transforms.decode.avro import arrow_schema, read_avro
from sluice.transforms.decode.avro_container import read_header
from sluice.transforms.decode.spec import Decoded, InputSpec
from tests.support.formats.decode_cases import (
    AVRO_SCHEMA,
    COLUMNS,
    origins_of,
    put,
    read_file,
    rows_of,
    sample_rows,
    to_avro,
)
from tests.support.sizes import examples

SPEC = InputSpec(AVRO, COLUMNS)
UTC = datetime.UTC


def record(*fields: tuple[str, Any]) -> dict[str, Any]:
    return {"type": "record", "name": "r", "fields": [{"name": name, "type": kind} for name, kind in fields]}


def read(data: bytes, spec: InputSpec | None = None, start: int = 0, stop: int | None = None) -> Decoded:
    file = io.BytesIO(data)
    header = read_header(file)
    spec = spec or InputSpec(AVRO, tuple((field.name, field.type) for field in arrow_schema(header.schema)))
    whole = Decoded()
    reached = None
    for decoded, size, place in read_avro(file, header, start, len(data) if stop is None else stop, spec, "f.avro"):
        assert reached is None or place == reached + size
        reached = place
        whole.add(decoded)
    for batch in whole.batches:
        batch.validate(full=True)
    return whole


# (Avro type, Arrow type, values in, values out if others)
TYPES: list[tuple[Any, pa.DataType, list[Any], list[Any] | None]] = [
    ("boolean", pa.bool_(), [True, False], None),
    ("int", pa.int32(), [-(2**31), 2**31 - 1], None),
    ("long", pa.int64(), [-(2**63), 2**63 - 1], None),
    ("float", pa.float32(), [0.5, float("inf")], None),
    ("double", pa.float64(), [0.1], None),
    ("bytes", pa.binary(), [b"\xff", b""], None),
    ("string", pa.string(), ["é", ""], None),
    ("null", pa.null(), [None], None),
    (["null", "long"], pa.int64(), [None, 1], None),
    (["string", "null"], pa.string(), [None, "a"], None),
    (["long"], pa.int64(), [1], None),
    ({"type": "string", "avro.java.string": "String"}, pa.string(), ["a"], None),
    ({"type": "enum", "name": "e", "symbols": ["A", "B"]}, pa.string(), ["B"], None),
    ({"type": "fixed", "name": "f", "size": 2}, pa.binary(), [b"ab"], None),
    ({"type": "array", "items": ["null", "string"]}, pa.list_(pa.string()), [[], ["a", None]], None),
    ({"type": "map", "values": "long"}, pa.map_(pa.string(), pa.int64()), [{"k": 1}], [[("k", 1)]]),
    (
        {"type": "record", "name": "n", "fields": [{"name": "a", "type": ["null", "int"]}]},
        pa.struct([("a", pa.int32())]),
        [{"a": 1}, {"a": None}],
        None,
    ),
    ({"type": "int", "logicalType": "date"}, pa.date32(), [datetime.date(2024, 2, 29), datetime.date.max], None),
    ({"type": "int", "logicalType": "time-millis"}, pa.time32("ms"), [datetime.time(1, 2, 3, 4000)], None),
    ({"type": "long", "logicalType": "time-micros"}, pa.time64("us"), [datetime.time(1, 2, 3, 4)], None),
    (
        {"type": "long", "logicalType": "timestamp-millis"},
        pa.timestamp("ms", "UTC"),
        [datetime.datetime(2024, 2, 29, 1, 2, 3, 4000, UTC)],
        None,
    ),
    (
        ["null", {"type": "long", "logicalType": "timestamp-micros"}],
        pa.timestamp("us", "UTC"),
        [datetime.datetime(1, 1, 2, 3, 4, 5, 6, UTC), None],
        None,
    ),
    (
        {"type": "long", "logicalType": "local-timestamp-micros"},
        pa.timestamp("us"),
        [datetime.datetime(2024, 2, 29, 1, 2, 3, 4)],
        None,
    ),
    (
        {"type": "string", "logicalType": "uuid"},
        pa.string(),
        ["12345678-1234-1234-1234-123456789012"],
        None,
    ),
    (
        {"type": "bytes", "logicalType": "decimal", "precision": 5, "scale": 2},
        pa.decimal128(5, 2),
        [decimal.Decimal("-1.25")],
        None,
    ),
    (
        {"type": "bytes", "logicalType": "decimal", "precision": 50, "scale": 1},
        pa.decimal256(50, 1),
        [decimal.Decimal("1" * 30 + ".5")],
        None,
    ),
    (
        {"type": "array", "items": {"type": "int", "logicalType": "date"}},
        pa.list_(pa.date32()),
        [[datetime.date(2024, 2, 29)]],
        None,
    ),
]


@pytest.mark.parametrize(("kind", "arrow", "values", "out"), TYPES, ids=str)
def test_every_type_of_avro(kind: Any, arrow: pa.DataType, values: list[Any], out: list[Any] | None) -> None:
    data = to_avro([{"v": value} for value in values], record(("v", kind)))
    assert arrow_schema(read_header(io.BytesIO(data)).schema) == pa.schema([("v", arrow)])
    found = [row["v"] for row in rows_of(read(data))]
    zoned = [value.astimezone(UTC) if getattr(value, "tzinfo", None) else value for value in found]
    assert zoned == (values if out is None else out)


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ("string", "not a record"),
        (record(("a", ["long", "string"])), "field 'a' is a union of 2 types"),
        (record(("a", ["null", {"type": "array", "items": "r"}])), "field 'a' has a recursive type 'r'"),
    ],
)
def test_schemas_without_columns(schema: Any, message: str) -> None:
    data = to_avro([], schema)
    with pytest.raises(CorruptFile, match=message):
        arrow_schema(read_header(io.BytesIO(data)).schema)


@examples(12)
@given(st.integers(0, 300), st.integers(1, 2000), st.lists(st.integers(0, 9000), max_size=6))
def test_ranges_hold_each_row_once(count: int, sync_interval: int, cuts: list[int]) -> None:
    rows = sample_rows(count)
    data = to_avro(rows, sync_interval=sync_interval)
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    found = [read(data, SPEC, start, stop) for start, stop in itertools.pairwise(edges)]
    assert [row for part in found for row in rows_of(part)] == rows


def test_an_origin_leads_to_its_row() -> None:
    rows = sample_rows(9000)
    data = to_avro(rows, sync_interval=3000)
    decoded = read(data, SPEC)
    assert len(decoded.batches) > 1
    head, origins = read_header(io.BytesIO(data)).size, origins_of(decoded)
    for number in (0, 1, 4095, 5000, 8999):
        path, block, row = origins[number].replace("#block=", "&").replace("row=", "").split("&")
        behind = io.BytesIO(data[:head] + data[int(block) :])
        assert path == "f.avro"
        assert list(fastavro.reader(behind))[int(row)] == rows[number]


def pack_zstandard(data: bytes) -> bytes:
    return pa.compress(data, "zstd", asbytes=True)


def pack_snappy(data: bytes) -> bytes:
    return pa.compress(data, "snappy", asbytes=True) + zlib.crc32(data).to_bytes(4)


def pack_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


PACKERS = {
    "null": bytes,
    "deflate": pack_deflate,
    "snappy": pack_snappy,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstandard": pack_zstandard,
}


def _long(value: int) -> bytes:
    file = io.BytesIO()
    fastavro.schemaless_writer(file, "long", value)
    return file.getvalue()


def container(codec: str, block: bytes, count: int) -> bytes:
    def text(value: bytes) -> bytes:
        return _long(len(value)) + value

    metadata = {b"avro.codec": codec.encode(), b"avro.schema": json.dumps(AVRO_SCHEMA).encode()}
    head = _long(2) + b"".join(text(key) + text(value) for key, value in metadata.items()) + _long(0)
    return b"Obj\x01" + head + b"S" * 16 + _long(count) + text(block) + b"S" * 16


def plain_block(rows: list[dict[str, Any]]) -> bytes:
    file = io.BytesIO()
    for row in rows:
        fastavro.schemaless_writer(file, AVRO_SCHEMA, row)
    return file.getvalue()


@pytest.mark.parametrize("codec", PACKERS)
def test_every_codec(codec: str) -> None:
    rows = sample_rows(100)
    assert rows_of(read(container(codec, PACKERS[codec](plain_block(rows)), 100), SPEC)) == rows


@pytest.mark.parametrize("codec", PACKERS)
def test_a_damaged_block(codec: str) -> None:
    packed = PACKERS[codec](plain_block(sample_rows(100)))
    for damaged in (packed[:-9], b"", b"\xff" * len(packed)):
        with pytest.raises(CorruptFile, match=r"the block at byte \d+ is damaged"):
            read(container(codec, damaged, 100), SPEC)


@pytest.mark.parametrize("count", [0, 99, 101])
def test_a_wrong_count_is_damage(count: int) -> None:
    with pytest.raises(CorruptFile, match="is damaged"):
        read(container("null", plain_block(sample_rows(100)), count), SPEC)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "does not begin with 'Obj' and 1"),
        (b"PAR1", "does not begin with 'Obj' and 1"),
        (b"Obj\x01\x02\x03", "the header cannot be read: it is damaged: it holds a length of -2 bytes"),
        (b"Obj\x01\x02" + _long(2**31), "it holds a length of 2147483648 bytes"),
        (b"Obj\x01\x02" + b"\xff" * 12, "the header cannot be read: the file ends 1 bytes too early"),
        (b"Obj\x01\x02\x02\xff\x00\x00" + b"S" * 16, "the header cannot be read: 'utf-8' codec can't decode byte 0xff"),
        (b"Obj\x01\x00" + b"S" * 16, "its header holds no schema"),
        (container("lz77", b"", 0), "the blocks are packed with 'lz77'; known are null, deflate"),
        (container("null", b"", 0).replace(b'"record"', b'"retort"'), "the header's schema is damaged"),
        (container("null", b"", 0).replace(b'{"type"', b'["type"'), "the header's schema is damaged"),
    ],
)
def test_a_damaged_header(data: bytes, message: str) -> None:
    with pytest.raises(CorruptFile, match=message):
        read_header(io.BytesIO(data))


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (_long(1) + _long(2**31), "it holds a length of 2147483648 bytes"),
        (_long(1) + _long(-1), "it holds a length of -1 bytes"),
        (_long(-1) + _long(2) + _long(0) * 2, "it does not decode"),
        (_long(1), "its head is cut short, or a number in it is longer than 64 bits"),
        (b"\xff" * 40, "its head is cut short, or a number in it is longer than 64 bits"),
    ],
)
def test_a_damaged_head_of_a_block(head: bytes, message: str) -> None:
    whole = container("null", b"", 0)
    data = whole[: read_header(io.BytesIO(whole)).size] + head
    with pytest.raises(CorruptFile, match=rf"the block at byte {len(data) - len(head)} is damaged: .*{message}"):
        read(data + (b"S" * 16 if len(head) > 2 else b""), SPEC)


def test_a_bad_value_costs_its_row() -> None:
    data = container("null", plain_block([{"id": 1, "x": 1.0, "name": name, "tags": []} for name in "abc"]), 3)
    decoded = read(data.replace(b"\x02b", b"\x02\xff"), SPEC)
    assert [row["name"] for row in rows_of(decoded)] == ["a", "c"]
    (failure,) = decoded.failures
    assert failure.error_message.startswith("column 'name': ")
    assert failure.origin == origins_of(decoded)[0].replace("row=0", "row=1")
    assert json.loads(failure.payload) == {"id": 1, "x": 1.0, "name": "\\xff", "tags": []}


def test_another_schema_in_a_later_file(tmp_path: Path) -> None:
    data = to_avro([{"id": 2**40}, {"id": 7}], record(("id", "long")))
    decoded = read(data, InputSpec(AVRO, (("id", pa.int32()),)))
    assert rows_of(decoded) == [{"id": 7}]
    assert [json.loads(failure.payload) for failure in decoded.failures] == [{"id": 2**40}]
    (failure,) = read_file(put(tmp_path, "f.avro", data), InputSpec(AVRO, (("x", pa.int32()),))).failures
    assert failure.error_message == "the file has no column 'x'; it has id"


@pytest.mark.parametrize(
    ("codec", "rows"), [("null", 4_000_000), *((codec, 1) for codec in PACKERS if codec != "null")]
)
def test_a_block_that_expands_without_measure_costs_the_block(
    codec: str, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(avro_container, "MAX_BLOCK_BYTES", 1 << 20)
    row = sample_rows(1)
    good = container(codec, PACKERS[codec](plain_block(row)), 1)
    packed = PACKERS[codec](bytes(32 << 20)) if rows == 1 else b""
    data = good + _long(rows) + _long(len(packed)) + packed + b"S" * 16 + good[good.index(b"S" * 16) + 16 :]
    tracemalloc.start()
    try:
        decoded = read(data)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert rows_of(decoded) == row * 2
    (failure,) = decoded.failures
    assert (failure.stage, failure.error_type) == ("read", "BlockTooLarge")
    assert failure.origin.endswith(f"#block={len(good)}")
    assert most < 16 << 20


def test_an_array_of_what_takes_no_bytes_is_refused(tmp_path: Path) -> None:
    """Its length, and so the memory that it takes, would be any number that is written before it."""
    schema = record(("id", "long"), ("a", {"type": "array", "items": "null"}))
    path = put(tmp_path, "f.avro", to_avro([{"id": 1, "a": [None]}], schema))
    (failure,) = read_file(path, InputSpec(AVRO, (("id", pa.int64()),))).failures
    assert failure.error_message.startswith("field 'a' is an array of items that take no bytes")
