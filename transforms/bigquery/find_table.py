"""What stands at --input_table or --input_query: its columns with their types, its rows. At launch only."""

import time
from collections.abc import Callable
from typing import NamedTuple

import pyarrow as pa
from google.api_core.exceptions import BadRequest, GoogleAPICallError, RetryError
from google.cloud import bigquery

from sluice.models.errors import UsageError
from sluice.transforms.bigquery.clients import close, read_client
from sluice.transforms.bigquery.partitions import partition_restriction
from sluice.transforms.bigquery.read_session import TableInput, dry_run, open_session, refusal, session_schema
from sluice.transforms.bigquery.schema import bigquery_to_arrow_schema
from sluice.transforms.bigquery.table import open_client, parse_table_id
from sluice.transforms.decode.spec import BIGQUERY
from sluice.transforms.files.find_source import Source

# Others (views, external tables) are read by a query: the Storage API does not read them, or not all of them.
_STORED_TYPES = ("TABLE", "SNAPSHOT")
# The table's contents never change: it has no earlier state.
_SNAPSHOT = "SNAPSHOT"


class FoundTable(NamedTuple):
    """The input as it is found at launch, for `pipelines.plan.input` and for `transforms.bigquery.read`.

    Attributes:
      rows: None if it is not known; before the row restriction.
    """

    source: Source
    table: TableInput
    rows: int | None


def find_table(
    table_id: str,
    row_restriction: str = "",
    project: str = "",
    endpoint: str | None = None,
    storage_endpoint: str | None = None,
    retry_secs: float = 30.0,
    clock: Callable[[], float] = time.time,
) -> FoundTable:
    """Returns what a table holds.

    Its rows are read as they are now, whenever the job begins: that state is named to BigQuery. A view, a wildcard
    table, and what else the Storage API does not read, is read by a query, as it is when the job begins.

    Args:
      table_id: PROJECT.DATASET.TABLE or PROJECT:DATASET.TABLE; with $PARTITION behind it, one partition; with * at its
        end, all tables whose names begin so.
      row_restriction: GoogleSQL, what could stand behind WHERE.
      project: that pays for reading; "": the table's.
      endpoint: see transforms.bigquery.table.open_client.
      storage_endpoint: see transforms.bigquery.clients.read_client.
      retry_secs: how long a request is repeated that BigQuery does not answer.
      clock: seconds since the epoch.

    Raises:
      UsageError: there is no such table, it cannot be read, or the restriction is wrong.
    """
    reference = parse_table_id(table_id)
    name, _, partition = reference.table_id.partition("$")
    table = TableInput(
        label=f"--input_table {table_id}",
        origin=f"{reference.project}.{reference.dataset_id}.{reference.table_id}",
        project=project or reference.project,
        table=f"{reference.project}.{reference.dataset_id}.{name}",
        row_restriction=row_restriction,
        endpoint=endpoint,
        storage_endpoint=storage_endpoint,
    )
    try:
        return _find(table, partition, clock, retry_secs)
    except (GoogleAPICallError, RetryError) as error:
        raise UsageError(refusal(table, error) + _hint(table, error)) from error


def find_query(
    query: str,
    project: str,
    endpoint: str | None = None,
    storage_endpoint: str | None = None,
    retry_secs: float = 30.0,
) -> FoundTable:
    """Returns what a query gives, without running it; the job runs it when it begins.

    Args:
      query: GoogleSQL, one SELECT statement.
      project: that pays for it.

    For the others, see `find_table`.

    Raises:
      UsageError: the query is wrong, or may not be run.
    """
    if not project:
        raise UsageError("--input_query: which project pays for the query? Give --project")
    table = TableInput(
        "--input_query", "query", project, query=query, endpoint=endpoint, storage_endpoint=storage_endpoint
    )
    try:
        return _found_by_query(table, retry_secs)
    except (GoogleAPICallError, RetryError) as error:
        raise UsageError(refusal(table, error)) from error


def _find(table: TableInput, partition: str, clock: Callable[[], float], retry_secs: float) -> FoundTable:
    if table.table.endswith("*"):
        return _found_by_query(table, retry_secs)
    found = _get_table(table, retry_secs)
    if partition:
        restrictions = (partition_restriction(found, partition), table.row_restriction)
        table = table.replace(row_restriction=" AND ".join(f"({each})" for each in restrictions if each))
    if found.table_type not in _STORED_TYPES:
        return _found_by_query(table, retry_secs)
    snapshot_secs = None if found.table_type == _SNAPSHOT else clock()
    return _found(table.replace(stored=True, snapshot_secs=snapshot_secs), found, retry_secs)


def _hint(table: TableInput, error: Exception) -> str:
    """What to do about a session or query that BigQuery calls wrong."""
    said = str(error).lower()
    if not isinstance(error, BadRequest):
        return ""
    if "snapshot" in said or "time travel" in said:
        return ". It is read as it was at the time of this machine: is its clock right?"
    if "partition elimination" in said:
        return f". Give --row_restriction, or one partition: {table.origin}$PARTITION"
    return f" (--row_restriction {table.row_restriction!r})" if table.row_restriction else ""


def _get_table(table: TableInput, retry_secs: float) -> bigquery.Table:
    client = open_client(table.project, table.endpoint)
    try:
        return client.get_table(table.table, retry=bigquery.DEFAULT_RETRY.with_timeout(retry_secs))
    finally:
        client.close()


def _found(table: TableInput, found: bigquery.Table, retry_secs: float) -> FoundTable:
    """Opens a session for what it says of columns, rights and restriction; nothing is read from it."""
    client = read_client(table.storage_endpoint)
    try:
        schema = session_schema(open_session(client, table, (), retry_secs, max_streams=1))
    finally:
        close(client)
    return _described(table, schema, found.num_bytes or 0, found.num_rows)


def _found_by_query(table: TableInput, retry_secs: float) -> FoundTable:
    job = dry_run(table, retry_secs)
    try:
        schema = bigquery_to_arrow_schema([field.to_api_repr() for field in job.schema or ()])
    except UsageError as error:
        raise UsageError(f"{table.label}: {error}. Give a query that leaves the field out, or casts it") from error
    return _described(table, schema, job.total_bytes_processed or 0, None)


def _described(table: TableInput, schema: pa.Schema, size: int, rows: int | None) -> FoundTable:
    if not schema.names:
        raise UsageError(f"{table.label} has no columns")
    types = dict(zip(schema.names, schema.types, strict=True))
    source = Source(BIGQUERY, table.origin, 1, size, tuple(schema.names), types)
    return FoundTable(source, table.replace(any_column=schema.names[0]), rows)
