"""A BigQuery table: its id, what a row may be; and at launch its fields, whether it exists and fits."""

import dataclasses
import re
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
from google.api_core.exceptions import GoogleAPICallError, NotFound, RetryError
from google.cloud import bigquery

from sluice.models.errors import UsageError
from sluice.transforms.bigquery.asked import BY_ARGUMENTS, Asked
from sluice.transforms.bigquery.clients import call_options, open_client
from sluice.transforms.bigquery.schema import Field, arrow_to_bigquery_schema, bigquery_to_arrow_schema, by_name
from sluice.transforms.bigquery.table_layout import TableLayout

# TIMESTAMP: when a row was on its way into the table.
PREDICTED_AT = "_predicted_at"

# Of a row as it is sent, by either API: what its envelope leaves of a request's 10 MB.
MAX_ROW_BYTES = 9_500_000
# The error_type of a row that is larger.
ROW_TOO_LARGE = "RowTooLarge"
# How the error of a row begins if the table lacks a column; then every row has that error.
NO_SUCH_FIELD = "no such field"

# A project may have its domain before it, example.com:project.
_TABLE_ID = re.compile(r"(?P<project>[^\s/`]+?)[.:](?P<dataset>\w+)\.(?P<table>[^\s/.:`]+)")
_REQUEST_SECS = 30.0
_ANOTHER = "name a table that does not exist yet"
# By type: other types of a table's column that hold all of its values as they are written.
_ALSO_FITS = {
    "INTEGER": {"NUMERIC", "BIGNUMERIC"},
    "NUMERIC": {"BIGNUMERIC"},
    "STRING": {"JSON", "GEOGRAPHY"},
}


def parse_table_id(table_id: str) -> bigquery.TableReference:
    """Returns a reference to the table PROJECT.DATASET.TABLE or PROJECT:DATASET.TABLE.

    Raises:
      UsageError: the id has another form.
    """
    found = _TABLE_ID.fullmatch(table_id)
    if not found:
        raise UsageError(f"'{table_id}' is not a table id; write PROJECT.DATASET.TABLE or PROJECT:DATASET.TABLE")
    return bigquery.DatasetReference(found["project"], found["dataset"]).table(found["table"])


def table_path(table_id: str) -> str:
    """Returns projects/P/datasets/D/tables/T for PROJECT.DATASET.TABLE or PROJECT:DATASET.TABLE."""
    reference = parse_table_id(table_id)
    return f"projects/{reference.project}/datasets/{reference.dataset_id}/tables/{reference.table_id}"


def quoted(name: str) -> str:
    """Returns a name as an identifier of GoogleSQL."""
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def table_fields(schema: pa.Schema, asked: Asked = BY_ARGUMENTS) -> list[dict[str, Any]]:
    """Returns the fields of a table that these columns are written to.

    Args:
      asked: BY_ARGUMENTS in a pipeline of one's own, BY_FLAGS in a command.

    Raises:
      UsageError: a column has no BigQuery type, or is named `_predicted_at`, which is added to them.
    """
    if PREDICTED_AT in (name.lower() for name in schema.names):
        raise UsageError(
            f"column '{PREDICTED_AT}' is among those to be written, and the table has the time of writing under this "
            f"name: {asked.leave_out}"
        )
    return [*arrow_to_bigquery_schema(schema, asked), {"name": PREDICTED_AT, "type": "TIMESTAMP", "mode": "NULLABLE"}]


@dataclasses.dataclass(frozen=True)
class TableOptions:
    """How a table is made, and what one that exists must be.

    Attributes:
      layout: of a table that is made; one that exists must have it.
      allow_schema_update: columns that a table lacks are added to it.
      exact: the table must accept every row, whatever is null in it: its types are the same, and no field is REQUIRED
        that is not REQUIRED here. Else single rows may turn out not to fit.
      partitions: the id may name one of the table's partitions, TABLE$PARTITION. Only load jobs write to one.
      dry: a table that is not there is not made, and one that is there is not changed: only looked at.
      asked: see table_fields.
    """

    layout: TableLayout = dataclasses.field(default_factory=TableLayout)
    allow_schema_update: bool = False
    exact: bool = False
    partitions: bool = False
    dry: bool = False
    asked: Asked = BY_ARGUMENTS


def ensure_table(
    table_id: str,
    schema: pa.Schema,
    endpoint: str | None = None,
    retry_secs: float = 30.0,
    options: TableOptions = TableOptions(),
) -> list[dict[str, Any]]:
    """Makes the table unless it exists; else checks that its fields fit the columns. Returns its fields.

    Args:
      schema: the columns to write, see table_fields.

    For the others, and for what is raised, see ensure_fields.
    """
    return ensure_fields(table_id, table_fields(schema, options.asked), endpoint, retry_secs, options)


def ensure_fields(
    table_id: str,
    fields: Sequence[Field],
    endpoint: str | None = None,
    retry_secs: float = 30.0,
    options: TableOptions = TableOptions(),
) -> list[dict[str, Any]]:
    """Makes the table unless it exists; else checks that it has the fields. Returns all fields that it has.

    Args:
      table_id: see parse_table_id.
      endpoint: see transforms.bigquery.clients.open_client.
      retry_secs: how long a request that BigQuery does not answer is repeated.

    Raises:
      UsageError: a field is missing in the table or has another type; the table has a REQUIRED field that is not
        written, or another layout; it is a view or the like; its id names a partition; there is no such dataset; or
        BigQuery does not answer.
    """
    reference = _whole_table(parse_table_id(table_id), options)
    client = open_client(reference.project, endpoint)
    call = call_options(retry_secs, _REQUEST_SECS)
    try:
        table = _get_or_make(client, reference, fields, options, call)
        _check_kind(table)
        options.layout.check(table)
        if options.allow_schema_update:
            table = _with_fields(client, table, fields, options.dry, call)
    except RetryError as error:
        raise UsageError(f"table {reference}: BigQuery does not answer: {error.cause}") from error
    except GoogleAPICallError as error:
        raise UsageError(f"table {reference}: BigQuery refuses to make or show it: {error.message}") from error
    finally:
        client.close()
    found = [field.to_api_repr() for field in table.schema]
    _check_fields(fields, found, "", f"table {reference}", options)
    return found


