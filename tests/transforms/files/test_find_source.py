import bz2
import gzip
import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sluice.models.errors import UsageError
from sluice.transforms.core.formats import AVRO, CSV, JSONL, PARQUET, TFRECORD
from sluice.transforms.decode.spec import CsvOptions
from sluice.transforms.files.find_source import Source, find_source
from tests.support.formats.decode_cases import COLUMNS, FORMATS, WRITERS, example, put, sample_rows, to_avro, to_parquet


def find(pattern: str | Path, format_: str = "", **csv: object) -> Source:
    return find_source(str(pattern), format_, CsvOptions(**csv))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "format_"),
    [
        ("f.csv", CSV),
        ("f.csv.gz", CSV),
        ("f.tsv", CSV),
        ("f.jsonl", JSONL),
        ("f.ndjson", JSONL),
        ("f.json.gz", JSONL),
        ("f.parquet", PARQUET),
        ("f.avro", AVRO),
        ("f.tfrecord", TFRECORD),
        ("f.tfrecords.gz", TFRECORD),
    ],
)
def test_the_format_is_in_the_name(name: str, format_: str, tmp_path: Path) -> None:
    data = WRITERS[format_](sample_rows(20))  # type: ignore[operator]
    data = gzip.compress(data) if name.endswith(".gz") else data
    found = find(put(tmp_path, name, data))
    assert (found.format, found.path, found.files, found.size) == (format_, str(tmp_path / name), 1, len(data))
    assert sorted(found.names) == sorted(kept for kept, _ in COLUMNS)


@pytest.mark.parametrize("format_", FORMATS)
def test_the_format_that_is_given_counts(format_: str, tmp_path: Path) -> None:
    path = put(tmp_path, "part-00000", WRITERS[format_](sample_rows(20)))  # type: ignore[operator]
    assert find(path, format_).format == format_


def test_tabs_go_by_the_name(tmp_path: Path) -> None:
    path = put(tmp_path, "f.tsv", b"a\tb,c\n1\t2\n")
    assert find(path, delimiter="").names == ("a", "b,c")
    assert find(path, delimiter="").csv.delimiter == "\t"
    assert find(path, delimiter=",").names == ("a\tb", "c")
    put(tmp_path, "g.csv", b"a,b\n")
    with pytest.raises(
        UsageError, match=r"f\.tsv has tabs, by its name, and other files have not; give --csv_delimiter"
    ):
        find(tmp_path, delimiter="")


def test_carriage_returns_that_end_lines(tmp_path: Path) -> None:
    found = find(put(tmp_path, "f.csv", b"a,b\r1,2\r"))
    assert (found.names, found.csv.cr_ends) == (("a", "b"), True)
    assert not find(put(tmp_path, "g.csv", b"a,b\r\n1,2\r\n")).csv.cr_ends
    assert not find(put(tmp_path, "h.csv", b'a,"b\rc"')).csv.cr_ends


@pytest.mark.parametrize("dialect", [{"skip_lines": 1}, {"column_names": ("a", "b")}])
def test_carriage_returns_where_the_first_line_is_no_header(dialect: dict[str, object], tmp_path: Path) -> None:
    found = find(put(tmp_path, "f.csv", b"x\ra,b\r1,2\r"), **dialect)
    assert (found.names, found.csv.cr_ends) == (("a", "b"), True)


def test_carriage_returns_that_end_lines_of_a_later_file(tmp_path: Path) -> None:
    put(tmp_path, "1.csv", b"a,b\n1,2\n")
    put(tmp_path, "2.csv", b"a,b\r1,2\r")
    found = find(tmp_path / "*")
    assert (found.csv.cr_ends, found.one_header) == (True, True)


def test_arrays(tmp_path: Path) -> None:
    found = find(put(tmp_path, "f.json", b'[\n{"a": 1},\n{"b": 2}\n]'))
    assert (found.names, found.sample, found.arrays) == (("a", "b"), ({"a": 1}, {"b": 2}), True)
    assert not find(put(tmp_path, "g.jsonl", b'{"a": [1]}\n')).arrays


def test_an_array_among_lines(tmp_path: Path) -> None:
    put(tmp_path, "1.json", b'{"a": 1}\n')
    put(tmp_path, "2.json", b'[{"a": 2}]\n')
    assert find(tmp_path / "*").arrays


def test_types_where_the_format_has_them(tmp_path: Path) -> None:
    types = find(put(tmp_path, "f.avro", to_avro(sample_rows(2)))).types
    assert types == dict(COLUMNS)
    types = find(put(tmp_path, "f.parquet", to_parquet(sample_rows(2)))).types
    assert list(types) == [name for name, _ in COLUMNS]
    path = put(tmp_path, "f.tfrecord", WRITERS[TFRECORD](sample_rows(9)))  # type: ignore[operator]
    assert find(path).types == {
        "id": pa.int64(),
        "name": pa.binary(),
        "tags": pa.list_(pa.int64()),
        "x": pa.float32(),
    }
    assert find(put(tmp_path, "f.csv", b"a,b\n1,2\n")).types == {}


