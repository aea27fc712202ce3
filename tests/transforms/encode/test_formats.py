import pickle
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given

from sluice.models.errors import SluiceError, UsageError
from sluice.models.reserved import PAYLOAD
from sluice.transforms.core.formats import FORMATS, OUTPUT_ENDINGS
from sluice.transforms.encode import parquet
from sluice.transforms.encode.base import OutputSpec, join, parts, select_columns
from sluice.transforms.encode.formats import check_output_spec, open_encoder
from tests.support.formats.encode_cases import WriteOnlyFile, batches, encode, encode_batch


def spec_of(format_name: str, kind: pa.DataType, flatten: bool = False, name: str = "x") -> OutputSpec:
    return OutputSpec(format_name, pa.schema([(name, kind)]), flatten=flatten)


def test_extensions_lead_to_formats() -> None:
    assert set(OUTPUT_ENDINGS.values()) == set(FORMATS)
    assert OUTPUT_ENDINGS[".tfrecords.gz"] == "tfrecord"
    assert ".parquet.gz" not in OUTPUT_ENDINGS


def test_a_spec_checks_itself() -> None:
    schema = pa.schema([("x", pa.int64())])
    with pytest.raises(ValueError, match="format 'xml' is not one of csv, jsonl, parquet, avro, tfrecord"):
        OutputSpec("xml", schema)
    with pytest.raises(ValueError, match="raw rows go into csv, jsonl, tfrecord, not into avro"):
        OutputSpec("avro", schema, raw=True)


def test_a_spec_can_be_pickled() -> None:
    spec = OutputSpec("csv", pa.schema([("x", pa.list_(pa.float32()))]), flatten=True)
    assert pickle.loads(pickle.dumps(spec)) == spec


EXCLUDE = "or leave it out with --exclude_columns"
REFUSED = [
    (
        spec_of("csv", pa.list_(pa.float32())),
        "column 'x' is list<item: float>, which csv cannot hold; write it as JSON text with --flatten, choose "
        f"--output_format jsonl or parquet or avro or tfrecord, {EXCLUDE}",
    ),
    (
        spec_of("csv", pa.struct([("a", pa.int64())])),
        "column 'x' is struct<a: int64>, which csv cannot hold; write it as JSON text with --flatten, choose "
        f"--output_format jsonl or parquet or avro, {EXCLUDE}",
    ),
    (
        spec_of("csv", pa.duration("s")),
        f"column 'x' is duration[s], which csv cannot hold; choose --output_format parquet, {EXCLUDE}",
    ),
    (
        spec_of("csv", pa.list_(pa.duration("s")), flatten=True),
        "column 'x' is list<item: duration[s]> with duration[s] inside, which csv cannot hold; choose --output_format "
        f"parquet, {EXCLUDE}",
    ),
    (
        spec_of("jsonl", pa.struct([("a", pa.list_(pa.duration("s")))])),
        "column 'x' is struct<a: list<item: duration[s]>> with duration[s] inside, which jsonl cannot hold; choose "
        f"--output_format parquet, {EXCLUDE}",
    ),
    (
        spec_of("avro", pa.list_(pa.month_day_nano_interval())),
        "column 'x' is list<item: month_day_nano_interval> with month_day_nano_interval inside, which avro cannot "
        "hold; leave it out with --exclude_columns",
    ),
    (
        spec_of("avro", pa.decimal128(5, -2)),
        f"column 'x' is decimal128(5, -2), which avro cannot hold; choose --output_format csv or jsonl, {EXCLUDE}",
    ),
    (
        spec_of("tfrecord", pa.struct([("a", pa.int64())])),
        "column 'x' is struct<a: int64>, which tfrecord cannot hold; choose --output_format jsonl or parquet or avro, "
        f"{EXCLUDE}",
    ),
    (
        spec_of("tfrecord", pa.list_(pa.list_(pa.int64()))),
        "column 'x' is list<item: list<item: int64>>, which tfrecord cannot hold; choose --output_format jsonl or "
        f"parquet or avro, {EXCLUDE}",
    ),
    (
        spec_of("tfrecord", pa.timestamp("us", "UTC")),
        "column 'x' is timestamp[us, tz=UTC], which tfrecord cannot hold; choose --output_format csv or jsonl or "
        f"parquet or avro, {EXCLUDE}",
    ),
    (
        spec_of("tfrecord", pa.uint64()),
        "column 'x' is uint64, which tfrecord cannot hold; choose --output_format csv or jsonl or parquet or avro, "
        f"{EXCLUDE}",
    ),
    (
        spec_of("parquet", pa.month_day_nano_interval()),
        "column 'x' is month_day_nano_interval, which parquet cannot hold; leave it out with --exclude_columns",
    ),
    (
        spec_of("avro", pa.int64(), name="dense/BiasAdd:0"),
        "'dense/BiasAdd:0' is not a name that avro accepts ([A-Za-z_][A-Za-z0-9_]*); rename model outputs with "
        "--output_prefix, leave the column out with --exclude_columns, or choose another --output_format",
    ),
    (
        spec_of("avro", pa.list_(pa.struct([("a", pa.struct([("b c", pa.int64())]))]))),
        "'b c' (in column 'x') is not a name that avro accepts ([A-Za-z_][A-Za-z0-9_]*); rename model outputs with "
        "--output_prefix, leave the column out with --exclude_columns, or choose another --output_format",
    ),
    (
        OutputSpec("csv", pa.schema([])),
        "the output has no columns; name some with --columns, or exclude fewer with --exclude_columns",
    ),
    (
        OutputSpec("jsonl", pa.schema([("b", pa.int64()), ("b", pa.string())])),
        "two columns of the output are named 'b'; tell them apart with --output_prefix",
    ),
]


