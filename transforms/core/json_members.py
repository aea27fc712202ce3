"""The members of a JSON object where they stand in its text: one is changed, and the others stay as they are written.

A parser would round large numbers, and drop keys that come twice.
"""

import json
import re
from collections.abc import Mapping
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import NamedTuple

_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\n\r]*")


class _Member(NamedTuple):
    """A member of an object. Its key begins at `start`, its value at `value`; it ends before `end`."""

    name: str
    start: int
    value: int
    end: int


class _Members(NamedTuple):
    """The members of an object, and the place of the brace that closes it."""

    members: list[_Member]
    close: int


def set_members(text: str, values: Mapping[str, str]) -> str:
    """Returns the text of a JSON object with members set, or added behind the others.

    Args:
      values: JSON texts, by key.

    Raises:
      ValueError: the text is not one JSON object.
    """
    found = _find(text)
    parts, at = [], 0
    for member in found.members:
        if member.name in values:
            parts += [text[at : member.value], values[member.name]]
            at = member.end
    names = {member.name for member in found.members}
    added = [f"{json.dumps(name)}:{value}" for name, value in values.items() if name not in names]
    comma = "," if added and names else ""
    return "".join((*parts, text[at : found.close], comma, ",".join(added), text[found.close :]))


def take_member(text: str, name: str) -> tuple[str, str]:
    """Returns the text of a JSON object without a member, and the text of that member's value; "" if it has none.

    Raises:
      ValueError: the text is not one JSON object.
    """
    found = _find(text)
    taken = next((member for member in found.members if member.name == name), None)
    if taken is None:
        return text, ""
    kept = [text[member.start : member.end] for member in found.members if member.name != name]
    return f"{{{','.join(kept)}}}", text[taken.value : taken.end]


def is_object(text: str) -> bool:
    """Whether a text is one JSON object."""
    try:
        _find(text)
    except ValueError:
        return False
    return True


def _find(text: str) -> _Members:
    members: list[_Member] = []
    at = _expect(text, _skip(text, 0), "{")
    closed = text.startswith("}", _skip(text, at))
    while not closed:
        start = _skip(text, at)
        name, at = scanstring(text, _expect(text, start, '"'))
        value = _skip(text, _expect(text, _skip(text, at), ":"))
        end = _end_of_value(text, value)
        members.append(_Member(name, start, value, end))
        at = _skip(text, end)
        closed = not text.startswith(",", at)
        at += not closed
    close = _skip(text, at)
    if _skip(text, _expect(text, close, "}")) != len(text):
        raise ValueError("something follows the JSON object")
    return _Members(members, close)


def _end_of_value(text: str, start: int) -> int:
    try:
        return _DECODER.raw_decode(text, start)[1]
    except RecursionError as error:
        raise ValueError("too many values within another") from error


def _skip(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    return space.end() if space else at


def _expect(text: str, at: int, character: str) -> int:
    if not text.startswith(character, at):
        raise ValueError(f"a JSON object is expected; at place {at} it has no {character}")
    return at + 1
