"""A table at launch: ids, fields, and what `ensure_table` makes, takes and refuses."""

from typing import Any

import pyarrow as pa
import pytest

from models.errors import UsageError
from tests.servers import BigQuery, free_port
from transforms.bigquery_table import ensure_table, open_client, parse_table_id, table_fields

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
    """FIELDS with others in the place of one."""
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


@pytest.mark.parametrize("table_id", ["", "t", "d.t", "p:t", "p.d.t.", ".d.t", "p d.x.t", "p/d.x.t", "p.d-d.t"])
def test_no_table_ids(table_id: str) -> None:
    with pytest.raises(UsageError, match=r"is no table; write PROJECT.DATASET.TABLE"):
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
        (changed("name"), "has no column 'name', which is to be written as STRING: add it"),
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
        ensure_table(bigquery.make_table(fields), SCHEMA)


def test_a_dataset_that_is_not_there_is_named(bigquery: BigQuery) -> None:
    with pytest.raises(UsageError, match="there is no dataset proj1:nothing; `bq mk --dataset proj1:nothing` makes"):
        ensure_table("proj1.nothing.t", SCHEMA)


def test_names_that_bigquery_refuses_are_the_users_mistake(bigquery: BigQuery) -> None:
    with pytest.raises(UsageError, match=r"BigQuery refuses to make or show it: .*a/b"):
        ensure_table(f"{bigquery.make_dataset()}.t", pa.schema([("a/b", pa.int64())]))


def test_nobody_answers() -> None:
    with pytest.raises(UsageError, match=r"BigQuery does not answer: .*refused"):
        ensure_table("p.d.t", SCHEMA, f"http://127.0.0.1:{free_port()}", retry_secs=0.1)


def test_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BIGQUERY_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nonexistent.json")
    with pytest.raises(UsageError, match=r"BigQuery needs credentials: .*; `gcloud auth application-default login`"):
        open_client("p")
