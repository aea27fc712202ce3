"""Rows as BigQuery's insertAll accepts them; test_write_inserts.py asks the emulator."""

import datetime
import json

import pyarrow as pa
import pytest

from sluice.models.errors import SluiceError
from sluice.models.reserved import MESSAGE_ID
from sluice.transforms.bigquery.write_inserts import Row, coarse_schema, table_rows

WHEN = datetime.datetime(2026, 1, 2, 3, 4, 5, 6, datetime.UTC)


def rows_of(schema: pa.Schema, *rows: dict) -> list[Row]:  # type: ignore[type-arg]
    return table_rows(pa.RecordBatch.from_pylist(list(rows), schema=schema), coarse_schema(schema), WHEN)


def values_of(kind: pa.DataType, *values: object) -> list[object]:
    """Returns what each value of a column becomes; None: it is left out."""
    schema = pa.schema([("x", kind)])
    return [row.values.get("x") for row in rows_of(schema, *({"x": value} for value in values))]


def test_the_time_stands_in_every_row() -> None:
    schema = pa.schema([("x", pa.int64())])
    assert [row.values for row in rows_of(schema, {"x": 1}, {"x": 2})] == [
        {"x": 1, "_predicted_at": "2026-01-02T03:04:05.000006+00:00"},
        {"x": 2, "_predicted_at": "2026-01-02T03:04:05.000006+00:00"},
    ]


def test_fields_that_are_null_are_left_out() -> None:
    inner = pa.struct([("a", pa.int64()), ("b", pa.list_(pa.int64()))])
    assert values_of(inner, {"a": None, "b": None}, {"a": 0, "b": []}, None) == [{}, {"a": 0, "b": []}, None]
    assert values_of(pa.list_(inner), [{"a": 1, "b": None}], []) == [[{"a": 1}], []]
    assert "x" not in rows_of(pa.schema([("x", pa.list_(pa.int64()))]), {"x": None})[0].values


@pytest.mark.parametrize("kind", [pa.int64(), pa.uint64(), pa.list_(pa.int64())], ids=str)
def test_whole_numbers_that_a_double_cannot_hold_are_text(kind: pa.DataType) -> None:
    exact, large = 1 << 53, (1 << 53) + 1
    if pa.types.is_list(kind):
        assert values_of(kind, [exact, large, -large]) == [[exact, str(large), str(-large)]]
    else:
        assert values_of(kind, exact, large) == [exact, str(large)]


def test_digits_below_microseconds_are_refused() -> None:
    schema = pa.schema([("x", pa.list_(pa.timestamp("ns")))])
    batch = pa.record_batch([pa.array([[1_999]], schema.field(0).type)], schema=schema)
    with pytest.raises(SluiceError, match=r"column 'x': .*would lose data"):
        table_rows(batch, coarse_schema(schema), WHEN)


def test_nanoseconds_become_microseconds() -> None:
    nanos = pa.array([1_000], pa.int64())
    kinds = [pa.timestamp("ns", "UTC"), pa.timestamp("ns"), pa.time64("ns")]
    batch = pa.record_batch([nanos.cast(kind) for kind in kinds], names=["a", "b", "c"])
    (row,) = table_rows(batch, coarse_schema(batch.schema), WHEN)
    assert [row.values[name] for name in "abc"] == [
        "1970-01-01T00:00:00.000001Z",
        "1970-01-01T00:00:00.000001",
        "00:00:00.000001",
    ]


def test_ids_are_those_of_the_messages() -> None:
    schema = pa.schema([("x", pa.int64()), (MESSAGE_ID, pa.string())])
    ids = ["7", "8", "", None, "9", "9"]
    batch = pa.record_batch([pa.array(range(6)), pa.array(ids)], schema=schema)
    rows = table_rows(batch, schema.remove(1), WHEN)
    assert [row.id for row in rows] == ["7", "8", None, None, None, None]  # two rows of one message are not duplicates
    assert MESSAGE_ID not in rows[0].values
    assert [row.id for row in rows_of(schema.remove(1), {"x": 1})] == [None]


@pytest.mark.parametrize("text", ["a" * 10, "é" * 10, "𝄞" * 200_000, "a" * 200_000])
def test_sizes_are_those_of_what_is_sent(text: str) -> None:
    (row,) = rows_of(pa.schema([("x", pa.string())]), {"x": text})
    sent = len(json.dumps(row.values))
    assert row.size == sent or (text == "a" * 10 and row.size <= sent <= 8 * row.size)


def test_rows_keep_their_order() -> None:
    rows = rows_of(pa.schema([("x", pa.int64())]), {"x": 5}, {"x": 6})
    assert [row.values["x"] for row in rows] == [5, 6]


def test_what_cannot_be_encoded_is_refused() -> None:
    bad = pa.record_batch([pa.array([b"\xff"]).view(pa.string())], names=["x"])
    with pytest.raises(SluiceError, match="the row holds text that is not UTF-8"):
        table_rows(bad, bad.schema, WHEN)
    with pytest.raises(SluiceError, match="column 'y' is not in the scored rows: x"):
        table_rows(bad, pa.schema([("y", pa.string())]), WHEN)
