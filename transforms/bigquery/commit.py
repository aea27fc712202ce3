"""Rows that bundles have appended to streams of a table, seen once the job is judged."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from google.api_core.exceptions import GoogleAPICallError, RetryError
from google.cloud import bigquery

from sluice.models.errors import SluiceError
from sluice.transforms.bigquery import clients as bigquery_clients
from sluice.transforms.bigquery.jobs import JobFailed, JobRunner, with_key
from sluice.transforms.bigquery.read_session import quoted
from sluice.transforms.bigquery.staging_table import drop_staging
from sluice.transforms.bigquery.table import open_client, parse_table_id
from sluice.transforms.bigquery.table_target import EMPTY, TRUNCATE, TableTarget, has_rows
from sluice.transforms.bigquery.write_streams import RowStream, commit_streams, is_committed, table_path

_CALL_SECS = 60.0


@dataclasses.dataclass(frozen=True)
class TableCommitter:
    """A table, as a `Committer`: its parts are the `RowStream`s that WriteTableRows gave.

    The rows are seen all at once; if this never succeeds, none is. But a job that appends more than 10,000 streams, or
    800 GB, needs several commits: if it ends for good between two of them, the rows of the first are there, and once.

    Attributes:
      retry_secs: how long a call is repeated that BigQuery does not answer.
      endpoint: see transforms.bigquery.clients.write_client.
    """

    target: TableTarget
    retry_secs: float = 300.0
    endpoint: str | None = None

    def commit(self, streams: Sequence[RowStream]) -> tuple[str, ...]:
        client = bigquery_clients.write_client(self.endpoint)
        try:
            ordered = sorted(set(streams), key=lambda stream: stream.name)
            commit_rows(client, self.target, ordered, self.retry_secs)
        finally:
            bigquery_clients.close(client)
        return ()

    def clean_up(self) -> None:
        if self.target.rows_table != self.target.table:
            drop_staging(self.target.rows_table, self.target.endpoint)


def commit_rows(client: Any, target: TableTarget, streams: list[RowStream], retry_secs: float) -> None:
    """Has the streams' rows seen in the target's table; may be called again after it was interrupted.

    Raises:
      SluiceError: it cannot be done.
    """
    if target.disposition == TRUNCATE:
        _truncate(client, target, streams, retry_secs)
        return
    if target.disposition == EMPTY and not any(is_committed(client, each.name, retry_secs) for each in streams[:1]):
        _check_empty(target, retry_secs)
    commit_streams(client, table_path(target.table), streams, retry_secs)


def _check_empty(target: TableTarget, retry_secs: float) -> None:
    if has_rows(target.table, target.endpoint, retry_secs):
        raise SluiceError(
            f"table {target.table} has got rows since the job began, and --write_disposition empty says that it has "
            "none; its predictions are not written"
        )


def _truncate(client: Any, target: TableTarget, streams: list[RowStream], retry_secs: float) -> None:
    rest = open_client(parse_table_id(target.table).project, target.endpoint)
    try:
        retry = bigquery.DEFAULT_RETRY.with_timeout(retry_secs)
        table = rest.get_table(target.table, retry=retry, timeout=_CALL_SECS)
        runner = JobRunner(rest, table.location, retry_secs)
        name = f"sluice_{target.job}"
        if not runner.has_run(name):
            commit_streams(client, table_path(target.rows_table), streams, retry_secs)
            _replace_rows(runner, name, target, table)
    except (GoogleAPICallError, RetryError, JobFailed) as error:
        raise SluiceError(f"table {target.table}: its rows cannot be replaced: {error}") from error
    finally:
        rest.close()


def _replace_rows(runner: JobRunner, name: str, target: TableTarget, table: bigquery.Table) -> None:
    """Replaces the table's rows by those of the other one, in one job.

    It is a query and no copy: a copy leaves out rows that BigQuery has not yet moved out of its write buffer, where
    those of streams may be for an hour and more after their commit. Nor does it touch the schema; but what it gives is
    NULLABLE, so plan_table takes no table with REQUIRED columns.
    """
    config = bigquery.QueryJobConfig(
        destination=target.table,
        write_disposition=bigquery.WriteDisposition.WRITE_TRUNCATE_DATA,
        create_disposition=bigquery.CreateDisposition.CREATE_NEVER,
        use_query_cache=False,
    )
    runner.query(name, f"SELECT * FROM {quoted(target.rows_table)}", with_key(config, table))
