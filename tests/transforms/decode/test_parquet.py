import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sluice.transforms.core.formats import PARQUET
from sluice.transforms.decode import parquet
from sluice.transforms.decode.parquet import group_shares, open_parquet, read_parquet
from sluice.transforms.decode.spec import Decoded, InputSpec
from tests.support.formats.decode_cases import COLUMNS, origins_of, put, read_file, rows_of, sample_rows, to_parquet

SPEC = InputSpec(PARQUET, COLUMNS)


def read(path: str, spec: InputSpec = SPEC, first: int = 0, last: int | None = None) -> Decoded:
    whole = Decoded()
    with open_parquet(path) as file:
        groups = file.metadata.num_row_groups if last is None else last
        for decoded, _, _ in read_parquet(file, first, groups, spec, "f.parquet", 1000):
            whole.add(decoded)
    return whole


def put_column(directory: Path, array: pa.Array, name: str = "v") -> str:
    path = str(directory / "column.parquet")
    pq.write_table(pa.table({name: array}), path)
    return path


@pytest.mark.parametrize(("first", "last"), [(0, 4), (0, 1), (1, 3), (3, 4)])
def test_row_groups(tmp_path: Path, first: int, last: int) -> None:
    rows = sample_rows(10_000)
    decoded = read(put(tmp_path, "f.parquet", to_parquet(rows, row_group_size=3000)), SPEC, first, last)
    assert rows_of(decoded) == rows[first * 3000 : last * 3000]
    assert origins_of(decoded) == [f"f.parquet#row={row['id']}" for row in rows_of(decoded)]
    assert max(batch.num_rows for batch in decoded.batches) <= 4096


def test_only_the_columns_wanted_in_their_order(tmp_path: Path) -> None:
    path = put(tmp_path, "f.parquet", to_parquet(sample_rows(3)))
    assert rows_of(read(path, InputSpec(PARQUET, (("x", pa.float32()), ("id", pa.int64()))))) == [
        {"x": row / 4, "id": row} for row in range(3)
    ]


def test_what_is_wanted_is_asked_once_and_not_for_each_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[InputSpec] = []
    schema = InputSpec.schema.fget  # type: ignore[attr-defined]
    monkeypatch.setattr(InputSpec, "schema", property(lambda spec: (calls.append(spec), schema(spec))[1]))

    def asked(columns: int) -> int:
        path = str(tmp_path / f"{columns}.parquet")
        pq.write_table(pa.table({f"c{number}": [1] for number in range(columns)}), path)
        calls.clear()
        assert read(path, InputSpec(PARQUET, (("c1", pa.int64()),))).rows == 1
        return len(calls)

    assert asked(2) == asked(50)


def test_rows_without_any_column_are_still_rows(tmp_path: Path) -> None:
    decoded = read(put(tmp_path, "f.parquet", to_parquet(sample_rows(3))), InputSpec(PARQUET, ()))
    assert origins_of(decoded) == ["f.parquet#row=0", "f.parquet#row=1", "f.parquet#row=2"]


def test_a_name_with_a_dot(tmp_path: Path) -> None:
    path = put_column(tmp_path, pa.array([1, 2]), "a.b")
    assert rows_of(read(path, InputSpec(PARQUET, (("a.b", pa.int64()),)))) == [{"a.b": 1}, {"a.b": 2}]


STRUCT = pa.struct([("a", pa.int64())])


