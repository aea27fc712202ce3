"""A session of BigQuery's Storage Read API: which rows, of which columns, in how many streams; and the query before it.

https://cloud.google.com/bigquery/docs/reference/storage/rpc/google.cloud.bigquery.storage.v1
"""

import dataclasses
import datetime
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from google.api_core.exceptions import (
    Aborted,
    BadGateway,
    Cancelled,
    Forbidden,
    GatewayTimeout,
    GoogleAPICallError,
    InternalServerError,
    NotFound,
    RetryError,
    ServiceUnavailable,
    TooManyRequests,
    Unknown,
)
from google.api_core.retry import Retry, if_exception_type
from google.cloud import bigquery
from google.cloud.bigquery_storage_v1 import types

from sluice.models.errors import UsageError
from sluice.transforms.bigquery.table import open_client, parse_table_id

# What may be over when it is tried again: DEADLINE_EXCEEDED is a GatewayTimeout here, RESOURCE_EXHAUSTED one of
# TooManyRequests.
PASSING = (
    Aborted,
    BadGateway,
    Cancelled,
    GatewayTimeout,
    InternalServerError,
    ServiceUnavailable,
    TooManyRequests,
    Unknown,
)

# The streams are what workers share out among them. BigQuery makes fewer of a small table, and up to 1,000 of a large.
_STREAMS = 100
_FIRST_PAUSE_SECS, _LAST_PAUSE_SECS = 0.2, 10.0
# BigQuery may have to plan the read of a large table.
_SESSION_SECS = 600.0
_LZ4 = types.ArrowSerializationOptions.CompressionCodec.LZ4_FRAME


@dataclasses.dataclass(frozen=True)
class TableInput:
    """What a job reads of BigQuery, decided at launch.

    Attributes:
      label: what messages call it.
      origin: what the origins of its rows begin with.
      table: PROJECT.DATASET.TABLE without decorator, or with a * at its end; "" where `query` gives the rows.
      query: GoogleSQL, one SELECT.
      stored: the table can be read as it is; a view and the like are read by a query.
      row_restriction: of a table, what could stand behind WHERE; "": all rows.
      snapshot_secs: since the epoch: the table is read as it was then; None: as it is when the job begins to read, as
        what a query gives always is.
      project: that pays for the reading; and for the query.
      any_column: is read where the job needs none, to know how many rows there are.
      endpoint: see transforms.bigquery.table.open_client.
      storage_endpoint: see transforms.bigquery.clients.read_client.
    """

    label: str
    origin: str
    project: str
    table: str = ""
    query: str = ""
    stored: bool = False
    row_restriction: str = ""
    snapshot_secs: float | None = None
    any_column: str = ""
    endpoint: str | None = None
    storage_endpoint: str | None = None

    def replace(self, **changes: Any) -> "TableInput":
        """Returns it with these attributes changed."""
        return dataclasses.replace(self, **changes)

    def sql(self, columns: Sequence[str] = ()) -> str:
        """Returns the query that gives the rows, of a table with these columns; none: all."""
        if self.query:
            return self.query
        where = f" WHERE {self.row_restriction}" if self.row_restriction else ""
        return f"SELECT {', '.join(map(quoted, columns)) or '*'} FROM {quoted(self.table)}{where}"


def quoted(name: str) -> str:
    """Returns an identifier for GoogleSQL."""
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def open_session(
    client: Any, source: TableInput, columns: Sequence[str], retry_secs: float, max_streams: int = 0
) -> types.ReadSession:
    """Returns a new session, after the query if the rows come from one.

    What a query gives stands in a table that BigQuery makes itself: nobody but who ran the query can read it, it costs
    nothing, and it is gone after some 24 hours. So the query is to be run by whoever reads its rows, which on Dataflow
    is not who launches the job. Such a table holds 10 GB (compressed) at most.
    https://cloud.google.com/bigquery/docs/cached-results

    Args:
      client: of `transforms.bigquery.clients.read_client`.
      columns: that are read; none: all.
      retry_secs: how long a request is repeated that BigQuery does not answer.
      max_streams: 0: as many as are sensible.

    Raises:
      GoogleAPICallError, RetryError: see `refusal`.
    """
    table = _table_of(source, columns, retry_secs)
    session = types.ReadSession(
        table=f"projects/{table.project}/datasets/{table.dataset_id}/tables/{table.table_id}",
        data_format=types.DataFormat.ARROW,
        read_options=types.ReadSession.TableReadOptions(
            selected_fields=list(columns),
            row_restriction=source.row_restriction if source.stored else "",  # else it is in the query
            arrow_serialization_options=types.ArrowSerializationOptions(buffer_compression=_LZ4),
        ),
    )
    if source.stored and source.snapshot_secs is not None:
        as_of = datetime.datetime.fromtimestamp(source.snapshot_secs, datetime.UTC)
        session.table_modifiers = types.ReadSession.TableModifiers(snapshot_time=as_of)
    request = types.CreateReadSessionRequest(
        parent=f"projects/{source.project}",
        read_session=session,
        max_stream_count=max_streams,
        preferred_min_stream_count=0 if max_streams else _STREAMS,
    )
    retry = Retry(if_exception_type(*PASSING), _FIRST_PAUSE_SECS, _LAST_PAUSE_SECS, timeout=retry_secs)
    return client.create_read_session(request=request, retry=retry, timeout=_SESSION_SECS)


def session_schema(session: types.ReadSession) -> pa.Schema:
    """Returns the columns of a session."""
    return pa.ipc.read_schema(pa.py_buffer(session.arrow_schema.serialized_schema))


def refusal(source: TableInput, error: GoogleAPICallError | RetryError) -> str:
    """Says why a table or query cannot be read, and what to do about it."""
    if isinstance(error, RetryError):
        return f"{source.label}: BigQuery does not answer: {error.cause}"
    said = f"{source.label}: {error.message}"
    if isinstance(error, NotFound):
        return f"{said}. Is the name right (PROJECT.DATASET.TABLE), and are you allowed to see it?"
    if isinstance(error, Forbidden):
        return (
            f"{said}. Who reads it needs the roles bigquery.dataViewer on the table, and bigquery.readSessionUser "
            f"(for a query or a view, bigquery.jobUser too) on the project {source.project}"
        )
    if "too large" in error.message.lower() and not source.stored:
        return f"{said}. Write what the query gives into a table of yours, and read that with --input_table"
    return said


def _table_of(source: TableInput, columns: Sequence[str], retry_secs: float) -> bigquery.TableReference:
    if source.stored:
        return parse_table_id(source.table)
    client = open_client(source.project, source.endpoint)
    try:
        job = client.query(source.sql(columns), retry=bigquery.DEFAULT_RETRY.with_timeout(retry_secs))
        if error := job.exception():
            raise error
        return job.destination
    finally:
        client.close()


def dry_run(source: TableInput, retry_secs: float) -> bigquery.QueryJob:
    """Returns what BigQuery says of the query without running it: its fields, and the bytes that it would read.

    Raises:
      UsageError: it is no SELECT.
      GoogleAPICallError, RetryError: see `refusal`.
    """
    client = open_client(source.project, source.endpoint)
    try:
        job = client.query(
            source.sql(),
            job_config=bigquery.QueryJobConfig(dry_run=True, use_query_cache=False),
            retry=bigquery.DEFAULT_RETRY.with_timeout(retry_secs),
        )
    finally:
        client.close()
    if job.statement_type != "SELECT":
        raise UsageError(f"{source.label}: this is {job.statement_type}; give one SELECT statement")
    return job
