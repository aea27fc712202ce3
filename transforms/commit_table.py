"""The last step of a batch job that writes a table: judges it, and has the rows that its bundles have written seen."""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
from google.api_core.exceptions import Conflict, GoogleAPICallError, NotFound, RetryError
from google.cloud import bigquery

from models.errors import SluiceError
from transforms import bigquery_clients
from transforms.bigquery_table import open_client, parse_table_id
from transforms.commit_files import Judgement, put_in_place
from transforms.composite import Composite
from transforms.table_target import EMPTY, TRUNCATE, TableTarget, has_rows
from transforms.write_files import Shard, Target, remove_temp
from transforms.write_streams import RowStream, commit_streams, is_committed, table_path

# How often a job is started that replaces a table's rows, if it fails.
_REPLACE_TRIES = 3
_CALL_SECS = 60.0


@dataclasses.dataclass(frozen=True)
class CommittedTable:
    """What a job has written."""

    rows_in: int
    predictions: int
    failures: int
    table: str
    failure_files: tuple[str, ...]


class CommitTable(Composite):
    """Puts the failures in place, judges the job, and has its predictions seen in the table.

    They are seen all at once, and each is there once, however often this step is tried and wherever it is interrupted;
    if it never succeeds, none is there. But a job that appends more than 10,000 streams, or 800 GB, needs several
    commits: if it ends for good between two of them, the rows of the first are there, and once.

    Args:
      streams, failure_shards: what `WriteTableRows` and `WriteFailures` gave.
      tally: how many rows were read (ints to be summed).
      retry_secs: how long a call is repeated that BigQuery does not answer.
      endpoint: see transforms.bigquery_clients.write_client.
    """

    def __init__(
        self,
        target: TableTarget,
        failures_target: Target,
        judgement: Judgement,
        retry_secs: float = 300.0,
        endpoint: str | None = None,
    ) -> None:
        super().__init__()
        self._fn = _Commit(target, failures_target, judgement, retry_secs, endpoint)

    def expand(self, written: tuple[beam.PCollection, beam.PCollection, beam.PCollection]) -> beam.PCollection:
        streams, failure_shards, tally = (beam.pvalue.AsList(each) for each in written)
        begin = written[0].pipeline | "Once" >> beam.Create([0])
        return begin | "Judge" >> beam.ParDo(self._fn, streams, failure_shards, tally)


@beam.typehints.with_output_types(CommittedTable)
class _Commit(beam.DoFn):
    def __init__(
        self,
        target: TableTarget,
        failures_target: Target,
        judgement: Judgement,
        retry_secs: float,
        endpoint: str | None,
    ) -> None:
        self._target = target
        self._failures_target = failures_target
        self._judgement = judgement
        self._retry_secs = retry_secs
        self._endpoint = endpoint

    def process(
        self, _: int, streams: list[RowStream], failure_shards: list[Shard], tally: list[int]
    ) -> Iterator[CommittedTable]:
        streams = sorted(set(streams), key=lambda stream: stream.name)
        rows_in = sum(tally)
        predictions = sum(stream.rows for stream in streams)
        failures = sum(shard.rows for shard in failure_shards)
        failure_files = put_in_place(self._failures_target, failure_shards)
        try:
            self._judgement.check(rows_in, predictions, failures)
        except SluiceError:
            drop_staging(self._target)
            raise
        client = bigquery_clients.write_client(self._endpoint)
        try:
            commit_rows(client, self._target, streams, self._retry_secs)
        finally:
            bigquery_clients.close(client)
        remove_temp(self._failures_target)
        yield CommittedTable(rows_in, predictions, failures, self._target.table, tuple(failure_files))


def commit_rows(client: Any, target: TableTarget, streams: list[RowStream], retry_secs: float) -> None:
    """Has the streams' rows seen in the target's table; may be called again after it was interrupted.

    Raises:
      SluiceError: it cannot be done.
    """
    if target.disposition == TRUNCATE:
        _truncate(client, target, streams, retry_secs)
        return
    if target.disposition == EMPTY and not any(is_committed(client, each.name, retry_secs) for each in streams[:1]):
        _check_empty(target)
    commit_streams(client, table_path(target.table), streams, retry_secs)


def _check_empty(target: TableTarget) -> None:
    if has_rows(target.table, target.endpoint):
        raise SluiceError(
            f"table {target.table} has got rows since the job began, and --write_disposition empty says that it has "
            "none; its predictions are not written"
        )


def _truncate(client: Any, target: TableTarget, streams: list[RowStream], retry_secs: float) -> None:
    rest = open_client(parse_table_id(target.table).project, target.endpoint)
    try:
        location = rest.get_table(target.table, timeout=_CALL_SECS).location
        if not any(_is_done(rest, job_id, location) for job_id in _job_ids(target)):
            commit_streams(client, table_path(target.rows_table), streams, retry_secs)
            _replace_rows(rest, target, location)
    except (GoogleAPICallError, RetryError) as error:
        raise SluiceError(f"table {target.table}: its rows cannot be replaced: {error}") from error
    finally:
        rest.close()
    drop_staging(target)


def _job_ids(target: TableTarget) -> list[str]:
    """Returns the names that the job has, and had if this step is tried again."""
    return [f"sluice_{target.job}_{number}" for number in range(_REPLACE_TRIES)]


def _is_done(client: bigquery.Client, job_id: str, location: str | None) -> bool:
    try:
        job = client.get_job(job_id, location=location, timeout=_CALL_SECS)
    except NotFound:
        return False
    return job.state == "DONE" and not job.error_result


def _replace_rows(client: bigquery.Client, target: TableTarget, location: str | None) -> None:
    """Replaces the table's rows by those of the other one, in one job.

    It is a query and no copy: a copy leaves out rows that BigQuery has not yet moved out of its write buffer, where
    those of streams may be for an hour and more after their commit. Nor does it touch the schema.
    """
    config = bigquery.QueryJobConfig(
        destination=target.table,
        write_disposition=bigquery.WriteDisposition.WRITE_TRUNCATE_DATA,
        create_disposition=bigquery.CreateDisposition.CREATE_NEVER,
        use_query_cache=False,
    )
    reason: Exception | None = None
    for job_id in _job_ids(target):
        try:
            _run(client, f"SELECT * FROM `{target.rows_table}`", config, job_id, location)
            return
        except GoogleAPICallError as error:
            reason = error
    raise SluiceError(f"table {target.table}: its rows cannot be replaced: {reason}") from reason


def _run(
    client: bigquery.Client, text: str, config: bigquery.QueryJobConfig, job_id: str, location: str | None
) -> None:
    """Runs the job, or waits for the one that an earlier try has started."""
    try:
        job = client.query(text, config, job_id, location=location, timeout=_CALL_SECS, job_retry=None)
    except Conflict:
        job = client.get_job(job_id, location=location, timeout=_CALL_SECS)
    job.result()


def drop_staging(target: TableTarget) -> None:
    """Deletes the table that rows waited in, if there is one; else it expires."""
    if target.rows_table == target.table:
        return
    client = open_client(parse_table_id(target.table).project, target.endpoint)
    with contextlib.closing(client), contextlib.suppress(GoogleAPICallError, RetryError):
        client.delete_table(target.rows_table, not_found_ok=True, timeout=_CALL_SECS)
