"""BigQuery's JSON schemas and Arrow's.

The form: https://cloud.google.com/bigquery/docs/reference/rest/v2/tables#TableFieldSchema. The Arrow types are those of
the BigQuery Storage API: https://cloud.google.com/bigquery/docs/reference/storage#arrow_schema_details.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import pyarrow as pa

from sluice.models.errors import UsageError
from sluice.models.tensors.column_types import is_list
from sluice.transforms.bigquery.asked import BY_ARGUMENTS, Asked
from sluice.transforms.encode.base import shown_type

# A field of a table, in the form of BigQuery's JSON schemas: name, type, mode and, for a RECORD, fields.
Field: TypeAlias = Mapping[str, Any]

_ARROW_TYPES = {
    "INTEGER": pa.int64(),
    "FLOAT": pa.float64(),
    "BOOLEAN": pa.bool_(),
    "STRING": pa.string(),
    "BYTES": pa.binary(),
    "NUMERIC": pa.decimal128(38, 9),
    "BIGNUMERIC": pa.decimal256(76, 38),
    "DATE": pa.date32(),
    "TIME": pa.time64("us"),
    "DATETIME": pa.timestamp("us"),
    "TIMESTAMP": pa.timestamp("us", "UTC"),
    "JSON": pa.string(),
    "GEOGRAPHY": pa.string(),
}
_ALIASES = {
    "INT64": "INTEGER",
    "FLOAT64": "FLOAT",
    "BOOL": "BOOLEAN",
    "DECIMAL": "NUMERIC",
    "BIGDECIMAL": "BIGNUMERIC",
    "STRUCT": "RECORD",
}
# A type that is text in Arrow is named in the field's metadata, as the Storage API does.
_EXTENSION = b"ARROW:extension:name"
_TEXT_TYPES = {"JSON": b"google:sqlType:json", "GEOGRAPHY": b"google:sqlType:geography"}
_MODES = ("NULLABLE", "REQUIRED", "REPEATED")
# Digits of each type: before the point, and after it.
_DECIMAL_DIGITS = {"NUMERIC": (29, 9), "BIGNUMERIC": (38, 38)}


def read_schema_file(text: str) -> pa.Schema:
    """Returns the Arrow schema of a BigQuery JSON schema.

    Args:
      text: a list of fields as `bq show --schema` prints it, {"fields": [...]}, or {"schema": {"fields": [...]}} as
        `bq show --format=json` prints it.

    Raises:
      UsageError: the text is not such JSON, or a field is wrong.
    """
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise UsageError(f"the schema is not JSON: {error}") from error
    if isinstance(found, dict) and isinstance(found.get("schema"), dict):
        found = found["schema"]
    fields = found.get("fields") if isinstance(found, dict) else found
    if not isinstance(fields, list):
        raise UsageError(
            'the schema is neither a JSON list of fields nor {"fields": [...]} nor {"schema": {"fields": [...]}}; '
            "`bq show --schema DATASET.TABLE` prints one"
        )
    return bigquery_to_arrow_schema(fields)


def json_columns(schema: pa.Schema) -> tuple[str, ...]:
    """Returns the names of the columns whose type is JSON, of a schema that `bigquery_to_arrow_schema` returned."""
    wanted = _TEXT_TYPES["JSON"]
    return tuple(
        field.name
        for field in schema
        if pa.types.is_string(field.type) and (field.metadata or {}).get(_EXTENSION) == wanted
    )


def bigquery_to_arrow_schema(fields: Sequence[Field]) -> pa.Schema:
    """Returns the Arrow schema of a table's fields.

    Raises:
      UsageError: a field is wrong, or has no Arrow type; the text names it.
    """
    return pa.schema(_arrow_fields(fields, ""))


def arrow_to_bigquery_schema(schema: pa.Schema, asked: Asked = BY_ARGUMENTS) -> list[dict[str, Any]]:
    """Returns BigQuery's fields, each with name, type, mode and, for a RECORD, fields.

    uint64 becomes NUMERIC, since BigQuery's INTEGER has a sign; a map becomes repeated records of key and value.

    Args:
      asked: BY_ARGUMENTS in a pipeline of one's own, BY_FLAGS in a command.

    Raises:
      UsageError: a column has no BigQuery type; the text names it.
    """
    return _table_fields(list(schema), "", asked)


def by_name(fields: Iterable[Field]) -> dict[str, Field]:
    """Returns fields by their names in lower case: BigQuery's names ignore case."""
    return {field["name"].lower(): field for field in fields}


def required_columns(fields: Iterable[Field], parent: str = "") -> list[str]:
    """Returns the names of the columns that are REQUIRED, with dots in those of nested ones."""
    found = []
    for field in fields:
        path = parent + field["name"]
        found += [path] if field.get("mode") == "REQUIRED" else []
        found += required_columns(field.get("fields", ()), f"{path}.")
    return found


def nullable(fields: Iterable[Field]) -> list[dict[str, Any]]:
    """Returns the fields with NULLABLE for REQUIRED."""
    return [
        dict(field)
        | ({"mode": "NULLABLE"} if field["mode"] == "REQUIRED" else {})
        | ({"fields": nullable(field["fields"])} if "fields" in field else {})
        for field in fields
    ]


def _arrow_fields(fields: Sequence[Field], parent: str) -> list[pa.Field]:
    arrow_fields = [_arrow_field(field, parent, place) for place, field in enumerate(fields)]
    names = [field.name for field in arrow_fields]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"field '{parent}{name}' is {names.count(name)} times in the schema; keep one of them")
    return arrow_fields


