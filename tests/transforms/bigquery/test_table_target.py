"""Which tables a batch job writes, decided at launch by a fake client; and staging tables."""

import datetime
import re
from typing import Any

import pyarrow as pa
import pytest
from google.api_core.exceptions import NotFound
from google.api_core.retry import Retry
from google.cloud import bigquery

from sluice.models.errors import UsageError
from sluice.transforms.bigquery import table as bigquery_table
from sluice.transforms.bigquery import table_target
from sluice.transforms.bigquery.asked import BY_ARGUMENTS, BY_FLAGS, Asked
from sluice.transforms.bigquery.schema import required_columns
from sluice.transforms.bigquery.table import TableOptions, ensure_fields, table_fields
from sluice.transforms.bigquery.table_target import (
    TableTarget,
    drop_staging,
    has_rows,
    no_more_empty,
    plan_table,
    staging_id,
    staging_table,
)
from sluice.transforms.bigquery.write_failures import FIELDS, ensure_failure_table, plan_failure_table
from tests.support.servers import free_port

SCHEMA = pa.schema([("id", pa.int64()), ("one", pa.struct([pa.field("x", pa.string(), nullable=False)]))])
KEY = "projects/p/locations/us/keyRings/r/cryptoKeys/k"


class Client:
    """Knows the given tables, and those that are made."""

    def __init__(self, *tables: bigquery.Table) -> None:
        self.tables = {str(table.reference): table for table in tables}
        self.timeouts: list[float] = []

    def get_table(self, table: Any, retry: Any, timeout: float) -> bigquery.Table:
        self.timeouts.append(retry._timeout)
        if str(table) not in self.tables:
            raise NotFound("there is none")
        return self.tables[str(table)]

    def create_table(self, table: bigquery.Table, exists_ok: bool, retry: Any, timeout: float) -> bigquery.Table:
        assert exists_ok
        self.timeouts.append(retry._timeout)
        return self.tables.setdefault(str(table.reference), table)

    def list_rows(self, table: Any, max_results: int, retry: Any, timeout: float) -> list[Any]:
        self.timeouts.append(retry._timeout)
        return []

    def close(self) -> None:
        pass


