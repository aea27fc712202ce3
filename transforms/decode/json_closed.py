"""Columns of JSON objects that are closed to keys which their types have no fields for."""

import pyarrow as pa

from sluice.models.wording import message
from sluice.transforms.decode.json_values import Json
from sluice.transforms.decode.spec import InputSpec


def closed_to(row: Json, spec: InputSpec) -> str:
    """Returns why columns are closed to the values of a row; "": they are not."""
    if not spec.closed or not isinstance(row, dict):
        return ""
    kinds = dict(spec.columns)
    for name in spec.closed:
        if (key := unknown_key(row.get(name), kinds[name])) is not None:
            text = "column '{name}': no object of the first rows has the key {}; declare it in --input_schema FILE"
            return message(text, repr(key), name=name)
    return ""


def unknown_key(value: Json, kind: pa.DataType) -> str | None:
    """Returns a key of an object in a value that its type has no field for, unless it is null; None: there is none."""
    if isinstance(value, list):
        leaf = kind.value_type if pa.types.is_list(kind) else kind
        return next((key for each in value if (key := unknown_key(each, leaf)) is not None), None)
    if not isinstance(value, dict) or not pa.types.is_struct(kind):
        return None
    fields = {field.name: field.type for field in kind}
    for key, each in value.items():
        found = unknown_key(each, fields[key]) if key in fields else None if each is None else key
        if found is not None:
            return found
    return None
