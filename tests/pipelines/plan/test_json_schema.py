"""The schema of JSON rows: by it every row is read as it is, whatever order the rows came in."""

import base64
import decimal
import json
import random
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sluice.pipelines.plan.carried_types import exact_floats
from sluice.pipelines.plan.json_schema import JsonSchema, doubt_lines, in_a_line, schema_of, to_json
from sluice.transforms.bigquery.schema import json_columns, read_schema_file
from sluice.transforms.core.formats import JSONL
from sluice.transforms.decode.json import decode_json
from sluice.transforms.decode.json_facts import RowFacts, facts_of
from sluice.transforms.decode.json_values import NOT_FINITE
from sluice.transforms.decode.lines import line_block
from sluice.transforms.decode.spec import InputSpec
from sluice.transforms.files.find_source import Source
from tests.support.formats.decode_cases import rows_of
from tests.support.sizes import examples


def to_lines(rows: list[Any]) -> list[bytes]:
    return [json.dumps(row, ensure_ascii=bool(place % 2)).encode() for place, row in enumerate(rows)]


def schema(*rows: Any) -> JsonSchema:
    return schema_of(facts_of(to_lines(list(rows))))


def spec_of(found: JsonSchema) -> InputSpec:
    """How a job reads these columns, whose schema it got as the file that is printed."""
    arrow = read_schema_file(to_json(found))
    columns = dict(zip(arrow.names, arrow.types, strict=True))
    exact = exact_floats(Source(JSONL, "", 1, 1, ()), columns)
    return InputSpec(JSONL, tuple(columns.items()), exact=exact, texts=json_columns(arrow))


def twin(value: Any, field: dict[str, Any]) -> Any:
    """What a value is in a column, by the field's type alone."""
    if value is None:
        return None
    if field["mode"] == "REPEATED":
        return [twin(each, field | {"mode": "NULLABLE"}) for each in value]
    if field["type"] == "RECORD":
        return {each["name"]: twin(value.get(each["name"]), each) for each in field["fields"]}
    if field["type"] == "FLOAT":
        return repr(float(NOT_FINITE.get(value, value) if isinstance(value, str) else value))
    return base64.b64decode(value["b64"]) if field["type"] == "BYTES" else value


def as_found(value: Any, field: dict[str, Any]) -> Any:
    """What was read, in the form of the twin."""
    if value is None:
        return None
    if field["mode"] == "REPEATED":
        return [as_found(each, field | {"mode": "NULLABLE"}) for each in value]
    if field["type"] == "RECORD":
        return {each["name"]: as_found(value[each["name"]], each) for each in field["fields"]}
    if isinstance(value, decimal.Decimal):
        assert field["type"] in ("NUMERIC", "BIGNUMERIC") and value == int(value)
        return int(value)
    if field["type"] == "JSON":
        return json.loads(value)
    return repr(value) if isinstance(value, float) else value


INTEGERS = st.integers(-3, 3) | st.sampled_from(
    [
        2**53,
        2**53 + 1,
        -(2**53) - 1,
        2**63 - 1,
        2**63,
        -(2**63),
        2**64,
        10**22,
        10**29,
        -(10**28),
        10**37,
        10**38,
        10**40,
    ]
)
FLOATS = st.sampled_from([0.5, -0.0, 1.0, 1e300, 5e-324, 2.0**53, 2.0**60, 1e22, float("nan"), float("inf")])
TEXTS = st.text('a"\\{}[],:\u2028é', max_size=4) | st.sampled_from(
    ["NaN", "-Infinity", "null", "5", "2024-01-02", "2024-01-02T03:04:05Z", "AQ==", "\u0000", "true"]
)
BYTES = st.binary(max_size=2).map(lambda data: {"b64": base64.b64encode(data).decode()})
LEAVES = [st.none(), st.booleans(), INTEGERS, FLOATS, TEXTS, BYTES]
KEYS = st.sampled_from(["a", "A", "b.c", "b64", 'é"\\', "", "\n", "_sluice_file"])
# A column of values of one kind, of two, or of any, within lists and objects.
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(LEAVES),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)


