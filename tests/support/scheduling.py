"""A scheduler that runs while a `with` block does, and the outcomes of its requests."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sluice.models.batching.options import SchedulerOptions
from sluice.models.batching.scheduler import Scheduler
from sluice.models.batching.tickets import Prediction, Ticket
from tests.support.fakes import PATIENCE_SECS, FakeModel


@contextmanager
def scheduling(
    model: FakeModel,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] | None = None,
    **options: Any,
) -> Iterator[Scheduler]:
    scheduler = Scheduler(model, SchedulerOptions(**options), clock, sleep)
    try:
        yield scheduler
    finally:
        model.let_go(1000)
        scheduler.close()
        assert scheduler.pending_bytes == 0
        assert model.closed


def outcome(ticket: Ticket) -> Prediction:
    return ticket.future.result(PATIENCE_SECS)


def values(ticket: Ticket) -> list[int]:
    prediction = outcome(ticket)
    assert prediction.rows is None and not prediction.failures
    return prediction.arrays["y"].tolist()
