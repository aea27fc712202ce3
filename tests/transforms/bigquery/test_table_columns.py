"""`append_columns`: what values become on their way into a table, and which are refused."""

import datetime
import decimal
from typing import Any

import pyarrow as pa
import pytest

from sluice.models.errors import SluiceError
from sluice.transforms.bigquery.table import table_fields
from sluice.transforms.bigquery.table_columns import append_columns, append_schema

UTC = datetime.UTC
NOW = datetime.datetime(2025, 6, 1, 12, tzinfo=UTC)
D = decimal.Decimal


def sent(array: pa.Array, declared: pa.DataType | None = None, **there: Any) -> pa.Array:
    """Returns a column "x" as it is appended.

    Args:
      declared: its type at launch, if it is not the array's.
      there: what the table's field has that is not as it would be made.
    """
    schema = pa.schema([("x", declared or array.type)])
    (field, predicted_at) = table_fields(schema)
    ready = append_schema(schema, [{**field, **there}, predicted_at])
    batch = append_columns(pa.record_batch([array], ["x"]), ready, NOW)
    assert batch.schema == ready
    batch.validate(full=True)
    assert batch.column("_predicted_at").to_pylist() == [NOW] * len(array)
    return batch.column("x")


S, I = pa.string(), pa.int64()  # noqa: E741
MAP = pa.map_(S, I)


@pytest.mark.parametrize(
    ("array", "kind", "values"),
    [
        (pa.array([1, None], pa.int8()), pa.int8(), [1, None]),
        (pa.array([1, (1 << 32) - 1], pa.uint32()), I, [1, (1 << 32) - 1]),
        (pa.array([(1 << 64) - 1, None], pa.uint64()), pa.decimal128(38, 9), [D(2**64 - 1), None]),
        (pa.array([0.1], pa.float32()), pa.float32(), [pytest.approx(0.1)]),
        (pa.array([1.5, None], pa.float16()), pa.float64(), [1.5, None]),
        (pa.array(["a", None, "a"]).dictionary_encode(), S, ["a", None, "a"]),
        (pa.array(["é", None], pa.large_string()), S, ["é", None]),
        (pa.array(["é", None], pa.string_view()), S, ["é", None]),
        (pa.array([b"\xff"], pa.binary(1)), pa.binary(), [b"\xff"]),
        (pa.array([D("1.5")], pa.decimal128(5, 2)), pa.decimal128(5, 2), [D("1.50")]),
        (pa.array([None, None], pa.list_(S)), pa.list_(S), [[], []]),
        (pa.array([[1, 2], None], pa.list_(pa.int32(), 2)), pa.list_(pa.int32()), [[1, 2], []]),
        (pa.array([["a"], []], pa.large_list(S)), pa.list_(S), [["a"], []]),
        (pa.array([["a"], None], pa.list_(pa.dictionary(pa.int32(), S))), pa.list_(S), [["a"], []]),
        (pa.array([86_399_999_999_000], pa.time64("ns")), pa.time64("us"), [datetime.time(23, 59, 59, 999_999)]),
        (
            pa.array([1_000], pa.timestamp("ns", "Asia/Tokyo")),
            pa.timestamp("us", "UTC"),
            [datetime.datetime(1970, 1, 1, 0, 0, 0, 1, UTC)],
        ),
        (pa.array([60], pa.timestamp("s")), pa.timestamp("us"), [datetime.datetime(1970, 1, 1, 0, 1)]),
        (pa.array([[("a", 1)], None], MAP), None, [[{"key": "a", "value": 1}], []]),
        (
            pa.array([{"a": 1, "b": ["x"]}, {"a": None, "b": None}, None]),
            None,
            [{"a": 1, "b": ["x"]}, {"a": None, "b": []}, None],
        ),
    ],
)  # fmt: skip
def test_values_keep_their_meaning(array: pa.Array, kind: pa.DataType | None, values: list[Any]) -> None:
    column = sent(array)
    assert column.to_pylist() == values
    assert kind is None or column.type == kind
    padded = pa.concat_arrays([array, array]).slice(len(array))  # a slice of a larger one
    assert sent(padded).to_pylist() == values


