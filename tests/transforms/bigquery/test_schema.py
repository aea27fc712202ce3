import json
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.models.errors import UsageError
from sluice.transforms.bigquery.asked import BY_FLAGS
from sluice.transforms.bigquery.schema import arrow_to_bigquery_schema, bigquery_to_arrow_schema, read_schema_file

TYPES = [
    ("INTEGER", pa.int64()),
    ("FLOAT", pa.float64()),
    ("BOOLEAN", pa.bool_()),
    ("STRING", pa.string()),
    ("BYTES", pa.binary()),
    ("NUMERIC", pa.decimal128(38, 9)),
    ("BIGNUMERIC", pa.decimal256(76, 38)),
    ("DATE", pa.date32()),
    ("TIME", pa.time64("us")),
    ("DATETIME", pa.timestamp("us")),
    ("TIMESTAMP", pa.timestamp("us", "UTC")),
    ("JSON", pa.string()),
    ("GEOGRAPHY", pa.string()),
]
ALIASES = [
    ("INT64", pa.int64()),
    ("FLOAT64", pa.float64()),
    ("BOOL", pa.bool_()),
    ("DECIMAL", pa.decimal128(38, 9)),
    ("BIGDECIMAL", pa.decimal256(76, 38)),
    ("integer", pa.int64()),
]


@pytest.mark.parametrize(("name", "kind"), TYPES)
def test_types_go_both_ways(name: str, kind: pa.DataType) -> None:
    fields = [
        {"name": "n", "type": name, "mode": "NULLABLE"},
        {"name": "r", "type": name, "mode": "REQUIRED"},
        {"name": "l", "type": name, "mode": "REPEATED"},
    ]
    schema = bigquery_to_arrow_schema(fields)
    assert schema == pa.schema([("n", kind), pa.field("r", kind, nullable=False), ("l", pa.list_(kind))])
    assert arrow_to_bigquery_schema(schema) == fields


@pytest.mark.parametrize(("name", "kind"), ALIASES)
def test_other_names_of_types(name: str, kind: pa.DataType) -> None:
    assert bigquery_to_arrow_schema([{"name": "x", "type": name}]) == pa.schema([("x", kind)])


def test_records() -> None:
    inner = [{"name": "b", "type": "STRING", "mode": "REPEATED"}, {"name": "c", "type": "JSON", "mode": "REQUIRED"}]
    fields = [
        {"name": "a", "type": "RECORD", "fields": inner, "mode": "NULLABLE"},
        {"name": "l", "type": "RECORD", "fields": inner, "mode": "REPEATED"},
    ]
    struct = pa.struct([("b", pa.list_(pa.string())), pa.field("c", pa.string(), nullable=False)])
    schema = bigquery_to_arrow_schema(fields)
    assert schema == pa.schema([("a", struct), ("l", pa.list_(struct))])
    assert arrow_to_bigquery_schema(schema) == fields
    assert bigquery_to_arrow_schema([fields[0] | {"type": "STRUCT"}]) == schema.remove(1)


@pytest.mark.parametrize(
    ("name", "precision", "scale", "kind"),
    [
        ("NUMERIC", "10", "2", pa.decimal128(10, 2)),
        ("NUMERIC", "29", "0", pa.decimal128(29, 0)),
        ("BIGNUMERIC", "38", "0", pa.decimal256(38, 0)),
        ("BIGNUMERIC", "40", "38", pa.decimal256(40, 38)),
    ],
)
def test_decimals_of_given_digits(name: str, precision: str, scale: str, kind: pa.DataType) -> None:
    field = {"name": "x", "type": name, "precision": precision, "scale": scale, "mode": "NULLABLE"}
    schema = bigquery_to_arrow_schema([field])
    assert schema == pa.schema([("x", kind)])
    assert arrow_to_bigquery_schema(schema) == [field]


def test_a_scale_may_be_left_out() -> None:
    assert bigquery_to_arrow_schema([{"name": "x", "type": "NUMERIC", "precision": 5}]).field(0).type == pa.decimal128(
        5
    )


