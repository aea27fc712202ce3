"""A table in BigQuery, at launch: its id, its fields, whether it is there and fits; and the client that asks."""

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from google.api_core.exceptions import GoogleAPICallError, NotFound, RetryError
from google.api_core.retry import Retry
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import DefaultCredentialsError
from google.cloud import bigquery

from sluice.models.errors import UsageError
from sluice.transforms.bigquery.schema import arrow_to_bigquery_schema, bigquery_to_arrow_schema
from sluice.transforms.bigquery.table_layout import TableLayout

# google-cloud-bigquery's own: http://HOST:PORT.
EMULATOR_VARIABLE = "BIGQUERY_EMULATOR_HOST"

# TIMESTAMP: when a row was on its way into the table.
PREDICTED_AT = "_predicted_at"

# A project may have its domain before it, example.com:project.
_TABLE_ID = re.compile(r"(?P<project>[^\s/`]+?)[.:](?P<dataset>\w+)\.(?P<table>[^\s/.:`]+)")
_REQUEST_SECS = 30.0
_ANOTHER = "name a table that is not there yet"
# Types of a table's column, besides its own, that hold all of a type's values as they are written to it.
_ALSO_FITS = {
    "INTEGER": {"NUMERIC", "BIGNUMERIC"},
    "NUMERIC": {"BIGNUMERIC"},
    "STRING": {"JSON", "GEOGRAPHY"},
}


def parse_table_id(table_id: str) -> bigquery.TableReference:
    """Returns a reference to the table PROJECT.DATASET.TABLE or PROJECT:DATASET.TABLE.

    Raises:
      UsageError: the id is neither.
    """
    found = _TABLE_ID.fullmatch(table_id)
    if not found:
        raise UsageError(f"'{table_id}' is no table; write PROJECT.DATASET.TABLE or PROJECT:DATASET.TABLE")
    return bigquery.DatasetReference(found["project"], found["dataset"]).table(found["table"])


def open_client(project: str, endpoint: str | None = None) -> bigquery.Client:
    """Returns a client of BigQuery, or of the emulator at BIGQUERY_EMULATOR_HOST if that is set.

    Args:
      endpoint: the URL of another BigQuery API. To one of http:// no credentials are sent, and none are needed.

    Raises:
      UsageError: there are no credentials.
    """
    endpoint = endpoint or os.environ.get(EMULATOR_VARIABLE)
    is_open = endpoint is not None and endpoint.startswith("http://")
    try:
        return bigquery.Client(
            project,
            credentials=AnonymousCredentials() if is_open else None,
            client_options={"api_endpoint": endpoint} if endpoint else None,
        )
    except DefaultCredentialsError as error:
        raise UsageError(
            f"BigQuery needs credentials: {error}; `gcloud auth application-default login` gives you some"
        ) from error


def table_fields(schema: pa.Schema) -> list[dict[str, Any]]:
    """Returns the fields of a table that WriteTable writes these columns to, in the form of BigQuery's JSON schemas.

    Raises:
      UsageError: a column has no BigQuery type, or is named `_predicted_at`, which is added to them.
    """
    if PREDICTED_AT in (name.lower() for name in schema.names):
        raise UsageError(
            f"column '{PREDICTED_AT}' is among those to be written, and the table has the time of writing under this "
            f"name: leave it out with --exclude_columns {PREDICTED_AT}"
        )
    return [*arrow_to_bigquery_schema(schema), {"name": PREDICTED_AT, "type": "TIMESTAMP", "mode": "NULLABLE"}]


@dataclasses.dataclass(frozen=True)
class TableOptions:
    """What may be done to have a table that fits.

    Attributes:
      layout: of a table that is made; one that is there has to have it.
      allow_schema_update: columns that a table lacks are added to it.
      exact: the table must take every row, whatever is null in it: its types are these, and none is REQUIRED that is
        not so here. Else single rows may turn out not to fit.
      partitions: the id may name one of the table's partitions, TABLE$PARTITION. Only load jobs write to one.
    """

    layout: TableLayout = dataclasses.field(default_factory=TableLayout)
    allow_schema_update: bool = False
    exact: bool = False
    partitions: bool = False


def ensure_table(
    table_id: str,
    schema: pa.Schema,
    endpoint: str | None = None,
    retry_secs: float = 30.0,
    options: TableOptions = TableOptions(),
) -> list[dict[str, Any]]:
    """Makes the table if it is not there; else checks that its fields can take the columns. Returns its fields.

    Args:
      schema: the columns to write, see table_fields.

    For the others, and for what is raised, see ensure_fields.
    """
    return ensure_fields(table_id, table_fields(schema), endpoint, retry_secs, options)


def ensure_fields(
    table_id: str,
    fields: Sequence[Mapping[str, Any]],
    endpoint: str | None = None,
    retry_secs: float = 30.0,
    options: TableOptions = TableOptions(),
) -> list[dict[str, Any]]:
    """Makes the table if it is not there; else checks that it can take the fields. Returns those that it has.

    Args:
      table_id: see parse_table_id.
      fields: in the form of BigQuery's JSON schemas.
      endpoint: see open_client.
      retry_secs: how long a request is repeated that BigQuery does not answer.

    Raises:
      UsageError: a field is missing in the table or of another type, the table has a REQUIRED one that is not
        written or another layout, it is a view or the like, its id names a partition, there is no such dataset, or
        BigQuery cannot be asked.
    """
    reference = _whole_table(parse_table_id(table_id), options)
    client = open_client(reference.project, endpoint)
    retry = bigquery.DEFAULT_RETRY.with_timeout(retry_secs)
    try:
        table = _get_or_make(client, reference, fields, options.layout, retry)
        _check_kind(table)
        options.layout.check(table)
        if options.allow_schema_update:
            table = _with_fields(client, table, fields, retry)
    except RetryError as error:
        raise UsageError(f"table {reference}: BigQuery does not answer: {error.cause}") from error
    except GoogleAPICallError as error:
        raise UsageError(f"table {reference}: BigQuery refuses to make or show it: {error.message}") from error
    finally:
        client.close()
    found = [field.to_api_repr() for field in table.schema]
    _check_fields(fields, found, "", f"table {reference}", options.exact)
    return found