def test_the_first_rows_of_json(tmp_path: Path) -> None:
    found = find(put(tmp_path, "f.jsonl", b'\n{"a": 1}\nbad\n{"b": {"b64": ""}, "a": 2}\n' + b'{"c": 1}\n' * 200))
    assert found.names == ("a", "b", "c")
    assert found.sample[:2] == ({"a": 1}, {"b": {"b64": ""}, "a": 2})
    assert len(found.sample) == 98


def test_the_first_file_with_rows_counts(tmp_path: Path) -> None:
    put(tmp_path, "1.csv", b"")
    put(tmp_path, "2.csv.gz", gzip.compress(b""))
    put(tmp_path, "3.csv", b"\n\n")
    put(tmp_path, "4.csv", b"a,b\n")
    put(tmp_path, "5.csv", b"c,d\n")
    found = find(tmp_path / "*")
    assert (found.path, found.files, found.names) == (str(tmp_path / "4.csv"), 5, ("a", "b"))


def test_files_that_are_all_empty(tmp_path: Path) -> None:
    put(tmp_path, "1.csv", b"")
    put(tmp_path, "2.csv", b"")
    assert find(tmp_path / "*") == Source(CSV, str(tmp_path / "1.csv"), 2, 0, ())


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ([b"a,b\n"], True),
        ([b"b,a\n"], False),
        ([b"a,b\n", b"a\n"], False),
        ([b"", b"\n", b"a,\xff\n"], True),  # these have no rows under other names
    ],
)
def test_whether_all_csv_files_have_one_header(others: list[bytes], expected: bool, tmp_path: Path) -> None:
    put(tmp_path, "0.csv", b"a,b\n1,2\n")
    for number, data in enumerate(others):
        put(tmp_path, f"{number + 1}.csv", data)
    assert find(tmp_path / "*").one_header == expected
    assert find(tmp_path / "*", column_names=("x", "y")).one_header


def twice_named() -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"]), file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("f.csv", b'"a\n', "cannot be read as csv: the header opens a quote and does not close it"),
        ("f.csv.gz", b"a,b\n1,2\n", r"cannot be read as csv: Not a gzipped file"),
        ("f.csv.gz", gzip.compress(b"a" * 9999)[:-20], "cannot be read as csv: Compressed file ended before"),
        ("f.jsonl", b"a,b\n1,2\n", r"cannot be read as jsonl: none of its first 2 lines is a JSON object; .* b'a,b'"),
        ("f.json", b"[1, 2]\n", "none of its first 2 lines is a JSON object"),
        ("f.json", b"[{]", "cannot be read as jsonl: the array is not closed"),
        ("f.csv", gzip.compress(b"a,b\n"), r"the header is not UTF-8: .* \(it is gzipped: let its name end in \.gz\)"),
        ("f.csv", bz2.compress(b"a,b\n"), "it is packed by bzip2: let its name end in .bz2"),
        (
            "f.csv",
            "é,b\n".encode("latin-1"),
            "the header is not UTF-8: .*; give its encoding, for example --csv_encoding",
        ),
        ("f.csv", "a,b\n".encode("utf-16"), "give its encoding, --csv_encoding utf-16"),
        ("f.csv", "a,b\n".encode("utf-16-le"), "the header holds zero bytes; if it is UTF-16, give --csv_encoding"),
        ("f.csv", b"a,b,a\n", "the header names 'a' more than once; give --rename_duplicate_columns to number them"),
        ("f.csv", to_parquet(sample_rows(2)), "it is a Parquet file: give --input_format parquet"),
        ("f.parquet", b"PAR1", "cannot be read as parquet: "),
        ("f.parquet", twice_named(), "its schema names 'a' more than once"),
        ("f.avro", b"PAR1", "cannot be read as avro: not an Avro container file"),
        ("f.avro", to_avro([], "string"), "cannot be read as avro: the Avro schema is not a record"),
        ("f.tfrecord", example(a=1), "cannot be read as tfrecord: "),
        ("f.txt", b"a", r"f.txt: the format is not clear from the name; give --input_format, one of csv, jsonl, parq"),
    ],
)
def test_a_file_that_cannot_be_read(name: str, data: bytes, message: str, tmp_path: Path) -> None:
    path = put(tmp_path, name, data)
    with pytest.raises(UsageError, match=message) as caught:
        find(path)
    assert str(caught.value).startswith(f"--input {path}")


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--input .*/\*.csv: no file matches"):
        find(tmp_path / "*.csv")
