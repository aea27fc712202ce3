"""Facts of JSON values. tests/pipelines/plan/test_json_schema.py has what is made of them."""

import decimal

import pytest

from sluice.transforms.decode.json_facts import Facts, digits, exact_json, facts_of, is_int64


def test_counts_and_bounds() -> None:
    found = facts_of(
        [b'{"a": 1}', b'{"a": -7, "b": "NaN"}', b'{"b": "2024-01-02"}', b"[]", b'{"b": null, "c": [1, [2]]}']
    )
    assert (found.rows, found.bad) == (5, 1)
    a, b, c = (found.columns.fields[name] for name in "abc")
    assert (a.integers, a.least, a.most, a.place) == (2, -7, 1, 0)
    assert (b.strings, b.words, b.times, b.nulls, b.place) == (2, 1, 1, 1, 1)
    assert c.items is not None and (c.lists, c.items.integers, c.items.lists) == (1, 1, 1)


@pytest.mark.parametrize(
    ("line", "value"),
    [
        (b"12345678901234567890123", 12345678901234567890123),
        (b"9007199254740993.0", decimal.Decimal("9007199254740993.0")),
        (b"[0.1, 1e5]", [decimal.Decimal("0.1"), decimal.Decimal("1e5")]),
        (b'"1234567890123456"', "1234567890123456"),
        (b"0.5", 0.5),
    ],
)
def test_numbers_that_a_float_may_round_are_exact(line: bytes, value: object) -> None:
    assert exact_json(line) == value
    assert type(exact_json(line)) is type(value)


@pytest.mark.parametrize(
    ("value", "fits", "length"),
    [(2**63 - 1, True, 19), (-(2**63), True, 19), (2**63, False, 19), (-(10**30), False, 31)],
)
def test_integers(value: int, fits: bool, length: int) -> None:
    facts = Facts()
    facts.add(value)
    assert (is_int64(facts), digits(facts)) == (fits, length)


@pytest.mark.parametrize("text", [b"{", b"nul", b'{"a": 1} 2', b"\xff", b"9" * 5000, b"[" * 5000])
def test_what_is_no_json(text: bytes) -> None:
    assert facts_of([text]).bad == 1