def table(fields: Any = None, kind: str = "TABLE", **more: Any) -> bigquery.Table:
    return bigquery.Table.from_api_repr(
        {
            "tableReference": {"projectId": "p", "datasetId": "d", "tableId": "t"},
            "schema": {"fields": table_fields(SCHEMA) if fields is None else fields},
            "type": kind,
            **more,
        }
    )


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Returns a function that directs all calls to a Client with these tables."""

    def serve(*tables: bigquery.Table) -> Client:
        client = Client(*tables)
        for module in (bigquery_table, table_target):
            monkeypatch.setattr(module, "open_client", lambda *_: client)
        return client

    return serve


def modes(found: bigquery.Table) -> list[str]:
    return required_columns(field.to_api_repr() for field in found.schema)


# Tables with REQUIRED columns ---------------------------------------------------------------------------------------


def test_required_columns() -> None:
    inner = {"name": "x", "type": "STRING", "mode": "REQUIRED"}
    fields = [
        {"name": "id", "type": "INTEGER", "mode": "REQUIRED"},
        {"name": "n", "type": "INTEGER"},
        {"name": "many", "type": "RECORD", "mode": "REPEATED", "fields": [inner, {**inner, "mode": "NULLABLE"}]},
    ]
    assert required_columns(fields) == ["id", "many.x"]


@pytest.mark.parametrize("name", ["id", "one.x"])
def test_a_table_with_required_columns_is_not_replaced_by_a_query(serve: Any, name: str) -> None:
    fields = table_fields(SCHEMA)
    fields[0]["mode"] = "REQUIRED" if name == "id" else "NULLABLE"
    fields[1]["fields"][0]["mode"] = "REQUIRED" if name == "one.x" else "NULLABLE"
    client = serve(table(fields))
    text = (
        rf"truncate: table p.d.t has REQUIRED columns \({name}\), .* give --write_method file_loads, .* NULLABLE in the"
    )
    with pytest.raises(UsageError, match=text):
        plan_table("p.d.t", SCHEMA, "j", "truncate", TableOptions(asked=BY_FLAGS))
    assert list(client.tables) == ["p.d.t"]  # and no staging table
    assert plan_table("p.d.t", SCHEMA, "j", "truncate", loaded=True).rows_table == "p.d.t"
    assert plan_table("p.d.t", SCHEMA, "j").rows_table == "p.d.t"


def test_a_table_that_is_made_for_it_has_none(serve: Any) -> None:
    client = serve()
    target = plan_table("p.d.t", SCHEMA, "j", "truncate")
    assert modes(client.tables["p.d.t"]) == []
    assert target.schema.field("one").type.field("x").nullable
    loaded = serve()
    plan_table("p.d.t", SCHEMA, "j", "truncate", loaded=True)
    assert modes(loaded.tables["p.d.t"]) == ["one.x"]


def test_rows_wait_in_a_table_of_the_same_key(serve: Any) -> None:
    fields = [{**field, "mode": "NULLABLE"} for field in table_fields(SCHEMA)]
    fields[1]["fields"] = [{"name": "x", "type": "STRING", "mode": "NULLABLE"}]
    client = serve(table(fields, encryptionConfiguration={"kmsKeyName": KEY}))
    target = plan_table("p.d.t", SCHEMA, "job-1", "truncate", retry_secs=7.0)
    assert target.rows_table == "p.d.sluice_tmp_job_1"
    staging = client.tables[target.rows_table]
    assert staging.encryption_configuration.kms_key_name == KEY
    assert staging.schema == client.tables["p.d.t"].schema
    assert set(client.timeouts) == {7.0}


@pytest.mark.parametrize(
    ("asked", "name", "loads"), [(BY_ARGUMENTS, "disposition", False), (BY_FLAGS, "--write_disposition", True)]
)
def test_errors_name_what_the_user_has_given(serve: Any, asked: Asked, name: str, loads: bool) -> None:
    """A pipeline of one's own has no flags."""
    refused = ["p.d.t$20260102", "p.d.t", "p.d.t"]
    required = [dict(field, mode="REQUIRED") for field in table_fields(SCHEMA)]
    texts = []
    for table_id, disposition in zip(refused, ("truncate", "truncate", "empty"), strict=True):
        serve(table(required, numRows="3"))
        with pytest.raises(UsageError) as raised:
            plan_table(table_id, SCHEMA, "j", disposition, TableOptions(asked=asked))
        texts.append(str(raised.value))
    target = TableTarget("p.d.t", "p.d.t", SCHEMA, "empty", "j", asked=asked)
    texts.append(str(no_more_empty(target)))
    named = [re.findall(r"\S*disposition (?:truncate|empty)", text) for text in texts]
    assert named == [[f"{name} truncate"], [f"{name} truncate"], [f"{name} empty"], [f"{name} empty"]]
    assert ["--" in text for text in texts] == [loads] * 4
    assert ("file_loads" in texts[1]) is loads


@pytest.mark.parametrize(("asked", "flags"), [(BY_ARGUMENTS, []), (BY_FLAGS, ["--allow_schema_update"])])
def test_errors_of_columns_name_what_the_user_has_given(serve: Any, asked: Asked, flags: list[str]) -> None:
    left_out = ["--exclude_columns"] if flags else []
    one = SCHEMA.field("one")
    fields = table_fields(SCHEMA)
    cases = [
        (fields[1:], SCHEMA, [*flags, *left_out]),  # a column that the table lacks
        ([{**fields[0], "type": "DATE"}, *fields[1:]], SCHEMA, left_out),
        (fields, pa.schema([one, pa.field("_predicted_at", pa.string())]), left_out),
        (fields, pa.schema([one, pa.field("x", pa.duration("s"))]), left_out),
        (fields, pa.schema([one, pa.field("x", pa.list_(pa.list_(pa.int64())))]), left_out),
        (fields, pa.schema([one, pa.field("x", pa.decimal256(76, 0))]), left_out),
        (fields, pa.schema([one, pa.field("ONE", pa.int64())]), ["--output_prefix"] if flags else []),
    ]
    for there, schema, named in cases:
        serve(table(there))
        with pytest.raises(UsageError) as raised:
            plan_table("p.d.t", schema, "j", options=TableOptions(asked=asked))
        assert re.findall(r"--\w+", str(raised.value)) == named, str(raised.value)