def _whole_table(reference: bigquery.TableReference, options: TableOptions) -> bigquery.TableReference:
    name, decorator, _ = reference.table_id.partition("$")
    if decorator and not options.partitions:
        remedy = "" if options.exact else options.asked.partition
        raise UsageError(f"table {reference}: rows are not appended to single partitions: name the table{remedy}")
    return bigquery.DatasetReference(reference.project, reference.dataset_id).table(name)


def _check_kind(table: bigquery.Table) -> None:
    if table.table_type not in (None, "TABLE"):
        kind = table.table_type.lower().replace("_", " ")
        raise UsageError(f"{table.reference} is not a table but a {kind}, which Sluice does not write to: {_ANOTHER}")


def _get_or_make(
    client: bigquery.Client,
    reference: bigquery.TableReference,
    fields: Sequence[Field],
    options: TableOptions,
    call: dict[str, Any],
) -> bigquery.Table:
    try:
        return client.get_table(reference, **call)
    except NotFound:
        table = bigquery.Table(reference, [bigquery.SchemaField.from_api_repr(field) for field in fields])
        options.layout.lay_out(table, fields)
    try:
        if options.dry:
            client.get_dataset(bigquery.DatasetReference(reference.project, reference.dataset_id), **call)
            return table
        return client.create_table(table, exists_ok=True, **call)
    except NotFound as error:
        dataset = f"{reference.project}:{reference.dataset_id}"
        raise UsageError(
            f"table {reference} cannot be made: there is no dataset {dataset}; `bq mk --dataset {dataset}` makes it"
        ) from error


def _with_fields(
    client: bigquery.Client, table: bigquery.Table, fields: Sequence[Field], dry: bool, call: dict[str, Any]
) -> bigquery.Table:
    """Adds the fields that the table lacks; returns the table. Fails if somebody else changes it meanwhile."""
    found = [field.to_api_repr() for field in table.schema]
    wanted = _joined(found, fields)
    if wanted == found:
        return table
    table.schema = [bigquery.SchemaField.from_api_repr(field) for field in wanted]
    return table if dry else client.update_table(table, ["schema"], **call)


def _joined(found: Iterable[Field], fields: Iterable[Field]) -> list[dict[str, Any]]:
    """Returns the fields found, and those that are not among them, NULLABLE: an added column cannot be REQUIRED."""
    missing = by_name(fields)
    joined = []
    for there in found:
        field = missing.pop(there["name"].lower(), {})
        inner = {"fields": _joined(there["fields"], field["fields"])} if "fields" in there and "fields" in field else {}
        joined.append({**there, **inner})
    for field in missing.values():
        joined.append({**field, "mode": "REPEATED" if field["mode"] == "REPEATED" else "NULLABLE"})
    return joined


def _check_fields(
    fields: Iterable[Field], found: Iterable[Field], parent: str, table: str, options: TableOptions
) -> None:
    others = by_name(found)
    for field in fields:
        there = others.pop(field["name"].lower(), None)
        if there is None:
            raise UsageError(
                f"{table} has no column '{parent}{field['name']}', which is to be written as {_shown(field)}: add it "
                f"to the table{'' if options.exact else f'{options.asked.update}, {options.asked.leave_out}'}, or "
                f"{_ANOTHER}"
            )
        _check_field(field, there, parent, table, options)
    for there in others.values():
        if there.get("mode") == "REQUIRED" and there.get("defaultValueExpression") is None:
            raise UsageError(
                f"{table} has the REQUIRED column '{parent}{there['name']}', which is not among those to be written: "
                f"make it NULLABLE, or {_ANOTHER}"
            )


def _check_field(field: Field, there: Field, parent: str, table: str, options: TableOptions) -> None:
    path = parent + field["name"]
    if options.exact and there["mode"] == "REQUIRED" and field["mode"] != "REQUIRED":
        raise UsageError(
            f"column '{path}' of {table} is REQUIRED, and not every row to be written has it: make it NULLABLE, or "
            f"{_ANOTHER}"
        )
    if there["type"] not in ("RANGE", "INTERVAL"):
        (there,) = arrow_to_bigquery_schema(bigquery_to_arrow_schema([there]))  # the one name of each type
    fits = there["type"] == field["type"] or (not options.exact and there["type"] in _ALSO_FITS.get(field["type"], ()))
    if not fits or (there["mode"] == "REPEATED") != (field["mode"] == "REPEATED"):
        raise UsageError(
            f"column '{path}' of {table} is {_shown(there)}, and {_shown(field)} is to be written: change the column "
            f"in the table, {'' if options.exact else f'{options.asked.leave_out}, '}or {_ANOTHER}"
        )
    if field["type"] == "RECORD":
        _check_fields(field["fields"], there["fields"], f"{path}.", table, options)


def _shown(field: Field) -> str:
    return f"REPEATED {field['type']}" if field["mode"] == "REPEATED" else str(field["type"])
