"""What a batch job has written: its rows and failures, read back so that jobs can be compared."""

import glob
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.saved_models.zoo import plain, read_output

Row = dict[str, Any]


def rows_of(output: Path) -> list[Row]:
    """Returns the rows of a job's files; `output` is its --output."""
    paths = sorted(glob.glob(f"{output.with_suffix('')}-*{output.suffix}"))
    return [row for path in paths for row in read_output(path)]


def failures_of(output: Path) -> list[Row]:
    """Returns the failures beside the output."""
    paths = sorted(glob.glob(f"{output.with_suffix('')}.failures-*.jsonl"))
    return [json.loads(line) for path in paths for line in Path(path).read_text().splitlines()]


def assert_same_rows(found: list[Row], wanted: list[Row], outputs: Sequence[str]) -> None:
    """Checks that rows are equal, and outputs within 1e-6; the order of the rows is free."""
    found, wanted = (sorted(rows, key=lambda row: str(plain(row["id"]))) for rows in (found, wanted))
    assert [set(row) for row in found] == [set(row) for row in wanted]
    others = [name for name in wanted[0] if name not in (*outputs, "_model")]
    assert [name for name in others if [row[name] for row in found] != [row[name] for row in wanted]] == []
    for name in outputs:
        values = [np.array([row[name] for row in rows], np.float64) for rows in (found, wanted)]
        np.testing.assert_allclose(*values, rtol=1e-6)


def told(failures: list[Row]) -> list[tuple[str, ...]]:
    """Returns what failures say, but for the time and the model's name."""
    names = ("stage", "error_type", "error_message", "origin", "payload", "payload_text", "attributes", "version")
    names += ("attempt",)
    return sorted(tuple(str(each[name]) for name in names) for each in failures)
