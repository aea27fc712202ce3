"""A session of BigQuery's Storage Read API: which rows and columns, in how many streams; and the query before it.

https://cloud.google.com/bigquery/docs/reference/storage/rpc/google.cloud.bigquery.storage.v1
"""

import dataclasses
import datetime
from collections.abc import Sequence

import pyarrow as pa
from google.api_core.exceptions import Forbidden, GoogleAPICallError, NotFound, RetryError
from google.cloud import bigquery
from google.cloud.bigquery_storage_v1 import types
from google.cloud.bigquery_storage_v1.services.big_query_read import BigQueryReadClient

from sluice.models.errors import UsageError
from sluice.transforms.bigquery.clients import open_client, storage_retry
from sluice.transforms.bigquery.table import parse_table_id, quoted

# Workers share out the streams. BigQuery makes fewer for a small table, and up to 1,000 for a large one.
_STREAMS = 100
# BigQuery may have to plan the read of a large table.
_SESSION_SECS = 600.0
_LZ4 = types.ArrowSerializationOptions.CompressionCodec.LZ4_FRAME


@dataclasses.dataclass(frozen=True)
class TableInput:
    """What a job reads from BigQuery, decided at launch.

    Attributes:
      label: its name in messages.
      origin: the beginning of its rows' origins.
      table: PROJECT.DATASET.TABLE without decorator, or with a * at its end; "" if the rows come from `query`.
      query: GoogleSQL, one SELECT.
      stored: the Storage API can read the table itself; a view and the like are read by a query.
      row_restriction: of a table: a condition as it follows WHERE; "": all rows.
      snapshot_secs: since the epoch: the table is read as it was then; None: as it is when the job begins to read, as
        a query's results always are.
      project: pays for the reading, and for the query.
      any_column: is read where the job needs no column, to learn how many rows there are.
      endpoint: see transforms.bigquery.clients.open_client.
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

    def replace(self, **changes: object) -> "TableInput":
        """Returns it with these attributes changed."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]

    def sql(self, columns: Sequence[str] = ()) -> str:
        """Returns the query for the rows.

        Args:
          columns: that a table's query selects; none: all.
        """
        if self.query:
            return self.query
        where = f" WHERE {self.row_restriction}" if self.row_restriction else ""
        return f"SELECT {', '.join(map(quoted, columns)) or '*'} FROM {quoted(self.table)}{where}"


def open_session(
    client: BigQueryReadClient, source: TableInput, columns: Sequence[str], retry_secs: float, max_streams: int = 0
) -> types.ReadSession:
    """Returns a new session; runs the query first, if the rows come from one.

    BigQuery puts a query's results into a table that it makes itself. Only the account that ran the query can read that
    table; it costs nothing, and is gone after some 24 hours. So the account that reads the rows must run the query: on
    Dataflow that is not the one that launches the job. Such a table holds 10 GB (compressed) at most.
    https://cloud.google.com/bigquery/docs/cached-results

    Args:
      client: see transforms.bigquery.clients.read_client.
      columns: to read; none: all.
      retry_secs: how long a request that BigQuery does not answer is repeated.
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
    return client.create_read_session(request=request, retry=storage_retry(retry_secs), timeout=_SESSION_SECS)


def session_schema(session: types.ReadSession) -> pa.Schema:
    """Returns the columns of a session."""
    return pa.ipc.read_schema(pa.py_buffer(session.arrow_schema.serialized_schema))


def refusal(source: TableInput, error: GoogleAPICallError | RetryError) -> str:
    """Returns why a table or query cannot be read, and the remedy."""
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
        return f"{said}. Write the query's results into a table of yours, and read that with --input_table"
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
    """Returns a job that is not run: it has the query's fields, and the number of bytes that it would read.

    Raises:
      UsageError: the query is not one SELECT.
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