# Tables that are not written to ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["VIEW", "EXTERNAL", "MATERIALIZED_VIEW", "SNAPSHOT"])
def test_views_and_the_like_are_refused(serve: Any, kind: str) -> None:
    serve(table(kind=kind))
    text = f"p.d.t is not a table but a {kind.lower().replace('_', ' ')}, which Sluice does not write to: name a table"
    with pytest.raises(UsageError, match=text):
        plan_table("p.d.t", SCHEMA, "j")


def test_partitions_are_for_load_jobs(serve: Any) -> None:
    client = serve(table())
    named = "p.d.t$20260102"
    text = r"p\.d\.t\$20260102: rows are not appended to single partitions: name the table"
    for asked, remedy in ((BY_FLAGS, "; a batch job writes to one with --write_method file_loads"), (BY_ARGUMENTS, "")):
        for disposition in ("append", "empty"):
            with pytest.raises(UsageError, match=f"{text}{remedy}$"):
                plan_table(named, SCHEMA, "j", disposition, TableOptions(asked=asked))
        with pytest.raises(UsageError, match=f"{text}{remedy}$"):
            ensure_fields(named, table_fields(SCHEMA), options=TableOptions(asked=asked))  # as a stream does
    for plan in (ensure_failure_table, lambda table_id: plan_failure_table(table_id, "j")):
        with pytest.raises(UsageError, match=f"{text}$"):
            plan(named)
    assert plan_table(named, SCHEMA, "j", loaded=True).table == named
    assert list(client.tables) == ["p.d.t"]


def test_failures_go_to_a_table(serve: Any) -> None:
    serve(table(list(FIELDS), "VIEW"))
    with pytest.raises(UsageError, match="is not a table but a view"):
        plan_failure_table("p.d.t", "j")


# A server that does not answer --------------------------------------------------------------------------------------


def test_whether_there_are_rows_is_asked_for_so_long(serve: Any) -> None:
    client = serve(table())
    plan_table("p.d.t", SCHEMA, "j", "empty", TableOptions(), retry_secs=7.0)
    assert client.timeouts == [7.0, 7.0, 7.0]


def test_a_server_that_does_not_say_whether_there_are_rows() -> None:
    with pytest.raises(UsageError, match=r"BigQuery does not show whether it has rows: .*refused"):
        has_rows("p.d.t", f"http://127.0.0.1:{free_port()}", retry_secs=0.1)


# Staging tables -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", ["p.d.events_2026", "p:d.events_2026", "p.d.events_2026$20260102"])
def test_a_staging_tables_name_has_no_common_prefix(table: str) -> None:
    assert staging_id(table, "job-1_a") == "p.d.sluice_tmp_job_1_a"


def test_a_staging_table_has_the_columns_and_the_key_of_the_other() -> None:
    fields = [bigquery.SchemaField("id", "INTEGER", "REQUIRED", default_value_expression="7")]
    like = bigquery.Table("p.d.t", fields)
    key = "projects/p/locations/us/keyRings/r/cryptoKeys/k"
    like.encryption_configuration = bigquery.EncryptionConfiguration(f"{key}/cryptoKeyVersions/3")
    table = staging_table("p.d.s", like)
    assert (str(table.reference), table.schema) == ("p.d.s", fields)
    assert table.encryption_configuration.kms_key_name == key
    assert table.expires > datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=24)
    assert staging_table("p.d.s", bigquery.Table("p.d.t")).encryption_configuration is None


class Dropper:
    """A client whose deletions raise the given error."""

    def __init__(self, error: Exception | None = None) -> None:
        self.asked: list[tuple[str, Retry, float]] = []
        self.closed = False
        self._error = error

    def delete_table(self, table: str, not_found_ok: bool, retry: Retry, timeout: float) -> None:
        assert not_found_ok
        self.asked.append((table, retry, timeout))
        if self._error:
            raise self._error

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("error", [None, ValueError("no JSON"), ConnectionError("cut off")])
def test_dropping_a_staging_table_never_fails_and_is_brief(
    monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    client = Dropper(error)
    monkeypatch.setattr(table_target, "open_client", lambda *_: client)
    drop_staging("p.d.s")
    ((table, retry, timeout),) = client.asked
    assert (table, client.closed) == ("p.d.s", True)
    assert retry._timeout + 2 * timeout <= 30  # the last try may take the time to connect, and that to be answered


def test_dropping_a_staging_table_without_credentials_does_not_fail(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.delenv("BIGQUERY_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    drop_staging("p.d.s")
