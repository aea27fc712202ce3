"""Cancelled requests, and closing a scheduler."""

from __future__ import annotations

import collections
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from sluice.models.batching.options import SchedulerOptions
from sluice.models.batching.scheduler import Scheduler
from sluice.models.errors import Cancelled
from sluice.models.interface import Outputs
from tests.support.fakes import PATIENCE_SECS, FakeModel, double, x_feeds
from tests.support.scheduling import outcome, scheduling, values


def test_cancelled_rows_that_wait_are_never_called() -> None:
    model = FakeModel(gated=True)
    with scheduling(model, max_batch_size=2) as scheduler:
        under_way = scheduler.submit(x_feeds(1, 2, 3, 4))
        model.await_call()
        waiting, kept = scheduler.submit(x_feeds(5)), scheduler.submit(x_feeds(6))
        scheduler.cancel([under_way, waiting])
        scheduler.cancel([under_way, waiting])
        for ticket in (under_way, waiting):
            with pytest.raises(Cancelled):
                outcome(ticket)
        assert scheduler.pending_bytes == 32 + 8  # of the call in flight, and of the request that was not cancelled
        model.let_go(2)
        assert values(kept) == [12]
        scheduler.cancel([kept])
        assert values(kept) == [12]
    assert [feeds["x"].tolist() for feeds in model.calls] == [[1, 2], [6]]


def test_a_cancel_that_comes_between_the_last_row_and_the_result_is_too_late() -> None:
    class Cancelling(collections.UserDict[str, np.ndarray]):
        def __iter__(self) -> Iterator[str]:  # read when the outcomes of the request are merged
            scheduler.cancel([ticket])
            return super().__iter__()

    model = FakeModel(lambda feeds: Outputs(Cancelling(double(feeds).arrays)), gated=True)
    with scheduling(model) as scheduler:
        ticket = scheduler.submit(x_feeds(1))
        model.let_go()
        assert values(ticket) == [2]


def test_closing_ends_calls_under_way_and_cancels_the_rest() -> None:
    model = FakeModel(gated=True)
    scheduler = Scheduler(model, SchedulerOptions(max_pending_bytes=16))
    under_way = scheduler.submit(x_feeds(1))
    model.await_call()
    waiting = scheduler.submit(x_feeds(2))
    refused: list[BaseException] = []

    def submit_one_too_many() -> None:
        try:
            scheduler.submit(x_feeds(3))
        except Cancelled as error:
            refused.append(error)

    threads = [threading.Thread(target=target) for target in (submit_one_too_many, scheduler.close)]
    for thread in threads:
        thread.start()
    with pytest.raises(Cancelled):
        outcome(waiting)
    model.let_go(2)
    for thread in threads:
        thread.join(PATIENCE_SECS)
    assert values(under_way) == [2]
    assert model.call_rows == [1] and model.closed and len(refused) == 1
    with pytest.raises(Cancelled, match="closed"):
        scheduler.submit(x_feeds(4))
    assert scheduler.pending_bytes == 0
