"""The sweep of rates on queues whose latencies are known."""

import math

import pytest

from sluice.pipelines.compare.found import Stream
from sluice.pipelines.compare.stream import Load
from sluice.pipelines.compare.sweep import highest_rate, holds, sweep


def queue(capacity: float, least_ms: float = 2.0, measured: list[float] | None = None):
    """An M/M/1 queue: p99 = ln(100) / (capacity - rate); overloaded at its capacity."""

    def measure(rate: float) -> Stream:
        if measured is not None:
            measured.append(rate)
        complete = rate < capacity
        p99 = least_ms + 1000 * math.log(100) / (capacity - rate) if complete else 60_000.0
        return Stream(Load(rate, 1000, True), 1000, complete, p99 / 5, p99 / 2, p99, (p99, p99))

    return measure


@pytest.mark.parametrize("capacity", [900.0, 5_000.0, 77_000.0])
def test_it_narrows_the_knee_down(capacity: float) -> None:
    found = sweep(queue(capacity), 300.0)
    best = highest_rate(found)
    assert best is not None
    missed = min(each.load.rate for each in found if not holds(each, found, None))
    assert best.load.rate < capacity and missed / best.load.rate <= 2**0.25 * 1.01
    assert len(found) <= 2 + math.log2(capacity / 300) + 3


@pytest.mark.parametrize("target", [5.0, 20.0, 200.0])
def test_a_target_decides_instead(target: float) -> None:
    capacity = 4000.0
    found = sweep(queue(capacity), 100.0, target)
    best = highest_rate(found, target)
    exact = capacity - 1000 * math.log(100) / (target - 2.0)
    assert best is not None and best.load.rate <= exact < best.load.rate * 2**0.25 * 1.01


def test_a_start_that_is_too_high_is_halved() -> None:
    """A model that takes 50 ms: 20 messages a second, and the sweep begins with 600."""
    measured: list[float] = []
    found = sweep(queue(20.0, measured=measured), 600.0)
    assert measured[:6] == [600, 300, 150, 75, 37.5, 18.75]
    best = highest_rate(found)
    assert best is not None and 10 < best.load.rate < 20


def test_a_target_that_no_rate_keeps_ends() -> None:
    found = sweep(queue(1000.0, least_ms=50.0), 100.0, 10.0)
    assert highest_rate(found, 10.0) is None
    assert min(each.load.rate for each in found) >= 0.5


def test_it_ends_when_the_time_is_over() -> None:
    measured: list[float] = []
    sweep(queue(1e9, measured=measured), 100.0, goes_on=lambda: len(measured) < 3)
    assert measured == [100, 200, 400]


def test_a_rate_above_one_that_was_missed_is_not_held() -> None:
    """By chance a higher rate looked well."""

    def at(rate: float, p99: float) -> Stream:
        return Stream(Load(rate, 1000, True), 1000, True, 1.0, 1.0, p99, (p99, p99))

    best = highest_rate([at(100, 3), at(200, 90), at(400, 3)], 50.0)
    assert best is not None and best.load.rate == 100
    assert not holds(Stream(Load(9, 10, True), 10, False, 1.0, 1.0, 1.0, None), [], 50.0), "not all were answered"
    assert holds(Stream(Load(9, 10, True), 10, True, 1.0, 1.0, 1.0, None), [], 50.0), "few messages: as far as is known"
