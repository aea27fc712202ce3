"""A model behind a server, through the scheduler: outages, refusals, hangs, and who hears of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from models.binding import Feeds
from models.errors import BatchTooLarge, Cancelled, Overloaded, Refused, ServerFault, TimedOut, Unavailable
from models.interface import Outputs
from models.scheduler import Scheduler, SchedulerOptions
from models.tickets import Prediction
from tests.fakes import PATIENCE_SECS, FakeModel, double, x_feeds
from tests.scheduling import outcome, scheduling, values


class Scripted:
    """Fails as the script says, a call at a time; then answers."""

    def __init__(self, *script: Exception | None) -> None:
        self._script = list(script)
        self._lock = threading.Lock()

    def __call__(self, feeds: Feeds) -> Outputs:
        with self._lock:
            error = self._script.pop(0) if self._script else None
        if error is not None:
            raise error
        return double(feeds)


def remote(answer: Callable[[Feeds], Outputs], gated: bool = False) -> FakeModel:
    model = FakeModel(answer, gated=gated)
    model.remote = True
    return model


def no_sleep(secs: float) -> None:
    """Waits in no time."""


@pytest.mark.parametrize(
    "script",
    [
        [Unavailable("x")],
        [Overloaded("x"), Unavailable("x"), Overloaded("x")],
        [ServerFault("x"), TimedOut("x"), ServerFault("x")],
        [BatchTooLarge("x"), Unavailable("x"), Unavailable("x")],
    ],
)
def test_what_passes_is_not_seen(script: Sequence[Exception]) -> None:
    model = remote(Scripted(*script))
    scheduler = Scheduler(model, SchedulerOptions(), sleep=no_sleep)
    prediction = outcome(scheduler.submit(x_feeds(1, 2, 3)))
    assert prediction.arrays["y"].tolist() == [2, 4, 6] and not prediction.failures
    assert sum(call.repeats for call in prediction.calls) == sum(not isinstance(e, BatchTooLarge) for e in script)
    scheduler.close()


@pytest.mark.parametrize("error", [Unavailable("away"), Refused("who are you"), TimedOut("slow"), Overloaded("no")])
def test_rows_are_not_blamed_for_an_outage_unless_asked(error: Exception) -> None:
    options: dict[str, Any] = {"max_retries": 1, "max_retry_secs": 0.0}
    broken = scheduling(remote(Scripted(*[error] * 9)), sleep=no_sleep, **options)
    with broken as scheduler, pytest.raises(type(error), match=str(error)):
        outcome(scheduler.submit(x_feeds(1, 2)))
    dead_letter = {"on_unavailable": "dead_letter", **options}
    with scheduling(remote(Scripted(*[error] * 2)), sleep=no_sleep, **dead_letter) as scheduler:
        prediction = outcome(scheduler.submit(x_feeds(1, 2)))
        while prediction.failures.keys() == {0, 1}:  # one or two attempts fail, the script is then at its end
            assert {failure.type for failure in prediction.failures.values()} == {type(error).__name__}
            prediction = outcome(scheduler.submit(x_feeds(1, 2)))
        assert prediction.arrays["y"].tolist() == [2, 4]


def test_an_outage_in_one_half_fails_the_whole_request() -> None:
    model = remote(Scripted(BatchTooLarge("x"), None, Refused("go away")))
    with scheduling(model) as scheduler, pytest.raises(Refused, match="go away"):
        outcome(scheduler.submit(x_feeds(1, 2)))


def test_a_row_that_breaks_the_server_fails_alone() -> None:
    def answer(feeds: Feeds) -> Outputs:
        if 3 in feeds["x"]:
            raise ServerFault("segmentation fault")
        return double(feeds)

    with scheduling(remote(answer), sleep=no_sleep, max_retries=1) as scheduler:
        prediction = outcome(scheduler.submit(x_feeds(1, 2, 3, 4)))
    assert prediction.failures.keys() == {2}
    assert "segmentation fault; gave up after 2 attempts" in prediction.failures[2].message


def test_a_call_that_hangs_past_its_deadline_is_given_up() -> None:
    let_go = threading.Event()
    hung = iter([True])

    def answer(feeds: Feeds) -> Outputs:
        if next(hung, False):
            let_go.wait(PATIENCE_SECS)
        return double(feeds)

    with scheduling(remote(answer), sleep=no_sleep, call_timeout_secs=0.05) as scheduler:
        assert values(scheduler.submit(x_feeds(4))) == [8]
        assert outcome(scheduler.submit(x_feeds(5))).arrays["y"].tolist() == [10]
    let_go.set()


def test_closing_does_not_wait_for_a_server_that_is_away() -> None:
    model = remote(Scripted(*[Unavailable("away")] * 1000))
    scheduler = Scheduler(model, SchedulerOptions(max_retry_secs=1e9), uniform=lambda: 1.0)
    ticket = scheduler.submit(x_feeds(1))
    while not scheduler.throttled_secs:
        model.await_call()
    scheduler.close()
    with pytest.raises(Cancelled):
        ticket.future.result(PATIENCE_SECS)


def test_a_server_gets_one_call_at_first_and_more_while_it_bears_them() -> None:
    model = remote(double, gated=True)
    with scheduling(model, max_batch_size=1, max_in_flight=8) as scheduler:
        assert scheduler.in_flight_limit == 1
        ticket = scheduler.submit(x_feeds(*range(400)))
        model.let_go(400)
        assert values(ticket) == [2 * x for x in range(400)]
        assert 1 < scheduler.in_flight_limit <= 8
    assert model.most_at_a_time <= 8


def test_sizes_that_are_left_open_are_those_of_the_backend() -> None:
    with scheduling(FakeModel()) as local, scheduling(remote(double)) as served:
        assert (local.options.max_batch_size, local.options.max_in_flight) == (4096, 1)
        assert (served.options.max_batch_size, served.options.max_in_flight) == (512, 32)
        assert served.options.adapt_in_flight and not local.options.adapt_in_flight


def test_the_time_that_calls_waited_is_told_while_they_wait() -> None:
    model = remote(Scripted(Unavailable("away")))
    held, waits = threading.Event(), threading.Event()

    def sleep(secs: float) -> None:
        waits.set()
        held.wait(PATIENCE_SECS)

    with scheduling(model, sleep=sleep) as scheduler:
        ticket = scheduler.submit(x_feeds(1))
        assert waits.wait(PATIENCE_SECS)
        first = scheduler.throttled_secs
        assert scheduler.throttled_secs > first
        held.set()
        prediction: Prediction = outcome(ticket)
        assert prediction.calls[0].repeats == 1
        in_all = scheduler.throttled_secs
        values(scheduler.submit(x_feeds(2)))
        assert scheduler.throttled_secs == in_all
