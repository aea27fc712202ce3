"""The scheduler under random load from several threads: each row gets its own outcome, and nothing is left over."""

from __future__ import annotations

import concurrent.futures
import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from sluice.models.batching.mini_batch import byte_count
from sluice.models.batching.options import SchedulerOptions
from sluice.models.batching.scheduler import Scheduler
from sluice.models.batching.tickets import Prediction, Ticket
from sluice.models.errors import (
    BadInput,
    BatchTooLarge,
    CallError,
    Cancelled,
    Overloaded,
    ServerFault,
    TimedOut,
    Unavailable,
)
from sluice.models.interface import Outputs
from sluice.models.signature import Signature, TensorSpec
from sluice.models.tensors.binding import Feeds
from tests.support.fakes import PATIENCE_SECS, FakeModel
from tests.support.sizes import examples

# A row is its number, repeated over the width of its request. The answer is that number plus one half, and its name.
SIGNATURE = Signature(
    "s",
    "",
    (TensorSpec("x", "int64", (None, None)), TensorSpec("name", "string", (None,))),
    (TensorSpec("y", "float64", (None,)), TensorSpec("names", "string", (None, None), ("v", "s"), "ragged")),
)


@dataclass(frozen=True)
class Load:
    """Requests of each thread, as (first row, rows, width, cancelled)."""

    threads: list[list[tuple[int, int, int, bool]]]
    poison: frozenset[int]
    max_rows: int | None
    options: SchedulerOptions
    remote: bool
    faults: dict[int, type[CallError]]
    """By the number of a call: the error that it raises for any rows."""

    @property
    def rows(self) -> int:
        return sum(rows for requests in self.threads for _, rows, _, _ in requests)


@st.composite
def loads(draw: st.DrawFn, cancels: bool) -> Load:
    sizes = st.tuples(st.integers(0, 30), st.sampled_from([1, 1, 2]), st.booleans() if cancels else st.just(False))
    drawn = draw(st.lists(st.lists(sizes, max_size=8), min_size=1, max_size=4))
    threads, first = [], 0
    for requests in drawn:
        threads.append([])
        for rows, width, cancelled in requests:
            threads[-1].append((first, rows, width, cancelled))
            first += rows
    options = SchedulerOptions(
        max_batch_size=draw(st.integers(1, 40)),
        max_batch_bytes=draw(st.sampled_from([1, 500, 1 << 20])),
        allowed_batch_sizes=draw(st.sampled_from([(), (), (4, 16), (50,)])),
        max_in_flight=draw(st.integers(1, 3)),
        max_pending_bytes=draw(st.sampled_from([1, 2000, 1 << 20])),
        max_isolation_calls=draw(st.sampled_from([0, 5, 10_000])),
    )
    poison = draw(st.frozensets(st.integers(0, first), max_size=4))
    passing = st.dictionaries(st.integers(0, 20), st.sampled_from([Unavailable, Overloaded]), max_size=12)
    few = st.dictionaries(st.integers(0, 20), st.sampled_from([ServerFault, TimedOut]), max_size=options.max_retries)
    faults: dict[int, type[CallError]] = draw(passing) | draw(few)
    return Load(threads, poison, draw(st.none() | st.integers(1, 20)), options, draw(st.booleans()), faults)


class LoadedModel(FakeModel):
    """Rejects poison, and too many rows; checks the budget of the scheduler that calls it."""

    def __init__(self, load: Load) -> None:
        super().__init__(self._score, SIGNATURE)
        self.load = load
        self.remote = load.remote
        self.scheduler: Scheduler | None = None
        self.most_pending_bytes = 0
        self._numbers = itertools.count()

    def _score(self, feeds: Feeds) -> Outputs:
        if self.scheduler is not None:
            self.most_pending_bytes = max(self.most_pending_bytes, self.scheduler.pending_bytes)
        fault = self.load.faults.get(next(self._numbers))
        if fault is not None:
            raise fault("it happens")
        if self.load.max_rows is not None and len(feeds["x"]) > self.load.max_rows:
            raise BatchTooLarge("too many")
        numbers = feeds["x"][:, 0]
        if self.load.poison.intersection(numbers.tolist()):
            raise BadInput("poison")
        names = pa.array([[name] for name in feeds["name"]], pa.list_(pa.binary()))
        return Outputs({"y": numbers + 0.5, "names": names}, version=int(numbers[0]))


