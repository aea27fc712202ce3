"""Failures of one reason are one group, whatever values they have, and memory does not grow with them."""

import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice.models.wording import WITHHELD, message
from sluice.transforms.core.reasons import VALUE, Reasons, reason_of, shown


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        (["column 'age': 'abc' is not int64", "column 'age': \"O'Hara\" is not int64"], "column 'age': … is not int64"),
        (["column 'a b's': 'x' is not int8", "column 'a b's': '' is not int8"], "column 'a b's': … is not int8"),
        (
            ["column 'a': 300 does not fit int8", "column 'a': -1.5e9 does not fit int8"],
            "column 'a': … does not fit int8",
        ),
        (
            ["column 'a': nan does not fit int8", "column 'a': -inf does not fit int8"],
            "column 'a': … does not fit int8",
        ),
        (["expected 5 fields, found 3", "expected 5 fields, found 12"], "expected … fields, found …"),
        (
            ["not valid UTF-8: byte 0xff at place 12", "not valid UTF-8: byte 0xe9 at place 3"],
            "not valid UTF-8: byte … at place …",
        ),
        (
            ["takes int64[2], found a list of 1", "takes int64[2], found a list of 7"],
            "takes int64[2], found a list of …",
        ),
        (
            ["int64 is expected, found [1, 'a', {'b': 2}]", "int64 is expected, found {'c': []}"],
            "int64 is expected, found …",
        ),
        (
            ["a string is expected, found [1, 2, 3, 4, 5, 6, ...]", "a string is expected, found 'aaaa bbbb..."],
            "a string is expected, found …",
        ),
        (["found [[1, 2], {'a': 'b, c...", "found [1...", "found \"it's..."], "found …"),
        (["no file 'gs://b/x.csv'", "no file 'y.csv'"], "no file …"),
        (["gs://b/x.csv ends early", "/data/2024-01-31/y.csv ends early"], "… ends early"),
        (["since 2024-01-31T00:00:00Z", "since 2023-02-01"], "since …"),
        (["user 8f9d926b-0826-41aa-9e3c-5b2a1c0d4e5f", "user 0826aa7e"], "user …"),
        (["127.0.0.1:8500: UNAVAILABLE", "10.0.0.7:8500: UNAVAILABLE"], "…: UNAVAILABLE"),
        (
            ["the model's input 'y' has no b'\\xff'", "the model's input 'y' has no b'\\x00'"],
            "the model's input 'y' has no …",
        ),
    ],
)
def test_values_are_left_out(texts: list[str], reason: str) -> None:
    assert len({reason_of(text) for text in texts}) == 1, [reason_of(text) for text in texts]
    assert reason_of(texts[0]) == reason


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("column 'age': 'abc' is not int64", "column 'height': 'abc' is not int64"),
        ("column 'age': 'abc' is not int64", "column 'age': 'abc' is not float32"),
        ("column 'x': the model takes int64[2]", "column 'x': the model takes int64[3]"),
        ("column 'age' is null", "column 'age' holds a null"),
    ],
)
def test_columns_and_types_are_told_apart(one: str, other: str) -> None:
    assert reason_of(one) != reason_of(other)


@settings(deadline=None, max_examples=200)
@given(st.text(max_size=300))
def test_any_text_has_a_reason_on_one_line(text: str) -> None:
    assert reason_of(text).isprintable()
    assert len(shown(text, 50)) <= 51 * len("\\U0010ffff")


def test_a_row_cannot_move_the_cursor() -> None:
    assert shown("\x1b[2Ja\nb") == "\\x1b[2Ja\\nb"
    assert shown("a" * 400) == "a" * 300 + VALUE


def test_groups_are_counted() -> None:
    reasons = Reasons()
    for value in range(5):
        text = f"column 'age': '{value}x' is not int64"
        reasons.add("decode", "InvalidRow", text, f"f.csv#byte={value}", f"row {value}")
    reasons.add("bind", "InvalidRow", "column 'age' is null")
    reasons.add("predict", "BadInput", "negative", count=3)
    first, second, third = reasons.top()
    assert (first.count, first.example, first.origin, first.payload) == (
        5,
        "column 'age': '0x' is not int64",
        "f.csv#byte=0",
        "row 0",
    )
    assert list(first.values) == [f"'{value}x'" for value in range(5)]
    assert (second.stage, second.count, third.count, reasons.total, reasons.others) == ("predict", 3, 1, 9, 0)
    assert [group.stage for group in reasons.top(1)] == ["decode"]
    reasons.clear()
    assert (reasons.top(), reasons.total) == ([], 0)


def test_memory_is_bounded_and_frequent_reasons_stay() -> None:
    """Each text is a reason of its own, and the frequent one comes last."""
    reasons = Reasons(most_groups=100)
    for number in range(2_000):
        word = "".join(chr(ord("g") + int(digit)) for digit in str(number))
        reasons.add("predict", "BadInput", f"no {word}")
        if number >= 1_000:
            reasons.add("predict", "BadInput", "frequent")
    groups = reasons.top()
    assert len(groups) <= 100
    assert groups[0].reason == "frequent" and groups[0].count > 900
    assert sum(group.count for group in groups) + reasons.others == reasons.total == 3_000
    assert all(len(group.values) <= 20 for group in groups)


def test_private_reasons_have_no_value() -> None:
    secret = "Zq7Jane0Doe"
    reasons = Reasons()
    for value in (secret, "abc"):
        text = message("column '{name}': {} is not int64", repr(value), name="age")
        reasons.add("decode", "InvalidRow", text, "f.csv#byte=1", value)
        reasons.add("predict", "BadInput", f"could not convert {value}")
        reasons.add("predict", "BadInput", f"cannot read {value}")
    groups = pickle.loads(pickle.dumps(reasons.top(private=True)))
    assert secret not in repr(groups) and "abc" not in repr(groups)
    assert [(group.stage, group.count) for group in groups] == [("predict", 4), ("decode", 2)]
    assert groups[0].example == shown(WITHHELD)
    assert groups[1].example == "column 'age': [withheld] is not int64"
    assert groups[1].reason == "column 'age': … is not int64" and groups[1].origin == "f.csv#byte=1"
    assert secret in repr(reasons.top())


def test_public_texts_tell_reasons_only_if_they_have_them() -> None:
    """What a server says is withheld from a public text, and is the reason all the same."""
    reasons = Reasons()
    for number in range(50):
        reasons.add("decode", "InvalidRow", message("column '{name}': {} is not int64", repr(f"{number}x"), name="age"))
        words = "no such table" if number % 2 else "no such column"
        reasons.add("predict", "BadInput", message("{address}: {}", words, address="host"))
    assert [(group.count, group.reason) for group in reasons.top()] == [
        (50, "column 'age': … is not int64"),
        (25, "host: no such column"),
        (25, "host: no such table"),
    ]
