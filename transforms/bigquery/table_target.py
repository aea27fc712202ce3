"""The table that a batch job writes: what happens to the rows that it has, and where the job's rows wait."""

import contextlib
import dataclasses
import datetime
import logging
from collections.abc import Iterable, Sequence

import pyarrow as pa
from google.api_core.exceptions import GoogleAPICallError, RetryError
from google.cloud import bigquery

from sluice.models.errors import SluiceError, UsageError
from sluice.models.tensors.column_types import is_list
from sluice.transforms.bigquery.asked import BY_ARGUMENTS, Asked
from sluice.transforms.bigquery.clients import call_options, open_client
from sluice.transforms.bigquery.schema import Field, by_name, nullable, required_columns
from sluice.transforms.bigquery.table import TableOptions, ensure_fields, parse_table_id, table_fields
from sluice.transforms.bigquery.table_columns import append_schema
from sluice.transforms.bigquery.table_layout import key_of
from sluice.transforms.encode.base import shown_type

_LOG = logging.getLogger(__name__)

APPEND, TRUNCATE, EMPTY = "append", "truncate", "empty"
DISPOSITIONS = (APPEND, TRUNCATE, EMPTY)

_CALL_SECS = 30.0
# A staging table lives longer than a stream may wait for its commit, see transforms.bigquery.commit.
_STAGING_DAYS = 2
# A table that is not dropped in this time is left to expire; the last try may take as long again as one call.
_DROP_SECS = 20.0
_DROP_CALL_SECS = 5.0
# Text that BigQuery parses while it loads: one value that it refuses fails the job, and every row with it. It accepts
# no JSON from Parquet.
_PARSED = {
    "JSON": "which load jobs do not accept in Parquet files",
    "GEOGRAPHY": "and one text that is not a geography would fail the load job with all its rows",
}
_NOT_LOADABLE = "give --write_method storage_write_api, or leave the column out with --exclude_columns"


@dataclasses.dataclass(frozen=True)
class TableTarget:
    """Where the rows of a batch job go, decided at launch. Picklable.

    Attributes:
      table: PROJECT.DATASET.TABLE.
      rows_table: the table that rows are appended to: `table`, or a staging table whose rows replace `table`'s.
      schema: see transforms.bigquery.table_columns.append_schema.
      disposition: "append"; "truncate": rows that are there are replaced, all at once; "empty": there must be none.
      job: the job's own name.
      endpoint: see transforms.bigquery.clients.open_client.
    """

    table: str
    rows_table: str
    schema: pa.Schema
    disposition: str
    job: str
    endpoint: str | None = None
    asked: Asked = BY_ARGUMENTS

    @classmethod
    def appended(cls, table_id: str, schema: pa.Schema, job: str, endpoint: str | None = None) -> "TableTarget":
        """Returns a table that rows are appended to.

        Args:
          table_id: see transforms.bigquery.table.parse_table_id.
        """
        reference = parse_table_id(table_id)
        table = f"{reference.project}.{reference.dataset_id}.{reference.table_id}"
        return cls(table, table, schema, APPEND, job, endpoint)


def plan_table(
    table_id: str,
    schema: pa.Schema,
    job: str,
    disposition: str = APPEND,
    options: TableOptions | None = None,
    endpoint: str | None = None,
    retry_secs: float = 30.0,
    loaded: bool = False,
) -> TableTarget:
    """Makes the table and its staging table unless they exist, and checks that the columns fit.

    Args:
      table_id: see transforms.bigquery.table.parse_table_id.
      schema: of the rows, without `_predicted_at`.
      job: letters, digits, "-" and "_".
      retry_secs: how long a request that BigQuery does not answer is repeated.
      loaded: rows come by load jobs, and wait in files.

    Raises:
      UsageError: see transforms.bigquery.table.ensure_fields; or the table's rows cannot be replaced; or the table has
        rows, and "empty" says that it has none.
    """
    options = dataclasses.replace(options or TableOptions(), partitions=loaded)
    asked = options.asked
    reference = parse_table_id(table_id)
    if disposition == TRUNCATE and "$" in reference.table_id:
        raise UsageError(f"{asked.disposition} truncate replaces whole tables, and {reference} names a partition")
    queried = disposition == TRUNCATE and not loaded  # by a query, whose results are NULLABLE
    wanted = table_fields(schema, asked)
    wanted = nullable(wanted) if queried else wanted
    fields = ensure_fields(table_id, wanted, endpoint, retry_secs, options)
    target = TableTarget.appended(table_id, append_schema(schema, fields), job, endpoint)
    target = dataclasses.replace(target, disposition=disposition, asked=asked)
    if queried:
        _check_nullable(target.table, fields, asked)
    if disposition == EMPTY and not options.dry and has_rows(target.table, endpoint, retry_secs):
        raise UsageError(
            f"table {target.table} has rows, and {asked.disposition} empty says that it has none; give append or "
            "truncate"
        )
    if loaded:
        check_loadable(schema, fields)
    elif queried:
        target = dataclasses.replace(target, rows_table=staging_id(target.table, job))
        if not options.dry:
            _make_staging(target, retry_secs)
    return target


