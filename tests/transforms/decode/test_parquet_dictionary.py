"""Dictionaries of Parquet files whose few values rows repeat: how large the values are, and where batches are cut."""

import io
import random
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sluice.transforms.core.formats import PARQUET
from sluice.transforms.decode import parquet as parquet_module
from sluice.transforms.decode.formats import read_range
from sluice.transforms.decode.parquet_dictionary import fixed_bytes, largest_value
from sluice.transforms.decode.ranges import FileRange
from sluice.transforms.decode.spec import InputSpec
from tests.support.formats.decode_cases import put

ENOUGH, MOST = 1_000, 20_000


def page(values: Sequence[bytes]) -> bytes:
    return b"".join(struct.pack("<I", len(value)) + value for value in values)


def packed(data: bytes, codec: str) -> bytes:
    return pa.Codec(codec).compress(data, asbytes=True) if codec else data


@pytest.mark.parametrize("codec", ["", "snappy", "zstd", "gzip", "brotli", "lz4_raw"])
@pytest.mark.parametrize(
    "data,values,wanted",
    [
        (page([b"ab", b"", b"abc"]), 3, 5),  # that they are few enough is seen without a look
        (page([b"x" * 30] * 300), 300, 30),
        (page([b"x" * 30] * 300 + [b"y" * 4_000]), 301, 4_000),
        (np.arange(1_000, 2_000).tobytes(), 1_000, 0),
    ],
    ids=["small", "many", "one is large", "numbers"],
)
def test_how_large_values_are(codec: str, data: bytes, values: int, wanted: int) -> None:
    assert largest_value(packed(data, codec), values, len(data), ENOUGH) == wanted


def test_what_cannot_be_unpacked_may_be_as_large_as_its_page() -> None:
    assert largest_value(random.Random(1).randbytes(500), 10, 100_000, ENOUGH) == 100_000 - 40


LARGE = ["a" * 5_000, "b", "c" * 4_000]
COLUMNS: dict[str, pa.Array] = {
    "string": pa.array([LARGE[n % 3] for n in range(200)]),
    "binary": pa.array([LARGE[n % 3].encode() for n in range(200)], pa.binary()),
    "large string": pa.array([LARGE[n % 3] for n in range(200)], pa.large_string()),
    "with nulls": pa.array([None if n % 5 == 0 else LARGE[n % 3] for n in range(200)]),
    "categories": pa.array([LARGE[n % 3] for n in range(200)]).dictionary_encode(),
    "lists": pa.array([[LARGE[n % 3]] for n in range(200)]),
    "fixed": pa.array([b"f" * 4_000] * 200, pa.binary(4_000)),
}


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd"])
@pytest.mark.parametrize("name", COLUMNS)
def test_rows_that_repeat_large_values_come_in_small_batches(
    name: str, compression: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_module, "MOST_VALUE_BYTES", ENOUGH)
    monkeypatch.setattr(parquet_module, "MAX_BATCH_BYTES", MOST)
    column = COLUMNS[name]
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    table = pa.table({"id": range(200), "v": column, "small": [str(n % 7) for n in range(200)]})
    found = read(tmp_path, table, [("id", pa.int64()), ("v", kind), ("small", pa.string())], compression)
    assert [row for batch in found for row in batch.select(["id", "v", "small"]).to_pylist()] == table.to_pylist()
    sizes = [sum(len(str(value)) for value in batch.column("v").to_pylist()) for batch in found]
    assert max(sizes) <= MOST + 20 * max(batch.num_rows for batch in found)


def read(
    directory: Path, table: pa.Table, columns: list[tuple[str, pa.DataType]], compression: str, **more: Any
) -> list[Any]:
    """Reads a table from a file of three row groups."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression=compression, row_group_size=70, **more)
    data = sink.getvalue()
    part = FileRange(put(directory, "f.parquet", data), 0, len(data), len(data))
    decoded = [each for each, _ in read_range(part, InputSpec(PARQUET, tuple(columns)))]
    assert [failure for each in decoded for failure in each.failures] == []
    return [batch for each in decoded for batch in each.batches]


def test_large_values_behind_others_bring_no_row_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are found when the reader comes to their row group, and rows before it are handed out by then."""
    monkeypatch.setattr(parquet_module, "MOST_VALUE_BYTES", ENOUGH)
    monkeypatch.setattr(parquet_module, "MAX_BATCH_BYTES", MOST)
    monkeypatch.setattr(parquet_module, "BATCH_ROWS", 30)
    table = pa.table({"id": range(200), "v": ["s"] * 140 + ["l" * 5_000] * 60})
    found = read(tmp_path, table, [("id", pa.int64()), ("v", pa.string())], "zstd")
    assert [row for batch in found for row in batch.select(["id", "v"]).to_pylist()] == table.to_pylist()
    assert max(batch.num_rows for batch in found) == 30
    assert max(batch.num_rows for batch in found if batch.column("id")[0].as_py() >= 140) == 4


