"""Truncated and damaged files: the readable rows are read, and the rest is reported as lost."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.models.tensors.tfrecord import masked_crc
from sluice.transforms.core.failures import READ
from sluice.transforms.core.formats import AVRO, CSV, JSONL, PARQUET, TFRECORD
from sluice.transforms.decode.spec import Decoded, InputSpec
from tests.support.formats.decode_cases import (
    COLUMNS,
    WRITERS,
    origins_of,
    payloads_of,
    put,
    read_file,
    rows_of,
    sample_rows,
    to_avro,
    to_csv,
    to_jsonl,
    to_parquet,
    to_tfrecord,
)
from tests.support.sizes import examples

ROWS = sample_rows(100)
DAMAGE = examples(24)


def read_damaged(path: str, format_: str, range_bytes: int = 1 << 24) -> Decoded | None:
    """Returns the rows; None if the beginning of the file cannot be read, which is one failure of the whole file."""
    decoded = read_file(path, InputSpec(format_, COLUMNS), range_bytes)
    if [failure.origin for failure in decoded.failures] == [path]:
        assert not rows_of(decoded)
        return None
    return decoded


@pytest.mark.parametrize("range_bytes", [700, 1 << 24])
@pytest.mark.parametrize("format_", [AVRO, TFRECORD])
def test_a_file_cut_off(format_: str, range_bytes: int, tmp_path: Path) -> None:
    options: dict[str, Any] = {"sync_interval": 200} if format_ == AVRO else {}
    data = WRITERS[format_](ROWS, **options)  # type: ignore[operator]
    counts = []
    for cut in range(600, len(data), 197):
        path = put(tmp_path, "f", data[:cut])
        decoded = read_damaged(path, format_, range_bytes)
        assert decoded is not None
        rows = rows_of(decoded)
        assert rows == ROWS[: len(rows)]
        counts.append(len(rows))
        at_edge = put(tmp_path, "whole", WRITERS[format_](ROWS[: len(rows)], **options))  # type: ignore[operator]
        if Path(at_edge).stat().st_size != cut:
            (failure,) = decoded.failures
            assert (failure.stage, failure.error_type) == (READ, "CorruptFile")
            assert failure.origin.startswith(f"{path}#byte=")
            assert int(failure.origin.split("=")[1]) <= cut
    assert counts == sorted(counts)
    assert counts[-1] > 80


@pytest.mark.parametrize("format_", [CSV, JSONL, TFRECORD])
def test_a_gzip_file_cut_off(format_: str, tmp_path: Path) -> None:
    plain = WRITERS[format_](ROWS)  # type: ignore[operator]
    data = gzip.compress(plain)
    counts = []
    for cut in range(20, len(data), 61):
        path = put(tmp_path, "f.gz", data[:cut])
        decoded = read_damaged(path, format_)
        if decoded is None:  # cut within the header of CSV
            assert cut < 200
            continue
        rows = rows_of(decoded)
        assert rows == ROWS[: len(rows)]
        counts.append(len(rows))
        (failure,) = decoded.failures
        assert (failure.stage, failure.error_type) in [(READ, "EOFError"), (READ, "CorruptFile")]
        assert failure.error_message
        place = int(failure.origin.removeprefix(f"{path}#byte="))
        assert plain[place:].startswith(WRITERS[format_](ROWS[len(rows) :])[-len(plain[place:]) :])  # type: ignore[operator]
    assert counts == sorted(counts)
    assert counts[-1] > 70


def test_a_parquet_file_cut_off(tmp_path: Path) -> None:
    data = to_parquet(ROWS, row_group_size=50)
    for cut in range(1, len(data), 101):
        assert read_damaged(put(tmp_path, "f.parquet", data[:cut]), PARQUET) is None


@pytest.mark.parametrize(("format_", "write"), [(CSV, to_csv), (JSONL, to_jsonl)])
def test_a_text_file_cut_off_has_lost_its_last_line(format_: str, write: Any, tmp_path: Path) -> None:
    data = write(ROWS)
    for cut in range(40, len(data), 397):
        decoded = read_damaged(put(tmp_path, "f", data[:cut]), format_, 300)
        assert decoded is not None
        lines = data[:cut].count(b"\n") - (format_ == CSV)
        rows = [row for row in rows_of(decoded) if row in ROWS]
        if not decoded.failures or "quotes are left open" not in decoded.failures[0].error_message:
            assert rows[:lines] == ROWS[:lines]
            assert len(decoded.failures) <= 1
        assert decoded.rows == lines + (not data[:cut].endswith(b"\n"))


PLAIN = {
    "parquet": (PARQUET, to_parquet(ROWS, row_group_size=50)),
    "avro": (AVRO, to_avro(ROWS, sync_interval=200)),
}


@pytest.mark.parametrize("case", PLAIN)
@DAMAGE
@given(data=st.data())
def test_other_bytes_in_a_file_without_checksums(case: str, data: st.DataObject, tmp_path: Path) -> None:
    """Whatever the bytes make a parser raise, it costs the file and not the job."""
    format_, clean = PLAIN[case]
    damaged = bytearray(clean)
    for place in data.draw(st.lists(st.integers(0, len(clean) - 1), min_size=1, max_size=6)):
        damaged[place] = data.draw(st.integers(0, 255))
    read_damaged(put(tmp_path, "f", bytes(damaged)), format_, data.draw(st.sampled_from([500, 1 << 24])))


CHECKED = {
    "tfrecord": (TFRECORD, to_tfrecord(ROWS)),
    "parquet": (PARQUET, to_parquet(ROWS, row_group_size=50, write_page_checksum=True)),
    "gzip csv": (CSV, gzip.compress(to_csv(ROWS))),
    "gzip jsonl": (JSONL, gzip.compress(to_jsonl(ROWS))),
    "gzip tfrecord": (TFRECORD, gzip.compress(to_tfrecord(ROWS))),
    "avro": (AVRO, to_avro(ROWS, sync_interval=200, codec="deflate")),
}


@pytest.mark.parametrize("case", CHECKED)
@DAMAGE
@given(data=st.data())
def test_other_bytes_in_a_file_with_checksums(case: str, data: st.DataObject, tmp_path: Path) -> None:
    format_, clean = CHECKED[case]
    damaged = bytearray(clean)
    for place in data.draw(st.lists(st.integers(0, len(clean) - 1), min_size=1, max_size=3)):
        damaged[place] = data.draw(st.integers(0, 255))
    name = "f.gz" if "gzip" in case else "f"
    decoded = read_damaged(put(tmp_path, name, bytes(damaged)), format_, data.draw(st.sampled_from([500, 1 << 24])))
    if decoded is None:
        return
    if case == "tfrecord":  # no other format shows that a row is sound before it is emitted
        assert all(row in ROWS for row in rows_of(decoded))
    if case != "avro" and rows_of(decoded) != ROWS:  # deflate has no checksum
        assert READ in {failure.stage for failure in decoded.failures} or format_ == PARQUET


@pytest.mark.parametrize(("format_", "write"), [(CSV, to_csv), (JSONL, to_jsonl)])
@DAMAGE
@given(data=st.data())
def test_other_bytes_in_a_text_file(format_: str, write: Any, data: st.DataObject, tmp_path: Path) -> None:
    """Every line is a row or a failure; an undamaged line is unchanged, and a failure shows its line."""
    clean = write(ROWS[:30])
    head = clean.index(b"\n") + 1 if format_ == CSV else 0
    damaged = bytearray(clean)
    for place in data.draw(st.lists(st.integers(head, len(clean) - 1), min_size=1, max_size=6)):
        damaged[place] = data.draw(st.one_of(st.sampled_from(b'",\n\r{}'), st.integers(0, 255)))
    path = put(tmp_path, "f", bytes(damaged))
    decoded = read_damaged(path, format_, data.draw(st.sampled_from([100, 500, 1 << 24])))
    assert decoded is not None
    lines, at = {}, head
    for line in bytes(damaged[head:]).split(b"\n"):
        if line.strip(b"\r"):
            lines[at] = line.rstrip(b"\r")
        at += len(line) + 1
    good = dict(zip(origins_of(decoded), payloads_of(decoded), strict=True))
    bad = {failure.origin: failure.payload for failure in decoded.failures}
    assert good | bad == {f"{path}#byte={place}": line for place, line in lines.items()}
    assert len(good) + len(bad) == decoded.rows
    known = dict(zip(clean[head:].split(b"\n"), ROWS, strict=False))
    for row, payload in zip(rows_of(decoded), payloads_of(decoded), strict=True):
        assert payload not in known or row == known[payload]
    spread = any("quotes are left open" in failure.error_message for failure in decoded.failures)
    assert spread or not set(bad.values()) & set(known)


def test_a_damaged_record_at_the_edge_of_a_range_is_not_passed_over(tmp_path: Path) -> None:
    """A range that begins with the damaged record skips it, so the range before must report it."""
    data = bytearray(to_tfrecord(ROWS))
    path = put(tmp_path, "f.tfrecord", bytes(data))
    spec = InputSpec(TFRECORD, COLUMNS)
    places = [int(origin.split("=")[1]) for origin in origins_of(read_file(path, spec))]
    for number in (1, 57, 99):
        damaged = data.copy()
        damaged[places[number] + 20] ^= 1
        path = put(tmp_path, "f.tfrecord", bytes(damaged))
        for range_bytes in (places[number] - 1, places[number], places[number] + 5):
            decoded = read_file(path, spec, range_bytes)
            (failure,) = decoded.failures
            assert failure.origin == f"{path}#byte={places[number]}"
            assert "does not match its checksum" in failure.error_message
            assert rows_of(decoded)[:number] == ROWS[:number]


def test_a_failure_of_a_columnar_row_is_json(tmp_path: Path) -> None:
    rows = [{"id": 1, "x": float("nan"), "name": "é", "tags": [1, None]}]
    spec = InputSpec(PARQUET, (*COLUMNS[:-1], ("tags", pa.int64())))
    decoded = read_file(put(tmp_path, "f.parquet", to_parquet(rows)), spec)
    (failure,) = decoded.failures
    assert json.loads(failure.payload) == {"id": 1, "x": "NaN", "name": "é", "tags": [1, None]}


@pytest.mark.parametrize("length", [1 << 40, (1 << 64) - 1])
def test_a_length_that_no_memory_has_and_whose_checksum_is_right(length: int, tmp_path: Path) -> None:
    """Reading so many bytes raised MemoryError or OverflowError, which ended the job."""
    head = length.to_bytes(8, "little")
    data = to_tfrecord(ROWS[:3]) + head + masked_crc(head).to_bytes(4, "little") + b"x" * 100
    decoded = read_damaged(put(tmp_path, "f", data), TFRECORD)
    assert decoded is not None
    assert rows_of(decoded) == ROWS[:3]
    (failure,) = decoded.failures
    assert (failure.stage, failure.error_type) == (READ, "CorruptFile")
    assert "is longer than" in failure.error_message


def test_a_later_parquet_file_with_a_column_twice(tmp_path: Path) -> None:
    """pyarrow's KeyError ended the job."""
    path = str(tmp_path / "f.parquet")
    pq.write_table(pa.Table.from_arrays([pa.array([1])] * 2, names=["id", "id"]), path)
    decoded = read_file(path, InputSpec(PARQUET, (("id", pa.int64()),)))
    assert [(f.stage, f.error_type, f.origin) for f in decoded.failures] == [(READ, "CorruptFile", path)]
    assert decoded.failures[0].error_message == "the file has more than one column 'id'"
