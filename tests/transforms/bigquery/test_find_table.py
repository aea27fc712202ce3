"""`find_table` and `find_query` on the BigQuery emulator."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import grpc
import pyarrow as pa
import pytest
from google.cloud.bigquery import PartitionRange, RangePartitioning, SchemaField, Table, TimePartitioning
from google.cloud.bigquery_storage_v1 import types

from sluice.models.errors import UsageError
from sluice.models.signature import Signature, TensorSpec
from sluice.pipelines.plan.input_columns import Wanted, plan_input
from sluice.transforms.bigquery.find_table import FoundTable, find_query, find_table, partition_restriction
from sluice.transforms.bigquery.schema import bigquery_to_arrow_schema
from sluice.transforms.core.formats import BIGQUERY
from sluice.transforms.decode.spec import CsvOptions
from tests.support.bigquery.cases import FIELDS, SCALARS, kinds_table, read_all, spec_of
from tests.support.bigquery.proxy import BigQueryProxy
from tests.support.servers import BigQuery


@pytest.fixture(scope="module")
def table(bigquery: BigQuery) -> str:
    return kinds_table(bigquery)


@pytest.fixture
def proxy(bigquery: BigQuery) -> Iterator[BigQueryProxy]:
    with closing(BigQueryProxy(bigquery)) as proxy:
        yield proxy


def signature(**columns: str) -> Signature:
    inputs = tuple(TensorSpec(name, dtype, (None,)) for name, dtype in columns.items())
    return Signature("serving_default", "predict", inputs, (TensorSpec("score", "float32", (None,)),))


def without_emulator(kind: pa.DataType) -> pa.DataType:
    """The emulator's BIGNUMERIC has 38 digits."""
    return pa.decimal128(38, 18) if kind == pa.decimal256(76, 38) else kind


def test_columns_of_every_type(table: str) -> None:
    found = find_table(table)
    expected = bigquery_to_arrow_schema(FIELDS)
    assert (found.source.format, found.source.path, found.rows) == (BIGQUERY, table, 4)
    assert found.source.names == tuple(expected.names)
    assert found.source.size > 0
    for field in expected:
        kind = found.source.types[field.name]
        assert kind.equals(without_emulator(field.type)) or str(kind).replace("l: ", "item: ") == str(field.type)
    assert found.table.stored
    assert find_table(table.replace(".", ":", 1)).source == found.source


def test_the_session_is_of_this_moment_and_of_the_project_that_pays(proxy: BigQueryProxy, table: str) -> None:
    found = find_table(table, "id > 1", "payer", storage_endpoint=proxy.url, clock=lambda: 1_700_000_000.25)
    assert (found.table.snapshot_secs, found.table.row_restriction, found.table.any_column) == (
        1_700_000_000.25,
        "id > 1",
        "id",
    )
    (sent,) = map(types.CreateReadSessionRequest.deserialize, proxy.requests["CreateReadSession"])
    assert (sent.parent, sent.max_stream_count) == ("projects/payer", 1)
    assert sent.read_session.read_options.row_restriction == "id > 1"
    assert sent.read_session.table_modifiers.snapshot_time.timestamp() == 1_700_000_000.25
    assert "ReadRows" not in proxy.requests


