"""A row is blamed only for what the row did: a row that passed before is asked."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from sluice.models.batching.proof import _RENEW_SECS
from sluice.models.errors import (
    BadInput,
    BadOutput,
    ModelFault,
    ModelLost,
    OutOfMemory,
    ServerFault,
    Unavailable,
)
from sluice.models.interface import Outputs
from sluice.models.tensors.binding import Feeds
from tests.support.fakes import FakeClock, FakeModel, double, x_feeds
from tests.support.scheduling import outcome, scheduling, values

KINDS = [BadInput("no"), ModelFault("no"), ServerFault("no"), ZeroDivisionError("no")]


def no_sleep(secs: float) -> None:
    """Returns at once."""


def failing(error: Exception, bad: Callable[[Feeds], bool]) -> Callable[[Feeds], Outputs]:
    def answer(feeds: Feeds) -> Outputs:
        if bad(feeds):
            raise error
        return double(feeds)

    return answer


def negative(feeds: Feeds) -> bool:
    return bool((feeds["x"] < 0).any())


@pytest.mark.parametrize("error", KINDS)
def test_rows_at_fault_fail_though_all_rows_of_their_call_are(error: Exception) -> None:
    with scheduling(FakeModel(failing(error, negative)), sleep=no_sleep) as scheduler:
        assert values(scheduler.submit(x_feeds(5))) == [10]
        for rows in ((-1,), (-1, -2), (-1, 3, -2, 4), (3, 4, -1)):
            prediction = outcome(scheduler.submit(x_feeds(*rows)))
            assert [rows[row] for row in prediction.failures] == [row for row in rows if row < 0]
            assert all(failure.proven for failure in prediction.failures.values())
            assert {failure.type for failure in prediction.failures.values()} == {type(error).__name__}


@pytest.mark.parametrize("error", KINDS[1:])
@pytest.mark.parametrize("first", range(1, 12))
@pytest.mark.parametrize("calls", [1, 2, 3, 5, 20])
def test_a_model_that_breaks_and_heals_at_any_call_costs_no_row(error: Exception, first: int, calls: int) -> None:
    """Rows -1 are at fault all the time; whenever the model breaks, they are the only ones that fail."""
    number = itertools.count()

    def answer(feeds: Feeds) -> Outputs:
        broken = first <= next(number) < first + calls
        if broken or negative(feeds):
            raise error if broken else ModelFault("a bad row")
        return double(feeds)

    with scheduling(FakeModel(answer), sleep=no_sleep, max_retries=0) as scheduler:
        assert values(scheduler.submit(x_feeds(5))) == [10]
        for rows in ((1, 2, -1, 3), (4,), (-1,), (6, 7, 8, 9)):
            prediction = outcome(scheduler.submit(x_feeds(*rows)))
            assert [rows[row] for row in prediction.failures] == [row for row in rows if row < 0]


@pytest.mark.parametrize("error", KINDS)
def test_an_environment_that_stays_at_fault_fails_the_request(error: Exception) -> None:
    broken = False
    model = FakeModel(failing(error, lambda feeds: broken))
    with scheduling(model, sleep=no_sleep, max_retry_secs=0.0) as scheduler:
        assert values(scheduler.submit(x_feeds(5))) == [10]
        broken = True
        with pytest.raises(Unavailable, match="no; a row that passed before fails too"):
            outcome(scheduler.submit(x_feeds(*range(64))))
        assert not scheduler.answers()
        broken = False
        assert scheduler.answers()
        assert values(scheduler.submit(x_feeds(5))) == [10]


def test_rows_become_failures_where_the_user_asks_for_it() -> None:
    broken = False
    model = FakeModel(failing(ModelFault("no"), lambda feeds: broken))
    options = {"max_retry_secs": 0.0, "on_unavailable": "dead_letter"}
    with scheduling(model, sleep=no_sleep, **options) as scheduler:
        assert values(scheduler.submit(x_feeds(5))) == [10]
        broken = True
        failures = outcome(scheduler.submit(x_feeds(1, 2))).failures
        assert {failure.type for failure in failures.values()} == {"Unavailable"} and len(failures) == 2


@pytest.mark.parametrize("error", [BadInput("no"), ModelFault("no"), ZeroDivisionError("no"), BadOutput("no")])
def test_without_a_row_that_ever_passed_failures_are_doubtful(error: Exception) -> None:
    clock = FakeClock()
    broken = True
    model = FakeModel(failing(error, lambda feeds: broken))
    with scheduling(model, clock, sleep=no_sleep) as scheduler:
        assert scheduler.answers(), "nothing says that it does not"
        for rows in (1, 100):
            prediction = outcome(scheduler.submit(x_feeds(*range(rows))))
            assert len(prediction.failures) == rows
            assert all(not failure.proven and "no" in failure.message for failure in prediction.failures.values())
        scheduler.proof.note_failed(map(str, range(101)), "no")
        assert scheduler.proof.verdict() == ""
        clock.advance(61)
        assert scheduler.proof.verdict() == "all 101 rows of the first 61 s failed, the first with: no"
        broken = False
        assert values(scheduler.submit(x_feeds(5))) == [10]
        assert scheduler.proof.verdict() == "" and scheduler.proof.passed


def test_a_thousand_rows_without_one_that_passes_are_enough() -> None:
    with scheduling(FakeModel(failing(BadInput("no"), lambda feeds: True))) as scheduler:
        scheduler.proof.note_failed(range(999), "no")
        assert scheduler.proof.verdict() == ""
        scheduler.proof.note_failed([*range(999), 999], "another")
        assert scheduler.proof.verdict() == "all 1000 rows of the first 0 s failed, the first with: no"


@pytest.mark.parametrize(("rows", "ends"), [(1, False), (9, False), (10, True)])
def test_a_few_rows_that_come_again_and_again_end_no_stream(rows: int, ends: bool) -> None:
    """As one bad message on a quiet subscription, which is delivered every second."""
    clock = FakeClock()
    with scheduling(FakeModel(failing(BadInput("no"), lambda feeds: True)), clock) as scheduler:
        for _ in range(2000):
            clock.advance(1)
            scheduler.proof.note_failed(range(rows), "no")
        assert bool(scheduler.proof.verdict()) == ends


def test_a_request_answered_at_load_is_asked_first() -> None:
    class Loaded(FakeModel):
        first_answered: Feeds | None = x_feeds(7, 8)

        def renew(self) -> None:
            """Has nothing to load."""

        def abandon(self) -> None:
            """Has nothing that hangs."""

    model = Loaded(failing(BadInput("no"), negative))
    with scheduling(model, sleep=no_sleep) as scheduler:
        prediction = outcome(scheduler.submit(x_feeds(-1)))
        assert [failure.proven for failure in prediction.failures.values()] == [True]
        assert [feeds["x"].tolist() for feeds in model.calls] == [[-1], [7], [7], [-1]]


def test_the_row_is_renewed_now_and_then_and_copied() -> None:
    clock = FakeClock()
    model = FakeModel(failing(BadInput("no"), negative))
    with scheduling(model, clock, sleep=no_sleep) as scheduler:
        first = x_feeds(1, 2)
        values(scheduler.submit(first))
        first["x"][:] = -5  # as a buffer that is used again
        values(scheduler.submit(x_feeds(3)))
        outcome(scheduler.submit(x_feeds(-1)))
        clock.advance(_RENEW_SECS)
        values(scheduler.submit(x_feeds(4)))
        outcome(scheduler.submit(x_feeds(-1)))
    calls = [feeds["x"].tolist() for feeds in model.calls]
    assert calls == [[-5, -5], [3], *([-1], [1], [1], [-1]), [4], *([-1], [4], [4], [-1])]


@pytest.mark.parametrize("error", [OutOfMemory("OOM"), MemoryError("malloc")])
def test_memory_that_one_row_does_not_find_is_its_fault_only_if_others_find_it(error: Exception) -> None:
    short = False
    model = FakeModel(failing(error, lambda feeds: short or 99 in feeds["x"]))
    with scheduling(model, sleep=no_sleep, max_retry_secs=0.0, max_retries=1) as scheduler:
        assert values(scheduler.submit(x_feeds(5))) == [10]
        failures = outcome(scheduler.submit(x_feeds(1, 99, 2))).failures
        assert failures.keys() == {1} and failures[1].type == "OutOfMemory"
        short = True
        with pytest.raises(Unavailable, match=r"no memory|OOM"):
            outcome(scheduler.submit(x_feeds(1, 2)))


@pytest.mark.parametrize("policy", ["fail", "dead_letter"])
def test_a_model_that_is_lost_fails_the_request_at_once(policy: str) -> None:
    def answer(feeds: Feeds) -> Outputs:
        raise ModelLost("closed")

    model = FakeModel(answer)
    with scheduling(model, on_unavailable=policy) as scheduler, pytest.raises(ModelLost, match="closed"):
        outcome(scheduler.submit(x_feeds(1, 2)))
    assert len(model.calls) == 1


def test_a_model_that_fails_and_answers_in_turns_is_given_up() -> None:
    number = itertools.count()

    def answer(feeds: Feeds) -> Outputs:
        if 5 not in feeds["x"] or next(number) % 2:
            raise ModelFault("in turns")
        return double(feeds)

    with scheduling(FakeModel(answer), sleep=no_sleep) as scheduler:
        assert values(scheduler.submit(x_feeds(5))) == [10]
        with pytest.raises(Unavailable, match="failed and answered again"):
            outcome(scheduler.submit(x_feeds(1, 2)))
