"""JSON as TF Serving reads it. The texts of errors are RapidJSON's (error/en.h), the places are those of its reader."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sluice.models.server import rest_json
from sluice.models.server.rest_json import _Reader, json_text, parse_json
from sluice.models.server.status import StatusError
from tests.support.sizes import size

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=20,
)


@settings(deadline=None)
@given(VALUES, st.booleans(), st.sampled_from([None, 1]))
def test_both_parsers_read_the_same(value: Any, ascii_only: bool, indent: int | None) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    assert _Reader(text).document() == parse_json(text) == value


NUMBERS = st.from_regex(r"-?(0|[1-9][0-9]{0,330})(\.[0-9]{1,3})?([eE][+-]?[0-9]{1,4})?", fullmatch=True)


@settings(deadline=None)
@given(st.lists(NUMBERS | st.just("NaN"), min_size=1, max_size=3))
def test_numbers_of_any_size_are_read_as_the_reader_does(numbers: list[str]) -> None:
    text = ("[" + ", ".join(numbers) + "]").encode()
    try:
        expected = _Reader(text).document()
    except StatusError as error:
        with pytest.raises(StatusError, match=re.escape(str(error))):
            parse_json(text)
        return
    found = parse_json(text)
    assert np.array_equal(np.array(found, float), np.array(expected, float), equal_nan=True)


@pytest.mark.parametrize("number", ["0.5", "NaN"])
def test_hashes_that_look_like_large_numbers_are_read_fast(number: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(rest_json, "_Reader")
    text = '{"a": "68e12345", "b": ["1E+999", "' + "7" * 299 + '"], "c": ' + number + "}"
    assert parse_json(text.encode())["b"] == ["1E+999", "7" * 299]


@settings(deadline=None)
@given(VALUES, st.data())
def test_what_python_refuses_is_an_error_with_a_place(value: Any, data: st.DataObject) -> None:
    text = json.dumps(value).encode()
    cut = text[: data.draw(st.integers(0, max(0, len(text) - 1)))]
    assume(cut not in (b"Inf", b"-Inf"))  # of Infinity; RapidJSON reads both
    try:
        wanted = json.loads(cut)
    except ValueError:
        with pytest.raises(StatusError, match="JSON Parse error: "):
            parse_json(cut)
    else:
        assert parse_json(cut) == wanted


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "The document is empty"),
        (b" \n", "The document is empty. at offset: 2"),
        (b"instances = [1, 2]", "Invalid value. at offset: 0"),
        (b"10.", "Missing fraction part in number. at offset: 3"),
        (b"[10.]", "Missing fraction part in number. at offset: 4"),
        (b"[1e]", "Missing exponent in number. at offset: 3"),
        (b"[1.5E+, 2]", "Missing exponent in number. at offset: 6"),
        (b"[1.5.2]", "Missing a comma or ] after an array element. at offset: 4"),
        (b"[1, ]", "Invalid value. at offset: 4"),
        (b"[1 2]", "Missing a comma or ] after an array element. at offset: 3"),
        (b"[1", "Missing a comma or ] after an array element. at offset: 2"),
        (b"[01]", "Missing a comma or ] after an array element. at offset: 2"),
        (b'{"a" 1}', "Missing a colon after a name of object member. at offset: 5"),
        (b'{"a": 1 "b"}', "Missing a comma or } after an object member. at offset: 8"),
        (b'{"a": 1,}', "Missing a name for object member. at offset: 8"),
        (b"{a: 1}", "Missing a name for object member. at offset: 1"),
        (b'["a', "Missing a closing quotation mark in string. at offset: 1"),
        (b'["a\nb"]', "Invalid encoding in string. at offset: 3"),
        (b'["\\x"]', "Invalid escape character in string. at offset: 2"),
        (b'["\\u12g4"]', "Incorrect hex digit after \\u escape in string. at offset: 2"),
        (b'["\\ud800"]', "The surrogate pair in string is invalid. at offset: 2"),
        (b'["\\udc00\\ud800"]', "The surrogate pair in string is invalid. at offset: 2"),
        (b'["\\ud800\\u0041"]', "The surrogate pair in string is invalid. at offset: 2"),
        (b"[1e400]", "Number too big to be stored in double. at offset: 1"),
        (b"[-1" + b"0" * 400 + b"]", "Number too big to be stored in double. at offset: 1"),
        (b"[1" + b"0" * 5000 + b"]", "Number too big to be stored in double. at offset: 1"),
    ],
)
def test_what_is_no_json(body: bytes, text: str) -> None:
    with pytest.raises(StatusError) as error:
        parse_json(body)
    assert (error.value.code, error.value.message) == ("INVALID_ARGUMENT", f"JSON Parse error: {text}")


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b"\xef\xbb\xbf[1]", [1]),
        (b'{"a": 1} and more', {"a": 1}),
        (b'["\\ud83d\\ude00"]', ["\U0001f600"]),
        (b"[Inf, -Infinity, 1e308, 1e-400]", [math.inf, -math.inf, 1e308, 0.0]),
        (b"[18446744073709551615, 18446744073709551616]", [2**64 - 1, 2**64]),
        (b'["a\xff"]', ["a\udcff"]),
    ],
)
def test_what_is(body: bytes, value: Any) -> None:
    assert parse_json(body) == value


@pytest.mark.soak
def test_depth_has_no_limit() -> None:
    depth = size(20_000, soak=200_000)
    value = parse_json(b"[" * depth + b"]" * depth)
    for _ in range(depth - 1):
        (value,) = value
    assert value == []


def test_an_error_shows_the_beginning_of_a_value() -> None:
    assert json_text({"a": [1, [2.5, "x"]], "b": {}}) == '{\n    "a": [1, [2.5, "x"]],\n    "b": {}\n}'
    large = json_text([1.25] * 10_000_000)
    assert large.startswith("[1.25, 1.25") and 256 <= len(large) < 300
