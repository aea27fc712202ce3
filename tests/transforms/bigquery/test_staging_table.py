"""The table that rows wait in: its name, what it has of the other, and that it goes without ado."""

import datetime
from typing import Any

import pytest
from google.api_core.retry import Retry
from google.cloud import bigquery

from sluice.transforms.bigquery import staging_table as module
from sluice.transforms.bigquery.staging_table import drop_staging, staging_id, staging_table


@pytest.mark.parametrize("table", ["p.d.events_2026", "p:d.events_2026", "p.d.events_2026$20260102"])
def test_its_name_is_not_like_the_others(table: str) -> None:
    assert staging_id(table, "job-1_a") == "p.d.sluice_tmp_job_1_a"


def test_it_has_the_columns_and_the_key_of_the_other() -> None:
    fields = [bigquery.SchemaField("id", "INTEGER", "REQUIRED", default_value_expression="7")]
    like = bigquery.Table("p.d.t", fields)
    key = "projects/p/locations/us/keyRings/r/cryptoKeys/k"
    like.encryption_configuration = bigquery.EncryptionConfiguration(f"{key}/cryptoKeyVersions/3")
    table = staging_table("p.d.s", like)
    assert (str(table.reference), table.schema) == ("p.d.s", fields)
    assert table.encryption_configuration.kms_key_name == key
    assert table.expires > datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=24)
    assert staging_table("p.d.s", bigquery.Table("p.d.t")).encryption_configuration is None


class Client:
    """Fails as it is told to."""

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
def test_dropping_it_never_fails_and_is_soon_over(monkeypatch: pytest.MonkeyPatch, error: Exception | None) -> None:
    client = Client(error)
    monkeypatch.setattr(module, "open_client", lambda *_: client)
    drop_staging("p.d.s")
    ((table, retry, timeout),) = client.asked
    assert (table, client.closed) == ("p.d.s", True)
    assert retry._timeout + 2 * timeout <= 30  # the last try may take the time to connect, and that to be answered


def test_dropping_it_without_credentials_does_not_fail(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.delenv("BIGQUERY_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    drop_staging("p.d.s")
