import csv
import errno
import gzip
import io
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from apache_beam.io.filesystems import FileSystems
from hypothesis import given
from hypothesis import strategies as st

from sluice.models.errors import CorruptFile, InputChanged
from sluice.transforms.core.beam_files import is_file_error, match_files, open_binary
from sluice.transforms.core.formats import AVRO, CSV, JSONL, PARQUET, TFRECORD
from sluice.transforms.decode.csv_file import csv_head
from sluice.transforms.decode.formats import read_range, split_file, split_found
from sluice.transforms.decode.spec import CsvOptions, InputSpec
from tests.support.formats.decode_cases import (
    COLUMNS,
    FORMATS,
    WRITERS,
    origins_of,
    positions_of,
    put,
    read_file,
    read_parts,
    rows_of,
    sample_rows,
    to_csv,
    to_jsonl,
)
from tests.support.sizes import examples

FEW = examples(16)


def spec_of(format_: str, **options: Any) -> InputSpec:
    return InputSpec(format_, COLUMNS, CsvOptions(**options))


@pytest.mark.parametrize("format_", FORMATS)
@FEW
@given(count=st.integers(1, 60), range_bytes=st.integers(3, 3000))
def test_ranges_hold_each_row_once(format_: str, count: int, range_bytes: int, tmp_path: Path) -> None:
    rows = sample_rows(count if range_bytes > 100 else 1 + count % 9)
    options: dict[str, Any] = {PARQUET: {"row_group_size": 7}, AVRO: {"sync_interval": 40}}.get(format_, {})
    path = put(tmp_path, f"f.{format_}", WRITERS[format_](rows, **options))  # type: ignore[operator]
    split, unsplit = read_file(path, spec_of(format_), range_bytes), read_file(path, spec_of(format_))
    assert rows_of(split) == rows_of(unsplit) == rows
    assert split.failures == unsplit.failures == []
    if format_ != AVRO:  # its origins count from the first block of a batch
        assert origins_of(split) == origins_of(unsplit)


