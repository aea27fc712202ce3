import datetime
import decimal
import json
import math
import re
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.json as pa_json
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.transforms.decode.json_values import coerce, form_of, from_form, parse_json
from tests.support.sizes import examples

STRUCT = pa.struct([("day", pa.date32()), ("n", pa.list_(pa.int64()))])
LISTS = pa.list_(pa.int64())
NESTED = pa.list_(pa.list_(pa.int64()))
TEXTS, BINARIES = pa.list_(pa.string()), pa.list_(pa.binary())

# (JSON value, type) -> value, or the text of the error.
CASES: list[tuple[Any, pa.DataType, Any]] = [
    (1, pa.int64(), 1),
    (1.0, pa.int64(), 1),
    (1e3, pa.int8(), ValueError("1000 is out of the range of int8")),
    (1.5, pa.int64(), ValueError("int64 is expected, found 1.5")),
    (1e17, pa.int64(), ValueError("int64 is expected, found 1e+17")),
    (2**63, pa.int64(), ValueError("9223372036854775808 is out of the range of int64")),
    (2**64 - 1, pa.uint64(), 2**64 - 1),
    (True, pa.int64(), ValueError("int64 is expected, found True")),
    ("1", pa.int64(), ValueError("int64 is expected, found '1'")),
    ([1], pa.int64(), 1),
    ([[1]], pa.int64(), 1),
    ([], pa.int64(), ValueError("one value is expected, found []")),
    ([1, 2], pa.int64(), ValueError("one value is expected, found [1, 2]")),
    ({}, pa.int64(), ValueError("int64 is expected, found {}")),
    (None, pa.int64(), None),
    (1, pa.float32(), 1.0),
    (0.1, pa.float32(), float(np.float32(0.1))),
    (1e39, pa.float32(), ValueError("1e+39 is out of the range of float")),
    ("NaN", pa.float64(), math.nan),
    ("-Infinity", pa.float64(), -math.inf),
    (math.inf, pa.float64(), math.inf),
    ("1", pa.float64(), ValueError("a number is expected, found '1'")),
    (False, pa.float64(), ValueError("a number is expected, found False")),
    (True, pa.bool_(), True),
    (1, pa.bool_(), ValueError("true or false is expected, found 1")),
    ("a", pa.string(), "a"),
    ("", pa.string(), ""),
    (1, pa.string(), ValueError("a string is expected, found 1")),
    ({"b64": "w6k="}, pa.string(), "é"),
    ({"b64": "/w=="}, pa.string(), ValueError("the bytes of '/w==' are not UTF-8; declare it BYTES in --input_schema")),
    ({"b64": "/w==", "more": 1}, pa.binary(), b"\xff"),
    ("/w==", pa.binary(), b"\xff"),
    ("/w", pa.binary(), ValueError("'/w' is not base64")),
    ({"b64": 1}, pa.binary(), ValueError("base64 text is expected, found {'b64': 1}")),
    ({"b64": None}, pa.binary(), ValueError("base64 text is expected")),
    ({}, pa.binary(), ValueError("base64 text is expected, found {}")),
    ("2024-02-29", pa.date32(), datetime.date(2024, 2, 29)),
    (5, pa.date32(), ValueError("as text is expected, found 5")),
    ("x", pa.date32(), ValueError("x")),
    ("01:02:03", pa.time64("us"), datetime.time(1, 2, 3)),
    ("2024-02-29 01:02:03 UTC", pa.timestamp("us"), datetime.datetime(2024, 2, 29, 1, 2, 3)),
    ("1.5", pa.decimal128(5, 2), decimal.Decimal("1.50")),
    (1.5, pa.decimal128(5, 2), decimal.Decimal("1.50")),
    (True, pa.decimal128(5, 2), ValueError("found True")),
    ("1.555", pa.decimal128(5, 2), ValueError("would cause data loss")),
    ([], LISTS, []),
    ([1, None], LISTS, [1, None]),
    ([[1, 2], [3, 4]], LISTS, [1, 2, 3, 4]),
    ([[[1], [2]], [[3], [4]]], LISTS, [1, 2, 3, 4]),
    ([[1], [2, 3]], LISTS, ValueError("lists of unequal lengths")),
    ([None, [1]], LISTS, ValueError("lists of unequal lengths")),
    ([1, [2]], LISTS, ValueError("lists of unequal lengths")),
    (1, LISTS, ValueError("a list is expected, found 1")),
    (["1"], LISTS, ValueError("int64 is expected, found '1'")),
    ([[1], [2, 3], []], NESTED, [[1], [2, 3], []]),
    ([1], NESTED, ValueError("a list is expected, found 1")),
    (["a", {"b64": "YQ=="}], TEXTS, ["a", "a"]),
    ([{"b64": "/w=="}, None], BINARIES, [b"\xff", None]),
    ({"day": "2024-02-29", "n": [1]}, STRUCT, {"day": datetime.date(2024, 2, 29), "n": [1]}),
    ({"other": 1}, STRUCT, {"day": None, "n": None}),
    ({"day": 1}, STRUCT, ValueError("as text is expected")),
    ("a", STRUCT, ValueError("an object is expected, found 'a'")),
]


@pytest.mark.parametrize(("value", "kind", "expected"), CASES, ids=str)
def test_what_a_json_value_is_in_a_type(value: Any, kind: pa.DataType, expected: Any) -> None:
    if isinstance(expected, ValueError):
        with pytest.raises(ValueError, match=re.escape(str(expected))):
            coerce(value, kind)
    else:
        assert repr(pa.array([coerce(value, kind)], kind).to_pylist()) == repr([expected])


