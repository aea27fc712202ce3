"""Words and values of a message are kept apart, whatever carries the message."""

from __future__ import annotations

import copy
import pickle

import orjson
import pytest

from sluice.models.wording import WITHHELD, Message, message, public_text, text_of, told


def test_values_in_order_are_private_and_values_by_name_are_not() -> None:
    made = message("column '{name}': {!r} is not {kind}", "Jane", name="age", kind="int64")
    assert made == "column 'age': 'Jane' is not int64"
    assert public_text(made) == "column 'age': [withheld] is not int64"
    assert public_text(message("byte {:#04x} of {size:,}", 255, size=1000)) == "byte [withheld] of 1,000"
    assert orjson.loads(orjson.dumps(made)) == made


@pytest.mark.parametrize("carry", [copy.copy, copy.deepcopy, lambda made: pickle.loads(pickle.dumps(made))])
def test_a_copy_keeps_both(carry: object) -> None:
    made = carry(message("found {}", "Jane"))  # type: ignore[operator]
    assert (made, public_text(made)) == ("found Jane", "found [withheld]")


def test_a_text_of_which_nothing_is_known_is_withheld() -> None:
    made = message("found {}", "Jane")
    for text in ("found Jane", f"{made}", made + "!", made[:3], str.upper(made)):
        assert public_text(text) == WITHHELD


def test_messages_within_messages_tell_their_own_words() -> None:
    inner = message("{} is not {kind}", "Jane", kind="int64")
    for outer in (
        message("column '{name}': {}", inner, name="a"),
        message("column '{name}': {it}", name="a", it=inner),
    ):
        assert outer == "column 'a': Jane is not int64"
        assert public_text(outer) == "column 'a': [withheld] is not int64"


def test_errors_carry_messages() -> None:
    made = message("found {}", "Jane")
    assert isinstance(text_of(ValueError(made)), Message)
    assert text_of(ValueError("a", "b")) == "('a', 'b')"
    assert [told(ValueError(made), private) for private in (True, False)] == ["found [withheld]", "found Jane"]
    assert told(ValueError("no such flag"), private=True) == "no such flag"
