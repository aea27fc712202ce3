"""InFlightLimit on simulated servers: its throughput comes close to that of the best fixed limit."""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass

import pytest

from sluice.models.batching.in_flight import InFlightLimit
from sluice.models.errors import CallError, Overloaded, Refused, Unavailable


@dataclass(frozen=True)
class Server:
    """A call of n rows takes `fixed + n * row` seconds while at most `at_once` calls are in flight.

    Attributes:
      refuses_over: the server is overloaded if more calls than this are in flight.
      fails: the share of calls that do not get through, at any load.
      lingers: the share of calls that take twenty times as long, at any load.
    """

    fixed: float
    row: float
    at_once: int
    refuses_over: int = 1000
    fails: float = 0.0
    lingers: float = 0.0

    def secs(self, rows: int, calls: int, dice: random.Random) -> float:
        secs = (self.fixed + rows * self.row) * max(1.0, calls / self.at_once) * dice.uniform(0.8, 1.5)
        return secs * 20 if dice.random() < self.lingers else secs


@dataclass(order=True)
class Event:
    """A row arrives, or a call ends."""

    at: float
    number: int
    rows: int = 0
    began: float = 0.0
    alone: bool = False
    refused: bool = False
    failed: bool = False


def rows_per_second(limit: InFlightLimit, server: Server, clients: int, batch: int, calls: int = 2000) -> float:
    """Returns the throughput of clients that each send a row, wait for it and pause up to 2 ms (`batch` is 0).

    Without clients: that of endless rows in calls of `batch` rows. The first third of the time does not count.
    """
    dice = random.Random(1)
    events = [Event(dice.uniform(0, 0.002), -number) for number in range(clients)] or [Event(0.0, 0)]
    heapq.heapify(events)
    begun = active = waiting = ended = done = 0
    counted_from = (0.0, 0)
    while ended < calls:
        event = heapq.heappop(events)
        if not event.rows:
            waiting += 1
        else:
            active -= 1
            ended += 1
            if event.refused or event.failed:
                (limit.on_overload if event.refused else limit.on_failure)(active + 1)
                waiting += event.rows
            else:
                alone = event.alone and event.number == begun
                limit.on_answer(event.rows, event.at - event.began, alone, bool(batch), active + 1)
                done += event.rows
                for _ in range(event.rows if not batch else 0):
                    heapq.heappush(events, Event(event.at + dice.uniform(0, 0.002), -dice.randrange(1 << 40)))
            if ended == calls // 3:
                counted_from = (event.at, done)
        while active < limit.value and (batch or waiting):
            rows = batch or waiting
            waiting -= rows
            active, begun = active + 1, begun + 1
            refused = active > server.refuses_over
            failed = dice.random() < server.fails
            ends = event.at + (0.001 if refused or failed else server.secs(rows, active, dice))
            heapq.heappush(events, Event(ends, begun, rows, event.at, active == 1, refused, failed))
        if batch or waiting:
            limit.note_wait()
    return (done - counted_from[1]) / (event.at - counted_from[0])


_LONG = [pytest.param(*each, marks=pytest.mark.slow) for each in ((64, 0), (0, 512))]


@pytest.mark.parametrize("clients,batch", [(12, 0), (0, 16), *_LONG])
@pytest.mark.parametrize(
    "server",
    [
        Server(fixed=0.020, row=0.0, at_once=100),
        Server(fixed=0.020, row=0.00002, at_once=8),
        Server(fixed=0.002, row=0.00001, at_once=2),
        Server(fixed=0.0005, row=0.0005, at_once=1),
        Server(fixed=0.020, row=0.001, at_once=2),
        Server(fixed=0.010, row=0.0001, at_once=30, refuses_over=6),
        Server(fixed=0.020, row=0.0, at_once=100, fails=0.01),
        Server(fixed=0.020, row=0.00002, at_once=12, fails=0.1),
        Server(fixed=0.020, row=0.0, at_once=100, fails=0.3),
        Server(fixed=0.020, row=0.0, at_once=100, lingers=0.05),
    ],
)
def test_it_comes_near_the_best_fixed_number(server: Server, clients: int, batch: int) -> None:
    fixed = [
        rows_per_second(InFlightLimit(n, adapt=False), server, clients, batch, calls=700)
        for n in (1, 2, 4, 8, 12, 16, 32)
        if n <= server.refuses_over
    ]
    adapted = rows_per_second(InFlightLimit(32, adapt=True), server, clients, batch)
    # At a server that rejects calls, the limit varies between half of what the server takes and all of it.
    assert adapted >= (0.65 if server.refuses_over < 32 else 0.78) * max(fixed), (adapted, fixed)