def test_a_column_of_nulls_is_of_any_type() -> None:
    assert sent(pa.nulls(2), pa.list_(S)).to_pylist() == [[], []]
    assert sent(pa.nulls(2), pa.struct([("a", I)])).to_pylist() == [None, None]
    assert sent(pa.nulls(2), MAP).to_pylist() == [[], []]


def test_values_go_into_the_wider_types_that_a_table_may_have() -> None:
    assert sent(pa.array([7], pa.int32()), type="NUMERIC").to_pylist() == [D(7)]
    assert sent(pa.array([7], pa.int32()), type="BIGNUMERIC").type == pa.decimal256(76, 38)
    assert sent(pa.array([D("1.5")], pa.decimal128(38, 9)), type="BIGNUMERIC").to_pylist() == [D("1.5")]
    assert sent(pa.array(["{}"]), type="JSON").type == S
    assert not sent(pa.array(["{}"]), type="JSON").null_count


@pytest.mark.parametrize(
    ("array", "options", "text"),
    [
        (pa.array([1, None]), {"mode": "REQUIRED"}, "column 'x' is REQUIRED in the table, and null here"),
        (pa.array([[1, None]]), {}, "column 'x' has a null in a list; BigQuery's REPEATED columns hold none"),
        (pa.array([[{"a": [1, None]}]]), {}, "column 'x.a' has a null in a list"),
        (pa.array([b"\xff"]).view(S), {}, "column 'x': .*Invalid UTF8"),
        (pa.array([[b"\xff"]]).cast(pa.list_(pa.binary())), {"declared": pa.list_(S)}, "column 'x': .*UTF8"),
        (pa.array([253_402_300_800], pa.timestamp("s")), {}, "column 'x' has a timestamp.* out of BigQuery's range"),
        (pa.array([1 << 60], pa.timestamp("s")), {}, "column 'x': .*out of bounds"),
        (pa.array([1_999], pa.timestamp("ns")), {}, "column 'x': .*would lose data"),
        (pa.array([-719_163], pa.date32()), {}, "column 'x' has a date32.* out of BigQuery's range"),
        (pa.array([D("1.5")], pa.decimal128(9, 2)), {"precision": "9", "scale": "0"}, "column 'x': "),
        (pa.array(["1"]), {"declared": I}, "column 'x' is int64 in the table, found string"),
        (pa.array([1]), {"declared": pa.list_(I)}, "column 'x' is list<item: int64> in the table, found int64"),
        (pa.array([1]), {"declared": pa.struct([("a", I)])}, "column 'x' is struct<a: int64> in the table, found int"),
        (pa.array([1 << 40]), {"declared": pa.int32()}, "column 'x': .*not in range"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told_of(array: pa.Array, options: dict[str, Any], text: str) -> None:
    with pytest.raises(SluiceError, match=text):
        sent(array, **options)


def test_a_required_field_of_a_record_may_be_absent_with_its_record() -> None:
    inner = {"name": "a", "type": "INTEGER", "mode": "REQUIRED"}
    records = pa.array([{"a": 1}, None], pa.struct([("a", I)]))
    assert sent(records, fields=[inner]).to_pylist() == [{"a": 1}, None]
    with pytest.raises(SluiceError, match=r"column 'x\.a' is REQUIRED"):
        sent(pa.array([{"a": None}, None], pa.struct([("a", I)])), fields=[inner])


def test_a_column_that_is_missing_is_named() -> None:
    schema = pa.schema([("x", I)])
    ready = append_schema(schema, table_fields(schema))
    with pytest.raises(SluiceError, match="column 'x' is not in the scored rows: y"):
        append_columns(pa.record_batch([pa.array([1])], ["y"]), ready, NOW)
