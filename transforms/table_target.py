"""The table that a batch job writes: what becomes of the rows that it has, and where the job's rows wait."""

import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from google.api_core.exceptions import GoogleAPICallError, RetryError
from google.cloud import bigquery

from models.errors import UsageError
from transforms.bigquery_table import TableOptions, ensure_table, open_client, parse_table_id
from transforms.loadable import check_loadable
from transforms.table_columns import append_schema

APPEND, TRUNCATE, EMPTY = "append", "truncate", "empty"
DISPOSITIONS = (APPEND, TRUNCATE, EMPTY)

# Streams that are not committed live for a day.
_STAGING_DAYS = 2
_CALL_SECS = 30.0


@dataclasses.dataclass(frozen=True)
class TableTarget:
    """Where the rows of a batch job go, decided at launch. Picklable.

    Attributes:
      table: PROJECT.DATASET.TABLE.
      rows_table: the table that rows are appended to: `table`, or one of this job alone whose rows replace `table`'s.
      schema: see transforms.table_columns.append_schema.
      disposition: "append"; "truncate": rows that are there are replaced, all at once; "empty": there must be none.
      job: the job's own name.
      endpoint: see transforms.bigquery_table.open_client.
    """

    table: str
    rows_table: str
    schema: pa.Schema
    disposition: str
    job: str
    endpoint: str | None = None

    @classmethod
    def appended(cls, table_id: str, schema: pa.Schema, job: str, endpoint: str | None = None) -> "TableTarget":
        """Returns a table that rows are appended to.

        Args:
          table_id: see transforms.bigquery_table.parse_table_id.
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
    """Makes the table, and the one that rows wait in, unless they are there, and checks that the columns fit.

    Args:
      table_id: see transforms.bigquery_table.parse_table_id.
      schema: of the rows, without `_predicted_at`.
      job: letters, digits, "-" and "_".
      loaded: rows come by load jobs, and wait in files.

    Raises:
      UsageError: see transforms.bigquery_table.ensure_fields; or there are rows, and "empty" says that there are none.
    """
    reference = parse_table_id(table_id)
    if disposition == TRUNCATE and "$" in reference.table_id:
        raise UsageError(f"--write_disposition truncate replaces whole tables, and {reference} names a partition")
    fields = ensure_table(table_id, schema, endpoint, retry_secs, options or TableOptions())
    target = TableTarget.appended(table_id, append_schema(schema, fields), job, endpoint)
    if disposition == EMPTY and has_rows(target.table, endpoint):
        raise UsageError(
            f"table {target.table} has rows, and --write_disposition empty says that it has none; give append or "
            "truncate"
        )
    if loaded:
        check_loadable(schema, fields)
    elif disposition == TRUNCATE:
        rows_table = f"{target.table}_sluice_{job.replace('-', '_')}"
        _make_staging(rows_table, fields, endpoint)
        target = dataclasses.replace(target, rows_table=rows_table)
    return dataclasses.replace(target, disposition=disposition)


def has_rows(table_id: str, endpoint: str | None = None) -> bool:
    """Whether there are rows in a table, or on their way into it.

    Raises:
      UsageError: BigQuery does not say.
    """
    reference = parse_table_id(table_id)
    client = open_client(reference.project, endpoint)
    try:
        table = client.get_table(reference, timeout=_CALL_SECS)
        buffered = table.streaming_buffer is not None and bool(table.streaming_buffer.estimated_rows)
        return bool(buffered or table.num_rows or list(client.list_rows(table, max_results=1, timeout=_CALL_SECS)))
    except (GoogleAPICallError, RetryError) as error:
        raise UsageError(f"table {reference}: BigQuery does not show whether it has rows: {error}") from error
    finally:
        client.close()


def _make_staging(table_id: str, fields: Sequence[Mapping[str, Any]], endpoint: str | None) -> None:
    reference = parse_table_id(table_id)
    table = bigquery.Table(reference, [bigquery.SchemaField.from_api_repr(dict(field)) for field in fields])
    table.expires = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=_STAGING_DAYS)
    client = open_client(reference.project, endpoint)
    try:
        client.create_table(table, exists_ok=True, timeout=_CALL_SECS)
    except (GoogleAPICallError, RetryError) as error:
        raise UsageError(f"table {reference}, for rows to wait in, cannot be made: {error}") from error
    finally:
        client.close()
