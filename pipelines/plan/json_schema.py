"""The schema of JSON rows, made from what they are: types by which every one of them is read, and what is unsure."""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

from sluice.models.reserved import is_reserved
from sluice.pipelines.plan.names import some_names
from sluice.transforms.decode.json_facts import MAX_DEPTH, Facts, RowFacts, digits, is_int64

# A field in BigQuery's JSON form: name, type, mode and, for a RECORD, fields.
FieldDict: TypeAlias = dict[str, Any]

# Digits before the point of NUMERIC, and of BIGNUMERIC.
_NUMERIC, _BIGNUMERIC = 29, 38
_JSON, _RECORD, _REPEATED, _NULLABLE = "JSON", "RECORD", "REPEATED", "NULLABLE"
# So many columns are named in a line of a log.
_SHOWN = 40


@dataclasses.dataclass(frozen=True)
class Doubt:
    """Something about a column that may be otherwise than it was taken.

    Attributes:
      column: its path, with dots.
      text: what was found, and what was made of it.
    """

    column: str
    text: str


@dataclasses.dataclass(frozen=True)
class JsonSchema:
    """The schema of rows.

    Attributes:
      fields: in the form of --input_schema.
      doubts: what it is unsure of, in the order of the columns.
      left_out: names of columns that no schema can have.
      rows, bad: how many rows it was made from, and how many of them are no JSON objects.
    """

    fields: tuple[FieldDict, ...]
    doubts: tuple[Doubt, ...]
    left_out: tuple[str, ...]
    rows: int
    bad: int


class _NeedsJson(Exception):
    """No type but JSON holds these values. The text says what they are."""


def schema_of(found: RowFacts) -> JsonSchema:
    """Returns the schema by which every row is read, whatever the order that the rows came in."""
    fields: list[FieldDict] = []
    doubts: list[Doubt] = []
    left_out: list[str] = []
    for name, facts in found.columns.named():
        if not name or is_reserved(name):
            left_out.append(name)
            doubts.append(Doubt(name or "''", "the name is none that a column can have: it is left out"))
            continue
        field, unsure = _column(name, facts)
        fields.append(field)
        doubts += unsure
    doubts += _same_but_for_case([field["name"] for field in fields])
    return JsonSchema(tuple(fields), tuple(doubts), tuple(left_out), found.rows, found.bad)


def _column(name: str, facts: Facts) -> tuple[FieldDict, list[Doubt]]:
    doubts: list[Doubt] = []
    try:
        return _field(name, facts, name, 1, doubts), doubts
    except _NeedsJson as reason:
        return {"name": name, "type": _JSON, "mode": _NULLABLE}, [
            Doubt(name, f"{reason}: taken as the text of its JSON")
        ]


def _field(name: str, facts: Facts, path: str, depth: int, doubts: list[Doubt]) -> FieldDict:
    """Returns the field for values.

    Raises:
      _NeedsJson: there is none, unless it is JSON.
    """
    kinds = list(_kinds(facts))
    if len(kinds) > 1:
        raise _NeedsJson(f"{_named(path, depth)}{' and '.join(kinds)}")
    if facts.lists:
        return _list(name, facts.items or Facts(), path, depth, doubts)
    return {"name": name, **_type(facts, path, depth, doubts), "mode": _NULLABLE}


def _kinds(facts: Facts) -> Iterator[str]:
    """Yields the kinds of values that no one type holds; the words for floats that are not finite count as numbers."""
    if facts.booleans:
        yield "booleans"
    if facts.numbers:
        yield "numbers"
    if facts.strings and not (facts.numbers and facts.words == facts.strings):
        yield "strings"
    if facts.lists:
        yield "lists"
    if facts.objects:
        yield "objects"


def _named(path: str, depth: int) -> str:
    return "" if depth == 1 else f"{path} has "


def _list(name: str, items: Facts, path: str, depth: int, doubts: list[Doubt]) -> FieldDict:
    if items.lists:
        raise _NeedsJson(f"{_named(path, depth)}lists within lists")
    field = _field(name, items, path, depth, doubts)
    if items.nulls and any(_kinds(items)):
        doubts.append(Doubt(path, "nulls within lists, which a BigQuery table refuses"))
    return field | {"mode": _REPEATED}


