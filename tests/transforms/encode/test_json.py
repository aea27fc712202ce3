import base64
import datetime
import decimal
import json
import math
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.models.errors import SluiceError
from sluice.models.reserved import PAYLOAD
from sluice.transforms.encode.base import OutputSpec, shown_type
from sluice.transforms.encode.formats import check_output_spec
from tests.support.formats.encode_cases import FLOATS, UTC, batches, encode, encode_batch, kinds, values

WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def back(value: Any, kind: pa.DataType) -> Any:
    """Returns a JSON value as the Python value of pyarrow."""
    kind = shown_type(kind)
    if value is None:
        return None
    if pa.types.is_list(kind):
        return [back(item, kind.value_type) for item in value]
    if pa.types.is_struct(kind):
        assert list(value) == [field.name for field in kind]
        return {field.name: back(value[field.name], field.type) for field in kind}
    if pa.types.is_floating(kind):
        number = WORDS[value] if isinstance(value, str) else value
        return float(np.array(number, kind.to_pandas_dtype()))
    if pa.types.is_binary(kind):
        return base64.b64decode(value, validate=True)
    if pa.types.is_decimal(kind):
        return decimal.Decimal(value).quantize(decimal.Decimal(f"1E-{kind.scale}"), context=decimal.Context(prec=80))
    if pa.types.is_date(kind):
        return datetime.date.fromisoformat(value)
    if pa.types.is_time(kind):
        return datetime.time.fromisoformat(value)
    if pa.types.is_timestamp(kind):
        assert value.endswith("Z") == (kind.tz is not None)
        return datetime.datetime.fromisoformat(value)
    return value


def lines(data: bytes) -> list[bytes]:
    assert not data or data.endswith(b"\n")
    return data.split(b"\n")[:-1]


def utc(value: Any) -> Any:
    """Returns the value with datetime.timezone.utc in place of pyarrow's UTC."""
    if isinstance(value, datetime.datetime) and value.tzinfo:
        return value.astimezone(UTC)
    if isinstance(value, list):
        return [utc(item) for item in value]
    return {name: utc(item) for name, item in value.items()} if isinstance(value, dict) else value


@given(batches())
def test_jsonl_reads_back(batch: pa.RecordBatch) -> None:
    check_output_spec(OutputSpec("jsonl", batch.schema))
    rows = [json.loads(line) for line in lines(encode_batch("jsonl", batch))]
    found = [{name: back(row[name], batch.schema.field(name).type) for name in row} for row in rows]
    assert repr(utc(found)) == repr(utc(batch.to_pylist()))


@given(batches())
def test_jsonl_is_what_orjson_takes_too(batch: pa.RecordBatch) -> None:
    for line in lines(encode_batch("jsonl", batch)):
        orjson.loads(line)


@given(st.sampled_from(list(FLOATS)), st.data())
def test_a_float_is_as_short_as_its_own_width_allows(kind: pa.DataType, data: st.DataObject) -> None:
    number = data.draw(values(kind, nulls=False).filter(math.isfinite))
    text = encode_batch("jsonl", pa.record_batch({"x": pa.array([number], kind)}))[5:-2].decode()
    assert float(np.array(float(text), kind.to_pandas_dtype())) == number
    assert math.copysign(1, float(text)) == math.copysign(1, number)
    shortest = np.format_float_scientific(np.array(number, kind.to_pandas_dtype())[()], unique=True)
    assert significant(text) == significant(shortest)


def significant(text: str) -> str:
    digits = text.lower().split("e")[0].replace(".", "").lstrip("-0")
    return digits.rstrip("0")


CELLS = [
    (0.1, pa.float32(), "0.1"),
    (0.1, pa.float64(), "0.1"),
    (0.1, pa.float16(), "0.1"),
    (1.0, pa.float32(), "1.0"),
    (-0.0, pa.float64(), "-0.0"),
    (1e22, pa.float64(), "1e+22"),
    (math.nan, pa.float32(), '"NaN"'),
    (math.inf, pa.float64(), '"Infinity"'),
    (-math.inf, pa.float16(), '"-Infinity"'),
    ([0.5, math.nan, None, -math.inf], pa.list_(pa.float32()), '[0.5,"NaN",null,"-Infinity"]'),
    (None, pa.float32(), "null"),
    (-(2**63), pa.int64(), "-9223372036854775808"),
    (2**64 - 1, pa.uint64(), "18446744073709551615"),
    (True, pa.bool_(), "true"),
    ("", pa.string(), '""'),
    (None, pa.string(), "null"),
    ('a"b\\c\n\r\t\x00\x1f/é𝄞\u2028', pa.string(), '"a\\"b\\\\c\\n\\r\\t\\u0000\\u001f/é𝄞\u2028"'),
    ("\\n", pa.string(), '"\\\\n"'),
    (b"\x00\xff\xfe", pa.binary(), '"AP/+"'),
    (b"", pa.binary(), '""'),
    (decimal.Decimal("12.50"), pa.decimal128(5, 2), '"12.50"'),
    (datetime.date(2024, 2, 29), pa.date32(), '"2024-02-29"'),
    (datetime.date(2024, 2, 29), pa.date64(), '"2024-02-29"'),
    (datetime.time(1, 2, 3), pa.time32("s"), '"01:02:03"'),
    (datetime.time(1, 2, 3, 4), pa.time64("us"), '"01:02:03.000004"'),
    (datetime.datetime(2024, 1, 2, 3, 4, 5), pa.timestamp("s"), '"2024-01-02T03:04:05"'),
    (1, pa.timestamp("ns", "UTC"), '"1970-01-01T00:00:00.000000001Z"'),
    (0, pa.timestamp("ms", "America/New_York"), '"1970-01-01T00:00:00.000Z"'),
    ([], pa.list_(pa.string()), "[]"),
    (None, pa.list_(pa.string()), "null"),
    ([[1], [], None, [2, 3]], pa.list_(pa.list_(pa.int64())), "[[1],[],null,[2,3]]"),
    (["a,b", None, '"'], pa.list_(pa.string()), '["a,b",null,"\\""]'),
    ([b"\x00"], pa.list_(pa.binary()), '["AA=="]'),
    ([1, 2], pa.list_(pa.int64(), 2), "[1,2]"),
    ({"a": 1, "b": None}, pa.struct([("a", pa.int64()), ("b", pa.string())]), '{"a":1,"b":null}'),
    (None, pa.struct([("a", pa.int64())]), "null"),
    ({}, pa.struct([]), "{}"),
    ([("k", 1)], pa.map_(pa.string(), pa.int64()), '[{"key":"k","value":1}]'),
    (None, pa.null(), "null"),
]


