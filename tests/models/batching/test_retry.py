"""Retry: which calls are repeated, how often, and after which waits. Time passes only while it sleeps."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from sluice.models.batching.options import SchedulerOptions
from sluice.models.batching.retry import Retry, backoffs
from sluice.models.errors import (
    BadInput,
    BadOutput,
    BatchTooLarge,
    CallError,
    Cancelled,
    OutOfMemory,
    Overloaded,
    Refused,
    ServerFault,
    SignatureChanged,
    TimedOut,
    TooSlow,
    Unavailable,
)
from sluice.models.interface import Outputs
from tests.support.fakes import longest_backoffs

ANSWER = Outputs({})


class World:
    """A clock that only sleeps advance, and a server that fails one attempt after the other as asked, then answers."""

    def __init__(self, **options: Any) -> None:
        self.now = 100.0
        self.sleeps: list[float] = []
        self.failures: list[CallError] = []
        self.attempts = 0
        self.call_secs = 0.0
        self.during_sleep: Callable[[], None] = lambda: None
        self.woken = 0
        self.retry = Retry(SchedulerOptions(**options), lambda: self.now, self._sleep, longest_backoffs, self._wake)

    def _sleep(self, secs: float) -> None:
        self.sleeps.append(secs)
        self.now += secs
        self.during_sleep()

    def _wake(self) -> None:
        self.woken += 1

    def attempt(self) -> Outputs:
        self.attempts += 1
        self.now += self.call_secs
        if self.failures:
            raise self.failures.pop(0)
        return ANSWER

    def run(self, *failures: CallError, rows: int = 1, max_faults: int | None = None) -> Outputs:
        self.failures = list(failures)
        self.attempts = 0
        return self.retry.run(self.attempt, rows, max_faults)


def test_an_answer_is_returned_at_once() -> None:
    world = World()
    assert world.run() is ANSWER
    assert (world.attempts, world.sleeps) == (1, [])


@pytest.mark.parametrize("error", [Unavailable("x"), Overloaded("x"), ServerFault("x"), TimedOut("x")])
def test_errors_that_may_pass_are_repeated(error: CallError) -> None:
    world = World()
    assert world.run(error, error) is ANSWER
    assert world.attempts == 3


@pytest.mark.parametrize("error", [BadInput("x"), BatchTooLarge("x"), Refused("x"), CallError("x"), Cancelled("x")])
def test_other_errors_are_raised_at_once(error: CallError) -> None:
    world = World()
    with pytest.raises(type(error)) as raised:
        world.run(error)
    assert raised.value is error
    assert world.attempts == 1


def test_waits_are_random_and_their_bounds_double_up_to_ten_seconds() -> None:
    bounds = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0, 10.0]
    drawn = zip(*[itertools.islice(backoffs(), len(bounds)) for _ in range(2000)], strict=True)
    for bound, waits in zip(bounds, drawn, strict=True):
        assert 0 <= min(waits) < 0.02 * bound  # a mistake is 1 in 10**17
        assert 0.98 * bound < max(waits) <= bound


def test_each_call_has_waits_of_its_own() -> None:
    world = World()
    world.run(*[Unavailable("x")] * 3)
    world.run(*[ServerFault("x")] * 2)
    assert world.sleeps == [0.1, 0.2, 0.4, 0.1, 0.2]


def test_a_wait_ends_with_the_time_for_the_outage() -> None:
    world = World(max_retry_secs=1)
    with pytest.raises(Unavailable, match=r"gave up after 5 attempts in 1\.0 s"):
        world.run(*[Unavailable("x")] * 9)
    assert world.sleeps == pytest.approx([0.1, 0.2, 0.4, 0.3])


def test_faults_are_repeated_max_retries_times() -> None:
    world = World(max_retries=2)
    with pytest.raises(ServerFault, match=r"broke; gave up after 3 attempts in 0.3 s \(--max_retries\)"):
        world.run(*[ServerFault("broke")] * 5)
    assert world.attempts == 3
    with pytest.raises(ServerFault, match=r"^broke$"):
        world.run(*[ServerFault("broke")] * 5, max_faults=0)


def test_a_call_that_times_out_while_others_are_answered_is_repeated_max_retries_times() -> None:
    world = World(max_retries=2)
    world.during_sleep = lambda: world.retry._on_answer()
    with pytest.raises(TimedOut, match=r"slow; gave up after 3 attempts"):
        world.run(*[TimedOut("slow")] * 9)


def test_a_server_that_hangs_is_waited_for_like_one_that_is_away() -> None:
    world = World(max_retry_secs=5, max_retries=1)
    with pytest.raises(TimedOut, match=r"--max_retry_secs"):
        world.run(*[TimedOut("hangs")] * 100)
    assert world.attempts == 7
    with pytest.raises(TimedOut, match=r"^hangs; nothing was answered for \d+\.\d s \(--max_retry_secs\)$"):
        world.run(*[TimedOut("hangs")] * 100)


def test_a_large_call_that_is_not_answered_in_time_is_tried_with_fewer_rows() -> None:
    world = World()
    with pytest.raises(TooSlow, match=r"slow \(512 rows; --max_batch_size, --rpc_timeout_secs\)"):
        world.run(*[TimedOut("slow")] * 9, rows=512)
    assert world.attempts == 2


def test_a_single_row_waits_for_memory_that_other_calls_have() -> None:
    world = World(max_retries=2, max_retry_secs=20)
    assert world.run(*[OutOfMemory("OOM")] * 5) is ANSWER
    with pytest.raises(OutOfMemory, match=r"^OOM$"):  # several rows are halved
        world.run(OutOfMemory("OOM"), rows=2)
    world.now += 1
    with pytest.raises(Unavailable, match=r"OOM; gave up after"):  # no call is answered
        world.run(*[OutOfMemory("OOM")] * 99)
    world.call_secs = 1
    with pytest.raises(Unavailable, match=r"OOM; nothing was answered for"):
        world.run(OutOfMemory("OOM"))
    world.run()
    world.during_sleep = lambda: world.retry._on_answer()
    with pytest.raises(OutOfMemory, match=r"OOM; gave up after 3 attempts"):  # this row is too large
        world.run(*[OutOfMemory("OOM")] * 99)


def test_a_large_call_without_memory_after_an_outage_is_halved() -> None:
    world = World()
    with pytest.raises(OutOfMemory, match=r"OOM; gave up after 2 attempts"):
        world.run(Unavailable("away"), OutOfMemory("OOM"), rows=2)


def test_a_refusal_is_retried_only_if_earlier_calls_succeeded() -> None:
    world = World()
    with pytest.raises(Refused):
        world.run(Refused("who are you"))
    world.run()
    assert world.run(Refused("who are you"), Refused("who are you")) is ANSWER
    with pytest.raises(SignatureChanged):
        world.run(SignatureChanged("another model"))


@pytest.mark.parametrize("answer", [None, BadInput("bad row"), BatchTooLarge("too large"), BadOutput("odd")])
def test_any_answer_ends_an_outage_and_wakes_calls_that_wait(answer: CallError | None) -> None:
    world = World(max_retry_secs=5)
    with pytest.raises(Unavailable):
        world.run(*[Unavailable("away")] * 100)
    assert world.woken == 0
    if answer is None:
        world.run()
    else:
        with pytest.raises(type(answer)):
            world.run(answer)
    assert world.woken == 1
    assert world.retry.answered_since(world.now)
    assert world.run(Unavailable("away")) is ANSWER
    assert world.woken == 2


def test_an_outage_does_not_use_up_the_retries_of_faults() -> None:
    world = World(max_retries=1)
    assert world.run(*[Unavailable("x")] * 5, ServerFault("x"), Unavailable("x")) is ANSWER


def test_no_retries_at_all() -> None:
    world = World(max_retries=0, max_retry_secs=0)
    for error in (ServerFault("x"), Unavailable("x")):
        with pytest.raises(type(error)) as raised:
            world.run(error)
        assert raised.value is error
    assert world.sleeps == []


def test_a_server_that_is_away_is_waited_for_max_retry_secs() -> None:
    world = World(max_retry_secs=30)
    with pytest.raises(Unavailable, match=r"away; gave up after 10 attempts in 30.0 s \(--max_retry_secs\)"):
        world.run(*[Unavailable("away")] * 100)


def test_after_an_outage_was_waited_for_calls_are_tried_once_until_one_is_answered() -> None:
    world = World(max_retry_secs=5)
    for attempts in (7, 1, 1):
        with pytest.raises(Unavailable):
            world.run(*[Unavailable("away")] * 100)
        assert world.attempts == attempts
    world.run()
    with pytest.raises(Unavailable):
        world.run(*[Unavailable("away")] * 100)
    assert world.attempts == 7


def test_a_call_that_fails_alone_is_given_up_though_others_are_answered() -> None:
    world = World(max_retry_secs=5)
    world.during_sleep = lambda: world.retry._on_answer()
    with pytest.raises(Unavailable):
        world.run(*[Unavailable("away")] * 100)
    assert world.attempts == 7


def test_an_outage_long_ago_says_nothing_about_now() -> None:
    world = World(max_retry_secs=5)
    with pytest.raises(Unavailable):
        world.run(*[Unavailable("away")] * 100)
    world.now += 3600
    assert world.run(Unavailable("x")) is ANSWER


def test_slow_attempts_are_not_taken_for_a_pause() -> None:
    world = World(max_retry_secs=100)
    world.call_secs = 60
    with pytest.raises(Unavailable):
        world.run(*[Unavailable("away")] * 100)
    assert world.attempts == 2
    with pytest.raises(Unavailable):
        world.run(Unavailable("away"))
    assert world.attempts == 1


def test_time_spent_waiting_for_a_server_is_throttling_and_that_for_a_fault_is_not() -> None:
    world = World()
    seen: list[float] = []
    world.during_sleep = lambda: seen.append(world.retry.throttled_secs)
    world.run(Unavailable("x"), Overloaded("x"), ServerFault("x"))
    assert seen == pytest.approx([0.1, 0.3, 0.3])
    assert world.retry.throttled_secs == pytest.approx(0.3)


def test_for_how_long_the_model_has_been_away() -> None:
    world = World()
    seen: list[float] = []
    world.during_sleep = lambda: seen.append(world.retry.away_secs)
    assert world.retry.away_secs == 0.0
    world.run(Unavailable("x"), ServerFault("y"), Overloaded("x"))
    assert seen == pytest.approx([0.1, 0.3, 0.7])  # a fault is no answer
    assert world.retry.away_secs == 0.0
    world.run(ServerFault("y"))
    assert seen[3:] == [0.0]


def test_an_outage_goes_on_while_an_attempt_waits_for_its_answer() -> None:
    world = World()
    world.failures = [TimedOut("no answer")] * 2
    seen: list[float] = []

    def attempt() -> Outputs:
        world.now += 60
        seen.append(world.retry.away_secs)
        return world.attempt()

    world.retry.run(attempt, 1)
    assert seen == pytest.approx([0.0, 120.1, 180.3])
    assert world.retry.away_secs == 0.0


def test_nobody_who_waits_is_no_outage_after_a_while() -> None:
    world = World(max_retry_secs=0)
    with pytest.raises(Unavailable):
        world.run(Unavailable("x"))
    world.now += 20
    assert world.retry.away_secs == 20
    world.now += 20
    assert world.retry.away_secs == 0.0


def test_a_call_that_is_given_up_names_the_version_that_failed() -> None:
    world = World(max_retries=1)
    failed = ServerFault("broken")
    failed.version = 12
    with pytest.raises(ServerFault, match="gave up after 2 attempts") as caught:
        world.run(failed, failed)
    assert caught.value.version == 12


def test_waits_that_overlap_count_once() -> None:
    world = World()
    inner: list[Unavailable] = [Unavailable("inner")]

    def call_within() -> None:
        world.during_sleep = lambda: None
        world.failures, kept = list(inner), world.failures
        world.retry.run(world.attempt, 1)
        world.failures = kept

    world.during_sleep = call_within
    world.run(Unavailable("outer"))
    assert world.sleeps == [0.1, 0.1]
    assert world.retry.throttled_secs == pytest.approx(0.2)


def test_the_log_tells_of_a_long_outage_and_its_end_once(caplog: pytest.LogCaptureFixture) -> None:
    world = World(max_retry_secs=60)
    world.run(*[Unavailable("blip")] * 4)
    assert caplog.messages == []
    world.run(*[Unavailable("away")] * 7)
    assert caplog.messages == [
        "away; waiting for it, up to 60 s (--max_retry_secs)",
        "The model answers again, after 12.7 s",
    ]


def test_a_sleep_that_raises_ends_the_call() -> None:
    world = World()

    def closed() -> None:
        raise Cancelled("closed")

    world.during_sleep = closed
    with pytest.raises(Cancelled):
        world.run(Unavailable("x"))
    assert world.retry.throttled_secs == pytest.approx(0.1)


def asking(secs: float, kind: type[Unavailable] = Overloaded) -> Unavailable:
    """A server that says when to come again."""
    error = kind("busy")
    error.retry_after_secs = secs
    return error


def test_a_server_that_says_when_to_come_again_is_left_alone_until_then() -> None:
    world = World()
    world.failures = [asking(7.0), asking(0.05)]
    assert world.retry.run(world.attempt, 1) is ANSWER
    assert world.sleeps == [7.0, 0.2], "the back-off is the least wait"


def test_what_ends_a_wait_early_does_not_end_one_that_the_server_asked_for() -> None:
    world = World()
    woken = iter([2.0, 3.0])  # others are answered, and wake this one

    def sleep(secs: float) -> None:
        world.sleeps.append(secs)
        world.now += next(woken, secs)

    world.retry = Retry(SchedulerOptions(), lambda: world.now, sleep, longest_backoffs)
    world.failures = [asking(7.0)]
    assert world.retry.run(world.attempt, 1) is ANSWER
    assert world.sleeps == [7.0, 5.0, 2.0] and world.now == 107.0


def test_nobody_waits_for_longer_than_the_user_allows() -> None:
    world = World(max_retry_secs=10)
    world.failures = [asking(3600.0), asking(3600.0)]
    with pytest.raises(Overloaded, match=r"gave up after 2 attempts in 10.0 s \(--max_retry_secs\)"):
        world.retry.run(world.attempt, 1)
    assert world.sleeps == [10.0]


def test_nobody_waits_for_longer_than_the_user_allows_though_others_are_answered() -> None:
    world = World(max_retry_secs=10, max_retries=2)
    world.during_sleep = lambda: world.retry._on_answer()
    world.failures = [asking(3600.0, TimedOut)] * 3
    with pytest.raises(TimedOut, match=r"gave up after 3 attempts"):
        world.retry.run(world.attempt, 1)
    assert sum(world.sleeps[:-1]) == 10.0 and world.sleeps[-1] == 0.2, "then only the back-off is left"


def test_a_long_wait_ends_when_nobody_wants_the_answer() -> None:
    world = World(max_retry_secs=3600)
    world.failures = [asking(3600.0)]

    def check() -> None:
        raise Cancelled("nobody waits")

    with pytest.raises(Cancelled):
        world.retry.run(world.attempt, 1, check=check)
    assert (world.attempts, world.sleeps) == (1, [10.0])


def test_what_fails_before_it_is_sent_is_no_answer() -> None:
    world = World(max_retry_secs=5)
    for _ in range(2):
        with pytest.raises(Unavailable):
            world.run(*[Unavailable("away")] * 100)
        error = BadInput("has no form in JSON")
        error.is_unsent = True
        with pytest.raises(BadInput):
            world.run(error)
    assert (world.attempts, world.woken, world.retry.answered_since(0.0)) == (1, 0, False)
    with pytest.raises(Unavailable):
        world.run(*[Unavailable("away")] * 100)
    assert world.attempts == 1, "the outage goes on"
