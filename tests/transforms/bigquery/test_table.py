"""A table at launch: ids, fields, and what `ensure_table` makes, accepts and refuses."""

from typing import Any

import pyarrow as pa
import pytest

from sluice.models.errors import UsageError
from sluice.transforms.bigquery.asked import BY_FLAGS
from sluice.transforms.bigquery.clients import open_client
from sluice.transforms.bigquery.table import TableOptions, ensure_table, parse_table_id, table_fields
from sluice.transforms.bigquery.table_layout import TableLayout, parse_layout
from tests.support.servers import BigQuery, free_port

SCHEMA = pa.schema(
    [
        pa.field("id", pa.int64(), nullable=False),
        ("name", pa.string()),
        ("at", pa.timestamp("us", "UTC")),
        ("scores", pa.list_(pa.float32())),
        ("who", pa.struct([("a", pa.bool_()), ("b", pa.list_(pa.binary()))])),
    ]
)


def field(name: str, kind: str, mode: str = "NULLABLE", **more: Any) -> dict[str, Any]:
    return {"name": name, "type": kind, "mode": mode, **more}


WHO = field("who", "RECORD", fields=[field("a", "BOOLEAN"), field("b", "BYTES", "REPEATED")])
FIELDS = [
    field("id", "INTEGER", "REQUIRED"),
    field("name", "STRING"),
    field("at", "TIMESTAMP"),
    field("scores", "FLOAT", "REPEATED"),
    WHO,
    field("_predicted_at", "TIMESTAMP"),
]