@pytest.mark.parametrize(("spec", "text"), REFUSED, ids=lambda value: value.format if hasattr(value, "raw") else "")
def test_what_a_format_cannot_hold_is_refused_at_launch(spec: OutputSpec, text: str) -> None:
    with pytest.raises(UsageError) as error:
        check_output_spec(spec)
    assert str(error.value) == text


@pytest.mark.parametrize("format_name", FORMATS)
def test_no_rows_make_a_valid_file(format_name: str) -> None:
    schema = pa.schema([("a", pa.int64()), ("b", pa.string())])
    spec = OutputSpec(format_name, schema)
    nothing = encode(spec)
    assert encode(spec, pa.RecordBatch.from_pylist([], schema)) == nothing or format_name == "avro"
    if format_name == "csv":
        assert nothing == b"a,b\n"
    elif format_name == "parquet":
        assert pq.read_table(pa.BufferReader(nothing)).schema == schema
    elif format_name != "avro":
        assert nothing == b""


@given(batches())
def test_parquet_reads_back(batch: pa.RecordBatch) -> None:
    check_output_spec(OutputSpec("parquet", batch.schema))
    table = pq.read_table(pa.BufferReader(encode_batch("parquet", batch)))
    # repr, since nan is not equal to itself.
    assert repr(table.to_pylist()) == repr(batch.to_pylist())


def test_parquet_keeps_types() -> None:
    kinds = [
        pa.int8(),
        pa.float16(),
        pa.large_string(),
        pa.dictionary(pa.int32(), pa.string()),
        pa.timestamp("us", "UTC"),
    ]
    schema = pa.schema([(str(kind), kind) for kind in kinds])
    assert pq.read_table(pa.BufferReader(encode(OutputSpec("parquet", schema)))).schema == schema


def test_parquet_lists_of_fixed_size_may_be_null() -> None:
    fixed = pa.list_(pa.float32(), 2)
    rows = [{"x": [1, 2], "s": {"y": [3, 4]}}, {"x": None, "s": {"y": None}}, {"x": None, "s": None}]
    batch = pa.RecordBatch.from_pylist(rows, pa.schema([("x", fixed), ("s", pa.struct([("y", fixed)]))]))
    assert pq.read_table(pa.BufferReader(encode_batch("parquet", batch))).to_pylist() == rows


def test_parquet_gathers_batches_into_row_groups() -> None:
    batch = pa.record_batch({"x": np.arange(1000)})
    data = encode(OutputSpec("parquet", batch.schema), *[batch.slice(0, 300 + i % 700) for i in range(300)])
    metadata = pq.read_metadata(pa.BufferReader(data))
    sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    assert sum(sizes) == sum(300 + i % 700 for i in range(300))
    assert all(65_536 <= size < 66_536 for size in sizes[:-1])
    assert metadata.row_group(0).column(0).compression == "SNAPPY"


def test_parquet_row_groups_are_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "_GROUP_BYTES", 8 << 20)
    file = WriteOnlyFile()
    batch = pa.record_batch({"x": pa.array([np.random.default_rng(0).bytes(5 << 19)])})
    encoder = open_encoder(file, OutputSpec("parquet", batch.schema))  # type: ignore[arg-type]
    written = []
    for _ in range(4):
        encoder.write(batch)
        written.append(len(file.data))
    assert written[2] < 100
    assert written[3] > 1 << 20
    encoder.close()
    assert pq.read_metadata(pa.BufferReader(file.data)).num_row_groups == 1


def test_columns_are_selected_by_name() -> None:
    batch = pa.record_batch({"_sluice_file": ["f"], "b": [1], "other": [None], "a": ["x"]})
    assert encode(OutputSpec("csv", pa.schema([("a", pa.string()), ("b", pa.int64())])), batch) == b"a,b\nx,1\n"


SELECTED = [
    (pa.array(["a", None]).dictionary_encode(), pa.string()),
    (pa.array([b"a", None]), pa.string()),
    (pa.array(["a", None]), pa.binary()),
    (pa.array(["a", None], pa.large_string()), pa.string()),
    (pa.array([b"ab", None], pa.binary(2)), pa.binary()),
    (pa.array([1, None], pa.int32()), pa.int64()),
    (pa.array([1, None], pa.int64()), pa.int8()),
    (pa.array([1, None], pa.int64()), pa.float64()),
    (pa.array([1.5, None], pa.float32()), pa.float64()),
    (pa.array([None, None], pa.null()), pa.float64()),
    (pa.array([[1.5], None], pa.list_(pa.float32(), 1)), pa.list_(pa.float32())),
    (pa.array([[1], None], pa.large_list(pa.int32())), pa.list_(pa.int64())),
    (pa.array([{"a": 1}, None], pa.struct([("a", pa.int32())])), pa.struct([("a", pa.int64())])),
    (pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64())), None),
]