@pytest.mark.parametrize(
    ("values", "found", "wanted", "bad"),
    [
        ([1, None, 2], pa.int32(), pa.int64(), []),
        ([1, 2**40, 3], pa.int64(), pa.int32(), [1]),
        ([1.0, 1.5, None], pa.float64(), pa.int64(), [1]),
        ([1, 2**53 + 1], pa.int64(), pa.float64(), [1]),
        ([0.5, 1e300, float("inf")], pa.float64(), pa.float32(), [1]),
        (["1", "x", None], pa.string(), pa.int64(), [1]),
        (["a", "b"], pa.large_string(), pa.string(), []),
        ([b"a", b"\xff"], pa.binary(), pa.string(), [1]),
        ([[1], [2**40], None], pa.list_(pa.int64()), pa.list_(pa.int32()), [1]),
        ([{"a": 1}, {"a": 2}], STRUCT, pa.int64(), [0, 1]),
    ],
    ids=str,
)
def test_another_type_in_a_later_file(
    values: list[Any], found: pa.DataType, wanted: pa.DataType, bad: list[int], tmp_path: Path
) -> None:
    decoded = read(put_column(tmp_path, pa.array(values, found)), InputSpec(PARQUET, (("v", wanted),)))
    good = [number for number in range(len(values)) if number not in bad]
    kept = [row["v"] for row in rows_of(decoded)]
    assert kept == pa.array([values[number] for number in good], found).cast(wanted).to_pylist() if good else not kept
    assert [failure.origin for failure in decoded.failures] == [f"f.parquet#row={number}" for number in bad]
    for failure, number in zip(decoded.failures, bad, strict=True):
        shown = str(found).replace("<item", "<element")  # as Parquet names what is in a list
        assert failure.error_message == f"column 'v' has type {shown} here, and its value does not fit {wanted}"
        text = "/w==" if values[number] == b"\xff" else values[number]
        assert json.loads(failure.payload) == {"v": text}


def test_text_that_is_not_utf8_costs_its_row(tmp_path: Path) -> None:
    broken = pa.array([b"a", b"\xff", b"c"]).view(pa.string())
    decoded = read(put_column(tmp_path, broken), InputSpec(PARQUET, (("v", pa.string()),)))
    assert [row["v"] for row in rows_of(decoded)] == ["a", "c"]
    (failure,) = decoded.failures
    assert (failure.origin, json.loads(failure.payload)) == ("f.parquet#row=1", {"v": "\\xff"})


def test_a_column_that_is_not_there(tmp_path: Path) -> None:
    path = put(tmp_path, "f.parquet", to_parquet(sample_rows(1)))
    (failure,) = read_file(path, InputSpec(PARQUET, (("y", pa.int64()),))).failures
    assert failure.error_message == "the file has no column 'y'; it has id, x, name, tags"


def test_pages_are_held_against_their_checksums(tmp_path: Path) -> None:
    data = bytearray(to_parquet(sample_rows(100), write_page_checksum=True, compression="none", use_dictionary=False))
    data[data.index((50).to_bytes(8, "little"))] ^= 1
    with pytest.raises(OSError, match="CRC checksum verification failed"):
        read(put(tmp_path, "f.parquet", bytes(data)))


def test_the_share_of_each_row_group(tmp_path: Path) -> None:
    with open_parquet(put(tmp_path, "f.parquet", to_parquet(sample_rows(2500), row_group_size=1000))) as file:
        rows, sizes = group_shares(file)
    assert rows.tolist() == [1000, 1000, 500]
    assert sizes[0] > sizes[2] > 0


def test_fewer_rows_are_read_at_once_where_they_are_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "MAX_BATCH_BYTES", 1 << 16)
    values = [bytes([number]) * 5_000 for number in range(100)]
    path = str(tmp_path / "large.parquet")
    pq.write_table(pa.table({"v": pa.array(values, pa.binary())}), path, use_dictionary=False)
    decoded = read(path, InputSpec(PARQUET, (("v", pa.binary()),)))
    assert [row["v"] for row in rows_of(decoded)] == values
    assert max(batch.num_rows for batch in decoded.batches) == (1 << 16) // 5_000


@pytest.mark.parametrize("nested", [False, True])
def test_a_number_that_a_narrower_type_would_round_costs_its_row_if_it_is_written(tmp_path: Path, nested: bool) -> None:
    values: list[Any] = [0.5, 53.3, float("nan"), None, 16_777_217.0, float("inf")]
    array = pa.array([[value] for value in values] if nested else values)
    kind = pa.list_(pa.float32()) if nested else pa.float32()
    path = put_column(tmp_path, array)
    written = read(path, InputSpec(PARQUET, (("v", kind),), exact=("v",)))
    assert [failure.origin for failure in written.failures] == ["f.parquet#row=1", "f.parquet#row=4"]
    assert not read(path, InputSpec(PARQUET, (("v", kind),))).failures, "the model may be fed it"
