"""The numbers of a report: tables with columns that have a name for programs and a title for people."""

import csv
import dataclasses
import io
import json
import math
from typing import TypeAlias

Cell: TypeAlias = str | int | float | bool | None


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of numbers or texts.

    Attributes:
      name: an identifier with the unit in it, such as p99_ms: CSV and JSON have it.
      title: for people, with the unit.
    """

    name: str
    title: str


@dataclasses.dataclass(frozen=True)
class Data:
    """A table. Its cells are whole: `shown` rounds them for people."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def __post_init__(self) -> None:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError(f"a row has not {len(self.columns)} cells, as there are columns")

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(column.name for column in self.columns)

    def column(self, name: str) -> list[Cell]:
        """Returns the cells of a column."""
        place = self.names.index(name)
        return [row[place] for row in self.rows]

    def records(self) -> list[dict[str, Cell]]:
        """Returns the rows as objects of JSON: it has no numbers that are not finite, so they become texts."""
        return [dict(zip(self.names, map(_finite, row), strict=True)) for row in self.rows]


def to_csv(data: Data) -> str:
    """Returns the table as CSV with a header. No value is the empty field."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(data.names)
    writer.writerows(data.rows)
    return file.getvalue()


def to_json(data: Data) -> str:
    """Returns the table as a JSON array of objects."""
    return json.dumps(data.records(), indent=1, ensure_ascii=False)


def shown(cell: Cell) -> str:
    """Returns a cell for people: four digits of a fraction are enough for them."""
    if cell is None:
        return "–"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, int):
        return f"{cell:,}"
    if isinstance(cell, float):
        return f"{cell:,.0f}" if 1000 <= abs(cell) < 1e15 else f"{cell:.4g}"
    return cell


def _finite(cell: Cell) -> Cell:
    if isinstance(cell, float) and not math.isfinite(cell):
        return "NaN" if math.isnan(cell) else "Infinity" if cell > 0 else "-Infinity"
    return cell
