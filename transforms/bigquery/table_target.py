"""The table that a batch job writes: what becomes of the rows that it has, and where the job's rows wait."""

import contextlib
import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
from google.api_core.exceptions import GoogleAPICallError, RetryError
from google.cloud import bigquery

from sluice.models.errors import UsageError
from sluice.transforms.bigquery.loadable import check_loadable
from sluice.transforms.bigquery.staging_table import staging_id, staging_table
from sluice.transforms.bigquery.table import TableOptions, ensure_fields, open_client, parse_table_id, table_fields
from sluice.transforms.bigquery.table_columns import append_schema

APPEND, TRUNCATE, EMPTY = "append", "truncate", "empty"
DISPOSITIONS = (APPEND, TRUNCATE, EMPTY)

_CALL_SECS = 30.0


@dataclasses.dataclass(frozen=True)
class TableTarget:
    """Where the rows of a batch job go, decided at launch. Picklable.

    Attributes:
      table: PROJECT.DATASET.TABLE.
      rows_table: the table that rows are appended to: `table`, or one of this job alone whose rows replace `table`'s.
      schema: see transforms.bigquery.table_columns.append_schema.
      disposition: "append"; "truncate": rows that are there are replaced, all at once; "empty": there must be none.
      job: the job's own name.
      endpoint: see transforms.bigquery.table.open_client.
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
    """Makes the table, and the one that rows wait in, unless they are there, and checks that the columns fit.

    Args:
      table_id: see transforms.bigquery.table.parse_table_id.
      schema: of the rows, without `_predicted_at`.
      job: letters, digits, "-" and "_".
      retry_secs: how long a request is repeated that BigQuery does not answer.
      loaded: rows come by load jobs, and wait in files.

    Raises:
      UsageError: see transforms.bigquery.table.ensure_fields; or the table is not one whose rows are replaced; or there
        are rows, and "empty" says that there are none.
    """
    reference = parse_table_id(table_id)
    if disposition == TRUNCATE and "$" in reference.table_id:
        raise UsageError(f"--write_disposition truncate replaces whole tables, and {reference} names a partition")
    queried = disposition == TRUNCATE and not loaded  # by a query, whose results are NULLABLE
    wanted = _nullable(table_fields(schema)) if queried else table_fields(schema)
    options = dataclasses.replace(options or TableOptions(), partitions=loaded)
    fields = ensure_fields(table_id, wanted, endpoint, retry_secs, options)
    target = TableTarget.appended(table_id, append_schema(schema, fields), job, endpoint)
    if queried:
        _check_nullable(target.table, fields)
    if disposition == EMPTY and has_rows(target.table, endpoint, retry_secs):
        raise UsageError(
            f"table {target.table} has rows, and --write_disposition empty says that it has none; give append or "
            "truncate"
        )
    if loaded:
        check_loadable(schema, fields)
    elif queried:
        target = dataclasses.replace(target, rows_table=staging_id(target.table, job))
        _make_staging(target, retry_secs)
    return dataclasses.replace(target, disposition=disposition)


def required_columns(fields: Iterable[Mapping[str, Any]], parent: str = "") -> list[str]:
    """Returns the names of the columns that are REQUIRED, with dots in those of nested ones.

    Args:
      fields: in the form of BigQuery's JSON schemas.
    """
    found = []
    for field in fields:
        path = parent + field["name"]
        found += [path] if field.get("mode") == "REQUIRED" else []
        found += required_columns(field.get("fields", ()), f"{path}.")
    return found


def _check_nullable(table: str, fields: Iterable[Mapping[str, Any]]) -> None:
    required = required_columns(fields)
    if required:
        raise UsageError(
            f"--write_disposition truncate: table {table} has REQUIRED columns ({', '.join(required)}), and the query "
            "that replaces its rows at the job's end gives NULLABLE ones: give --write_method file_loads, which loads "
            "them, or make them NULLABLE in the table"
        )


def _nullable(fields: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns fields none of which is REQUIRED."""
    return [
        dict(field)
        | ({"mode": "NULLABLE"} if field["mode"] == "REQUIRED" else {})
        | ({"fields": _nullable(field["fields"])} if "fields" in field else {})
        for field in fields
    ]


def has_rows(table_id: str, endpoint: str | None = None, retry_secs: float = 30.0) -> bool:
    """Whether there are rows in a table, or on their way into it.

    For the arguments see plan_table.

    Raises:
      UsageError: BigQuery does not say.
    """
    reference = parse_table_id(table_id)
    client = open_client(reference.project, endpoint)
    options = _call_options(retry_secs)
    try:
        table = client.get_table(reference, **options)
        buffered = table.streaming_buffer is not None and bool(table.streaming_buffer.estimated_rows)
        return bool(buffered or table.num_rows or list(client.list_rows(table, max_results=1, **options)))
    except (GoogleAPICallError, RetryError) as error:
        raise UsageError(f"table {reference}: BigQuery does not show whether it has rows: {error}") from error
    finally:
        client.close()


def _make_staging(target: TableTarget, retry_secs: float) -> None:
    reference = parse_table_id(target.table)
    options = _call_options(retry_secs)
    try:
        with contextlib.closing(open_client(reference.project, target.endpoint)) as client:
            like = client.get_table(reference, **options)
            client.create_table(staging_table(target.rows_table, like), exists_ok=True, **options)
    except (GoogleAPICallError, RetryError) as error:
        raise UsageError(f"table {target.rows_table}, for rows to wait in, cannot be made: {error}") from error


def _call_options(retry_secs: float) -> dict[str, Any]:
    return {"retry": bigquery.DEFAULT_RETRY.with_timeout(retry_secs), "timeout": _CALL_SECS}
