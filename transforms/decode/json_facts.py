"""What JSON values are, by column, as facts that do not depend on the order of the rows: counts, bounds, unions."""

import base64
import binascii
import dataclasses
import decimal
import json
import re
from collections.abc import Iterable
from typing import Any

from sluice.transforms.decode.convert import rounds
from sluice.transforms.decode.json import load_json
from sluice.transforms.decode.json_values import NOT_FINITE, Json

# Objects within others beyond this depth are looked at no further: BigQuery has no deeper records.
MAX_DEPTH = 15
# What is in a line with a number that a float may round, or that orjson returns as a float.
_LONG = re.compile(rb"[0-9]{16}|[0-9][eE]")
# Times as people and programs write them, of which a reader of TIMESTAMP, DATE or DATETIME may make more than text.
_TIME = re.compile(r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?: ?(?:Z|UTC|[+-]\d\d:?\d\d))?)?")


@dataclasses.dataclass
class Facts:
    """The values under one key of objects, or in one list of each row.

    Attributes:
      place: where the key stands in its objects, the last place of all: rows that lack others have it further ahead.
      nulls, booleans, ...: how many values are so. `words` are the strings that stand for floats, `times` those that
        look like times, `encoded` the objects {"b64": ...}, `empty` the objects without keys.
      least, most: of the integers.
      rounded: there is a whole number that float64 does not hold.
      items: of the lists, of all rows together.
      fields: of the objects, by key.
      deep: there is an object deeper than MAX_DEPTH.
    """

    place: int = 0
    nulls: int = 0
    booleans: int = 0
    integers: int = 0
    floats: int = 0
    strings: int = 0
    words: int = 0
    times: int = 0
    lists: int = 0
    objects: int = 0
    encoded: int = 0
    empty: int = 0
    least: int = 0
    most: int = 0
    rounded: bool = False
    deep: bool = False
    items: "Facts | None" = None
    fields: "dict[str, Facts]" = dataclasses.field(default_factory=dict)

    @property
    def numbers(self) -> int:
        return self.integers + self.floats

    def add(self, value: Json | decimal.Decimal, depth: int = 0) -> None:
        """Adds a value."""
        if value is None:
            self.nulls += 1
        elif isinstance(value, bool):
            self.booleans += 1
        elif isinstance(value, int):
            self._add_integer(value)
        elif isinstance(value, float | decimal.Decimal):
            self.floats += 1
            self.rounded |= isinstance(value, decimal.Decimal) and rounds(value)
        elif isinstance(value, str):
            self.strings += 1
            self.words += value in NOT_FINITE
            self.times += _TIME.fullmatch(value) is not None
        elif isinstance(value, list):
            self._add_list(value, depth)
        else:
            self._add_object(value, depth)

    def _add_integer(self, value: int) -> None:
        self.least = value if not self.integers else min(self.least, value)
        self.most = value if not self.integers else max(self.most, value)
        self.integers += 1
        self.rounded |= rounds(value)

    def _add_list(self, values: list[Any], depth: int) -> None:
        self.lists += 1
        if depth > MAX_DEPTH:
            self.deep = True
            return
        if values and self.items is None:
            self.items = Facts()
        for value in values:
            self.items.add(value, depth + 1)  # type: ignore[union-attr]  # made for the first

    def _add_object(self, value: dict[str, Any], depth: int) -> None:
        self.objects += 1
        self.encoded += _is_bytes(value)
        self.empty += not value
        if depth > MAX_DEPTH:
            self.deep = True
            return
        for place, (name, each) in enumerate(value.items()):
            facts = self.fields.get(name)
            if facts is None:
                facts = self.fields[name] = Facts(place)
            facts.place = max(facts.place, place)
            facts.add(each, depth + 1)

    def named(self) -> "list[tuple[str, Facts]]":
        """Returns the fields in the order of their places, and of their names where places are the same."""
        return sorted(self.fields.items(), key=lambda pair: (pair[1].place, pair[0]))


def _is_bytes(value: dict[str, Any]) -> bool:
    """Whether an object is what TF Serving and Sluice read as bytes, and nothing else."""
    if len(value) != 1 or not isinstance(value.get("b64"), str):
        return False
    try:
        base64.b64decode(value["b64"], validate=True)
    except (binascii.Error, ValueError):
        return False
    return True


@dataclasses.dataclass
class RowFacts:
    """What the rows of JSON are.

    Attributes:
      rows: how many were looked at.
      bad: how many of them are no JSON objects.
      columns: the rows as objects.
    """

    rows: int = 0
    bad: int = 0
    columns: Facts = dataclasses.field(default_factory=Facts)

    def add(self, line: bytes) -> None:
        """Adds a row. One that cannot be read, whatever its types are, counts as bad."""
        self.rows += 1
        try:
            row = exact_json(line)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            self.columns.add(row)
        else:
            self.bad += 1


def exact_json(line: bytes) -> Json:
    """Returns a JSON value; if it may hold a number that a float rounds, with Decimals for floats.

    Raises:
      ValueError: it is no JSON, or beyond the limits of Python.
    """
    value = load_json(line)
    if not _LONG.search(line):
        return value
    exact: Json = json.loads(line, parse_float=decimal.Decimal)
    return exact


def is_int64(facts: Facts) -> bool:
    """Whether all integers fit 64 bits."""
    return facts.least >= -(1 << 63) and facts.most < 1 << 63


def digits(facts: Facts) -> int:
    """Returns the digits of the longest integer."""
    longest = max(abs(facts.least), abs(facts.most))
    return len(str(longest))


def facts_of(lines: Iterable[bytes]) -> RowFacts:
    """Returns what rows are."""
    found = RowFacts()
    for line in lines:
        found.add(line)
    return found