def test_a_number_that_is_not_to_adapt_stays() -> None:
    limit = InFlightLimit(7, adapt=False)
    limit.note_wait()
    limit.on_overload(7)
    for _ in range(50):
        limit.on_answer(1, 1.0, alone=False, full=False, active=7)
    assert limit.value == 7


def test_without_rows_that_wait_there_is_no_reason_for_more() -> None:
    limit = InFlightLimit(32, adapt=True)
    for _ in range(100):
        limit.on_answer(1, 0.01, alone=True, full=False, active=1)
    assert limit.value == 1


def test_it_never_leaves_its_bounds() -> None:
    limit = InFlightLimit(4, adapt=True)
    for number in range(300):
        limit.note_wait()
        if number % 7:
            limit.on_answer(10, 0.01, alone=limit.value == 1, full=True, active=limit.value)
        elif number % 2:
            limit.on_overload(limit.value)
        else:
            limit.on_failure(limit.value)
        assert 1 <= limit.value <= 4
    for _ in range(20):
        limit.on_overload(1)
    assert limit.value == 1


def test_an_overload_that_every_call_tells_of_counts_once() -> None:
    limit = InFlightLimit(32, adapt=True)
    grow(limit)
    for active in range(32, 0, -1):  # all calls that were in flight when it began
        limit.on_overload(active)
    assert limit.value == 16
    limit.on_overload(1)
    assert limit.value == 8


@pytest.mark.parametrize("is_unsent", [True, False])
@pytest.mark.parametrize(("error", "lowers"), [(Overloaded, True), (Unavailable, True), (Refused, False)])
def test_only_a_server_that_was_met_says_something_about_its_load(
    error: type[CallError], lowers: bool, is_unsent: bool
) -> None:
    """A service of tokens that is overloaded made fewer calls go to a server that bears them."""
    limit = InFlightLimit(32, adapt=True)
    grow(limit)
    before = limit.value
    said = error("no token")
    said.is_unsent = is_unsent
    for _ in range(100):
        limit.on_error(said, 1)
    assert (limit.value < before) == (lowers and not is_unsent)


def grow(limit: InFlightLimit) -> None:
    """Answers calls until the limit is at its largest."""
    while limit.value < 32:
        limit.note_wait()
        limit.on_answer(10, 0.01, alone=limit.value == 1, full=True, active=limit.value)


def test_an_outage_brings_it_down_and_its_end_up_again_soon() -> None:
    limit = InFlightLimit(32, adapt=True)
    grow(limit)
    failures = 0
    while limit.value > 1:
        limit.on_failure(1)
        failures += 1
    assert failures <= 80
    answers = 0
    while limit.value < 32:
        limit.note_wait()
        limit.on_answer(10, 0.01, alone=False, full=True, active=limit.value)
        answers += 1
    assert answers <= 50


def test_a_few_failures_say_nothing_of_the_load() -> None:
    limit = InFlightLimit(32, adapt=True)
    grow(limit)
    for number in range(1000):
        if number % 3:
            limit.on_answer(10, 0.01, alone=False, full=True, active=32)
        else:
            limit.on_failure(32)
    assert limit.value == 32


def test_a_server_that_has_become_slower_is_learnt_anew() -> None:
    limit = InFlightLimit(32, adapt=True)
    fast, slow = Server(0.001, 0.0, 100), Server(0.1, 0.0, 100)
    rows_per_second(limit, fast, 0, 10)
    rows_per_second(limit, slow, 0, 10)
    assert limit.value >= 16