def parse_column(values: list[Any], kind: pa.DataType, form: pa.DataType) -> pa.Array:
    """The column by pyarrow's reader, all rows at once."""
    data = b"".join(json.dumps({"v": value}).encode() + b"\n" for value in values)
    options = pa_json.ParseOptions(explicit_schema=pa.schema([("v", form)]), unexpected_field_behavior="ignore")
    return from_form(pa_json.read_json(pa.BufferReader(data), parse_options=options)["v"].combine_chunks(), kind)


def leaves(kind: pa.DataType) -> st.SearchStrategy[Any]:
    values = [value for value, case_kind, _ in CASES if case_kind == kind]
    return st.sampled_from(values)


@examples(20)
@pytest.mark.parametrize("kind", sorted({kind for _, kind, _ in CASES}, key=str), ids=str)
@given(data=st.data())
def test_what_pyarrow_reads_at_once_is_what_each_value_is(kind: pa.DataType, data: st.DataObject) -> None:
    """A row must not depend on its neighbours: if the whole column is accepted, so is each value by itself."""
    values = data.draw(st.lists(leaves(kind), min_size=1, max_size=4))
    form = form_of(next((value for value in values if value is not None), None), kind)
    try:
        found = parse_column(values, kind, form)
    except (ValueError, pa.ArrowException):
        return
    found.validate(full=True)
    assert found.type == kind
    assert repr(found.to_pylist()) == repr(pa.array([coerce(value, kind) for value in values], kind).to_pylist())


def all_forms() -> list[tuple[list[Any], pa.DataType]]:
    return [
        ([1, None, 3], pa.int64()),
        ([1.0, None, 300.0], pa.int64()),
        ([[1], None, [3]], pa.int64()),
        ([[[1]], [[2]]], pa.int64()),
        ([[1, 2], None, []], LISTS),
        ([[[1], [2]], None, [[3], [4]]], LISTS),
        ([[[1], []], None, [[3, 4]]], NESTED),
        ([{"b64": "/w=="}, None], pa.binary()),
        ([[{"b64": "/w=="}], [], None], BINARIES),
        (["/w==", None], pa.binary()),
        ([["2024-02-29", None], None], pa.list_(pa.date32())),
        ([{"day": "2024-02-29", "n": [1]}, None, {"n": []}], STRUCT),
        ([None, None], LISTS),
        ([None, None], STRUCT),
        ([[None], None], pa.int64()),
    ]


@pytest.mark.parametrize(("values", "kind"), all_forms(), ids=str)
def test_columns_that_need_no_second_look(values: list[Any], kind: pa.DataType) -> None:
    """The forms that models accept and BigQuery exports must pass pyarrow's reader, which is fast."""
    found = parse_column(values, kind, form_of(next((value for value in values if value is not None), None), kind))
    assert found.to_pylist() == pa.array([coerce(value, kind) for value in values], kind).to_pylist()


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("[1, 2]", LISTS, [1, 2]),
        (" [1,\r\n2] ", LISTS, [1, 2]),
        ("[[1, 2], [3, 4]]", LISTS, [1, 2, 3, 4]),
        ("", LISTS, None),
        (" ", LISTS, None),
        ("null", LISTS, None),
        ("[1.0]", LISTS, [1]),
        ('["a", null]', TEXTS, ["a", None]),
        ('["NaN", 1]', pa.list_(pa.float32()), [math.nan, 1.0]),
        ('{"day": "2024-02-29"}', STRUCT, {"day": datetime.date(2024, 2, 29), "n": None}),
        ("[1e39]", pa.list_(pa.float32()), ValueError),
        ("1", LISTS, ValueError),
        ("[1", LISTS, ValueError),
        ('["a"]', LISTS, ValueError),
        ('[1], "w": 2', LISTS, ValueError),
        ('[1], "v": [2]', LISTS, ValueError),
        ('[1]} {"v": [2]', LISTS, ValueError),
        ("[1]]", LISTS, ValueError),
    ],
)
def test_json_in_a_text_column(text: str, kind: pa.DataType, expected: Any) -> None:
    if expected is ValueError:
        with pytest.raises(ValueError):
            parse_json(pa.array([text]), kind)
    else:
        assert repr(parse_json(pa.array([text]), kind).to_pylist()) == repr([expected])
        assert repr(parse_json(pa.array([text, "", text]), kind).to_pylist()) == repr([expected, None, expected])


@pytest.mark.parametrize(
    "text", ["x", "[" * 2000 + "]" * 2000, '{"a":' * 990 + "1" + "}" * 990, "[1", '[1], "v": [2]', '[1]} {"v": [2]']
)
def test_one_text_that_is_no_json_fails_the_column(text: str) -> None:
    with pytest.raises(ValueError):
        parse_json(pa.array(["[1]", text, "[2]"]), LISTS)


@pytest.mark.parametrize("text", ["[18446744073709551617]", "[[1, 9007199254740993]]", "[9007199254740993.0]"])
def test_a_whole_number_that_a_list_of_floats_would_round_does_not_fit_where_it_is_written(text: str) -> None:
    kind = pa.list_(pa.float64())
    with pytest.raises(ValueError, match="float64 can only hold it rounded"):
        parse_json(pa.array(["[1]", text]), kind, exact=True)
    assert parse_json(pa.array(["[18446744073709551616]"]), kind, exact=True).to_pylist() == [[2.0**64]]


@pytest.mark.parametrize("text", ["9007199254740993.0", "[9007199254740993.0]"])
def test_a_whole_number_that_a_double_rounds_is_no_integer(text: str) -> None:
    kind = pa.list_(pa.int64()) if text.startswith("[") else pa.int64()
    with pytest.raises(ValueError):
        parse_json(pa.array([text]), kind)
    with pytest.raises(ValueError, match="int64 is expected"):
        coerce(json.loads(text), kind)
    assert coerce(9007199254740991.0, pa.int64()) == 9007199254740991