TO_BIGQUERY = [
    (pa.int8(), {"type": "INTEGER"}),
    (pa.uint32(), {"type": "INTEGER"}),
    (pa.uint64(), {"type": "NUMERIC"}),
    (pa.float16(), {"type": "FLOAT"}),
    (pa.float32(), {"type": "FLOAT"}),
    (pa.large_string(), {"type": "STRING"}),
    (pa.dictionary(pa.int8(), pa.string()), {"type": "STRING"}),
    (pa.binary(4), {"type": "BYTES"}),
    (pa.date64(), {"type": "DATE"}),
    (pa.time32("s"), {"type": "TIME"}),
    (pa.timestamp("ns"), {"type": "DATETIME"}),
    (pa.timestamp("s", "Europe/Zurich"), {"type": "TIMESTAMP"}),
    (pa.decimal256(20, 5), {"type": "NUMERIC", "precision": "20", "scale": "5"}),
    (pa.decimal128(38, 0), {"type": "BIGNUMERIC", "precision": "38", "scale": "0"}),
]


@pytest.mark.parametrize(("kind", "expected"), TO_BIGQUERY, ids=str)
def test_arrow_types_that_bigquery_has_under_another_name(kind: pa.DataType, expected: dict[str, str]) -> None:
    lists = [pa.list_(kind), pa.large_list(kind), pa.list_(kind, 3)]
    schema = pa.schema([("x", kind), *((f"l{place}", item) for place, item in enumerate(lists))])
    assert arrow_to_bigquery_schema(schema) == [
        {"name": "x", **expected, "mode": "NULLABLE"},
        *({"name": f"l{place}", **expected, "mode": "REPEATED"} for place in range(3)),
    ]


def test_a_map_becomes_repeated_records() -> None:
    assert arrow_to_bigquery_schema(pa.schema([("x", pa.map_(pa.string(), pa.int64()))])) == [
        {
            "name": "x",
            "type": "RECORD",
            "fields": [
                {"name": "key", "type": "STRING", "mode": "REQUIRED"},
                {"name": "value", "type": "INTEGER", "mode": "NULLABLE"},
            ],
            "mode": "REPEATED",
        }
    ]


NO_TYPE = "which BigQuery has no type for: leave it out with --exclude_columns"
NOT_TO_BIGQUERY = [
    (pa.schema([("x", pa.duration("s"))]), f"column 'x' is duration[s], {NO_TYPE}"),
    (pa.schema([("x", pa.null())]), f"column 'x' is null, {NO_TYPE}"),
    (pa.schema([("x", pa.struct([]))]), f"column 'x' is struct<>, {NO_TYPE}"),
    (
        pa.schema([("x", pa.list_(pa.struct([("y", pa.list_(pa.duration("s")))])))]),
        f"column 'x.y' is list<item: duration[s]>, {NO_TYPE}",
    ),
    (
        pa.schema([("x", pa.list_(pa.list_(pa.int64())))]),
        "column 'x' is list<item: list<item: int64>>; BigQuery has no lists of lists: leave it out with "
        "--exclude_columns",
    ),
    (
        pa.schema([("x", pa.decimal256(76, 0))]),
        "column 'x' is decimal256(76, 0); BigQuery's largest, BIGNUMERIC, has 38 digits on each side of the point: "
        "leave it out with --exclude_columns",
    ),
    (
        pa.schema([("age", pa.int64()), ("Age", pa.int64())]),
        "columns 'age' and 'Age' have the same name for BigQuery, which ignores case; rename one (model outputs with "
        "--output_prefix)",
    ),
    (
        pa.schema([("x", pa.struct([("y", pa.int64()), ("y", pa.int64())]))]),
        "columns 'x.y' and 'x.y' have the same name for BigQuery, which ignores case; rename one (model outputs with "
        "--output_prefix)",
    ),
]


@pytest.mark.parametrize(("schema", "text"), NOT_TO_BIGQUERY, ids=lambda value: "")
def test_columns_without_a_bigquery_type_are_errors(schema: pa.Schema, text: str) -> None:
    with pytest.raises(UsageError) as error:
        arrow_to_bigquery_schema(schema, BY_FLAGS)
    assert str(error.value) == text


