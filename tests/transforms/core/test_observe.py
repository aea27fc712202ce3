"""The steps that look at rows: rows pass unchanged, and what other processes have seen comes to the launching one."""

import json
from pathlib import Path

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to

from sluice.pipelines.report.blocks import blocks_of
from sluice.transforms.core.observe import ObserveInputs, ObserveOutputs, Watched, collect
from sluice.transforms.core.observed import Record, forget, observed
from sluice.transforms.core.observed_file import from_json, to_json
from sluice.transforms.core.outputs import VERSION_COLUMN
from tests.transforms.core.test_sketch import assert_same, sketch_of

BATCHES = [
    pa.RecordBatch.from_pydict({"x": [1.0, 2.0], "score": [0.5, 0.25], VERSION_COLUMN: pa.array([1, 1], pa.int64())}),
    pa.RecordBatch.from_pydict({"x": [3.0], "score": [0.5], VERSION_COLUMN: pa.array([2], pa.int64())}),
]


@pytest.mark.slow
@pytest.mark.parametrize("elsewhere", [False, True])
def test_rows_pass_and_are_seen(tmp_path: Path, elsewhere: bool) -> None:
    watched = Watched(("x",), ("score",), f"{tmp_path}/seen" if elsewhere else "")
    forget()
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        rows = pipeline | beam.Create(BATCHES) | ObserveInputs(watched) | ObserveOutputs(watched)
        assert_that(rows | beam.Map(lambda batch: batch.num_rows), equal_to([2, 1]))
    if elsewhere:
        assert observed().record.outputs.rows == 0, "it lies in files"
    record = collect(watched)
    assert record.inputs.sketches["x"].values == {1.0: 1, 2.0: 1, 3.0: 1}
    assert record.outputs.sketches["score"].values == {0.25: 1, 0.5: 2}
    assert (record.inputs.rows, record.outputs.rows, record.versions) == (3, 3, {1: 2, 2: 1})
    assert sum(rows for _, rows in record.timeline.points()) == 3
    assert list(tmp_path.iterdir()) == []


def test_a_job_of_other_processes_that_has_left_nothing(tmp_path: Path) -> None:
    forget()
    record = collect(Watched((), (), f"{tmp_path}/seen"))
    assert not record.inputs.sketches and not record.outputs.rows


def test_a_record_comes_through_a_file() -> None:
    record = Record()
    columns = {
        "few": sketch_of([1.5, None, np.nan], kind=pa.float64()),
        "many": sketch_of(np.arange(1000)),
        "none": sketch_of(),
    }
    record.inputs.sketches.update(columns)
    record.inputs.rows, record.inputs.sketched = 1000, 900
    record.inputs.shortened, columns["many"].width = True, 7
    record.timeline.add(1.7e9, 5)
    record.timeline.add(1.7e9 + 500, 7)
    record.versions.update({None: 3, 4: 5})
    back = from_json(to_json(record))
    assert (back.inputs.rows, back.inputs.sketched, back.outputs.sketches) == (1000, 900, {})
    assert (back.versions, back.timeline.points()) == (record.versions, record.timeline.points())
    assert (back.inputs.shortened, back.outputs.shortened, back.inputs.sketches["many"].width) == (True, False, 7)
    for name, sketch in columns.items():
        assert_same(back.inputs.sketches[name], sketch)


def test_a_file_of_private_rows_holds_no_value_of_a_few() -> None:
    """One row has 1234.5 and one 0.001; the least, the most and the sum would tell them."""
    record, many = Record(), [20.0] * 300 + [40.0] * 100
    record.outputs.sketches["score"] = sketch_of([*many, 1234.5, 0.001])
    record.inputs.sketches["x"] = sketch_of([*np.linspace(30, 60, 400), 1234.5, 0.001])
    record.inputs.sketches["lone"] = sketch_of([1234.5])
    text = to_json(record, private=True)
    assert "1234.5" not in text and "0.001" not in text and str(sum(many) + 1234.501) not in text
    seen = json.loads(text)
    assert all(count >= 10 for side in ("inputs", "outputs") for each in seen[side]["sketches"].values()
               for _, count in [*each["bins"], *(each["values"] or [])])  # fmt: skip
    back = from_json(text)
    assert back.outputs.sketches["score"].values == {20.0: 300, 40.0: 100}
    for sketches in (back.inputs.sketches, record.inputs.sketches):
        assert 43 < (sketches["x"].quantile(0.5, whole=True) or 0) < 47
    assert back.inputs.sketches["lone"].quantile(0.5, whole=True) is None
    for name in ("x", "lone"):
        drawn, real = (blocks_of(each.inputs.sketches[name], private=True).blocks for each in (back, record))
        assert drawn == real
