"""Inspects --input_table or --input_query at launch: columns with their types, and how many rows."""

import datetime
import re
import time
from collections.abc import Callable
from typing import NamedTuple

import pyarrow as pa
from google.api_core.exceptions import BadRequest, GoogleAPICallError, RetryError
from google.cloud import bigquery

from sluice.models.errors import UsageError
from sluice.transforms.bigquery.clients import close, open_client, read_client
from sluice.transforms.bigquery.read_session import TableInput, dry_run, open_session, refusal, session_schema
from sluice.transforms.bigquery.schema import bigquery_to_arrow_schema
from sluice.transforms.bigquery.table import parse_table_id, quoted
from sluice.transforms.core.formats import BIGQUERY
from sluice.transforms.files.find_source import Source

# Others (views, external tables) are read by a query: the Storage API does not read them, or not all of them.
_STORED_TYPES = ("TABLE", "SNAPSHOT")
# The table's contents never change: it has no earlier state.
_SNAPSHOT = "SNAPSHOT"

# Names of partitions: https://cloud.google.com/bigquery/docs/managing-partitioned-tables#select_partitions
_FORMATS = {"YEAR": "%Y", "MONTH": "%Y%m", "DAY": "%Y%m%d", "HOUR": "%Y%m%d%H"}
_DIGITS = {"YEAR": 4, "MONTH": 6, "DAY": 8, "HOUR": 10}
_NULL, _UNPARTITIONED = "__NULL__", "__UNPARTITIONED__"
_LITERALS = {"DATE": "%Y-%m-%d", "DATETIME": "%Y-%m-%d %H:%M:%S", "TIMESTAMP": "%Y-%m-%d %H:%M:%S+00"}


class FoundTable(NamedTuple):
    """The input as it is at launch, for `pipelines.plan` and for `transforms.bigquery.read`.

    Attributes:
      rows: how many there are before the row restriction; None if that is not known.
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
    label: str = "",
) -> FoundTable:
    """Inspects a table.

    The job reads the table as it is now, whenever it begins: the session names this moment. A view, a wildcard table,
    and whatever else the Storage API does not read, is read by a query, as it is when the job begins.

    Args:
      table_id: PROJECT.DATASET.TABLE or PROJECT:DATASET.TABLE; followed by $PARTITION, one partition; with * at its
        end, all tables whose names begin so.
      row_restriction: GoogleSQL, a condition as it follows WHERE.
      project: pays for reading; "": the table's.
      endpoint: see transforms.bigquery.clients.open_client.
      storage_endpoint: see transforms.bigquery.clients.read_client.
      retry_secs: how long a request that BigQuery does not answer is repeated.
      clock: seconds since the epoch.
      label: its name in messages; "": that of --input_table.

    Raises:
      UsageError: there is no such table, it cannot be read, or the restriction is wrong.
    """
    reference = parse_table_id(table_id)
    name, _, partition = reference.table_id.partition("$")
    table = TableInput(
        label=label or f"--input_table {table_id}",
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
    """Inspects a query's results, without running it; the job runs it when it begins.

    Args:
      query: GoogleSQL, one SELECT statement.
      project: pays for it.

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
    """Returns the remedy for a session or query that BigQuery rejects; "" if there is none."""
    said = str(error).lower()
    if not isinstance(error, BadRequest):
        return ""
    if "snapshot" in said or "time travel" in said:
        return ". The table is read as it was at this machine's time: is its clock right?"
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
    """Opens a session, which has the columns, and checks rights and restriction; nothing is read from it."""
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


def partition_restriction(table: bigquery.Table, partition: str) -> str:
    """Returns the condition for one partition's rows: the Storage API does not know partitions by name.

    Args:
      partition: what follows the $ of a table id: YYYY to YYYYMMDDHH, the first value of an integer range, __NULL__ or
        __UNPARTITIONED__.

    Raises:
      UsageError: the table has no such partition.
    """
    restriction = None
    if table.range_partitioning:
        restriction = _range_restriction(table.range_partitioning, partition)
    elif table.time_partitioning:
        kinds = {field.name: field.field_type for field in table.schema}
        restriction = _time_restriction(table.time_partitioning, kinds, partition)
    if restriction is None:
        how = table.range_partitioning or table.time_partitioning
        raise UsageError(
            f"--input_table {table.reference}${partition}: the table has no such partition; it is "
            f"{f'partitioned by {_shown(how)}' if how else 'not partitioned'}"
        )
    return restriction


def _shown(how: bigquery.TimePartitioning | bigquery.RangePartitioning) -> str:
    if isinstance(how, bigquery.RangePartitioning):
        return f"'{how.field}' in steps of {how.range_.interval} ($0, for instance)"
    digits = "YYYYMMDDHH"[: _DIGITS[how.type_]]
    return f"{how.type_} of {how.field or 'ingestion'} (${digits})"


def _range_restriction(how: bigquery.RangePartitioning, partition: str) -> str | None:
    column, steps = quoted(how.field), how.range_
    if partition == _NULL:
        return f"{column} IS NULL"
    if not re.fullmatch(r"-?\d+", partition):
        return None
    first, start, step = int(partition), int(steps.start), int(steps.interval)
    if (first - start) % step or not start <= first < int(steps.end):
        return None
    return f"{column} >= {first} AND {column} < {min(first + step, int(steps.end))}"


def _time_restriction(how: bigquery.TimePartitioning, kinds: dict[str, str], partition: str) -> str | None:
    column = quoted(how.field) if how.field else "_PARTITIONTIME"
    kind = kinds.get(how.field, "TIMESTAMP") if how.field else "TIMESTAMP"
    if partition == (_NULL if how.field else _UNPARTITIONED):
        return f"{column} IS NULL"
    if len(partition) != _DIGITS[how.type_] or not partition.isdecimal():
        return None
    try:
        first = datetime.datetime.strptime(partition, _FORMATS[how.type_])
    except ValueError:
        return None
    begin, end = (f"{kind} '{each.strftime(_LITERALS[kind])}'" for each in (first, _next(first, how.type_)))
    return f"{column} >= {begin} AND {column} < {end}"


def _next(first: datetime.datetime, unit: str) -> datetime.datetime:
    if unit in ("YEAR", "MONTH"):
        months = first.month + (12 if unit == "YEAR" else 1) - 1
        return first.replace(year=first.year + months // 12, month=months % 12 + 1)
    return first + (datetime.timedelta(hours=1) if unit == "HOUR" else datetime.timedelta(days=1))