def column(kinds: list[st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    leaf = st.one_of(kinds)
    shapes = [
        leaf,
        st.lists(leaf, max_size=3),
        st.fixed_dictionaries({}, optional={"a": leaf, "b": st.lists(leaf, max_size=2)}),
    ]
    return st.sampled_from([*shapes, st.lists(shapes[2], max_size=2), VALUES]).flatmap(
        lambda values: st.lists(st.none() | values, min_size=1, max_size=6)
    )


COLUMN = st.lists(st.sampled_from(LEAVES), min_size=1, max_size=2).flatmap(column)
COLUMNS = st.dictionaries(KEYS, COLUMN, max_size=4)


@st.composite
def tables(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Rows, some of which lack some of the columns."""
    columns = draw(COLUMNS)
    count = max(map(len, columns.values()), default=1)
    rows: list[dict[str, Any]] = [{} for _ in range(count)]
    for name, values in columns.items():
        for row, value in zip(draw(st.permutations(rows)), values, strict=False):
            row[name] = value
    return rows


def readable(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows that are read at all: of numbers beyond 64 bits beside a bare NaN none is."""
    return [row for row in rows if not facts_of([json.dumps(row).encode()]).bad]


@examples(60)
@example([{"a": 1}, {"a": 0.5}, {"a": None}, {"b": [1.5, 2**53 + 2]}])
@example([{"a": 2**53 + 1}, {"a": 0.5}])
@example([{"a": [{"a": 1}, None]}, {"a": [{"b": [None, 0.5]}]}, {"a": []}])
@example([{"a": 10**30}, {"a": -1}, {"b": {"a": 2**64}}])
@example([{"a": "x", "b": 1}] * 100 + [{"a": "x", "b": [1]}] + [{"a": [1, {"b": "\u2028"}], "b": 1}])
@given(tables())
def test_every_row_is_read_as_it_is(rows: list[dict[str, Any]]) -> None:
    rows = readable(rows)
    found = schema(*rows)
    spec = spec_of(found)
    decoded = decode_json(line_block(b"\n".join(to_lines(rows)), 0), spec, "f#byte=")
    assert [failure.error_message for failure in decoded.failures] == []
    read = rows_of(decoded)
    assert len(read) == len(rows) or not spec.columns
    for field in found.fields:
        values = [as_found(row[field["name"]], field) for row in read]
        assert repr(values) == repr([twin(row.get(field["name"]), field) for row in rows])
    known = {field["name"] for field in found.fields}.union(found.left_out)
    assert known == {name for row in rows for name in row}


@examples(25)
@given(tables(), st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_count(rows: list[dict[str, Any]], random_: random.Random) -> None:
    others = list(rows)
    random_.shuffle(others)
    assert schema(*others) == schema(*rows)


def types(*values: Any) -> dict[str, Any]:
    """The field of a column that holds these values."""
    (field,) = schema(*({"a": value} for value in values)).fields
    assert field.pop("name") == "a"
    return field


def nullable(kind: str) -> dict[str, Any]:
    return {"type": kind, "mode": "NULLABLE"}


CASES: list[tuple[list[Any], dict[str, Any], str]] = [
    ([1, None, -5], nullable("INTEGER"), ""),
    ([2**63 - 1, -(2**63)], nullable("INTEGER"), ""),
    ([2**63], nullable("NUMERIC"), "whole numbers of more than 64 bits: taken as NUMERIC"),
    ([10**29 - 1, -(10**28)], nullable("NUMERIC"), "taken as NUMERIC"),
    ([10**29], nullable("BIGNUMERIC"), "taken as BIGNUMERIC"),
    ([10**38], nullable("JSON"), "whole numbers of up to 39 digits: taken as the text of its JSON"),
    ([1, 2.5], nullable("FLOAT"), "whole numbers and others: taken as FLOAT"),
    ([1.0, 2.0], nullable("FLOAT"), ""),
    ([2**53 + 1, 0.5], nullable("JSON"), "floats, and whole numbers that a float would round"),
    ([10**22, 0.5], nullable("FLOAT"), "whole numbers and others"),
    ([0.5, "NaN"], nullable("FLOAT"), ""),
    (["NaN", "-Infinity"], nullable("STRING"), ""),
    ([float("nan")], nullable("FLOAT"), ""),
    ([True, None], nullable("BOOLEAN"), ""),
    ([True, 1], nullable("JSON"), "booleans and numbers: taken as the text of its JSON"),
    (["x", 1], nullable("JSON"), "numbers and strings"),
    (["007", ""], nullable("STRING"), ""),
    (["2024-01-02", "2024-01-02 03:04:05.5 UTC", None], nullable("STRING"), "strings that look like times"),
    (["2024-01-02", "today"], nullable("STRING"), ""),
    ([None, None], nullable("STRING"), "always null, or an empty list: taken as STRING"),
    ([[], None], {"type": "STRING", "mode": "REPEATED"}, "always null, or an empty list"),
    ([[1, 2], []], {"type": "INTEGER", "mode": "REPEATED"}, ""),
    ([[1, None]], {"type": "INTEGER", "mode": "REPEATED"}, "nulls within lists, which a BigQuery table refuses"),
    ([[1], 1], nullable("JSON"), "numbers and lists"),
    ([[[1]]], nullable("JSON"), "lists within lists"),
    ([[1, "x"]], nullable("JSON"), "numbers and strings"),
    ([{"b64": "AQ=="}, {"b64": ""}], nullable("BYTES"), ""),
    ([{"b64": "AQ=="}, {"b64": "!"}],
     {"type": "RECORD", "fields": [{"name": "b64", **nullable("STRING")}], "mode": "NULLABLE"},
     "objects: taken as RECORD"),
    ([{}], nullable("JSON"), "objects without a key"),
    ([{"": 1}], nullable("JSON"), "objects with a key that is empty"),
    ([{"x": {"y": 1}}, {"x": {"y": "1"}}], nullable("JSON"), "a.x.y has numbers and strings: taken as the text"),
    ([[{"x": 1}, {"y": [True]}]],
     {"type": "RECORD", "fields": [
         {"name": "x", **nullable("INTEGER")}, {"name": "y", "type": "BOOLEAN", "mode": "REPEATED"}
     ], "mode": "REPEATED"}, "objects: taken as RECORD"),
]  # fmt: skip


@pytest.mark.parametrize(("values", "field", "doubt"), CASES)
def test_types_and_doubts(values: list[Any], field: dict[str, Any], doubt: str) -> None:
    for order in (values, values[::-1]):
        assert types(*order) == field
        lines = doubt_lines(schema(*({"a": value} for value in order)))
        assert lines == [] if not doubt else any(line.startswith("a: ") and doubt in line for line in lines)


def deep(levels: int, leaf: Any = 1) -> Any:
    return {"x": deep(levels - 1, leaf)} if levels else leaf


def test_objects_as_deep_as_a_table_holds_them() -> None:
    assert types(deep(15))["type"] == "RECORD"
    assert types(deep(16)) == types(deep(200)) == types([deep(16)]) == nullable("JSON")


def test_columns_are_in_the_order_of_the_rows() -> None:
    assert [field["name"] for field in schema({"z": 1, "b": 2}, {"z": 1, "a": 3}, {"y": 1}).fields] == [
        "y",
        "z",
        "a",
        "b",
    ]


def test_names_that_are_no_columns() -> None:
    found = schema({"": 1, "_sluice_file": 2, "a": 3})
    assert ([field["name"] for field in found.fields], found.left_out) == (["a"], ("", "_sluice_file"))
    assert doubt_lines(found)[0] == "'': the name is none that a column can have: it is left out"


def test_names_that_are_one_for_bigquery() -> None:
    found = schema({"Id": 1, "id": 2, "r": {"X": 1, "x": 1}})
    lines = doubt_lines(found)
    assert "id: BigQuery takes it for Id, since its names ignore case" in lines
    assert "r.x: BigQuery takes it for r.X, since its names ignore case" in lines


def test_escaped_names_are_the_same() -> None:
    found = schema_of(facts_of([b'{"ab": 1}', b'{"a\\u0062": 2, "ab": "last"}']))
    assert [(field["name"], field["type"]) for field in found.fields] == [("ab", "JSON")]


def test_rows_that_are_no_objects_count() -> None:
    found = schema_of(facts_of([b'{"a": 1}', b"[1]", b"{", b'"x"', b"[" * 5000, b'{"a": 1} {"a": 1}']))
    assert (found.rows, found.bad) == (6, 5)
    assert doubt_lines(found) == ["5 of 6 rows, which are no JSON objects: they would fail"]


def test_the_text_is_what_input_schema_takes() -> None:
    found = schema({"a": 1, "é": [0.5], "r": {"t": "x"}})
    assert to_json(found) == (
        '[\n  {"name": "a", "type": "INTEGER", "mode": "NULLABLE"},\n'
        '  {"name": "é", "type": "FLOAT", "mode": "REPEATED"},\n'
        '  {"name": "r", "type": "RECORD", "fields": [{"name": "t", "type": "STRING", "mode": "NULLABLE"}], "mode": '
        '"NULLABLE"}\n]\n'
    )
    assert read_schema_file(to_json(found)) == pa.schema(
        [("a", pa.int64()), ("é", pa.list_(pa.float64())), ("r", pa.struct([("t", pa.string())]))]
    )
    assert read_schema_file(to_json(schema_of(RowFacts()))) == pa.schema([])
    assert in_a_line(found) == "a INTEGER, é FLOAT REPEATED, r RECORD (from 1 rows)"
