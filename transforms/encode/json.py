"""Scored rows as JSON lines, built column by column.

Arrow joins pieces of text; no row becomes a Python object. A row of 13 integers, 26 strings and a float takes 1.6 us
(more with nulls); `orjson.dumps` of each row of `to_pylist()` takes 5.0.
"""

from collections.abc import Sequence
from typing import BinaryIO

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from sluice.models.errors import SluiceError
from sluice.models.reserved import PAYLOAD
from sluice.models.tensors.column_types import is_list
from sluice.transforms.core.search import holds
from sluice.transforms.encode.base import (
    OutputSpec,
    data_bytes,
    data_view,
    join,
    parts,
    replace_values,
    select_columns,
    shown_schema,
)
from sluice.transforms.encode.text import check_texts, column_text, has_text

# JSON has no such numbers; these strings are the proto3 mapping: https://protobuf.dev/programming-guides/json/
_NONFINITE = ('"NaN"', '"Infinity"', '"-Infinity"')
# The characters that RFC 8259 wants escaped. The backslash is first: later it would escape the escapes.
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_ESCAPES |= {chr(code): f"\\u{code:04x}" for code in range(32) if chr(code) not in _ESCAPES}


def json_unsupported(kind: pa.DataType) -> str | None:
    """Returns the part of this shown type that JSON cannot hold, or None."""
    if is_list(kind):
        return json_unsupported(kind.value_type)
    if pa.types.is_struct(kind):
        return next((found for field in kind if (found := json_unsupported(field.type))), None)
    return None if has_text(kind) else str(kind)


class JsonEncoder:
    """One JSON object a line.

    Strings are escaped only where JSON asks for it. Binary, decimals, dates, times and timestamps are strings (see
    `column_text`). NaN and the infinities are the strings "NaN", "Infinity" and "-Infinity", also in lists.
    """

    def __init__(self, file: BinaryIO, spec: OutputSpec) -> None:
        self._file = file
        self._raw = spec.raw
        self._schema = _schema(spec)

    def write(self, batch: pa.RecordBatch) -> None:
        for part in parts(_selected(batch, self._schema, self._raw)):
            self._file.write(data_bytes(_texts(part, self._raw, "}\n")))

    def close(self) -> None:
        """A file of lines has no end."""


def json_objects(batch: pa.RecordBatch, spec: OutputSpec) -> pa.ChunkedArray:
    """Returns binary [rows]: each row as a JSON object on one line, without a line end; see JsonEncoder.

    Raises:
      SluiceError: a column is missing, or has values that its column in the output cannot hold; or the source text of
        a raw row is not a JSON object.
    """
    selected = _selected(batch, _schema(spec), spec.raw)
    texts = [_texts(part, spec.raw, "}").view(pa.binary()) for part in parts(selected)]
    return pa.chunked_array(texts, pa.binary())


def _selected(batch: pa.RecordBatch, schema: pa.Schema, raw: bool) -> pa.RecordBatch:
    selected = select_columns(batch, schema)
    check_texts(selected)
    if not raw:
        return selected
    place = selected.schema.get_field_index(PAYLOAD)
    return selected.set_column(place, selected.schema.field(place), _on_one_line(selected.column(place)))


def _on_one_line(objects: pa.Array) -> pa.Array:
    """Returns JSON texts without line ends, which are white space: within a string they are escaped."""
    data = data_view(objects)
    if not (holds(data, b"\n") or holds(data, b"\r")):
        return objects
    texts = objects.view(pa.string())
    for end in ("\n", "\r"):
        texts = pc.replace_substring(texts, end, " ")
    return texts.view(pa.binary())


def json_texts(array: pa.Array) -> pa.Array:
    """Returns string [rows]: each value of an array of a shown type as JSON text, `null` where it is null."""
    return join(_value(array), len(array), "null")


def _schema(spec: OutputSpec) -> pa.Schema:
    """Returns the columns of an object. The last column of a raw one is its source text."""
    schema = shown_schema(spec.schema)
    return schema.append(pa.field(PAYLOAD, pa.binary(), nullable=False)) if spec.raw else schema


def _texts(batch: pa.RecordBatch, raw: bool, end: str) -> pa.Array:
    """Returns string [rows]: each row as an object.

    Args:
      raw: the last column is the source object, and the others become members at its end.
      end: the end of an object.
    """
    if not raw:
        return join(_members(batch.schema.names, batch.columns, "{", end), batch.num_rows, "null")
    opened = _without_brace(batch.column(PAYLOAD))
    empty = pc.ends_with(opened, "{")
    comma: pa.Array | str = pc.if_else(empty, "", ",") if pc.any(empty).as_py() else ","
    members = _members(batch.schema.names[:-1], batch.columns[:-1], "", end)
    return join([opened, comma, *members], batch.num_rows, "null")


def _without_brace(objects: pa.Array) -> pa.Array:
    """Returns string [rows]: the texts of the objects without their closing braces."""
    trimmed = pc.ascii_rtrim_whitespace(objects.view(pa.string()))
    closed = pc.ends_with(trimmed, "}")
    if not pc.all(closed).as_py():
        row = pc.index(closed, False).as_py()
        raise SluiceError(
            f"a source row is not a JSON object, so no columns can be added to it: {objects[row].as_py()[:200]!r}"
        )
    return pc.ascii_rtrim_whitespace(pc.binary_slice(trimmed.view(pa.binary()), 0, -1).view(pa.string()))


def _members(names: Sequence[str], columns: Sequence[pa.Array], start: str, end: str) -> list[pa.Array | str]:
    """Returns the pieces of `start "name": value, "name": value end`."""
    pieces: list[pa.Array | str] = []
    text = start
    for place, (name, column) in enumerate(zip(names, columns, strict=True)):
        before, values, after = _value(column)
        pieces += [f"{text}{',' * (place > 0)}{orjson.dumps(name).decode()}:{before}", values]
        text = after
    return [*pieces, text + end]


def _value(array: pa.Array) -> tuple[str, pa.Array, str]:
    """Returns the text before each value, the values as string [rows] (null for null), and the text after each."""
    before, values, after = _unwrapped(array)
    if before and values.null_count:
        return "", pc.binary_join_element_wise(before, values, after, ""), ""
    return before, values, after


def _unwrapped(array: pa.Array) -> tuple[str, pa.Array, str]:
    kind = array.type
    if pa.types.is_string(kind):
        return '"', _escaped(array), '"'
    if is_list(kind):
        return "[", pc.binary_join(replace_values(array, json_texts(array.flatten())), ","), "]"
    if pa.types.is_struct(kind):
        names = [field.name for field in kind]
        objects = join(_members(names, array.flatten(), "{", "}"), len(array), "null")
        return "", pc.if_else(array.is_valid(), objects, None) if array.null_count else objects, ""
    text = column_text(array, _NONFINITE)
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind):
        return "", text, ""
    return '"', text, '"'


def _escaped(strings: pa.Array) -> pa.Array:
    data = data_view(strings)
    if holds(data, b'"') or holds(data, b"\\") or (np.frombuffer(data, np.uint8) < 32).any():
        for character, escape in _ESCAPES.items():
            if holds(data, character.encode()):
                strings = pc.replace_substring(strings, character, escape)
    return strings
