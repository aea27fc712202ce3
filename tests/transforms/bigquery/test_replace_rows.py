"""The jobs that replace a table's rows: their configuration, recorded by a fake runner."""

from typing import Any

import pyarrow as pa
import pytest
from google.cloud import bigquery

from sluice.transforms.bigquery.file_loads import LoadCommitter
from sluice.transforms.bigquery.jobs import replace_rows
from sluice.transforms.bigquery.table_target import TableTarget
from sluice.transforms.files.write import Target

KEY = "projects/p/locations/us/keyRings/r/cryptoKeys/k"
SCHEMA = pa.schema([("id", pa.int64())])


class Runner:
    """
    Attributes:
      jobs: the kind, what is read, and the configuration.
    """

    def __init__(self) -> None:
        self.jobs: list[tuple[str, Any, Any]] = []

    def load(self, name: str, uris: Any, table: str, config: Any) -> None:
        self.jobs.append(("load", uris, config))

    def query(self, name: str, text: str, config: Any) -> None:
        self.jobs.append(("query", text, config))

    def copy(self, name: str, source: str, table: str, config: Any) -> None:
        self.jobs.append(("copy", source, config))


def table(mode: str = "NULLABLE", key: str = KEY) -> bigquery.Table:
    found = bigquery.Table("p.d.t", [bigquery.SchemaField("id", "INTEGER", mode)])
    found.encryption_configuration = bigquery.EncryptionConfiguration(key) if key else None
    return found


def shown(disposition: str, like: bigquery.Table) -> tuple[str, Any, Any]:
    """Returns the one job that makes the rows of several load jobs visible."""
    target = TableTarget("p.d.t", "p.d.t", SCHEMA, disposition, "j")
    runner = Runner()
    LoadCommitter(target, Target("gs://b/t/rows", ".parquet", "gs://b/t"))._show(runner, "n", like)  # type: ignore[arg-type]
    (job,) = runner.jobs
    return job


@pytest.mark.parametrize("key", [KEY, ""])
def test_appended_rows_replace_the_others_under_the_same_key(key: str) -> None:
    runner = Runner()
    replace_rows(runner, "n", "p.d.sluice_tmp_j", table(key=key))  # type: ignore[arg-type]
    ((kind, text, config),) = runner.jobs
    assert (kind, text) == ("query", "SELECT * FROM `p.d.sluice_tmp_j`")
    assert config.write_disposition == "WRITE_TRUNCATE_DATA"
    found = config.destination_encryption_configuration
    assert (found.kms_key_name if found else "") == key


@pytest.mark.parametrize(
    ("disposition", "mode", "kind", "word"),
    [
        ("truncate", "NULLABLE", "query", "WRITE_TRUNCATE_DATA"),
        ("truncate", "REQUIRED", "copy", "WRITE_TRUNCATE"),  # a query's results are never REQUIRED
        ("append", "REQUIRED", "copy", "WRITE_APPEND"),
        ("empty", "NULLABLE", "copy", "WRITE_EMPTY"),
    ],
)
def test_loaded_rows_are_seen_under_the_same_key(disposition: str, mode: str, kind: str, word: str) -> None:
    found, source, config = shown(disposition, table(mode))
    assert (found, config.write_disposition) == (kind, word)
    assert source in ("p.d.sluice_tmp_j", "SELECT * FROM `p.d.sluice_tmp_j`")
    assert config.destination_encryption_configuration.kms_key_name == KEY


def test_one_load_job_keeps_the_key() -> None:
    """The client answers for the table, and starts the load; it knows no other call."""

    class Client:
        def get_table(self, *_: Any, **__: Any) -> bigquery.Table:
            return table()

        def load_table_from_uri(self, *_: Any, job_config: Any, **__: Any) -> Any:
            asked.append(job_config)
            return Done()

    class Done:
        state, error_result = "DONE", None

    asked: list[Any] = []
    place = LoadCommitter(
        TableTarget("p.d.t", "p.d.t", SCHEMA, "truncate", "j"), Target("gs://b/r", ".parquet", "gs://b")
    )
    place._load(Client(), [[]])  # type: ignore[arg-type]
    (config,) = asked
    assert config.destination_encryption_configuration.kms_key_name == KEY
