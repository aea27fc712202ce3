"""What workers have seen, in a file, for the process that launched the job: as JSON, which cannot run anything."""

import json
from typing import Any

import numpy as np

from sluice.transforms.core.observed import Columns, Record, Timeline
from sluice.transforms.core.sketch import Sketch


def to_json(record: Record) -> str:
    """Returns a record as JSON."""
    return json.dumps(
        {
            "inputs": _columns(record.inputs),
            "outputs": _columns(record.outputs),
            "step_secs": record.timeline.step_secs,
            "timeline": list(record.timeline.rows.items()),
            "versions": list(record.versions.items()),
        }
    )


def from_json(text: str | bytes) -> Record:
    """Returns the record that `to_json` was given."""
    found = json.loads(text)
    record = Record(_to_columns(found["inputs"]), _to_columns(found["outputs"]))
    record.timeline = Timeline(found["step_secs"], dict(found["timeline"]))
    record.versions.update(dict(found["versions"]))
    return record


def _columns(columns: Columns) -> dict[str, Any]:
    sketches = {name: _sketch(sketch) for name, sketch in columns.sketches.items()}
    counts = {"rows": columns.rows, "sketched": columns.sketched, "shortened": columns.shortened}
    return counts | {"sketches": sketches}


def _to_columns(found: dict[str, Any]) -> Columns:
    sketches = {name: _to_sketch(sketch) for name, sketch in found["sketches"].items()}
    return Columns(sketches, found["rows"], found["sketched"], found["shortened"])


_NUMBERS = ("count", "nulls", "not_finite", "total", "least", "most", "whole", "width")


def _sketch(sketch: Sketch) -> dict[str, Any]:
    values = None if sketch.values is None else list(sketch.values.items())
    filled = np.flatnonzero(sketch.counts)
    bins = list(zip(filled.tolist(), sketch.counts[filled].tolist(), strict=True))
    return {name: getattr(sketch, name) for name in _NUMBERS} | {"bins": bins, "values": values}


def _to_sketch(found: dict[str, Any]) -> Sketch:
    sketch = Sketch()
    for name in _NUMBERS:
        setattr(sketch, name, found[name])
    for index, count in found["bins"]:
        sketch.counts[index] = count
    sketch.each = None if found["values"] is None else dict(found["values"])
    return sketch
