"""Messages are sent when they are due, and a latency counts from then."""

import threading
from collections.abc import Callable

import numpy as np
import pytest

from sluice.pipelines.compare.stream import Load, schedule, send


class Clock:
    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now

    def pause(self, secs: float) -> None:
        assert secs > 0
        self.now += secs


def serving(clock: Clock, secs: float, sent: list[tuple[int, int]]) -> Callable[..., None]:
    """A server that takes so long for a call, whatever its size; whoever calls it waits."""

    def send_(start: int, stop: int, done: Callable[[int, int], None]) -> None:
        sent.append((start, stop))
        clock.now += secs
        done(start, stop)

    return send_


def test_gaps_are_exponential_and_come_from_the_seed() -> None:
    due = schedule(Load(100, 50_000, False, seed=5))
    gaps = np.diff(due)
    assert due[0] == 0.0
    assert gaps.mean() == pytest.approx(0.01, rel=0.03) and gaps.std() == pytest.approx(0.01, rel=0.03)
    assert np.mean(gaps > 0.02) == pytest.approx(np.exp(-2), rel=0.05)
    assert (schedule(Load(100, 9, True, seed=5)) == due[:9]).all()
    assert not (schedule(Load(100, 9, True, seed=6)) == due[:9]).all()


def test_latency_counts_from_the_scheduled_time() -> None:
    """Each call takes 10 ms: by Lindley's recursion a message waits for those before it."""
    clock, load, sent = Clock(), Load(60, 400, False), list[tuple[int, int]]()
    found = send(load, serving(clock, 0.01, sent), clock, clock.pause)
    due, free, expected = schedule(load), 0.0, []
    for at in due:
        free = max(free, at) + 0.01
        expected.append(1000 * (free - at))
    assert found.complete and sent == [(number, number + 1) for number in range(400)]
    np.testing.assert_allclose(found.latencies_ms, expected, atol=1e-6)
    assert found.rate == pytest.approx(400 / free)


def test_mini_batches_take_what_is_due_together() -> None:
    """Three times what single calls could do: batches grow until they hold it."""
    clock, load, sent = Clock(), Load(300, 3000, True), list[tuple[int, int]]()
    found = send(load, serving(clock, 0.01, sent), clock, clock.pause)
    assert found.complete
    assert [start for start, _ in sent[1:]] == [stop for _, stop in sent[:-1]]
    assert 2 < 3000 / len(sent) < 6
    assert max(found.latencies_ms) < 40


def test_a_rate_that_is_too_high_is_given_up_and_not_hidden() -> None:
    clock, load = Clock(), Load(1000, 5000, False)
    found = send(load, serving(clock, 0.01, []), clock, clock.pause)
    assert not found.complete
    assert clock.now - 50 < 5 * 1.5 + 3
    assert len(found.latencies_ms) == 5000 and max(found.latencies_ms) > 4000, "those that were not sent count too"


def test_messages_without_an_answer_have_waited_until_the_end() -> None:
    clock, calls = Clock(), list[int]()

    def forgets(start: int, stop: int, done: Callable[[int, int], None]) -> None:
        calls.append(start)

    class Waits(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            clock.now += timeout or 0.0
            return False

    found = send(Load(100, 5, False), forgets, clock, clock.pause, Waits())
    assert len(calls) == 5 and not found.complete
    assert min(found.latencies_ms) > 1900
