"""`WriteFiles` and `WriteFailures` with plain arguments, and a pipeline of all public parts."""

import json
from collections.abc import Callable
from pathlib import Path

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms.window import FixedWindows, TimestampedValue

import sluice
from sluice.models.errors import UsageError

BATCH = pa.RecordBatch.from_pydict({"x": [1, 2], "t": ["a", None], "_sluice_file": ["f", "f"]})


def write(path: Path, *batches: pa.RecordBatch, **options: bool) -> None:
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        rows = pipeline | beam.Create(batches).with_output_types(pa.RecordBatch)
        rows | sluice.WriteFiles(path, **options)


def test_a_pipeline_of_readers_predict_and_writers(tmp_path: Path, cases: Callable[[str], str]) -> None:
    (tmp_path / "rows.csv").write_text("k,x\na,4\nb,nine\nc,-1\nd,16\n")
    model = cases("picky")
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        read = pipeline | sluice.ReadFiles(tmp_path / "rows.csv", model)
        scored = read.rows | sluice.Predict(model)
        written = scored.rows | sluice.WriteFiles(tmp_path / "scored.jsonl")
        failures = (read.failures, scored.failures, written.failures) | sluice.WriteFailures(tmp_path / "failed")
        assert_that(written.files, equal_to([str(tmp_path / "scored-00000-of-00001.jsonl")]), label="files")
        assert_that(failures | beam.Map(lambda name: name[-6:]), equal_to([".jsonl"] * 2), label="failures")
    rows = [json.loads(line) for line in (tmp_path / "scored-00000-of-00001.jsonl").open()]
    assert [(row["k"], row["root"], row["_model"]) for row in rows] == [("a", 2.0, model), ("d", 4.0, model)]
    failed = [json.loads(line) for path in tmp_path.glob("failed-*.jsonl") for line in path.open()]
    assert sorted(each["stage"] for each in failed) == ["decode", "predict"]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".sluice")], "nothing temporary is left"


def test_files_of_each_bundle_have_the_columns_of_the_batches(tmp_path: Path) -> None:
    write(tmp_path / "out.parquet", BATCH, BATCH)
    tables = [pq.read_table(path) for path in sorted(tmp_path.glob("out-*.parquet"))]
    assert pa.concat_tables(tables).to_pydict() == {"x": [1, 2, 1, 2], "t": ["a", None, "a", None]}


def test_batches_of_different_columns_are_an_error_and_leave_no_file(tmp_path: Path) -> None:
    other = pa.RecordBatch.from_pydict({"x": [1.5], "t": ["a"]})
    with pytest.raises(
        Exception, match=r"different columns: x (int64|double), t string; and x (int64|double), t string"
    ):
        write(tmp_path / "out.csv", BATCH, other)
    assert not list(tmp_path.glob("out*"))


def test_columns_that_the_format_cannot_hold_are_an_error(tmp_path: Path) -> None:
    lists = pa.RecordBatch.from_pydict({"x": [[1, 2]]})
    with pytest.raises(Exception, match="column 'x' is list"):
        write(tmp_path / "out.csv", lists)
    write(tmp_path / "flat.csv", lists, flatten=True)
    assert (tmp_path / "flat-00000-of-00001.csv").read_text() == 'x\n"[1,2]"\n'


def test_files_that_are_there_are_replaced_only_on_request(tmp_path: Path) -> None:
    write(tmp_path / "out.csv", BATCH)
    with pytest.raises(UsageError, match="exists"):
        write(tmp_path / "out.csv", BATCH)
    write(tmp_path / "out.csv", BATCH.slice(1), overwrite=True)
    assert (tmp_path / "out-00000-of-00001.csv").read_text() == "x,t\n2,\n"


def test_no_rows_are_no_file(tmp_path: Path) -> None:
    write(tmp_path / "out.csv")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the format is not clear"):
        sluice.WriteFiles(tmp_path / "out")
    with pytest.raises(UsageError, match="payload is 'some'"):
        sluice.WriteFailures(tmp_path / "out", payload="some")
    stream = beam.PCollection(beam.Pipeline(), element_type=pa.RecordBatch, is_bounded=False)
    with pytest.raises(UsageError, match="a stream does not end"):
        sluice.WriteFiles(tmp_path / "out.csv").expand(stream)


def test_single_rows(tmp_path: Path, cases: Callable[[str], str]) -> None:
    rows = [{"x": 4.0, "tag": None}, beam.Row(x=9.0, more=[1]), {"x": 16.0, "tag": "c"}]
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        scored = pipeline | beam.Create(rows) | sluice.Predict(cases("picky"))
        scored.rows | sluice.WriteFiles(tmp_path / "out.jsonl")
    written = [json.loads(line) for path in tmp_path.glob("out-*") for line in path.open()]
    kept = [(row["x"], row["root"], row["tag"], row["more"]) for row in written]
    assert kept == [(4.0, 2.0, None, None), (9.0, 3.0, None, [1]), (16.0, 4.0, "c", None)]


def test_rows_and_failures_in_windows_are_one_set_of_files_each(tmp_path: Path, cases: Callable[[str], str]) -> None:
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        scored = (
            pipeline
            | beam.Create([{"x": 4.0}, {"x": 9.0}, {"x": -1.0}])
            | beam.Map(lambda row: TimestampedValue(row, row["x"]))
            | beam.WindowInto(FixedWindows(5))
            | sluice.Predict(cases("picky"))
        )
        scored.rows | sluice.WriteFiles(tmp_path / "out.jsonl")
        (scored.failures,) | sluice.WriteFailures(tmp_path / "failed")
    rows, failed = (
        [json.loads(line) for path in tmp_path.glob(f"{name}-*-of-*.jsonl") for line in path.open()]
        for name in ("out", "failed")
    )
    assert sorted(row["root"] for row in rows) == [2.0, 3.0]
    assert [each["stage"] for each in failed] == ["predict"]
