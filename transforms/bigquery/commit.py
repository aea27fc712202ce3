"""Commit of the rows that a batch job's bundles have appended to pending streams of a table.

https://cloud.google.com/bigquery/docs/write-api-batch: a pending stream must be committed within 24 hours, and its rows
stay for up to 4 hours once it is finalized. So streams are finalized just before the commit.
Limits: https://cloud.google.com/bigquery/quotas#write-api-limits
"""

import dataclasses
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

from google.api_core.exceptions import GoogleAPICallError, RetryError
from google.cloud.bigquery_storage_v1.services.big_query_write import BigQueryWriteClient
from google.cloud.bigquery_storage_v1.types import StorageError

from sluice.models.errors import SluiceError
from sluice.transforms.bigquery import clients
from sluice.transforms.bigquery.jobs import JobFailed, JobRunner, replace_rows
from sluice.transforms.bigquery.table import parse_table_id, table_path
from sluice.transforms.bigquery.table_target import EMPTY, TRUNCATE, TableTarget, drop_staging, has_rows, no_more_empty
from sluice.transforms.bigquery.write import RowStream
from sluice.transforms.core.committer import in_groups

# Of one commit. The bytes are the limit of a region (a multi-region's is ten times that), less what BigQuery may count
# that is not counted here.
_MAX_STREAMS = 10_000
_MAX_BYTES = 800_000_000_000
# Streams that are finalized at the same time.
_FINALIZERS = 32
_CODES = StorageError.StorageErrorCode


@dataclasses.dataclass(frozen=True)
class TableCommitter:
    """A table, as a `Committer`: its parts are the `RowStream`s that WriteTableRows returned.

    All rows become visible at once, or none ever does. But a job that appends more than 10,000 streams, or 800 GB,
    needs several commits: if it ends for good between two of them, the rows of the first are there, and once.

    Attributes:
      retry_secs: how long a call that BigQuery does not answer is repeated.
      endpoint: see transforms.bigquery.clients.write_client.
    """

    target: TableTarget
    retry_secs: float = 300.0
    endpoint: str | None = None

    def claim(self, streams: Sequence[RowStream]) -> None:
        """Rows are appended or replaced at once, so that jobs need not wait for each other."""

    def commit(self, streams: Sequence[RowStream]) -> tuple[str, ...]:
        client = clients.write_client(self.endpoint)
        try:
            ordered = sorted(set(streams), key=lambda stream: stream.name)
            commit_rows(client, self.target, ordered, self.retry_secs)
        finally:
            clients.close(client)
        return ()

    def clean_up(self) -> None:
        if self.target.rows_table != self.target.table:
            drop_staging(self.target.rows_table, self.target.endpoint)

    def note(self, streams: Sequence[RowStream]) -> dict[str, Any]:
        """See transforms.core.committer.Resumable. Rows that wait in a staging table are not for another process."""
        assert self.target.rows_table == self.target.table
        return {"streams": [dataclasses.astuple(stream) for stream in streams]}

    def noted(self, note: dict[str, Any]) -> tuple[Self, list[RowStream]]:
        return self, [RowStream(*each) for each in note["streams"]]


def commit_rows(client: BigQueryWriteClient, target: TableTarget, streams: list[RowStream], retry_secs: float) -> None:
    """Makes the streams' rows visible in the target's table; may be called again after it was interrupted.

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
        raise no_more_empty(target)


def _truncate(client: BigQueryWriteClient, target: TableTarget, streams: list[RowStream], retry_secs: float) -> None:
    rest = clients.open_client(parse_table_id(target.table).project, target.endpoint)
    try:
        table = rest.get_table(target.table, **clients.call_options(retry_secs))
        runner = JobRunner(rest, table.location, retry_secs)
        name = f"sluice_{target.job}"
        if not runner.has_run(name):
            commit_streams(client, table_path(target.rows_table), streams, retry_secs)
            replace_rows(runner, name, target.rows_table, table)
    except (GoogleAPICallError, RetryError, JobFailed) as error:
        raise SluiceError(f"table {target.table}: its rows cannot be replaced: {error}") from error
    finally:
        rest.close()


def commit_streams(client: BigQueryWriteClient, table: str, streams: Sequence[RowStream], retry_secs: float) -> None:
    """Finalizes streams, and makes their rows visible.

    The rows of up to 10,000 streams, of up to 800 GB, become visible at once; those of more in several commits. A
    stream is committed once, however often this is called: it may be called again after it was interrupted.

    Raises:
      SluiceError: a stream cannot be committed. Then none of its commit is, and those of earlier commits are.
    """
    for group in commit_groups(streams):
        with ThreadPoolExecutor(_FINALIZERS) as pool:
            list(pool.map(lambda stream: _finalize(client, stream, retry_secs), group))
        left = [stream.name for stream in group]
        while left:
            left = _commit(client, table, left, retry_secs)


def commit_groups(
    streams: Sequence[RowStream], max_streams: int = _MAX_STREAMS, max_bytes: int = _MAX_BYTES
) -> Iterator[list[RowStream]]:
    """Yields what is committed at once."""
    return in_groups(streams, lambda stream: stream.name, max_streams, max_bytes)


def _finalize(client: BigQueryWriteClient, stream: RowStream, retry_secs: float) -> None:
    """Closes a stream, unless it is committed already.

    Raises:
      SluiceError: it cannot be closed, or holds another number of rows.
    """
    what = f"{stream.name} cannot be finalized"
    try:
        answer = clients.call_storage(what, client.finalize_write_stream, retry_secs, name=stream.name)
    except SluiceError:
        if not is_committed(client, stream.name, retry_secs):
            raise
        return
    if answer.row_count != stream.rows and not is_committed(client, stream.name, retry_secs):
        raise SluiceError(
            f"{stream.name} holds {answer.row_count} rows, and {stream.rows} were appended to it: rows are missing or "
            "double"
        )


def _commit(client: BigQueryWriteClient, table: str, names: list[str], retry_secs: float) -> list[str]:
    """Commits streams, or none of them; returns those that are left to commit, if others were committed before."""
    what = f"{len(names)} streams of {table} cannot be committed"
    request = {"parent": table, "write_streams": names}
    answer = clients.call_storage(what, client.batch_commit_write_streams, retry_secs, request=request)
    if answer.commit_time is not None:
        return []
    errors = answer.stream_errors
    before = {error.entity for error in errors if _was_committed(client, error, retry_secs)}
    left = [name for name in names if name not in before]
    if len(left) == len(names):
        said = "no reason"
        if errors:
            said = f"{errors[0].entity}: {errors[0].error_message} ({_CODES(errors[0].code).name})"
        raise SluiceError(
            f"{what}: {said}. BigQuery keeps a stream for a day: start the job anew, with --write_method file_loads if "
            "it takes longer"
        )
    return left


def _was_committed(client: BigQueryWriteClient, error: StorageError, retry_secs: float) -> bool:
    if error.code == _CODES.STREAM_ALREADY_COMMITTED:
        return True
    # The state that is invalid may be that the stream is committed.
    return error.code == _CODES.INVALID_STREAM_STATE and is_committed(client, error.entity, retry_secs)


def is_committed(client: BigQueryWriteClient, name: str, retry_secs: float) -> bool:
    """Whether a stream has been committed.

    Raises:
      SluiceError: there is no such stream.
    """
    stream = clients.call_storage(f"{name} is not found", client.get_write_stream, retry_secs, name=name)
    return stream.commit_time is not None
