"""Pages of Parquet files that would unpack without measure."""

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.transforms.core.formats import PARQUET
from sluice.transforms.decode import parquet_pages
from sluice.transforms.decode.formats import read_range
from sluice.transforms.decode.parquet_pages import PageGuard, check_pages
from sluice.transforms.decode.ranges import BlockTooLarge, FileRange
from sluice.transforms.decode.spec import Decoded, InputSpec
from tests.support.formats.decode_cases import put
from tests.support.sizes import examples


def parquet(values: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table({"v": values}), file, data_page_size=1 << 30, **options)
    return file.getvalue()


def read(directory: Path, data: bytes, kind: pa.DataType) -> Decoded:
    path = put(directory, "f.parquet", data)
    whole = Decoded()
    for decoded, _ in read_range(FileRange(path, 0, len(data), len(data)), InputSpec(PARQUET, (("v", kind),))):
        whole.add(decoded)
    return whole


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page may take 64 KB of memory, or 32 times its own bytes."""
    monkeypatch.setattr(parquet_pages, "MAX_PAGE_BYTES", 1 << 16)


ZEROS = np.zeros(1 << 17, np.int64)
DICTIONARY = pa.array(["a" * (1 << 20), "b"] * 4)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("compression", ["gzip", "zstd", "brotli"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_a_page_that_expands_without_measure_costs_the_range(compression: str, version: str, tmp_path: Path) -> None:
    data = parquet(ZEROS, use_dictionary=False, compression=compression, data_page_version=version)
    decoded = read(tmp_path, data, pa.int64())
    assert decoded.batches == []
    (failure,) = decoded.failures
    assert (failure.stage, failure.error_type) == ("read", "BlockTooLarge")
    assert failure.origin.endswith("f.parquet#row=0")
    text = r"a page of \d+ bytes would take 1\d{5} bytes of memory; it may take 65536, or 32 times its own"
    assert re.fullmatch(text, failure.error_message)  # pyarrow puts 20,000 rows into a page at most


@pytest.mark.usefixtures("small")
def test_so_does_a_dictionary(tmp_path: Path) -> None:
    (failure,) = read(tmp_path, parquet(DICTIONARY, compression="zstd"), pa.string()).failures
    assert failure.error_type == "BlockTooLarge"


def test_rows_before_it_stay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sink = io.BytesIO()
    table = pa.table({"v": np.arange(10, dtype=np.int64)})
    with pq.ParquetWriter(sink, table.schema, compression="zstd", use_dictionary=False) as writer:
        writer.write_table(table)
        writer.write_table(pa.table({"v": ZEROS}), row_group_size=len(ZEROS))
    monkeypatch.setattr(parquet_pages, "MAX_PAGE_BYTES", 1 << 12)
    decoded = read(tmp_path, sink.getvalue(), pa.int64())
    assert [failure.error_type for failure in decoded.failures] == ["BlockTooLarge"]
    assert sum(batch.num_rows for batch in decoded.batches) in (0, 10)  # pyarrow fills a batch from several row groups


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("options", [{"compression": "none"}, {"compression": "snappy"}], ids=str)
def test_large_pages_that_hardly_expand_are_read(options: dict[str, Any], tmp_path: Path) -> None:
    values = np.random.default_rng(1).integers(0, 1 << 60, 1 << 15)
    decoded = read(tmp_path, parquet(values, use_dictionary=False, **options), pa.int64())
    assert (decoded.rows, decoded.failures) == (len(values), [])


def test_lengths_that_are_packed_to_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = pa.array(["a"] * (1 << 15))
    data = parquet(values, use_dictionary=False, column_encoding="DELTA_BYTE_ARRAY", compression="zstd")
    assert read(tmp_path, data, pa.string()).rows == 1 << 15
    monkeypatch.setattr(parquet_pages, "MAX_PAGE_BYTES", 1 << 12)
    monkeypatch.setattr(parquet_pages, "MOST_FOLD", 1)
    (failure,) = read(tmp_path, data, pa.string()).failures
    assert "would take 80000 bytes" in failure.error_message


def chunks(data: bytes) -> list[bytes]:
    """Returns the chunks of columns that pyarrow reads."""
    read = []

    class Noting(PageGuard):
        def read(self, count: int = -1) -> bytes:
            found = super().read(count)
            if self.watches:
                read.append(found)
            return found

    guard = Noting(io.BytesIO(data))
    file = pq.ParquetFile(pa.PythonFile(guard, mode="r"), pre_buffer=False)
    guard.watches = True
    for _ in file.iter_batches():
        pass
    return read


@pytest.mark.parametrize("options", [{}, {"write_page_index": True}, {"use_dictionary": False}], ids=str)
def test_every_page_of_a_chunk_is_looked_at(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Statistics in the headers, the dictionary, and pages of all sizes."""
    sink = io.BytesIO()
    texts = pa.array([f"{number}" * (number % 50) for number in range(30_000)])
    table = pa.table({"t": texts, "n": pa.array(range(30_000)), "l": pa.array([[1, 2], None] * 15_000)})
    pq.write_table(table, sink, data_page_size=5_000, compression="snappy", **options)
    seen: list[Any] = []
    look = parquet_pages._read_struct
    found = chunks(sink.getvalue())
    assert len(found) == 3
    for chunk in found:
        at = pages = 0
        while at < len(chunk):
            header, at = look(chunk, at)
            at += header[3]
            pages += 1
        assert at == len(chunk)
        assert pages > 1
        monkeypatch.setattr(parquet_pages, "_bytes_of_lengths", lambda header: seen.append(header) or 0)
        seen.clear()
        check_pages(chunk)
        assert len(seen) == pages


@examples(100)
@given(st.binary(max_size=200))
def test_what_is_no_page_ends_the_look(data: bytes) -> None:
    try:
        check_pages(data)
    except BlockTooLarge as error:
        assert "would take" in str(error)


@pytest.mark.parametrize(
    "value",
    [b"\x19\xf8" + b"\xff" * 4 + b"\x0f", b"\x19\xfc\xff\xff\xff\xff\x0f", b"\x1b\xff\xff\xff\xff\x0f\x88"],
    ids=["list of binaries", "list of structs", "map"],
)
def test_a_count_without_measure_takes_no_time(value: bytes) -> None:
    check_pages(value + b"\x00" * 100)