@pytest.mark.parametrize(("array", "kind"), SELECTED, ids=str)
def test_trivial_differences_of_type_are_cast(array: pa.Array, kind: pa.DataType | None) -> None:
    schema = pa.schema([("x", kind or array.type)])
    selected = select_columns(pa.RecordBatch.from_arrays([array], ["x"]), schema)
    assert selected.schema == schema
    expected = [None if value is None else value for value in array.to_pylist()]
    found = selected.column(0).to_pylist()
    assert [v.encode() if isinstance(v, str) else v for v in found] == [
        v.encode() if isinstance(v, str) else v for v in expected
    ]


NOT_SELECTED = [
    (pa.array(["1"]), pa.int64(), "column 'x' is int64 in the output, found string"),
    (pa.array([1.5]), pa.int64(), "column 'x' is int64 in the output, found double"),
    (pa.array([1.5]), pa.float32(), "column 'x' is float in the output, found double"),
    (pa.array([1]), pa.string(), "column 'x' is string in the output, found int64"),
    (pa.array([[1]]), pa.int64(), "column 'x' is int64 in the output, found list<item: int64>"),
    (
        pa.array([0], pa.timestamp("us")),
        pa.timestamp("us", "UTC"),
        "column 'x' is timestamp[us, tz=UTC] in the output, found timestamp[us]",
    ),
    (pa.array([300]), pa.int8(), "column 'x': int64 does not fit int8 of the output: Integer value 300 not in range"),
    (pa.array([b"\xff"]), pa.string(), "column 'x': binary does not fit string of the output: Invalid UTF8"),
]


@pytest.mark.parametrize(("array", "kind", "text"), NOT_SELECTED, ids=lambda value: "")
def test_other_differences_of_type_are_errors(array: pa.Array, kind: pa.DataType, text: str) -> None:
    with pytest.raises(SluiceError) as error:
        select_columns(pa.RecordBatch.from_arrays([array], ["x"]), pa.schema([("x", kind)]))
    assert str(error.value).startswith(text)


def test_a_missing_a_double_and_a_null_column_are_errors() -> None:
    schema = pa.schema([pa.field("x", pa.int64(), nullable=False)])
    batch = pa.RecordBatch.from_arrays([pa.array([1]), pa.array([1])], ["a", "b"])
    with pytest.raises(SluiceError, match="column 'x' is not in the scored rows: a, b"):
        select_columns(batch, schema)
    with pytest.raises(SluiceError, match="column 'x' is twice in the scored rows: x, x"):
        select_columns(batch.rename_columns(["x", "x"]), schema)
    with pytest.raises(SluiceError, match="column 'x' is REQUIRED in the output and 2 of 3 rows are null; make it NUL"):
        select_columns(pa.record_batch({"x": pa.array([1, None, None])}), schema)


@pytest.mark.parametrize("rows", [0, 1, 16_384, 16_385, 100_001])
def test_parts_are_bounded_in_rows_and_complete(rows: int) -> None:
    batch = pa.record_batch({"x": np.arange(rows)})
    found = list(parts(batch))
    assert all(0 < part.num_rows <= 16_384 for part in found)
    assert [row for part in found for row in part.column(0).to_pylist()] == list(range(rows))


def test_parts_are_bounded_in_bytes() -> None:
    batch = pa.record_batch({"x": pa.array([b"x" * (9 << 20)] * 5 + [b"x" * (40 << 20)])})
    assert [part.num_rows for part in parts(batch)] == [3, 1, 1, 1]


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([pa.array(["a", None]), "-", pa.array([None, "b"])], ["a-?", "?-b"]),
        ([pa.array(["a", None])], ["a", "?"]),
        (["", pa.array(["a", "b"]), ""], ["a", "b"]),
        (["a", "b"], ["ab", "ab"]),
        ([], ["", ""]),
    ],
)
def test_join(pieces: list, expected: list[str]) -> None:
    assert join(pieces, 2, "?").to_pylist() == expected


@pytest.mark.parametrize("format_name", ["csv", "jsonl", "tfrecord"])
def test_a_raw_row_without_its_source_is_an_error(format_name: str) -> None:
    spec = OutputSpec(format_name, pa.schema([("p", pa.float32())]), raw=True)
    with pytest.raises(SluiceError, match=f"column '{PAYLOAD}' is not in the scored rows: p"):
        encode(spec, pa.record_batch({"p": pa.array([0.5], pa.float32())}))


def test_importing_the_encoders_imports_neither_beam_nor_tensorflow() -> None:
    code = (
        "import sys, sluice.transforms.encode.formats, sluice.transforms.bigquery.schema; "
        "print({'apache_beam', 'tensorflow'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