def feeds_of(first: int, rows: int, width: int) -> Feeds:
    numbers = np.arange(first, first + rows)
    names = np.array([str(number).encode() for number in numbers], object)
    return {"x": np.repeat(numbers[:, None], width, 1), "name": names}


def run(load: Load) -> tuple[LoadedModel, Scheduler, list[tuple[int, int, Prediction | None]]]:
    """Sends the load through a scheduler; returns (first row, rows, prediction or None if cancelled)."""
    model = LoadedModel(load)
    scheduler = model.scheduler = Scheduler(model, load.options, sleep=lambda _: None)
    dropped: list[Ticket] = []

    def submit(requests: list[tuple[int, int, int, bool]]) -> list[tuple[int, int, Ticket]]:
        tickets = []
        for first, rows, width, cancelled in requests:
            tickets.append((first, rows, scheduler.submit(feeds_of(first, rows, width))))
            if cancelled:
                late = [ticket for _, _, ticket in tickets[-2:]]
                dropped.extend(late)
                scheduler.cancel(late)
        return tickets

    with concurrent.futures.ThreadPoolExecutor(len(load.threads)) as pool:
        submitted = [pool.submit(submit, requests) for requests in load.threads]
        tickets = [ticket for future in submitted for ticket in future.result(PATIENCE_SECS)]
    done = []
    for first, rows, ticket in tickets:
        try:
            done.append((first, rows, ticket.future.result(PATIENCE_SECS)))
        except Cancelled:
            assert ticket in dropped
            done.append((first, rows, None))
    scheduler.close()
    return model, scheduler, done


def check_rows(first: int, rows: int, prediction: Prediction, load: Load) -> None:
    """Checks that each row has its own answer, or a failure caused by itself or its neighbours."""
    good = [row for row in range(rows) if row not in prediction.failures]
    assert good == (
        list(range(rows)) if prediction.rows is None and not prediction.failures else prediction.rows.tolist()
    )  # type: ignore[union-attr]
    arrays: dict[str, Any] = dict(prediction.arrays)
    if good:
        assert arrays["y"].tolist() == [first + row + 0.5 for row in good]
        assert arrays["names"].to_pylist() == [[str(first + row).encode()] for row in good]
        assert len(arrays["y"]) == sum(count for count, _ in prediction.versions)
    for row, failure in prediction.failures.items():
        if "not isolated" in failure.message:
            assert load.options.max_isolation_calls < 10_000
        else:
            assert first + row in load.poison
    if load.options.max_isolation_calls == 10_000:
        bad = {row for row in range(rows) if first + row in load.poison}
        assert bad <= set(prediction.failures)


def check_calls(model: LoadedModel, load: Load) -> None:
    allowed = load.options.allowed_batch_sizes
    largest = max(
        [load.options.max_batch_size, *(size for size in allowed if min(allowed) > load.options.max_batch_size)]
    )
    assert all(rows <= largest for rows in model.call_rows)
    assert model.most_at_a_time <= load.options.max_in_flight
    for feeds in model.calls:
        assert len({len(array) for array in feeds.values()}) == 1
    largest_request = max(
        (byte_count(feeds_of(*request[:3])) for requests in load.threads for request in requests), default=0
    )
    assert model.most_pending_bytes <= max(load.options.max_pending_bytes, largest_request)


@examples(48)
@given(loads(cancels=False))
def test_every_row_gets_its_own_outcome(load: Load) -> None:
    model, scheduler, done = run(load)
    assert sum(rows for _, rows, _ in done) == load.rows
    for first, rows, prediction in done:
        assert prediction is not None
        check_rows(first, rows, prediction, load)
    check_calls(model, load)
    stats = [call for _, _, prediction in done if prediction for call in prediction.calls]
    assert sum(1 + call.repeats for call in stats) <= len(model.calls)  # those with a row that passed before come to it
    assert scheduler.pending_bytes == 0


@examples(32)
@given(loads(cancels=True))
def test_what_is_not_cancelled_is_predicted_and_nothing_is_left_behind(load: Load) -> None:
    model, scheduler, done = run(load)
    for first, rows, prediction in done:
        if prediction is not None:
            check_rows(first, rows, prediction, load)
    check_calls(model, load)
    assert scheduler.pending_bytes == 0
