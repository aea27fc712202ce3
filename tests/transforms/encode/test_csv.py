import csv
import io
import json
import math
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.csv as pa_csv
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.models.reserved import PAYLOAD
from sluice.transforms.encode.base import OutputSpec, select_columns, shown_schema, shown_type
from sluice.transforms.encode.formats import check_output_spec
from sluice.transforms.encode.json import json_texts
from tests.support.formats.encode_cases import SCALARS, batches, encode, encode_batch
from tests.transforms.encode.test_json import back, utc


def read(data: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(data.decode(), newline=""), strict=True))


def from_field(text: str, kind: pa.DataType) -> Any:
    """Returns a field as the Python value of pyarrow; None if it is empty."""
    kind = shown_type(kind)
    if text == "":
        return None
    if pa.types.is_floating(kind):
        return back(float(text), kind)
    if pa.types.is_integer(kind):
        return int(text)
    if pa.types.is_boolean(kind):
        return {"true": True, "false": False}[text]
    return back(text, kind)


@given(batches(types=st.sampled_from(list(SCALARS))))
def test_csv_reads_back(batch: pa.RecordBatch) -> None:
    check_output_spec(OutputSpec("csv", batch.schema))
    header, *rows = read(encode_batch("csv", batch))
    assert header == batch.schema.names
    kinds = [field.type for field in batch.schema]
    found = [[from_field(text, kind) for text, kind in zip(row, kinds, strict=True)] for row in rows]
    expected = [[None if value in ("", b"") else value for value in row.values()] for row in batch.to_pylist()]
    assert repr(utc(found)) == repr(utc(expected))


@given(batches())
def test_flattened_columns_are_json(batch: pa.RecordBatch) -> None:
    spec = OutputSpec("csv", batch.schema, flatten=True)
    check_output_spec(spec)
    _, *rows = read(encode(spec, batch))
    shown = select_columns(batch, shown_schema(batch.schema))
    for place, field in enumerate(batch.schema):
        if pa.types.is_nested(shown_type(field.type)):
            expected = [json.loads(text) for text in json_texts(shown.column(place)).to_pylist()]
            assert [json.loads(row[place] or "null") for row in rows] == expected


FIELDS = [
    ("plain", "plain"),
    (" spaces ", " spaces "),
    ("01234", "01234"),
    ("a,b", '"a,b"'),
    ('say "hi"', '"say ""hi"""'),
    ("two\nlines", '"two\nlines"'),
    ("a\rb", '"a\rb"'),
    ("it's é", "it's é"),
    ("", ""),
    (None, ""),
]


def test_only_fields_that_need_it_are_quoted() -> None:
    batch = pa.record_batch({"x": [value for value, _ in FIELDS], "y": ["-"] * len(FIELDS)})
    assert encode_batch("csv", batch).decode() == "x,y\n" + "".join(f"{text},-\n" for _, text in FIELDS)


def test_a_header_is_quoted_where_needed() -> None:
    assert encode_batch("csv", pa.record_batch({'a "b"': [1], "c,d": [2]})) == b'"a ""b""","c,d"\n1,2\n'


@pytest.mark.parametrize("array", [pa.array(["a", "", None, "b"]), pa.array([1, None, 2])])
def test_a_file_of_one_column_has_no_empty_lines(array: pa.Array) -> None:
    data = encode_batch("csv", pa.record_batch({"x": array}))
    assert b"\n\n" not in data
    assert len(pd.read_csv(io.BytesIO(data))) == len(array)
    assert pa_csv.read_csv(pa.BufferReader(data)).num_rows == len(array)


def test_pandas_and_pyarrow_read_floats_that_are_not_finite() -> None:
    numbers = [math.nan, math.inf, -math.inf, 0.1, None]
    data = encode_batch("csv", pa.record_batch({"x": pa.array(numbers, pa.float32()), "y": [1, 2, 3, 4, 5]}))
    assert data == b"x,y\nnan,1\ninf,2\n-inf,3\n0.1,4\n,5\n"
    assert repr(pd.read_csv(io.BytesIO(data))["x"].tolist()) == "[nan, inf, -inf, 0.1, nan]"
    options = pa_csv.ConvertOptions(null_values=[""])
    assert repr(pa_csv.read_csv(pa.BufferReader(data), convert_options=options)["x"].to_pylist()) == (
        "[nan, inf, -inf, 0.1, None]"
    )


def test_a_csv_file_of_strings_comes_out_as_it_went_in() -> None:
    source = b'id,zip,note\n1,01234,\n2,,"a, b"\n'
    options = pa_csv.ConvertOptions(column_types={name: pa.string() for name in ("id", "zip", "note")})
    table = pa_csv.read_csv(pa.BufferReader(source), convert_options=options)
    assert encode(OutputSpec("csv", table.schema), *table.to_batches()) == source


def test_pyarrow_reads_typed_columns_back() -> None:
    schema = pa.schema(
        [
            ("t", pa.timestamp("us", "UTC")),
            ("n", pa.timestamp("us")),
            ("d", pa.date32()),
            ("dec", pa.decimal128(38, 9)),
            ("b", pa.bool_()),
        ]
    )
    rows = [dict.fromkeys(schema.names), {"t": 1, "n": -1, "d": 19000, "dec": 0, "b": True}]
    batch = pa.RecordBatch.from_pylist(rows, schema)
    options = pa_csv.ConvertOptions(column_types=schema)
    table = pa_csv.read_csv(pa.BufferReader(encode_batch("csv", batch)), convert_options=options)
    assert table.to_pylist() == batch.to_pylist()


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
@pytest.mark.parametrize("line", [b"1,x", b'"a ""b""","two\nlines"', b"1, ", b",", b"1,\xff\xfe", "é,𝄞".encode()])
def test_predictions_are_appended_to_the_source_line(line: bytes, end: bytes) -> None:
    prediction = pa.record_batch({"p": pa.array([0.5, None], pa.float32()), "label": ["a,b", ""]})
    batch = prediction.append_column(PAYLOAD, pa.array([line + end] * 2, pa.binary()))
    spec = OutputSpec("csv", prediction.schema, raw=True, raw_names=("id", "b,c"))
    assert encode(spec, batch) == b'id,"b,c",p,label\n' + line + b',0.5,"a,b"\n' + line + b",,\n"


def test_raw_rows_may_have_one_added_column() -> None:
    batch = pa.record_batch({"p": pa.array([None, 0.5], pa.float32()), PAYLOAD: [b"1\n", b"2\n"]})
    assert (
        encode(OutputSpec("csv", batch.select(["p"]).schema, raw=True, raw_names=("id",)), batch)
        == b"id,p\n1,\n2,0.5\n"
    )