def _type(facts: Facts, path: str, depth: int, doubts: list[Doubt]) -> FieldDict:
    """Returns the type of values that are not lists, in the form of a field."""
    if facts.objects:
        return _object(facts, path, depth, doubts)
    if facts.numbers:
        return {"type": _number(facts, path, depth, doubts)}
    if facts.booleans:
        return {"type": "BOOLEAN"}
    if not facts.strings:
        doubts.append(Doubt(path, "always null, or an empty list: taken as STRING"))
    elif facts.times == facts.strings:
        doubts.append(
            Doubt(path, "strings that look like times: taken as STRING; DATE, DATETIME or TIMESTAMP may be meant")
        )
    return {"type": "STRING"}


def _number(facts: Facts, path: str, depth: int, doubts: list[Doubt]) -> str:
    if facts.floats or facts.words:
        if facts.rounded:
            raise _NeedsJson(f"{_named(path, depth)}floats, and whole numbers that a float would round")
        if facts.integers:
            doubts.append(Doubt(path, "whole numbers and others: taken as FLOAT"))
        return "FLOAT"
    if is_int64(facts):
        return "INTEGER"
    count = digits(facts)
    if count > _BIGNUMERIC:
        raise _NeedsJson(f"{_named(path, depth)}whole numbers of up to {count} digits")
    kind = "NUMERIC" if count <= _NUMERIC else "BIGNUMERIC"
    doubts.append(Doubt(path, f"whole numbers of more than 64 bits: taken as {kind}"))
    return kind


def _object(facts: Facts, path: str, depth: int, doubts: list[Doubt]) -> FieldDict:
    if facts.encoded == facts.objects:
        return {"type": "BYTES"}
    if facts.deep or depth > MAX_DEPTH:
        raise _NeedsJson(f"objects within more than {MAX_DEPTH} others")
    if not facts.fields:
        raise _NeedsJson(f"{_named(path, depth)}objects without a key")
    if "" in facts.fields:
        raise _NeedsJson(f"{_named(path, depth)}objects with a key that is empty")
    if depth == 1:
        doubts.append(Doubt(path, "objects: taken as RECORD; CSV holds it with --flatten only, and TFRecord does not"))
    doubts += _same_but_for_case([f"{path}.{name}" for name in facts.fields])
    inner = [_field(name, each, f"{path}.{name}", depth + 1, doubts) for name, each in facts.named()]
    return {"type": _RECORD, "fields": inner}


def _same_but_for_case(names: Sequence[str]) -> list[Doubt]:
    first: dict[str, str] = {}
    doubts = []
    for name in sorted(names):
        other = first.setdefault(name.lower(), name)
        if other != name:
            doubts.append(Doubt(name, f"BigQuery takes it for {other}, since its names ignore case"))
    return doubts


def to_json(schema: JsonSchema) -> str:
    """Returns the text of a file for --input_schema, a column a line."""
    lines = ",\n".join(f"  {json.dumps(field, ensure_ascii=False)}" for field in schema.fields)
    return f"[\n{lines}\n]\n" if lines else "[]\n"


def in_a_line(schema: JsonSchema) -> str:
    """Returns the columns and their types, as a line of a log."""
    shown = [f"{field['name']} {_shown_type(field)}" for field in schema.fields]
    return f"{some_names(shown, _SHOWN) if shown else 'no column'} (from {schema.rows:,} rows)"


def _shown_type(field: FieldDict) -> str:
    return f"{field['type']} {_REPEATED}" if field["mode"] == _REPEATED else str(field["type"])


def doubt_lines(schema: JsonSchema) -> list[str]:
    """Returns what the schema is unsure of, a column a line."""
    lines = [f"{doubt.column}: {doubt.text}" for doubt in schema.doubts]
    if schema.bad:
        lines.append(f"{schema.bad:,} of {schema.rows:,} rows, which are no JSON objects: they would fail")
    return lines
