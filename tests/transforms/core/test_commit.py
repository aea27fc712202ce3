"""The last step of a batch job, with committers that record their calls."""

import dataclasses
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from sluice.models.errors import SluiceError, TooManyFailures
from sluice.pipelines import running
from sluice.transforms.core import metrics
from sluice.transforms.core.commit import Commit, Committed, FailurePolicy, clean_up
from sluice.transforms.core.commit_gate import CommitGate, CommitState
from sluice.transforms.encode.base import OutputSpec
from sluice.transforms.files.commit import FilesCommitter
from sluice.transforms.files.write import Target, WriteShards


@dataclasses.dataclass(frozen=True)
class Part:
    name: str
    rows: int


class FakeCommitter:
    """Records its calls in a list that it shares with others.

    Args:
      error: `clean_up` raises it.
    """

    def __init__(self, name: str, calls: list[str], error: Exception | None = None) -> None:
        self._name, self._calls, self._error = name, calls, error

    def claim(self, written: Sequence[Any]) -> None:
        """Never refused."""

    def commit(self, written: Sequence[Any]) -> list[str]:
        self._calls.append(f"put {self._name}")
        return [part.name for part in written]

    def clean_up(self) -> None:
        self._calls.append(f"clean {self._name}")
        if self._error:
            raise self._error


@pytest.fixture(autouse=True)
def counted() -> Iterator[None]:
    metrics.reset_tally()
    yield
    metrics.reset_tally()


def commit(
    calls: list[str],
    failures: int = 1,
    rate: float = 0.5,
    error: Exception | None = None,
    gate: CommitGate | None = None,
) -> Committed:
    committers = [FakeCommitter("files", calls, error), FakeCommitter("table", calls)]
    fn = Commit(FakeCommitter("rows", calls, error), committers, FailurePolicy(rate), gate)._fn
    failed = [Part("f", failures)]
    (committed,) = fn.process(0, [Part("a", 2), Part("b", 1)], failed, failed, [3, failures])
    return committed


def test_failures_come_first_then_the_check_then_the_rows() -> None:
    calls: list[str] = []
    assert commit(calls) == Committed(4, 3, 1, ("a", "b"), ("f", "f"))
    assert calls == ["put files", "put table", "put rows", "clean rows", "clean files", "clean table"]
    assert metrics.tally() == {"commits_begun": 1, "commits_done": 1}


def test_a_job_with_too_many_failures_publishes_its_failures_only() -> None:
    calls: list[str] = []
    with pytest.raises(TooManyFailures):
        commit(calls, failures=9)
    assert calls == ["put files", "put table", "clean rows", "clean files", "clean table"]
    assert metrics.tally() == {}


def test_an_error_of_the_clean_up_does_not_fail_a_job_whose_rows_are_published() -> None:
    calls: list[str] = []
    commit(calls, error=OSError("no rights"))
    assert calls[-3:] == ["clean rows", "clean files", "clean table"]
    clean_up([FakeCommitter("rows", calls, OSError("no rights"))])


def test_an_interrupted_job_does_not_begin_to_commit() -> None:
    calls: list[str] = []
    gate = CommitGate()
    assert running.state_of(KeyboardInterrupt(), gate) is CommitState.NOT_BEGUN
    with pytest.raises(SluiceError, match="the job was interrupted before its output was put in place"):
        commit(calls, gate=gate)
    assert "put rows" not in calls
    assert running.state_of(None, gate) is CommitState.NOT_BEGUN, "a commit that was refused does not count as begun"
    assert metrics.tally() == {}


def test_an_interrupted_job_keeps_no_other_job_from_its_commit() -> None:
    interrupted, other = CommitGate(), CommitGate()
    running.state_of(KeyboardInterrupt(), interrupted)
    calls: list[str] = []
    commit(calls, gate=other)
    commit(calls)
    assert calls.count("put rows") == 2
    assert (running.state_of(None, other), interrupted.state) == (CommitState.DONE, CommitState.NOT_BEGUN)


def test_a_commit_that_fails_remains_under_way_for_its_own_job_alone() -> None:
    class BrokenCommitter(FakeCommitter):
        def commit(self, written: Sequence[Any]) -> list[str]:
            raise SluiceError("no rights")

    gate, other = CommitGate(), CommitGate()
    fn = Commit(BrokenCommitter("rows", []), [], FailurePolicy(0), gate)._fn
    with pytest.raises(SluiceError, match="no rights"):
        list(fn.process(0, [Part("a", 2)], [2]))
    commit([], gate=other)
    assert (gate.state, other.state) == (CommitState.UNDER_WAY, CommitState.DONE)


def test_copies_of_a_gate_are_the_same_gate_whichever_job_holds_them() -> None:
    gate, name = CommitGate(), "of another process"
    copy = pickle.loads(pickle.dumps(gate))
    gate.close()
    assert copy is gate and not copy.begin()
    assert CommitGate(name).begin()


def test_a_library_pipeline_commits_after_an_interrupted_job_of_the_same_process(tmp_path: Path) -> None:
    interrupted = CommitGate()
    running.state_of(KeyboardInterrupt(), interrupted)
    with pytest.raises(Exception, match="the job was interrupted before its output was put in place"):
        write_rows(tmp_path / "interrupted", interrupted)
    assert not list(tmp_path.glob("interrupted-*"))
    write_rows(tmp_path / "library", None)
    assert (tmp_path / "library-00000-of-00001.csv").read_text() == "a\n1\n2\n"


def write_rows(path: Path, gate: CommitGate | None) -> None:
    target = Target(str(path), ".csv", f"{path}.temp")
    spec = OutputSpec("csv", pa.schema([("a", pa.int64())]))
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        rows = pipeline | "Rows" >> beam.Create([pa.RecordBatch.from_pydict({"a": [1, 2]})])
        written = rows | "Write" >> WriteShards(target, spec)
        tally = pipeline | "Tally" >> beam.Create([2])
        (written.shards, tally) | Commit(FilesCommitter(target, spec), [], FailurePolicy(0), gate)
