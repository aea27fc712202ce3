"""Columns of text, aligned."""

import pytest

from sluice.pipelines.progress.table import align

ROWS = [("Rows in", "1,200", "from files"), ("Failures", "3", "")]


@pytest.mark.parametrize(
    ("sides", "lines"),
    [
        ("<", ["Rows in   1,200  from files", "Failures  3"]),
        ("<><", ["Rows in   1,200  from files", "Failures      3"]),
        (">", [" Rows in  1,200  from files", "Failures      3"]),
    ],
)
def test_each_column_is_as_wide_as_its_widest_cell(sides: str, lines: list[str]) -> None:
    assert align(ROWS, sides) == lines
    assert align(ROWS, sides, indent="  ") == [f"  {line}" for line in lines]


def test_no_rows_are_no_lines() -> None:
    assert align([]) == []


def test_rows_of_unequal_length_are_a_mistake() -> None:
    with pytest.raises(ValueError):
        align([("a",), ("b", "c")])