def changed(name: str, *instead: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns FIELDS with others in the place of one."""
    place = next(place for place, each in enumerate(FIELDS) if each["name"] == name)
    return [*FIELDS[:place], *instead, *FIELDS[place + 1 :]]


@pytest.mark.parametrize(
    ("table_id", "parts"),
    [
        ("p.d.t", ("p", "d", "t")),
        ("my-project:data_set.my-table", ("my-project", "data_set", "my-table")),
        ("example.com:p.d.t", ("example.com:p", "d", "t")),
        ("example.com:p:d.t", ("example.com:p", "d", "t")),
        ("p.d.täble$20260102", ("p", "d", "täble$20260102")),
    ],
)
def test_table_ids(table_id: str, parts: tuple[str, ...]) -> None:
    found = parse_table_id(table_id)
    assert (found.project, found.dataset_id, found.table_id) == parts


@pytest.mark.parametrize(
    "table_id", ["", "t", "d.t", "p:t", "p.d.t.", ".d.t", "p d.x.t", "p/d.x.t", "p.d-d.t", "p.d.`t", "`p.d.t"]
)
def test_no_table_ids(table_id: str) -> None:
    with pytest.raises(UsageError, match=r"is not a table id; write PROJECT.DATASET.TABLE"):
        parse_table_id(table_id)


def test_fields_are_those_of_the_columns_and_the_time() -> None:
    assert table_fields(SCHEMA) == FIELDS
    with pytest.raises(UsageError, match="column '_predicted_at' is among those"):
        table_fields(pa.schema([("_Predicted_At", pa.string())]))
    with pytest.raises(UsageError, match="column 'x' is list<item: list<item: int64>>"):
        table_fields(pa.schema([("x", pa.list_(pa.list_(pa.int64())))]))


def test_a_table_that_is_not_there_is_made_and_then_fits(bigquery: BigQuery) -> None:
    table = f"{bigquery.make_dataset()}.new"
    ensure_table(table, SCHEMA)  # BIGQUERY_EMULATOR_HOST says where
    assert [each.to_api_repr() for each in bigquery.client.get_table(table).schema] == FIELDS
    ensure_table(table.replace(".", ":", 1), SCHEMA)


def test_a_table_may_have_more_and_wider_columns(bigquery: BigQuery) -> None:
    fields = [
        field("extra", "DATE"),
        field("ID", "NUMERIC"),
        *changed("name", field("name", "JSON"))[1:],
        field("span", "INTERVAL"),
    ]
    table = bigquery.make_table(fields)
    ensure_table(table, SCHEMA)
    assert len(bigquery.client.get_table(table).schema) == len(fields)  # it is left as it was


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (
            changed("name"),
            r"has no column 'name', .* as STRING: add it to the table \(--allow_schema_update does\), leave",
        ),
        (changed("scores"), "has no column 'scores', which is to be written as REPEATED FLOAT"),
        (changed("_predicted_at"), "has no column '_predicted_at'"),
        (changed("name", field("name", "INTEGER")), "column 'name' of .* is INTEGER, and STRING is to be written"),
        (changed("at", field("at", "DATETIME")), "column 'at' of .* is DATETIME, and TIMESTAMP is"),
        (changed("at", field("at", "INTERVAL")), "column 'at' of .* is INTERVAL, and TIMESTAMP is"),
        (changed("id", field("id", "FLOAT")), "column 'id' of .* is FLOAT, and INTEGER is"),
        (changed("scores", field("scores", "FLOAT")), "column 'scores' of .* is FLOAT, and REPEATED FLOAT is"),
        (changed("id", field("id", "INTEGER", "REPEATED")), "column 'id' of .* is REPEATED INTEGER, and INTEGER is"),
        (changed("who", field("who", "STRING")), "column 'who' of .* is STRING, and RECORD is"),
        (
            changed("who", field("who", "RECORD", fields=[field("a", "BOOLEAN")])),
            "has no column 'who.b', which is to be written as REPEATED BYTES",
        ),
        (
            changed("who", field("who", "RECORD", fields=[field("a", "STRING"), WHO["fields"][1]])),
            "column 'who.a' of .* is STRING, and BOOLEAN is",
        ),
        ([*FIELDS, field("key", "STRING", "REQUIRED")], "has the REQUIRED column 'key', which is not among"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(bigquery: BigQuery, fields: list[dict[str, Any]], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        ensure_table(bigquery.make_table(fields), SCHEMA, options=TableOptions(asked=BY_FLAGS))


def test_a_dataset_that_is_not_there_is_named(bigquery: BigQuery) -> None:
    with pytest.raises(UsageError, match="there is no dataset proj1:nothing; `bq mk --dataset proj1:nothing` makes"):
        ensure_table("proj1.nothing.t", SCHEMA)


def test_names_that_bigquery_refuses_are_the_users_mistake(bigquery: BigQuery) -> None:
    with pytest.raises(UsageError, match=r"BigQuery refuses to make or show it: .*a/b"):
        ensure_table(f"{bigquery.make_dataset()}.t", pa.schema([("a/b", pa.int64())]))


def test_a_server_that_does_not_answer() -> None:
    with pytest.raises(UsageError, match=r"BigQuery does not answer: .*refused"):
        ensure_table("p.d.t", SCHEMA, f"http://127.0.0.1:{free_port()}", retry_secs=0.1)


def test_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BIGQUERY_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nonexistent.json")
    with pytest.raises(UsageError, match=r"BigQuery needs credentials: .*; `gcloud auth application-default login`"):
        open_client("p")


ADD = TableOptions(allow_schema_update=True)


def test_columns_that_are_missing_are_added_where_that_is_allowed(bigquery: BigQuery) -> None:
    table = bigquery.make_table([field("extra", "DATE"), field("NAME", "STRING")])
    found = ensure_table(table, SCHEMA, options=ADD)
    added = [each for each in FIELDS if each["name"] != "name"]
    wanted = [field("extra", "DATE"), field("NAME", "STRING"), {**added[0], "mode": "NULLABLE"}, *added[1:]]
    assert found == wanted == [each.to_api_repr() for each in bigquery.client.get_table(table).schema]
    etag = bigquery.client.get_table(table).etag
    assert ensure_table(table, SCHEMA, options=ADD) == wanted
    assert bigquery.client.get_table(table).etag == etag  # nothing was missing, and nothing is changed


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (changed("name", field("name", "BYTES")), "column 'name' of .* is BYTES, and STRING is to be written"),
        ([*FIELDS[2:], field("key", "STRING", "REQUIRED")], "has the REQUIRED column 'key', which is not among"),
    ],
)
def test_what_is_there_is_never_changed(bigquery: BigQuery, fields: list[dict[str, Any]], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        ensure_table(bigquery.make_table(fields), SCHEMA, options=ADD)


def test_a_table_is_laid_out_as_it_is_made(bigquery: BigQuery) -> None:
    table = f"{bigquery.make_dataset()}.t"
    layout = parse_layout("at:month", ["name", "id"])
    for _ in range(2):
        ensure_table(table, SCHEMA, options=TableOptions(layout))
    found = bigquery.client.get_table(table)
    assert (found.time_partitioning.field, found.time_partitioning.type_) == ("at", "MONTH")
    assert found.clustering_fields == ["name", "id"]
    ensure_table(table, SCHEMA)
    for other, text in (
        (parse_layout("at"), "is partitioned by at:MONTH, and --partition_by says at:DAY; leave that out"),
        (
            parse_layout("_predicted_at:MONTH"),
            "is partitioned by at:MONTH, and --partition_by says _predicted_at:MONTH",
        ),
        (parse_layout("", ["id"]), "is clustered by name, id, and --cluster_by says id; leave that out"),
    ):
        with pytest.raises(UsageError, match=text):
            ensure_table(table, SCHEMA, options=TableOptions(other))
    plain = bigquery.make_table(FIELDS)
    with pytest.raises(UsageError, match="is not partitioned by time, and --partition_by says at:DAY"):
        ensure_table(plain, SCHEMA, options=TableOptions(parse_layout("at")))
    with pytest.raises(UsageError, match="is clustered by nothing"):
        ensure_table(plain, SCHEMA, options=TableOptions(parse_layout("", ["id"])))


@pytest.mark.parametrize(
    ("layout", "text"),
    [
        (TableLayout("when"), "--partition_by when: the table has no such column; it has id, name, at, "),
        (
            TableLayout("name"),
            "--partition_by name: the column is STRING; it must be one of DATE, DATETIME, TIMESTAMP",
        ),
        (TableLayout("day", "HOUR"), "--partition_by day:HOUR: a DATE has no hours"),
        (TableLayout(clustering=("scores",)), "--cluster_by scores: the column is REPEATED FLOAT; it must be one of"),
        (TableLayout(clustering=("who",)), "--cluster_by who: the column is RECORD"),
    ],
)
def test_a_layout_that_the_columns_do_not_allow(bigquery: BigQuery, layout: TableLayout, text: str) -> None:
    schema = SCHEMA.append(pa.field("day", pa.date32()))
    with pytest.raises(UsageError, match=text):
        ensure_table(f"{bigquery.make_dataset()}.t", schema, options=TableOptions(layout))


def test_layouts() -> None:
    assert parse_layout() == TableLayout()
    assert parse_layout("at", ["a"]) == TableLayout("at", "DAY", ("a",))
    assert parse_layout("at:hour").unit == "HOUR"
    for text in ("at:WEEK", ":DAY"):
        with pytest.raises(UsageError, match=rf"--partition_by {text}: write FIELD or FIELD:DAY\|HOUR\|MONTH\|YEAR"):
            parse_layout(text)
    with pytest.raises(UsageError, match="--cluster_by names 5 columns; BigQuery clusters by 4 at most"):
        parse_layout("", list("abcde"))
