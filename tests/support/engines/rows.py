"""What batch jobs on engines read, and how their output is compared."""

import csv
import glob
import math
from pathlib import Path

# Batches are cut differently, as between two runs of one runner.
_TOLERANCE = 1e-6


def copy_rows(source: str, directory: Path, copies: int, bad: str = "only,three,fields") -> str:
    """Writes files with the rows of a CSV file and one bad row each; returns their glob."""
    lines = Path(source).read_text().splitlines()
    for number in range(copies):
        text = "\n".join([lines[0], bad, *(f"{number}-{line}" for line in lines[1:])])
        (directory / f"in-{number}.csv").write_text(text + "\n")
    return str(directory / "in-*.csv")


def scored(prefix: Path) -> dict[str, float]:
    """Returns the scores of all rows of an output of CSV, by the rows' `id`."""
    rows = [row for path in glob.glob(f"{prefix}-*.csv") for row in csv.DictReader(Path(path).read_text().splitlines())]
    found = {row["id"]: float(row["score"]) for row in rows}
    assert len(found) == len(rows), "rows are there twice"
    return found


def assert_same(found: dict[str, float], wanted: dict[str, float]) -> None:
    """Checks that the same rows have the same scores."""
    assert found.keys() == wanted.keys()
    off = [name for name in wanted if not math.isclose(found[name], wanted[name], rel_tol=0, abs_tol=_TOLERANCE)]
    assert not off, f"{len(off)} scores differ, such as {off[0]}: {found[off[0]]} and {wanted[off[0]]}"