@pytest.mark.parametrize(("value", "kind", "text"), CELLS, ids=lambda value: str(value)[:20])
@pytest.mark.parametrize("with_null", [False, True])
def test_how_a_value_is_written(value: Any, kind: pa.DataType, text: str, with_null: bool) -> None:
    batch = pa.RecordBatch.from_arrays([pa.array([value, None] if with_null else [value], kind)], ["x"])
    expected = [f'{{"x":{text}}}', '{"x":null}'] if with_null else [f'{{"x":{text}}}']
    assert [line.decode() for line in lines(encode_batch("jsonl", batch))] == expected


def test_column_names_are_escaped() -> None:
    assert encode_batch("jsonl", pa.record_batch({'a"\n': [1], "é": [2]})) == '{"a\\"\\n":1,"é":2}\n'.encode()


PREDICTION = pa.record_batch({"p": pa.array([0.5], pa.float32()), "label": ["a"]})
ADDED = '"p":0.5,"label":"a"}\n'


def spliced(payload: bytes, prediction: pa.RecordBatch = PREDICTION) -> str:
    batch = prediction.append_column(PAYLOAD, pa.array([payload], pa.binary()))
    return encode(OutputSpec("jsonl", prediction.schema, raw=True), batch).decode()


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "  \r\n", " \t"])
@pytest.mark.parametrize(
    ("source", "kept"),
    [
        ("{}", "{"),
        ("{ }", "{"),
        ('{"a": 1}', '{"a": 1,'),
        ('{"a": 1 }', '{"a": 1,'),
        ('  {"a" : {} }', '  {"a" : {},'),
        ('{"a": "{"}', '{"a": "{",'),
        ('{"a": "}"}', '{"a": "}",'),
        ('{"a": 1.50, "zip": "01234", "big": 123456789012345678901234567890}', None),
        ('{"a": "é\\u00e9𝄞"}', None),
    ],
)
def test_predictions_are_spliced_into_the_source_text(source: str, kept: str | None, end: str) -> None:
    assert spliced((source + end).encode()) == (kept or source[:-1] + ",") + ADDED


def test_raw_rows_of_several_lines_become_one_line() -> None:
    assert spliced(b'{\n  "a": "b\\n",\r\n  "c": 1\n}\n') == '{   "a": "b\\n",    "c": 1,' + ADDED


def test_raw_rows_keep_bytes_that_are_not_utf8() -> None:
    batch = PREDICTION.append_column(PAYLOAD, pa.array([b'{"a": "\xff"}'], pa.binary()))
    assert encode(OutputSpec("jsonl", PREDICTION.schema, raw=True), batch) == b'{"a": "\xff",' + ADDED.encode()


@pytest.mark.parametrize("payload", [b"", b"[1]", b'{"a": 1', b"null\n"])
def test_raw_text_that_is_no_object_is_an_error(payload: bytes) -> None:
    with pytest.raises(SluiceError, match="a source row is not a JSON object, so no columns can be added to it"):
        spliced(payload)


@given(batches(), batches())
def test_raw_rows_hold_the_source_and_the_predictions(source: pa.RecordBatch, prediction: pa.RecordBatch) -> None:
    rows = min(source.num_rows, prediction.num_rows)
    source, prediction = source.slice(0, rows), prediction.slice(0, rows)
    prediction = prediction.rename_columns([f"prediction {name}" for name in prediction.schema.names])
    texts, added = lines(encode_batch("jsonl", source)), lines(encode_batch("jsonl", prediction))
    batch = prediction.append_column(PAYLOAD, pa.array([b"", *texts], pa.binary()).slice(1))
    found = lines(encode(OutputSpec("jsonl", prediction.schema, raw=True), batch))
    assert [json.loads(line) for line in found] == [
        json.loads(text) | json.loads(more) for text, more in zip(texts, added, strict=True)
    ]


@given(kinds(), st.data(), st.integers(1, 5))
def test_batches_of_any_size_give_the_same_file(kind: pa.DataType, data: st.DataObject, size: int) -> None:
    cells = data.draw(st.lists(values(kind), max_size=12))
    batch = pa.RecordBatch.from_arrays([pa.array(cells, kind)], ["x"])
    pieces = [batch.slice(start, size) for start in range(0, len(cells), size)]
    spec = OutputSpec("jsonl", batch.schema)
    assert encode(spec, *pieces) == encode(spec, batch)