def test_ordinary_dictionaries_are_read_as_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_module, "MOST_VALUE_BYTES", ENOUGH)
    table = pa.table({"id": [n % 300 for n in range(2_000)], "v": [f"value {n % 500}" for n in range(2_000)]})
    opened: list[int] = []
    as_parquet = parquet_module._as_parquet

    def count_and_open(file: BinaryIO, most_value: int = 0) -> pq.ParquetFile:
        opened.append(most_value)
        return as_parquet(file, most_value)

    monkeypatch.setattr(parquet_module, "_as_parquet", count_and_open)
    found = read(tmp_path, table, [("id", pa.int64()), ("v", pa.string())], "snappy")
    assert sum(batch.num_rows for batch in found) == 2_000
    assert opened == [ENOUGH], "it is not read again"


def test_values_that_a_full_dictionary_has_no_room_for_are_not_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of images: the first ones are in the dictionary, and all others in pages, each once."""
    monkeypatch.setattr(parquet_module, "MOST_VALUE_BYTES", ENOUGH)
    monkeypatch.setattr(parquet_module, "MAX_BATCH_BYTES", MOST)
    count, made = 400, random.Random(1)
    table = pa.table({"v": pa.array([made.randbytes(5_000) for _ in range(count)], pa.binary())})
    path = tmp_path / "f.parquet"
    small = {"dictionary_pagesize_limit": MOST, "write_batch_size": 10, "data_page_size": MOST}
    pq.write_table(table, path, compression="none", **small)
    size, before = path.stat().st_size, pa.total_allocated_bytes()
    rows, most = 0, 0
    for decoded, _ in read_range(FileRange(str(path), 0, size, size), InputSpec(PARQUET, (("v", pa.binary()),))):
        for batch in decoded.batches:
            assert batch.column("v").equals(table.column("v").slice(rows, batch.num_rows).combine_chunks())
            rows += batch.num_rows
        most = max(most, pa.total_allocated_bytes() - before)
    assert rows == count
    assert most < table.nbytes / 4, "what is held does not grow with the row group"


@pytest.mark.parametrize("kind", [pa.string(), pa.list_(pa.string())])
def test_values_that_become_larger_are_read_in_smaller_batches(
    kind: pa.DataType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_module, "MOST_VALUE_BYTES", ENOUGH)
    monkeypatch.setattr(parquet_module, "MAX_BATCH_BYTES", MOST)
    texts = ["s"] * 70 + ["m" * 2_000] * 70 + ["l" * 9_000] * 60  # a row group each
    column = pa.array([[text] for text in texts] if pa.types.is_list(kind) else texts, kind)
    table = pa.table({"id": range(200), "v": column})
    found = read(tmp_path, table, [("id", pa.int64()), ("v", kind)], "zstd")
    assert [row for batch in found for row in batch.select(["id", "v"]).to_pylist()] == table.to_pylist()
    assert max(batch.num_rows for batch in found if batch.column("id")[-1].as_py() >= 140) <= 3


@pytest.mark.parametrize("row", [["a" * 400, "b" * 300] * 10, [7] * 1_000], ids=["strings", "numbers"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_lists_that_repeat_small_values_come_in_small_batches(
    version: str, row: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each value is small, and the list of them is 8,000 bytes; in the file it is some bits."""
    monkeypatch.setattr(parquet_module, "MOST_VALUE_BYTES", ENOUGH)
    monkeypatch.setattr(parquet_module, "MAX_BATCH_BYTES", MOST)
    table = pa.table({"id": range(200), "v": [row] * 200})
    columns = [("id", pa.int64()), ("v", table.schema.field("v").type)]
    found = read(tmp_path, table, columns, "zstd", data_page_version=version)
    assert [row for batch in found for row in batch.select(["id", "v"]).to_pylist()] == table.to_pylist()
    assert max(batch.num_rows for batch in found) <= 3


def test_small_values_beside_a_large_one_come_in_batches_of_a_usual_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_module, "MOST_VALUE_BYTES", ENOUGH)
    monkeypatch.setattr(parquet_module, "MAX_BATCH_BYTES", MOST)
    table = pa.table({"id": range(70), "v": ["l" * 5_000] + ["s"] * 69})
    found = read(tmp_path, table, [("id", pa.int64()), ("v", pa.string())], "zstd")
    assert [batch.num_rows for batch in found] == [70]


def test_bytes_of_fixed_size() -> None:
    nested = pa.struct([("a", pa.binary(8)), ("b", pa.list_(pa.binary(4))), ("c", pa.int64())])
    assert [fixed_bytes(kind) for kind in (pa.binary(16), nested, pa.string())] == [16, 12, 0]
