"""Files at intervals: few for many bundles, all rows once, also where bundles are repeated."""

import csv
import functools
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.portability.fn_api_runner.execution import BundleContextManager
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import Timestamp

from sluice.models.errors import SluiceError
from sluice.transforms.core.batches import RecordBatchCoder
from sluice.transforms.core.failures import Failure
from sluice.transforms.encode.base import OutputSpec
from sluice.transforms.files import write_stream
from sluice.transforms.files.gather import Gathering, Rename, gather_step
from sluice.transforms.files.open_file import BatchFormat, OpenFile, write_rows
from sluice.transforms.files.write_stream import WriteFailureFiles, WriteStreamFiles, rename_finished

SCHEMA = pa.schema([("a", pa.int64())])


def batch_of(value: int) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict({"a": [value]})


def rows_of(directory: Path) -> list[list[int]]:
    files = sorted(directory.glob("out-*"))
    return [[int(row["a"]) for row in csv.DictReader(file.open())] for file in files]


class Held:
    """A state of the runner."""

    def __init__(self, values: list[bytes]) -> None:
        self.values = values

    def read(self) -> list[bytes]:
        return self.values

    def add(self, value: bytes) -> None:
        self.values.append(value)

    def clear(self) -> None:
        self.values = []


class Size:
    """A state of one value."""

    def __init__(self) -> None:
        self.value = 0

    def read(self) -> int:
        return self.value

    def write(self, value: int) -> None:
        self.value = value

    def clear(self) -> None:
        self.value = 0


def test_many_batches_make_one_file(tmp_path: Path) -> None:
    """Each of 200 batches of one row could be a bundle, which made a file of its own."""
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        spread = pipeline | beam.Create(range(200)) | beam.Reshuffle()
        batches = spread | beam.Map(batch_of).with_output_types(pa.RecordBatch)
        batches | WriteStreamFiles(f"{tmp_path}/out", ".csv", OutputSpec("csv", SCHEMA), interval_secs=3600.0)
    assert [sorted(rows) for rows in rows_of(tmp_path)] == [list(range(200))]
    assert len(list(tmp_path.iterdir())) == 1


class Timer:
    """A timer of the runner, which never fires."""

    def set(self, timestamp: Timestamp) -> None:
        pass


def test_a_bundle_is_no_end_of_a_file(tmp_path: Path) -> None:
    """On Dataflow each of 200 rows may be a bundle of its own, which made a file of its own."""
    coder, target = RecordBatchCoder(), write_stream.StreamTarget(f"{tmp_path}/out", ".csv")
    open_hidden = functools.partial(write_stream.open_file, target)
    gathering = Gathering(coder, BatchFormat(OutputSpec("csv", SCHEMA)), write_rows, open_hidden, 60.0, 1 << 20)
    step, elements, size = gather_step("step", gathering), Held([]), Size()
    for value in range(200):
        step.start_bundle()
        given = ("key", coder.encode(batch_of(value)))
        assert not list(step.process(given, elements, size, Timer(), Timer(), GlobalWindow()))
        step.finish_bundle()
    (hidden,) = list(gathering.flush(elements, size))  # type: ignore[arg-type]
    Rename(rename_finished).process(hidden)  # type: ignore[arg-type]
    assert rows_of(tmp_path) == [list(range(200))]


def test_rows_stay_in_the_state_until_their_file_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that dies leaves the state as it was, and the next one writes the rows."""
    coder, target = RecordBatchCoder(), write_stream.StreamTarget(f"{tmp_path}/out", ".csv")
    open_hidden = functools.partial(write_stream.open_file, target)
    gathering = Gathering(coder, BatchFormat(OutputSpec("csv", SCHEMA)), write_rows, open_hidden, 60.0, 1 << 20)
    elements, size = Held([coder.encode(batch_of(value)) for value in (1, 2)]), Held([b"some"])
    with monkeypatch.context() as broken:
        broken.setattr(OpenFile, "close", lambda *_, **__: pytest.fail("the disk is full"))
        with pytest.raises(pytest.fail.Exception):
            list(gathering.flush(elements, size))  # type: ignore[arg-type]
    assert len(elements.values) == 2
    assert not list(tmp_path.iterdir())
    ((path, name),) = list(gathering.flush(elements, size))  # type: ignore[arg-type,misc]
    assert (elements.values, rows_of(tmp_path)) == ([], [])
    Rename(rename_finished).process((path, name))
    assert rows_of(tmp_path) == [[1, 2]]


def test_failures_are_gathered_too(tmp_path: Path) -> None:
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        failures = pipeline | beam.Create([Failure("bind", "X", str(number), "o") for number in range(50)])
        failures | WriteFailureFiles(f"{tmp_path}/bad", interval_secs=60.0)
    (file,) = tmp_path.iterdir()
    assert len(file.read_text().splitlines()) == 50


@pytest.mark.parametrize("backwards", [False, True])
def test_rows_of_one_step_of_several_are_written_whatever_the_process(
    backwards: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beam's local runner goes over timers of fused steps in the order of a set, which differs between processes."""
    collect = FnApiRunner._collect_written_timers

    def collect_in_order(manager: BundleContextManager) -> Any:
        manager.stage.timers = sorted(manager.stage.timers, reverse=backwards)  # type: ignore[assignment]
        return collect(manager)

    monkeypatch.setattr(FnApiRunner, "_collect_written_timers", staticmethod(collect_in_order))
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        start = pipeline | beam.Create([Failure("bind", "X", "why", "o")])
        for name in ("a", "b", "c"):
            failures = start | f"Find {name}" >> beam.Filter(lambda _, found=name == "b": found)
            failures | f"Write {name}" >> WriteFailureFiles(f"{tmp_path}/{name}", interval_secs=60.0)
    (file,) = tmp_path.iterdir()
    assert file.name.startswith("b-") and len(file.read_text().splitlines()) == 1


def test_a_rename_that_is_repeated_changes_nothing(tmp_path: Path) -> None:
    hidden, name = tmp_path / "hidden", tmp_path / "name"
    hidden.write_text("rows")
    rename = Rename(rename_finished)
    for _ in range(2):
        rename.process((str(hidden), str(name)))
        assert [path.name for path in tmp_path.iterdir()] == ["name"]
    hidden.write_text("rows")  # the first try ended between its two steps
    rename.process((str(hidden), str(name)))
    assert [path.name for path in tmp_path.iterdir()] == ["name"]
    hidden.write_text("rows")
    with pytest.raises(SluiceError, match="could not be renamed"):
        rename.process((str(hidden), str(tmp_path / "no such directory" / "name")))
    assert hidden.exists()


def test_a_file_that_a_reader_took_away_is_done(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The runner repeats a step whose result it has lost, and the reader of the files may have moved one meanwhile."""
    hidden, name = tmp_path / "hidden", tmp_path / "name"
    hidden.write_text("rows")
    rename = Rename(rename_finished)
    rename.process((str(hidden), str(name)))
    name.rename(tmp_path / "taken")
    rename.process((str(hidden), str(name)))
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
    assert f"{hidden} is not there any more" in caplog.text
