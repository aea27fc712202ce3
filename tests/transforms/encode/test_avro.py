import datetime
import decimal
import io
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.models.errors import SluiceError
from sluice.transforms.encode.avro import _joined_fields, _varints, avro_schema, written_schema
from sluice.transforms.encode.base import OutputSpec, data_view, select_columns, shown_schema, shown_type
from sluice.transforms.encode.formats import check_output_spec
from tests.support.formats.encode_cases import UTC, batches, encode, encode_batch
from tests.transforms.encode.test_json import utc

AVRO_NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,4}", fullmatch=True)


def as_avro(value: Any, kind: pa.DataType) -> Any:
    """Returns the value as fastavro reads it."""
    kind = shown_type(kind)
    if value is None:
        return None
    if pa.types.is_list(kind):
        return [as_avro(item, kind.value_type) for item in value]
    if pa.types.is_struct(kind):
        return {field.name: as_avro(value[field.name], field.type) for field in kind}
    return decimal.Decimal(value) if pa.types.is_uint64(kind) else value


def expected_rows(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    kinds = {field.name: field.type for field in batch.schema}
    return [{name: as_avro(value, kinds[name]) for name, value in row.items()} for row in batch.to_pylist()]


@given(batches(names=AVRO_NAMES))
def test_avro_reads_back(batch: pa.RecordBatch) -> None:
    check_output_spec(OutputSpec("avro", batch.schema))
    found = list(fastavro.reader(io.BytesIO(encode_batch("avro", batch))))
    assert repr(utc(found)) == repr(utc(expected_rows(batch)))


def has_decimals(kind: pa.DataType) -> bool:
    kind = shown_type(kind)
    if pa.types.is_struct(kind):
        return any(has_decimals(field.type) for field in kind)
    return has_decimals(kind.value_type) if pa.types.is_list(kind) else pa.types.is_decimal(kind) or kind == pa.uint64()


@given(batches(names=AVRO_NAMES).filter(lambda batch: not any(has_decimals(field.type) for field in batch.schema)))
def test_the_bytes_are_those_of_fastavro(batch: pa.RecordBatch) -> None:
    # Decimals have Arrow's width here; fastavro writes the shortest.
    schema = written_schema(batch.schema)
    columns = select_columns(batch, schema)
    out = io.BytesIO()
    parsed = fastavro.parse_schema(avro_schema(schema))
    for row in batch.to_pylist():
        fastavro.schemaless_writer(out, parsed, row)
    assert data_view(_joined_fields(list(schema), columns.columns, batch.num_rows)) == out.getvalue()


def test_blocks_are_deflated_one_a_batch() -> None:
    batch = pa.record_batch({"x": np.arange(5000)})
    data = encode(OutputSpec("avro", batch.schema), batch, batch.slice(0, 0), batch.slice(0, 7))
    reader = fastavro.block_reader(io.BytesIO(data))
    assert reader.metadata["avro.codec"] == "deflate"
    assert [block.num_records for block in reader] == [5000, 7]
    assert len(data) < 5000 * 3


def test_no_batches_leave_a_header() -> None:
    reader = fastavro.reader(io.BytesIO(encode(OutputSpec("avro", pa.schema([("x", pa.int64())])))))
    assert list(reader) == []
    assert reader.writer_schema["fields"] == [{"name": "x", "type": ["null", "long"]}]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (pa.bool_(), "boolean"),
        (pa.int8(), "int"),
        (pa.uint16(), "int"),
        (pa.uint32(), "long"),
        (pa.int64(), "long"),
        (pa.uint64(), {"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 0}),
        (pa.float16(), "float"),
        (pa.float64(), "double"),
        (pa.dictionary(pa.int32(), pa.string()), "string"),
        (pa.binary(4), "bytes"),
        (pa.date64(), {"type": "int", "logicalType": "date"}),
        (pa.time32("ms"), {"type": "long", "logicalType": "time-micros"}),
        (pa.timestamp("ns", "UTC"), {"type": "long", "logicalType": "timestamp-micros"}),
        (pa.timestamp("s"), {"type": "long", "logicalType": "local-timestamp-micros"}),
        (pa.decimal128(10, 2), {"type": "bytes", "logicalType": "decimal", "precision": 10, "scale": 2}),
        (pa.list_(pa.float32()), {"type": "array", "items": ["null", "float"]}),
    ],
    ids=str,
)
def test_types(kind: pa.DataType, expected: Any) -> None:
    fields = avro_schema(shown_schema(pa.schema([("x", kind), pa.field("y", kind, nullable=False)])))["fields"]
    assert fields == [{"name": "x", "type": ["null", expected]}, {"name": "y", "type": expected}]


def test_records_of_the_same_path_text_have_names_of_their_own() -> None:
    inner = pa.struct([("a", pa.int64())])
    kind = pa.struct([("b", inner), ("c", pa.list_(inner))])
    batch = pa.RecordBatch.from_arrays(
        [pa.array([{"b": {"a": 1}, "c": [{"a": 2}]}], kind), pa.array([{"a": 3}], inner)], ["x", "x_b"]
    )
    assert list(fastavro.reader(io.BytesIO(encode_batch("avro", batch)))) == batch.to_pylist()


@pytest.mark.parametrize("kind", [pa.timestamp("ns", "UTC"), pa.timestamp("ns"), pa.time64("ns")], ids=str)
@pytest.mark.parametrize("nested", [False, True])
def test_digits_below_microseconds_are_refused(kind: pa.DataType, nested: bool) -> None:
    array = pa.array([1_999], kind)
    array = pa.StructArray.from_arrays([pa.ListArray.from_arrays([0, 1], array)], ["a"]) if nested else array
    with pytest.raises(SluiceError, match=r"column 'x': .*would lose data"):
        encode_batch("avro", pa.RecordBatch.from_arrays([array], ["x"]))


def test_nanoseconds_become_microseconds() -> None:
    batch = pa.record_batch(
        {
            "t": pa.array([1_000, -1_000, None], pa.timestamp("ns", "UTC")),
            "time": pa.array([1_000, 0, None], pa.time64("ns")),
        }
    )
    first, second, third = fastavro.reader(io.BytesIO(encode_batch("avro", batch)))
    epoch = datetime.datetime(1970, 1, 1, tzinfo=UTC)
    assert first == {"t": epoch + datetime.timedelta(microseconds=1), "time": datetime.time(0, 0, 0, 1)}
    assert second == {"t": epoch - datetime.timedelta(microseconds=1), "time": datetime.time(0)}
    assert third == {"t": None, "time": None}


def test_a_null_in_a_required_inner_field_is_an_error() -> None:
    kind = pa.list_(pa.field("item", pa.int64(), nullable=False))
    with pytest.raises(SluiceError, match="field 'item' is REQUIRED in the output and 1 values are null"):
        encode_batch("avro", pa.RecordBatch.from_arrays([pa.array([[1, None]], kind)], ["x"]))


@given(st.lists(st.integers(-(2**63), 2**63 - 1)))
def test_varints(numbers: list[int]) -> None:
    out = io.BytesIO()
    for number in numbers:
        fastavro.schemaless_writer(out, "long", number)
    assert b"".join(_varints(np.array(numbers, np.int64)).to_pylist()) == out.getvalue()