TYPE_NAMES = (
    "INTEGER, FLOAT, BOOLEAN, STRING, BYTES, NUMERIC, BIGNUMERIC, DATE, TIME, DATETIME, TIMESTAMP, JSON, GEOGRAPHY, "
    "RECORD, INT64, FLOAT64, BOOL, DECIMAL, BIGDECIMAL, STRUCT"
)
WRONG_FIELDS: list[tuple[Any, str]] = [
    ([{"type": "STRING"}], 'field 1 in the schema has no name: {"type": "STRING"}'),
    (["x"], 'field 1 in the schema has no name: "x"'),
    (
        [{"name": "a", "type": "RECORD", "fields": [{"name": "b", "type": "DATE"}, {"name": ""}]}],
        'field 2 of \'a\' in the schema has no name: {"name": ""}',
    ),
    ([{"name": "x"}], f"field 'x' in the schema has type (none); types are {TYPE_NAMES}"),
    ([{"name": "x", "type": "VARCHAR"}], f"field 'x' in the schema has type VARCHAR; types are {TYPE_NAMES}"),
    (
        [{"name": "a", "type": "RECORD", "fields": [{"name": "b", "type": "INTERVAL"}]}],
        f"field 'a.b' in the schema has type INTERVAL; types are {TYPE_NAMES}",
    ),
    (
        [{"name": "x", "type": "STRING", "mode": "OPTIONAL"}],
        "field 'x' in the schema has mode OPTIONAL; modes are NULLABLE, REQUIRED, REPEATED",
    ),
    ([{"name": "x", "type": "RECORD"}], "field 'x' in the schema is a RECORD and has no fields"),
    ([{"name": "x", "type": "RECORD", "fields": []}], "field 'x' in the schema is a RECORD and has no fields"),
    (
        [{"name": "x", "type": "NUMERIC", "precision": "many"}],
        "field 'x' in the schema: precision and scale are whole numbers",
    ),
    (
        [{"name": "x", "type": "NUMERIC", "precision": 38, "scale": 2}],
        "field 'x' in the schema is NUMERIC(38, 2); scale goes from 0 to 9, and precision from max(1, scale) to scale "
        "+ 29",
    ),
    (
        [{"name": "x", "type": "BIGNUMERIC", "precision": 1, "scale": 2}],
        "field 'x' in the schema is BIGNUMERIC(1, 2); scale goes from 0 to 38, and precision from max(1, scale) to "
        "scale + 38",
    ),
    (
        [{"name": "x", "type": "STRING"}, {"name": "x", "type": "DATE"}],
        "field 'x' is 2 times in the schema; keep one of them",
    ),
]


@pytest.mark.parametrize(("fields", "text"), WRONG_FIELDS, ids=lambda value: "")
def test_wrong_fields_are_errors(fields: Any, text: str) -> None:
    with pytest.raises(UsageError) as error:
        read_schema_file(json.dumps(fields))
    assert str(error.value) == text


FIELDS = [{"name": "x", "type": "STRING", "description": "what bq prints besides is ignored"}]


@pytest.mark.parametrize("form", [FIELDS, {"fields": FIELDS}, {"schema": {"fields": FIELDS}, "kind": "bigquery#table"}])
def test_the_forms_of_a_schema_file(form: Any) -> None:
    assert read_schema_file(json.dumps(form)) == pa.schema([("x", pa.string())])


def test_names_of_files_may_differ_in_case_alone() -> None:
    schema = read_schema_file('[{"name": "x", "type": "STRING"}, {"name": "X", "type": "DATE"}]')
    assert schema.names == ["x", "X"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "the schema is not JSON: Expecting value: line 1 column 1 (char 0)"),
        ("name:STRING", "the schema is not JSON: Expecting value: line 1 column 1 (char 0)"),
        ("{}", "the schema is neither a JSON list of fields nor"),
        ('{"schema": []}', "the schema is neither a JSON list of fields nor"),
        ("3", "the schema is neither a JSON list of fields nor"),
    ],
)
def test_texts_that_are_no_schema(text: str, reason: str) -> None:
    with pytest.raises(UsageError) as error:
        read_schema_file(text)
    assert str(error.value).startswith(reason)


SCALARS = st.sampled_from([{"type": name} for name, _ in TYPES]) | st.integers(0, 9).flatmap(
    lambda scale: st.integers(max(1, scale), scale + 29).map(
        lambda precision: {"type": "NUMERIC", "precision": str(precision), "scale": str(scale)}
    )
).filter(lambda found: (found["precision"], found["scale"]) != ("38", "9"))


def fields_of(kinds: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[list[dict[str, Any]]]:
    one = st.tuples(
        st.from_regex(r"[a-z_]\w{0,5}", fullmatch=True), kinds, st.sampled_from(["NULLABLE", "REQUIRED", "REPEATED"])
    )
    several = st.lists(one, min_size=1, max_size=4, unique_by=lambda field: field[0].lower())
    return several.map(lambda found: [{"name": name, **kind, "mode": mode} for name, kind, mode in found])


RECORDS = st.recursive(SCALARS, lambda kinds: fields_of(kinds).map(lambda inner: {"type": "RECORD", "fields": inner}))


@given(fields_of(RECORDS))
def test_any_table_schema_comes_back(fields: list[dict[str, Any]]) -> None:
    assert arrow_to_bigquery_schema(bigquery_to_arrow_schema(fields)) == fields