@pytest.mark.parametrize("format_", FORMATS)
def test_ranges_share_a_file_about_evenly(format_: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {PARQUET: {"row_group_size": 50}}.get(format_, {})
    data = WRITERS[format_](sample_rows(5000), **options)  # type: ignore[operator]
    path = put(tmp_path, f"f.{format_}", data)
    parts = split_file(path, len(data), spec_of(format_), len(data) // 7)
    assert len(parts) in (7, 8)
    assert sum(part.stored_bytes for part in parts) == pytest.approx(len(data), rel=0.01)
    sizes = [sum(size for _, size in read_range(part, spec_of(format_))) for part in parts]
    assert sum(sizes) == pytest.approx(len(data), rel=0.02)


@pytest.mark.parametrize("format_", [CSV, JSONL, TFRECORD])
def test_a_gzip_file_is_one_range(format_: str, tmp_path: Path) -> None:
    data = gzip.compress(WRITERS[format_](sample_rows(500)))  # type: ignore[operator]
    path = put(tmp_path, "f.gz", data)
    assert len(split_file(path, len(data), spec_of(format_), 10)) == 1
    decoded = read_file(path, spec_of(format_), 10)
    assert (rows_of(decoded), decoded.failures) == (sample_rows(500), [])
    (part,) = split_file(path, len(data), spec_of(format_), 10)
    assert sum(size for _, size in read_range(part, spec_of(format_))) == len(data)


@pytest.mark.parametrize("format_", [CSV, JSONL, TFRECORD])
def test_an_origin_leads_to_its_row(format_: str, tmp_path: Path) -> None:
    data = WRITERS[format_](sample_rows(50))  # type: ignore[operator]
    path = put(tmp_path, f"f.{format_}", data)
    origins = origins_of(read_file(path, spec_of(format_), 100))
    assert all(origin.startswith(f"{path}#byte=") for origin in origins)
    for number, place in enumerate(positions_of(origins)):
        head = to_csv(sample_rows(1)).split(b"\n")[0] + b"\n" if format_ == CSV else b""
        behind = put(tmp_path, f"behind.{format_}", head + data[place:])
        assert rows_of(read_file(behind, spec_of(format_)))[0] == sample_rows(50)[number]


def pair_spec(**options: Any) -> InputSpec:
    return InputSpec(CSV, (("a", pa.string()), ("b", pa.string())), CsvOptions(**options))


@pytest.mark.parametrize("range_bytes", [2, 3, 5, 8, 100])
@pytest.mark.parametrize(
    ("data", "rows"),
    [
        (b"", []),
        (b"\n\n", []),
        (b"a,b", []),
        (b"a,b\n", []),
        (b"a,b\r\n1,2", [("1", "2")]),
        (b"\n\r\n\na,b\n\n1,2\n3,4\n", [("1", "2"), ("3", "4")]),
        (b'"a","b"\n1,2\n', [("1", "2")]),
        (b"\xef\xbb\xbfa,b\n1,2\n", [("1", "2")]),
        (b'\xef\xbb\xbf"a",b\n1,2\n', [("1", "2")]),
        (b"b,a\n1,2\n", [("2", "1")]),
        (b"a,much longer than any range is,b\n1,2,3\n", [("1", "3")]),
    ],
)
def test_headers(data: bytes, rows: list[tuple[str, str]], range_bytes: int, tmp_path: Path) -> None:
    for path in (put(tmp_path, "f.csv", data), put(tmp_path, "f.csv.gz", gzip.compress(data))):
        decoded = read_file(path, pair_spec(), range_bytes)
        assert [(row["a"], row["b"]) for row in rows_of(decoded)] == rows
        assert decoded.failures == []


@pytest.mark.parametrize(
    ("data", "options", "expected"),
    [
        (b"a,b\n1,2\n", {}, (("a", "b"), 4)),
        (b"a,b\n1,2\n", {"column_names": ("x", "y")}, (("x", "y"), 0)),
        (b"\n \r\na,b\n", {}, ((" ",), 4)),
        (b"", {}, ((), 0)),
        (b'"a\nb",c\n', {"allow_quoted_newlines": True}, (("a\nb", "c"), 8)),
        (b'a"b,"c"\n', {}, (('a"b', "c"), 8)),
        (b"'a;b';c\n", {"delimiter": ";", "quote_char": "'"}, (("a;b", "c"), 8)),
        (b'"a,b\n', {"quote_char": ""}, (('"a', "b"), 5)),
    ],
)
def test_the_head_of_a_file(data: bytes, options: Any, expected: Any, tmp_path: Path) -> None:
    assert csv_head(put(tmp_path, "f.csv", data), CsvOptions(**options)) == expected


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'"a\nb",c\n', "opens a quote and does not close it; if names hold newlines, give --allow_quoted_newlines"),
        (b"a,b,a\n", "the header names 'a' more than once"),
        (b"a,\xff\n", "the header is not UTF-8: .* give its encoding"),
        (b"a,b\r1,2\n3,4\n", "the header holds a carriage return; lines must end with a newline"),
    ],
)
def test_a_header_that_is_none(data: bytes, message: str, tmp_path: Path) -> None:
    path = put(tmp_path, "f.csv", data)
    (failure,) = read_file(path, pair_spec(), 3).failures  # one of the file, and not one of each range
    assert (failure.stage, failure.error_type, failure.origin) == ("read", "CorruptFile", path)
    assert re.search(message, failure.error_message)


TEXTS = st.text(alphabet='ab,"\n7', max_size=8)


@examples(60)
@given(rows=st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=12), more=st.integers(0, 60))
def test_no_line_within_quotes_is_taken_for_a_row(rows: list[tuple[str, str]], more: int, tmp_path: Path) -> None:
    """Ranges that are at least as long as a row, as those of a job are, yield true rows only."""
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("a", "b"))
    longest = max(writer.writerow(row) for row in rows)
    path = put(tmp_path, "f.csv", file.getvalue().encode())
    decoded = read_file(path, pair_spec(), longest + more)
    found = [(row["a"], row["b"]) for row in rows_of(decoded)]
    assert not set(found) - set(rows)
    assert all("--allow_quoted_newlines" in failure.error_message for failure in decoded.failures)
    assert len(found) + len(decoded.failures) == len([line for line in file.getvalue().split("\n")[1:] if line])
    if not any("\n" in text for row in rows for text in row):
        assert found == rows
    allowed = read_file(path, pair_spec(allow_quoted_newlines=True), longest + more)
    assert ([(row["a"], row["b"]) for row in rows_of(allowed)], allowed.failures) == (rows, [])


def test_an_open_quote_fails_its_range_and_no_other(tmp_path: Path) -> None:
    lines = [f"{number:03},x\n" for number in range(100)]
    lines[50] = '0",5x\n'
    path = put(tmp_path, "f.csv", ("\n\na,b\n" + "".join(lines)).encode())
    decoded = read_file(path, pair_spec(), 61)  # ten lines
    assert [row["a"] for row in rows_of(decoded)] == [line[:3] for line in lines[:50] + lines[60:]]
    assert [failure.payload.decode() + "\n" for failure in decoded.failures] == lines[50:60]
    assert {failure.error_message for failure in decoded.failures} == {
        f"quotes are left open at a line's end in this part of the file (the first at {path}#byte=306), so rows cannot "
        "be told apart: if values hold newlines, give --allow_quoted_newlines; if quotes mean nothing, give "
        '--csv_quote_char ""'
    }