def _whole_table(reference: bigquery.TableReference, options: TableOptions) -> bigquery.TableReference:
    name, decorator, _ = reference.table_id.partition("$")
    if decorator and not options.partitions:
        remedy = "" if options.exact else "; a batch job writes to one with --write_method file_loads"
        raise UsageError(f"table {reference}: rows are not appended to single partitions: name the table{remedy}")
    return bigquery.DatasetReference(reference.project, reference.dataset_id).table(name)


def _check_kind(table: bigquery.Table) -> None:
    if table.table_type not in (None, "TABLE"):
        kind = table.table_type.lower().replace("_", " ")
        raise UsageError(f"{table.reference} is no table but of the type {kind}, which is not written to: {_ANOTHER}")


def _get_or_make(
    client: bigquery.Client,
    reference: bigquery.TableReference,
    fields: Sequence[Mapping[str, Any]],
    layout: TableLayout,
    retry: Retry,
) -> bigquery.Table:
    try:
        return client.get_table(reference, retry=retry, timeout=_REQUEST_SECS)
    except NotFound:
        table = bigquery.Table(reference, [bigquery.SchemaField.from_api_repr(field) for field in fields])
        layout.lay_out(table, fields)
    try:
        return client.create_table(table, exists_ok=True, retry=retry, timeout=_REQUEST_SECS)
    except NotFound as error:
        dataset = f"{reference.project}:{reference.dataset_id}"
        raise UsageError(
            f"table {reference} cannot be made: there is no dataset {dataset}; `bq mk --dataset {dataset}` makes it"
        ) from error


def _with_fields(
    client: bigquery.Client, table: bigquery.Table, fields: Sequence[Mapping[str, Any]], retry: Retry
) -> bigquery.Table:
    """Returns the table with the fields that it lacks added to it. Fails if somebody else changes it meanwhile."""
    found = [field.to_api_repr() for field in table.schema]
    wanted = _joined(found, fields)
    if wanted == found:
        return table
    table.schema = [bigquery.SchemaField.from_api_repr(field) for field in wanted]
    return client.update_table(table, ["schema"], retry=retry, timeout=_REQUEST_SECS)


def _joined(found: Sequence[Mapping[str, Any]], fields: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns the fields found, and those that are not among them: a column that is added cannot be REQUIRED."""
    by_name = {field["name"].lower(): field for field in fields}
    joined = []
    for there in found:
        field = by_name.pop(there["name"].lower(), {})
        inner = {"fields": _joined(there["fields"], field["fields"])} if "fields" in there and "fields" in field else {}
        joined.append({**there, **inner})
    for field in by_name.values():
        joined.append({**field, "mode": "REPEATED" if field["mode"] == "REPEATED" else "NULLABLE"})
    return joined


def _check_fields(
    fields: Sequence[Mapping[str, Any]], found: Sequence[Mapping[str, Any]], parent: str, table: str, exact: bool
) -> None:
    by_name = {field["name"].lower(): field for field in found}  # BigQuery's names do not tell upper from lower case
    for field in fields:
        there = by_name.pop(field["name"].lower(), None)
        if there is None:
            raise UsageError(
                f"{table} has no column '{parent}{field['name']}', which is to be written as {_shown(field)}: add it "
                f"to the table{'' if exact else ' (--allow_schema_update does), leave it out with --exclude_columns'}, "
                f"or {_ANOTHER}"
            )
        _check_field(field, there, parent, table, exact)
    for there in by_name.values():
        if there.get("mode") == "REQUIRED" and there.get("defaultValueExpression") is None:
            raise UsageError(
                f"{table} has the REQUIRED column '{parent}{there['name']}', which is not among those to be written: "
                f"make it NULLABLE, or {_ANOTHER}"
            )


def _check_field(field: Mapping[str, Any], there: Mapping[str, Any], parent: str, table: str, exact: bool) -> None:
    path = parent + field["name"]
    if exact and there["mode"] == "REQUIRED" and field["mode"] != "REQUIRED":
        raise UsageError(
            f"column '{path}' of {table} is REQUIRED, and not every row to be written has it: make it NULLABLE, or "
            f"{_ANOTHER}"
        )
    if there["type"] not in ("RANGE", "INTERVAL"):
        (there,) = arrow_to_bigquery_schema(bigquery_to_arrow_schema([there]))  # the one name of each type
    fits = there["type"] == field["type"] or (not exact and there["type"] in _ALSO_FITS.get(field["type"], ()))
    if not fits or (there["mode"] == "REPEATED") != (field["mode"] == "REPEATED"):
        raise UsageError(
            f"column '{path}' of {table} is {_shown(there)}, and {_shown(field)} is to be written: change the table's, "
            f"{'' if exact else 'leave the column out with --exclude_columns, '}or {_ANOTHER}"
        )
    if field["type"] == "RECORD":
        _check_fields(field["fields"], there["fields"], f"{path}.", table, exact)


def _shown(field: Mapping[str, Any]) -> str:
    return f"REPEATED {field['type']}" if field["mode"] == "REPEATED" else str(field["type"])