def _arrow_field(field: object, parent: str, place: int) -> pa.Field:
    if not isinstance(field, Mapping) or not isinstance(name := field.get("name"), str) or not name:
        within = f" of '{parent[:-1]}'" if parent else ""
        raise UsageError(f"field {place + 1}{within} in the schema has no name: {json.dumps(field, default=str)}")
    path = parent + name
    mode = str(field.get("mode") or "NULLABLE").upper()
    if mode not in _MODES:
        raise UsageError(f"field '{path}' in the schema has mode {mode}; modes are {', '.join(_MODES)}")
    type_name = str(field.get("type", "")).upper()
    type_name = _ALIASES.get(type_name, type_name)
    kind = _arrow_type(type_name, field, path)
    metadata = {_EXTENSION: _TEXT_TYPES[type_name]} if type_name in _TEXT_TYPES else None
    if mode == "REPEATED":
        return pa.field(name, pa.list_(kind), metadata=metadata)
    return pa.field(name, kind, nullable=mode == "NULLABLE", metadata=metadata)


def _arrow_type(type_name: str, field: Field, path: str) -> pa.DataType:
    if type_name == "RECORD":
        inner = field.get("fields")
        if not isinstance(inner, list) or not inner:
            raise UsageError(f"field '{path}' in the schema is a RECORD and has no fields")
        return pa.struct(_arrow_fields(inner, path + "."))
    if type_name not in _ARROW_TYPES:
        names = [*_ARROW_TYPES, "RECORD", *_ALIASES]
        raise UsageError(f"field '{path}' in the schema has type {type_name or '(none)'}; types are {', '.join(names)}")
    if type_name in _DECIMAL_DIGITS and field.get("precision") is not None:
        return _decimal_type(type_name, field, path)
    return _ARROW_TYPES[type_name]


def _decimal_type(type_name: str, field: Field, path: str) -> pa.DataType:
    before, after = _DECIMAL_DIGITS[type_name]
    try:
        precision, scale = int(field["precision"]), int(field.get("scale") or 0)
    except (TypeError, ValueError) as error:
        raise UsageError(f"field '{path}' in the schema: precision and scale are whole numbers") from error
    if not (0 <= scale <= after and max(1, scale) <= precision <= scale + before):
        raise UsageError(
            f"field '{path}' in the schema is {type_name}({precision}, {scale}); scale goes from 0 to {after}, and "
            f"precision from max(1, scale) to scale + {before}"
        )
    return (pa.decimal128 if type_name == "NUMERIC" else pa.decimal256)(precision, scale)


def _check_names(names: Sequence[str], parent: str, asked: Asked) -> None:
    seen: dict[str, str] = {}
    for name in names:
        if name.lower() in seen:
            raise UsageError(
                f"columns '{parent}{seen[name.lower()]}' and '{parent}{name}' have the same name for BigQuery, which "
                f"ignores case; rename one{asked.rename}"
            )
        seen[name.lower()] = name


def _table_fields(fields: Sequence[pa.Field], parent: str, asked: Asked) -> list[dict[str, Any]]:
    _check_names([field.name for field in fields], parent, asked)
    return [_table_field(field, parent, asked) for field in fields]


def _table_field(field: pa.Field, parent: str, asked: Asked) -> dict[str, Any]:
    kind = shown_type(field.type)
    mode = "NULLABLE" if field.nullable else "REQUIRED"
    if is_list(kind):
        kind, mode = kind.value_type, "REPEATED"
    path = parent + field.name
    if is_list(kind):
        raise UsageError(f"column '{path}' is {field.type}; BigQuery has no lists of lists: {asked.leave_out}")
    return {"name": field.name, **_table_type(kind, field, path, asked), "mode": mode}


def _table_type(kind: pa.DataType, field: pa.Field, path: str, asked: Asked) -> dict[str, Any]:
    types = pa.types
    if types.is_struct(kind) and len(list(kind)):
        return {"type": "RECORD", "fields": _table_fields(list(kind), path + ".", asked)}
    if types.is_decimal(kind):
        return _table_decimal(kind, field, path, asked)
    if types.is_string(kind):
        extension = (field.metadata or {}).get(_EXTENSION)
        return {"type": next((name for name, value in _TEXT_TYPES.items() if value == extension), "STRING")}
    if types.is_timestamp(kind):
        return {"type": "DATETIME" if kind.tz is None else "TIMESTAMP"}
    checks = {
        "NUMERIC": types.is_uint64,
        "INTEGER": types.is_integer,
        "FLOAT": types.is_floating,
        "BOOLEAN": types.is_boolean,
        "BYTES": types.is_binary,
        "DATE": types.is_date,
        "TIME": types.is_time,
    }
    for type_name, is_kind in checks.items():
        if is_kind(kind):
            return {"type": type_name}
    raise UsageError(f"column '{path}' is {field.type}, which BigQuery has no type for: {asked.leave_out}")


def _table_decimal(kind: pa.DataType, field: pa.Field, path: str, asked: Asked) -> dict[str, Any]:
    for type_name, (before, after) in _DECIMAL_DIGITS.items():
        if kind == _ARROW_TYPES[type_name]:
            return {"type": type_name}
        if 0 <= kind.scale <= after and kind.precision - kind.scale <= before:
            return {"type": type_name, "precision": str(kind.precision), "scale": str(kind.scale)}
    raise UsageError(
        f"column '{path}' is {field.type}; BigQuery's largest, BIGNUMERIC, has 38 digits on each side of the point: "
        f"{asked.leave_out}"
    )
