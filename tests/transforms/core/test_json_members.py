"""Members of JSON objects are set and taken, and the rest of the text stays as it is."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice.transforms.core.json_members import is_object, set_members, take_member

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(st.text(), VALUES, max_size=5)


@pytest.mark.parametrize(
    ("text", "values", "expected"),
    [
        ("{}", {"a": "1"}, '{"a":1}'),
        ("{ }", {"a": "1", "b": '"x"'}, '{ "a":1,"b":"x"}'),
        ('{"a": 1}', {}, '{"a": 1}'),
        ('{"a": 1, "b" : 2 }', {"b": "3"}, '{"a": 1, "b" : 3 }'),
        ('{"a": 1 }', {"b": "3"}, '{"a": 1 ,"b":3}'),
        # What a parser would change: large numbers, other spellings, keys that come twice.
        ('{"n": 123456789012345678901, "x": 1.10}', {"a": "0"}, '{"n": 123456789012345678901, "x": 1.10,"a":0}'),
        ('{"y": NaN}', {"a": "0"}, '{"y": NaN,"a":0}'),
        ('{"\\u0061": "b", "c": "\\u00e9"}', {"a": "1"}, '{"\\u0061": 1, "c": "\\u00e9"}'),
        ('{"a": 1, "a": [2, {"a": 3}]}', {"a": "0"}, '{"a": 0, "a": 0}'),
        (' \n{"a":\t{"b": 1}}\n', {"b": "2"}, ' \n{"a":\t{"b": 1},"b":2}\n'),
        ('{"a": "}, \\" {"}', {"a": "null"}, '{"a": null}'),
    ],
)
def test_members_are_set_where_they_stand(text: str, values: dict[str, str], expected: str) -> None:
    assert set_members(text, values) == expected


@settings(deadline=None)
@given(OBJECTS, OBJECTS, st.sampled_from([None, 1]))
def test_what_is_set_is_what_a_parser_reads(found: dict, values: dict, indent: int | None) -> None:
    text = json.dumps(found, indent=indent)
    made = set_members(text, {name: json.dumps(value) for name, value in values.items()})
    assert json.loads(made) == found | values


@settings(deadline=None)
@given(OBJECTS, st.text())
def test_a_member_is_taken(found: dict, name: str) -> None:
    rest, value = take_member(json.dumps(found | {"kept": 1}), name)
    assert json.loads(rest) == {key: each for key, each in (found | {"kept": 1}).items() if key != name}
    assert value == (json.dumps((found | {"kept": 1})[name]) if name in found or name == "kept" else "")


@pytest.mark.parametrize(
    "text",
    ["", " ", "1", "[]", '"a"', "{", '{"a"}', '{"a":}', '{"a":1', '{"a":1,}', "{'a':1}", '{"a":1} 2', '{"a":1 "b":2}'],
)
def test_anything_else_is_no_object(text: str) -> None:
    assert not is_object(text)
    with pytest.raises(ValueError):
        set_members(text, {"a": "1"})


def test_what_is_nested_too_deeply_is_none() -> None:
    assert not is_object('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}")