def test_a_quote_that_is_never_closed_costs_a_row(tmp_path: Path) -> None:
    decoded = read_file(put(tmp_path, "f.csv", b'a,b\n1,2\n3,"4\n5,6\n'), pair_spec(allow_quoted_newlines=True))
    assert rows_of(decoded) == [{"a": "1", "b": "2"}]
    assert [(f.error_message, f.payload) for f in decoded.failures] == [
        ("a quote is opened and not closed", b'3,"4\n5,6')
    ]


class StatusError(Exception):
    """Has an HTTP status in `code`, as google.api_core's errors."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (FileNotFoundError(errno.ENOENT, "x"), True),
        (PermissionError(errno.EACCES, "x"), True),
        (StatusError(404), True),
        (StatusError(429), False),
        (StatusError(503), False),
        (OSError(errno.EIO, "x"), False),
        (ConnectionResetError(errno.ECONNRESET, "x"), False),
        (TimeoutError(), False),
        (KeyError("x"), False),
    ],
)
def test_an_error_of_the_storage_is_no_damage(
    error: Exception, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise error

    monkeypatch.setattr(FileSystems, "open", lambda *_, **__: Broken())
    with pytest.raises(type(error)) as raised:
        open_binary("x").read(1)
    assert is_file_error(raised.value) == expected


@pytest.mark.parametrize(
    "error",
    [
        CorruptFile("x"),
        EOFError(),
        gzip.BadGzipFile("x"),
        OSError("Couldn't deserialize thrift"),
        OSError(errno.EINVAL, "a seek to nowhere"),
        pa.ArrowInvalid("x"),
        MemoryError(),
        OverflowError(),
        KeyError("x"),
        RecursionError(),
    ],
)
def test_whatever_a_parser_raises_is_damage(error: Exception) -> None:
    assert is_file_error(error)


def test_a_file_that_has_gone_fails_as_a_file(tmp_path: Path) -> None:
    path = put(tmp_path, "f.jsonl", to_jsonl(sample_rows(3)))
    (part,) = split_file(path, 100, spec_of(JSONL))
    Path(path).unlink()
    ((decoded, _),) = read_range(part, spec_of(JSONL))
    assert [(f.stage, f.error_type, f.origin) for f in decoded.failures] == [("read", "FileNotFoundError", path)]


def longer(path: Path, rows: bytes) -> None:
    with path.open("ab") as file:
        file.write(rows)


CHANGES: list[tuple[Callable[[Path, bytes], object], str]] = [
    (longer, r"it had \d+ bytes, and has \d+ now"),
    (lambda path, rows: path.write_bytes(path.read_bytes()[:-1]), r"it had \d+ bytes, and has \d+ now"),
    (lambda path, rows: os.utime(path, (1, 1)), r"it has \d+ bytes as before, and was written anew"),
    (lambda path, rows: path.unlink(), "it is not there any more"),
]


@pytest.mark.parametrize(("change", "text"), CHANGES)
@pytest.mark.parametrize("format_", FORMATS)
def test_a_file_that_changes_after_it_was_cut_is_an_error_that_names_it(
    format_: str, change: Callable[[Path, bytes], object], text: str, tmp_path: Path
) -> None:
    """Rows that were appended would be lost without a word, and those of a file that is written anew be of both."""
    data = WRITERS[format_](sample_rows(50))  # type: ignore[operator]
    path = put(tmp_path, f"f.{format_}", data)
    (found,) = match_files(path)
    (part,) = split_found(found, spec_of(format_))
    assert rows_of(read_parts([part], spec_of(format_))) == sample_rows(50)
    change(Path(path), data)
    with pytest.raises(InputChanged, match=f"^{re.escape(path)} changed while the job read it: {text}"):
        read_parts([part], spec_of(format_))


def test_an_empty_file_that_is_filled_is_not_lost(tmp_path: Path) -> None:
    path = put(tmp_path, "f.jsonl", b"")
    (found,) = match_files(path)
    (part,) = split_found(found, spec_of(JSONL))
    assert read_parts([part], spec_of(JSONL)).rows == 0
    Path(path).write_bytes(to_jsonl(sample_rows(3)))
    with pytest.raises(InputChanged, match="it had 0 bytes"):
        read_parts([part], spec_of(JSONL))