def _check_nullable(table: str, fields: Iterable[Field], asked: Asked) -> None:
    required = required_columns(fields)
    if required:
        raise UsageError(
            f"{asked.disposition} truncate: table {table} has REQUIRED columns ({', '.join(required)}), and the query "
            f"that replaces its rows at the job's end returns NULLABLE ones: {asked.loads}make them NULLABLE in the "
            "table"
        )


def check_loadable(schema: pa.Schema, fields: Iterable[Field]) -> None:
    """Checks that a load job can write these columns, and that no single value in them could fail all of it.

    Args:
      schema: of the scored rows, without `_predicted_at`.
      fields: the table's; they fit (see transforms.bigquery.table).

    Raises:
      UsageError: it cannot; the text names the column and the remedy.
    """
    _check_columns(list(schema), fields, "")


def _check_columns(columns: Sequence[pa.Field], fields: Iterable[Field], parent: str) -> None:
    there = by_name(fields)
    for column in columns:
        field = there[column.name.lower()]
        path = parent + column.name
        kind = shown_type(column.type)
        kind = kind.value_type if is_list(kind) else kind
        if pa.types.is_struct(kind):
            _check_columns(list(kind), field["fields"], f"{path}.")
        elif field["type"] in _PARSED:
            raise UsageError(
                f"column '{path}' is {field['type']} in the table, {_PARSED[field['type']]}: {_NOT_LOADABLE}"
            )
        elif field.get("maxLength"):
            raise UsageError(
                f"column '{path}' is {field['type']}({field['maxLength']}) in the table, and one value that is longer "
                f"would fail the load job with all its rows: {_NOT_LOADABLE}"
            )


def has_rows(table_id: str, endpoint: str | None = None, retry_secs: float = 30.0) -> bool:
    """Whether a table has rows, or rows are on their way into it.

    For the arguments see plan_table.

    Raises:
      UsageError: BigQuery does not say.
    """
    reference = parse_table_id(table_id)
    client = open_client(reference.project, endpoint)
    options = call_options(retry_secs, _CALL_SECS)
    try:
        table = client.get_table(reference, **options)
        buffered = table.streaming_buffer is not None and bool(table.streaming_buffer.estimated_rows)
        return bool(buffered or table.num_rows or list(client.list_rows(table, max_results=1, **options)))
    except (GoogleAPICallError, RetryError) as error:
        raise UsageError(f"table {reference}: BigQuery does not show whether it has rows: {error}") from error
    finally:
        client.close()


def no_more_empty(target: TableTarget) -> SluiceError:
    """Returns the error of a job whose table was to be empty when it commits."""
    return SluiceError(
        f"table {target.table} has got rows since the job began, and {target.asked.disposition} empty says that it has "
        "none; the job's predictions are not written"
    )


def staging_id(table_id: str, job: str) -> str:
    """Returns the id, PROJECT.DATASET.TABLE, of the table beside `table_id` in which a job's rows wait.

    Its name does not begin like the other's, or a query of `events_*` would read it.

    Args:
      job: letters, digits, "-" and "_".
    """
    reference = parse_table_id(table_id)
    return f"{reference.project}.{reference.dataset_id}.sluice_tmp_{job.replace('-', '_')}"


def staging_table(table_id: str, like: bigquery.Table) -> bigquery.Table:
    """Returns a table, yet to be made, that has the other's columns and key and expires by itself."""
    table = bigquery.Table(parse_table_id(table_id), like.schema)
    table.encryption_configuration = key_of(like)
    table.expires = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=_STAGING_DAYS)
    return table


def _make_staging(target: TableTarget, retry_secs: float) -> None:
    reference = parse_table_id(target.table)
    options = call_options(retry_secs, _CALL_SECS)
    try:
        with contextlib.closing(open_client(reference.project, target.endpoint)) as client:
            like = client.get_table(reference, **options)
            client.create_table(staging_table(target.rows_table, like), exists_ok=True, **options)
    except (GoogleAPICallError, RetryError) as error:
        raise UsageError(f"table {target.rows_table}, for rows to wait in, cannot be made: {error}") from error


def drop_staging(table_id: str, endpoint: str | None = None) -> None:
    """Deletes a staging table if it exists. Never raises, and takes half a minute at most; a table left behind expires.

    Args:
      endpoint: see transforms.bigquery.clients.open_client.
    """
    try:
        with contextlib.closing(open_client(parse_table_id(table_id).project, endpoint)) as client:
            client.delete_table(table_id, not_found_ok=True, **call_options(_DROP_SECS, _DROP_CALL_SECS))
    except Exception as error:  # noqa: BLE001  the job's outcome stands, whatever becomes of this table
        _LOG.debug("table %s is not dropped, and expires: %s", table_id, error)