@pytest.mark.parametrize(
    ("table_id", "text"),
    [
        ("table", "write PROJECT.DATASET.TABLE"),
        ("proj1.nods.t", r"--input_table proj1\.nods\.t: .*[nN]ot found.*Is the name right"),
        ("{table}_2", r"[nN]ot found.*Is the name right"),
        ("{table}$20260101", r"\$20260101: the table has no such partition; it is not partitioned"),
        ("{dataset}.none_*", r"--input_table .*none_\*: "),
    ],
)
def test_no_such_table(table: str, table_id: str, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        find_table(table_id.format(table=table, dataset=table.rsplit(".", 1)[0]))


@pytest.mark.parametrize("restriction", ["id >", "nope = 1"])
def test_a_restriction_that_is_wrong(table: str, restriction: str) -> None:
    with pytest.raises(UsageError, match=f"--row_restriction '{restriction}'"):
        find_table(table, restriction)


@pytest.mark.parametrize(
    ("status", "message", "text"),
    [
        (grpc.StatusCode.PERMISSION_DENIED, "no", r"no\. Who reads it needs .*readSessionUser .* on the project proj1"),
        (grpc.StatusCode.UNAVAILABLE, "away", "BigQuery does not answer: 503 away"),
        (grpc.StatusCode.INVALID_ARGUMENT, "Invalid snapshot time", "is its clock right"),
        (
            grpc.StatusCode.INVALID_ARGUMENT,
            "Cannot query over 't' without a filter over column(s) 'd' that can be used for partition elimination",
            r"Give --row_restriction, or one partition: .*\$PARTITION",
        ),
    ],
)
def test_a_session_is_refused(
    proxy: BigQueryProxy, table: str, status: grpc.StatusCode, message: str, text: str
) -> None:
    proxy.fail_always("CreateReadSession", status, message=message)
    with pytest.raises(UsageError, match=text):
        find_table(table, storage_endpoint=proxy.url, retry_secs=0.5)


def test_a_session_that_is_refused_for_now_is_asked_for_again(proxy: BigQueryProxy, table: str) -> None:
    proxy.fail("CreateReadSession", times=2)
    proxy.fail("CreateReadSession", grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert find_table(table, storage_endpoint=proxy.url).rows == 4
    assert proxy.happened == 3


def test_one_partition(bigquery: BigQuery) -> None:
    made = Table(f"{bigquery.make_dataset()}.t", [SchemaField("day", "DATE"), SchemaField("id", "INTEGER")])
    made.time_partitioning = TimePartitioning("DAY", "day")
    bigquery.client.create_table(made)
    rows = [{"day": day, "id": number} for number, day in enumerate(["2026-01-01", "2026-01-02", "2026-01-02", None])]
    assert bigquery.client.insert_rows_json(made, rows) == []
    assert ids(find_table(f"{made.reference}$20260102")) == [1, 2]
    assert ids(find_table(f"{made.reference}$20260102", "id = 1 OR id = 3")) == [1]
    assert ids(find_table(f"{made.reference}$__NULL__")) == [3]
    found = find_table(f"{made.reference}$20260101")
    assert found.source.path == f"{made.reference}$20260101"


def ids(found: FoundTable) -> list[int]:
    batches = read_all(found, spec_of(found, "id")).batches
    return sorted(row for batch in batches for row in batch.column("id").to_pylist())


def test_views_and_wildcards_are_read_by_a_query(bigquery: BigQuery) -> None:
    dataset = bigquery.make_dataset()
    for number in (1, 2):
        bigquery.client.query(f"CREATE TABLE `{dataset}.t_{number}` AS SELECT {number} AS id, 'x' AS s").result()
    bigquery.client.query(f"CREATE VIEW `{dataset}.v` AS SELECT id + 10 AS id, s FROM `{dataset}.t_1`").result()
    view = find_table(f"{dataset}.v")
    assert (view.source.types, view.rows, view.table.stored) == ({"id": pa.int64(), "s": pa.string()}, None, False)
    assert view.table.snapshot_secs is None
    assert view.table.sql(["id"]) == f"SELECT `id` FROM `{dataset}.v`"
    assert ids(view) == [11]
    assert ids(find_table(f"{dataset}.v", "id > 11")) == []
    wildcard = find_table(f"{dataset}.t_*")
    assert ids(wildcard) == [1, 2]
    assert ids(find_table(f"{dataset}.t_*", "_TABLE_SUFFIX = '2'")) == [2]


def test_a_query(table: str) -> None:
    found = find_query(f"SELECT id, v_numeric AS n, many FROM `{table}` WHERE id < 2", "proj1")
    assert found.source.types == {"id": pa.int64(), "n": pa.decimal128(38, 9), "many": pa.list_(pa.string())}
    assert (found.source.path, found.rows, found.table.project) == ("query", None, "proj1")
    assert ids(found) == [0, 1]


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("SELEC 1", "--input_query: .*Syntax error"),
        ("SELECT nope FROM `{table}`", "--input_query: .*nope"),
        ("SELECT * FROM `proj1.nods.t`", "--input_query: .*[nN]ot found"),
        ("CREATE TABLE `{table}_3` AS SELECT 1 AS x", "this is CREATE_TABLE_AS_SELECT; give one SELECT"),
        ("SELECT 1; SELECT 2", "this is SCRIPT; give one SELECT"),
    ],
)
def test_a_query_that_is_wrong(table: str, query: str, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        find_query(query.format(table=table), "proj1")


def test_a_query_needs_a_project() -> None:
    with pytest.raises(UsageError, match="Give --project"):
        find_query("SELECT 1", "")


def test_columns_that_a_model_takes(table: str) -> None:
    takes = {
        "v_integer": "int64",
        "v_float": "float32",
        "v_boolean": "bool",
        "v_string": "string",
        "v_bytes": "string",
        "v_numeric": "float32",
        "v_bignumeric": "float64",
        "v_json": "string",
        "v_geography": "string",
    }
    found = find_table(table)
    plan = plan_input(found.source, signature(**takes), Wanted({}, ("id", "v_date", "nested")), CsvOptions())
    types = found.source.types
    assert plan.spec.format == BIGQUERY
    assert dict(plan.spec.columns) == {name: types[name] for name in (*takes, "id", "v_date", "nested")}
    assert plan.columns == (("id", types["id"]), ("v_date", types["v_date"]), ("nested", types["nested"]))


@pytest.mark.parametrize(
    ("name", "dtype", "kind"),
    [
        ("v_date", "float32", r"date32\[day\]"),
        ("v_timestamp", "int64", r"timestamp\[us, tz=UTC\]"),
        ("v_numeric", "int64", r"decimal128\(38, 9\)"),
        ("v_string", "float32", "string"),
        ("nested", "string", "list<.*struct<.*>>"),
        ("one", "float32", "struct<.*>"),
    ],
)
def test_columns_that_a_model_does_not_take(table: str, name: str, dtype: str, kind: str) -> None:
    text = f"column '{name}': the model takes .*{dtype}.* and the input {table} has {kind}. .*--input_query can do"
    with pytest.raises(UsageError, match=text):
        plan_input(find_table(table).source, signature(**{name: dtype}), Wanted({}), CsvOptions())


def test_a_column_that_is_missing(table: str) -> None:
    source = find_table(table).source
    with pytest.raises(UsageError, match="give --map V_DATE=v_date"):
        plan_input(source, signature(V_DATE="string"), Wanted({}), CsvOptions())
    wanted: Any = {"schema": {"nope": pa.int64()}}
    with pytest.raises(UsageError, match="--input_schema names 'nope'"):
        plan_input(source, signature(v_string="string"), Wanted(**wanted), CsvOptions())


def test_all_scalar_types_are_there() -> None:
    assert {field["type"] for field in FIELDS} == {*SCALARS, "RECORD"}


# Partitions by name, as conditions ----------------------------------------------------------------------------------


def partitioned(how: TimePartitioning | RangePartitioning | None, kind: str = "TIMESTAMP") -> Table:
    made = Table("p.d.t", [SchemaField("at", kind), SchemaField("of", "INTEGER")])
    made.time_partitioning = how if isinstance(how, TimePartitioning) else None
    made.range_partitioning = how if isinstance(how, RangePartitioning) else None
    return made


STEPS = RangePartitioning(PartitionRange(start=-20, end=95, interval=10), "of")


@pytest.mark.parametrize(
    ("kind", "how", "partition", "restriction"),
    [
        ("DATE", TimePartitioning("DAY", "at"), "20240229", "`at` >= DATE '2024-02-29' AND `at` < DATE '2024-03-01'"),
        ("DATE", TimePartitioning("MONTH", "at"), "202312", "`at` >= DATE '2023-12-01' AND `at` < DATE '2024-01-01'"),
        ("DATE", TimePartitioning("YEAR", "at"), "2026", "`at` >= DATE '2026-01-01' AND `at` < DATE '2027-01-01'"),
        ("DATE", TimePartitioning("DAY", "at"), "__NULL__", "`at` IS NULL"),
        (
            "DATETIME",
            TimePartitioning("HOUR", "at"),
            "2026123123",
            "`at` >= DATETIME '2026-12-31 23:00:00' AND `at` < DATETIME '2027-01-01 00:00:00'",
        ),
        (
            "TIMESTAMP",
            TimePartitioning("MONTH", "at"),
            "202601",
            "`at` >= TIMESTAMP '2026-01-01 00:00:00+00' AND `at` < TIMESTAMP '2026-02-01 00:00:00+00'",
        ),
        (
            "DATE",
            TimePartitioning("DAY"),
            "20260101",
            "_PARTITIONTIME >= TIMESTAMP '2026-01-01 00:00:00+00' AND "
            "_PARTITIONTIME < TIMESTAMP '2026-01-02 00:00:00+00'",
        ),
        ("DATE", TimePartitioning("DAY"), "__UNPARTITIONED__", "_PARTITIONTIME IS NULL"),
        ("DATE", STEPS, "-20", "`of` >= -20 AND `of` < -10"),
        ("DATE", STEPS, "90", "`of` >= 90 AND `of` < 95"),
        ("DATE", STEPS, "__NULL__", "`of` IS NULL"),
    ],
)
def test_partitions(kind: str, how: Any, partition: str, restriction: str) -> None:
    assert partition_restriction(partitioned(how, kind), partition) == restriction


@pytest.mark.parametrize(
    ("how", "partition", "text"),
    [
        (TimePartitioning("DAY", "at"), "202601", r"p\.d\.t\$202601: .* DAY of at \(\$YYYYMMDD\)"),
        (TimePartitioning("DAY", "at"), "20260230", "no such partition"),
        (TimePartitioning("DAY", "at"), "__UNPARTITIONED__", "no such partition"),
        (TimePartitioning("HOUR"), "__NULL__", r"HOUR of ingestion \(\$YYYYMMDDHH\)"),
        (STEPS, "15", r"'of' in steps of 10"),
        (STEPS, "100", "no such partition"),
        (STEPS, "x", "no such partition"),
        (None, "20260101", "not partitioned"),
    ],
)
def test_no_such_partition(how: Any, partition: str, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        partition_restriction(partitioned(how), partition)
