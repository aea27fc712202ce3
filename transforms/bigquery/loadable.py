"""Which tables load jobs can fill from Parquet files without one row failing all of them. At launch only."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from sluice.models.errors import UsageError
from sluice.models.tensors.column_types import is_list
from sluice.transforms.encode.base import shown_type

_REMEDY = "give --write_method storage_write_api, or leave the column out with --exclude_columns"
# Texts that BigQuery parses as it loads them: one that it does not take fails the job, and every row with it.
# Of JSON it takes none from Parquet.
_PARSED = {
    "JSON": "which load jobs do not take from Parquet files",
    "GEOGRAPHY": "and one text that is none would fail the load job with all its rows",
}


def check_loadable(schema: pa.Schema, fields: Sequence[Mapping[str, Any]]) -> None:
    """Checks at launch that a load job can write these columns, and that no value in them could fail all of it.

    Args:
      schema: of the scored rows, without `_predicted_at`.
      fields: the table's, in the form of BigQuery's JSON schemas; they fit (see transforms.bigquery.table).

    Raises:
      UsageError: it cannot; the text names the column and what to do.
    """
    _check_columns(list(schema), fields, "")


def _check_columns(columns: Sequence[pa.Field], fields: Sequence[Mapping[str, Any]], parent: str) -> None:
    there = {field["name"].lower(): field for field in fields}
    for column in columns:
        field = there[column.name.lower()]
        path = parent + column.name
        kind = shown_type(column.type)
        kind = kind.value_type if is_list(kind) else kind
        if pa.types.is_struct(kind):
            _check_columns(list(kind), field["fields"], f"{path}.")
        elif field["type"] in _PARSED:
            raise UsageError(f"column '{path}' is {field['type']} in the table, {_PARSED[field['type']]}: {_REMEDY}")
        elif field.get("maxLength"):
            raise UsageError(
                f"column '{path}' is {field['type']}({field['maxLength']}) in the table, and one value that is longer "
                f"would fail the load job with all its rows: {_REMEDY}"
            )
