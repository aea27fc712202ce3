"""Tables of a report: whole for programs, rounded for people."""

import csv
import io
import json
import math

import pytest

from sluice.pipelines.report.data import Cell, Column, Data, shown, to_csv, to_json

COLUMNS = Column("name", "Name"), Column("p99_ms", "p99 (ms)")
DATA = Data(COLUMNS, (('a "b", c\nd', 1.23456789), ("é", None), ("", math.inf)))


def test_csv_has_all_digits_and_no_value_is_empty() -> None:
    assert list(csv.reader(io.StringIO(to_csv(DATA)))) == [
        ["name", "p99_ms"],
        ['a "b", c\nd', "1.23456789"],
        ["é", ""],
        ["", "inf"],
    ]


def test_json_is_of_the_standard() -> None:
    def refuse(text: str) -> None:
        raise AssertionError(text)

    assert json.loads(to_json(DATA), parse_constant=refuse) == [
        {"name": 'a "b", c\nd', "p99_ms": 1.23456789},
        {"name": "é", "p99_ms": None},
        {"name": "", "p99_ms": "Infinity"},
    ]


def test_rows_are_as_wide_as_the_table() -> None:
    with pytest.raises(ValueError, match="2 cells"):
        Data(COLUMNS, (("a",),))


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (None, "–"),
        (True, "yes"),
        (1234567, "1,234,567"),
        (0.0, "0"),
        (1.0, "1"),
        (0.00012345, "0.0001234"),
        (12.3456, "12.35"),
        (1234.56, "1,235"),
        (-98765.4, "-98,765"),
        (1e20, "1e+20"),
        (math.nan, "nan"),
        ("a<b", "a<b"),
    ],
)
def test_people_see_a_few_digits(cell: Cell, text: str) -> None:
    assert shown(cell) == text
