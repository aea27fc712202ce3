"""What workers have seen, in a file, for the process that launched the job: as JSON, which cannot run anything.

Where the values of rows are private, the file has only what a page may tell: bins and values of LEAST_PRIVATE rows or
more, and no least, most or sum.
"""

import json
import math
from typing import Any

import numpy as np

from sluice.transforms.core.observed import Columns, Record, Timeline
from sluice.transforms.core.sketch import Sketch

# A count that stands for fewer rows may tell the value of one.
LEAST_PRIVATE = 10


def to_json(record: Record, private: bool = False) -> str:
    """Returns a record as JSON.

    Args:
      private: nothing in it tells the value of a single row.
    """
    return json.dumps(
        {
            "inputs": _columns(record.inputs, private),
            "outputs": _columns(record.outputs, private),
            "step_secs": record.timeline.step_secs,
            "timeline": list(record.timeline.rows.items()),
            "versions": list(record.versions.items()),
        }
    )


def from_json(text: str | bytes) -> Record:
    """Returns the record that `to_json` was given; where that was private, least and most are not known."""
    found = json.loads(text)
    record = Record(_to_columns(found["inputs"]), _to_columns(found["outputs"]))
    record.timeline = Timeline(found["step_secs"], dict(found["timeline"]))
    record.versions.update(dict(found["versions"]))
    return record


def _columns(columns: Columns, private: bool) -> dict[str, Any]:
    sketches = {name: _sketch(sketch, private) for name, sketch in columns.sketches.items()}
    counts = {"rows": columns.rows, "sketched": columns.sketched, "shortened": columns.shortened}
    return counts | {"sketches": sketches}


def _to_columns(found: dict[str, Any]) -> Columns:
    sketches = {name: _to_sketch(sketch) for name, sketch in found["sketches"].items()}
    return Columns(sketches, found["rows"], found["sketched"], found["shortened"])


_NUMBERS = ("count", "nulls", "not_finite", "total", "least", "most", "whole", "width")
# Wherever a value lies, it is between them.
_UNKNOWN = {"total": math.nan, "least": -math.inf, "most": math.inf}


def _sketch(sketch: Sketch, private: bool) -> dict[str, Any]:
    few = LEAST_PRIVATE * sketch.width if private else 1
    filled = np.flatnonzero(sketch.counts >= few)
    bins = list(zip(filled.tolist(), sketch.counts[filled].tolist(), strict=True))
    counted = sketch.values
    values = None if counted is None else [(value, count) for value, count in counted.items() if count >= few]
    numbers = {name: getattr(sketch, name) for name in _NUMBERS} | (_UNKNOWN if private else {})
    return numbers | {"bins": bins, "values": values}


def _to_sketch(found: dict[str, Any]) -> Sketch:
    sketch = Sketch()
    for name in _NUMBERS:
        setattr(sketch, name, found[name])
    for index, count in found["bins"]:
        sketch.counts[index] = count
    sketch.each = None if found["values"] is None else dict(found["values"])
    return sketch
