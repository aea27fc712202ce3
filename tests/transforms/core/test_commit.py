"""The last step of a batch job, on places that remember what was asked of them."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from sluice.models.errors import SluiceError, TooManyFailures
from sluice.pipelines import batch
from sluice.transforms.core import metrics
from sluice.transforms.core.commit import Commit, Committed, FailurePolicy, clean_up, forbid_commits


@dataclasses.dataclass(frozen=True)
class Part:
    name: str
    rows: int


class FakePlace:
    """Remembers, in a list that it shares with others, what it was asked to do.

    Args:
      error: is raised by what tidies up.
    """

    def __init__(self, name: str, calls: list[str], error: Exception | None = None) -> None:
        self._name, self._calls, self._error = name, calls, error

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
    forbid_commits(False)


def commit(calls: list[str], failures: int = 1, rate: float = 0.5, error: Exception | None = None) -> Committed:
    places = [FakePlace("files", calls, error), FakePlace("table", calls)]
    fn = Commit(FakePlace("rows", calls, error), places, FailurePolicy(rate))._fn
    failed = [Part("f", failures)]
    (committed,) = fn.process(0, [Part("a", 2), Part("b", 1)], failed, failed, [3, failures])
    return committed


def test_failures_come_first_then_the_judgement_then_the_rows() -> None:
    calls: list[str] = []
    assert commit(calls) == Committed(4, 3, 1, ("a", "b"), ("f", "f"))
    assert calls == ["put files", "put table", "put rows", "clean rows", "clean files", "clean table"]
    assert metrics.tally() == {"commits_begun": 1, "commits_done": 1}


def test_a_job_that_is_judged_bad_shows_its_failures_alone() -> None:
    calls: list[str] = []
    with pytest.raises(TooManyFailures):
        commit(calls, failures=9)
    assert calls == ["put files", "put table", "clean rows", "clean files", "clean table"]
    assert metrics.tally() == {}


def test_what_cannot_be_tidied_up_does_not_fail_a_job_whose_rows_are_in_place() -> None:
    calls: list[str] = []
    commit(calls, error=OSError("no rights"))
    assert calls[-3:] == ["clean rows", "clean files", "clean table"]
    clean_up([FakePlace("rows", calls, OSError("no rights"))])


def test_a_job_that_was_interrupted_does_not_begin_to_put_rows_in_place() -> None:
    calls: list[str] = []
    assert batch._state(KeyboardInterrupt()) == batch.NOT_BEGUN
    with pytest.raises(SluiceError, match="the job was interrupted before its output was put in place"):
        commit(calls)
    assert "put rows" not in calls
    assert batch._state(None) == batch.NOT_BEGUN, "what was taken back does not count as begun"
    commit(calls)
    assert batch._state(None) == batch.DONE
