"""Keeps a scheduler busy for some seconds, as the bundles of a job do, and counts what it does."""

import dataclasses
import time
from collections import deque
from collections.abc import Sequence

import pyarrow as pa

from sluice.models.batching.mini_batch import RowFailure
from sluice.models.batching.scheduler import Scheduler
from sluice.models.batching.tickets import Ticket
from sluice.models.errors import SluiceError
from sluice.models.wording import message

# Rows of a request, as in bundles; the scheduler cuts and merges requests.
REQUEST_ROWS = 1024
# So many full calls are submitted beyond those in flight, as transforms.predict does; and so many requests at least.
_CALLS_AHEAD, _REQUESTS_AHEAD = 3, 4


class RowsFailed(SluiceError):
    """Rows that are scored to measure something fail."""

    @classmethod
    def by(cls, failure: RowFailure) -> "RowsFailed":
        """Returns the error of rows of which one fails so."""
        return cls(message("rows failed: {type}: {}", failure.message, type=failure.type))


@dataclasses.dataclass(frozen=True)
class Driven:
    """What was done in some seconds.

    Attributes:
      cpu_secs: of this process.
    """

    rows: int
    calls: int
    secs: float
    cpu_secs: float

    @property
    def rows_per_second(self) -> float:
        return self.rows / self.secs

    @property
    def batch(self) -> float:
        """Rows of a call."""
        return self.rows / max(1, self.calls)


def in_requests(rows: pa.RecordBatch, size: int = REQUEST_ROWS) -> list[pa.RecordBatch]:
    """Returns rows cut into requests of exactly this size, the last of them left out; few rows are repeated."""
    table = pa.Table.from_batches([rows] * -(-size // rows.num_rows)).combine_chunks()
    return [batch for batch in table.to_batches(size) if batch.num_rows == size]


def drive(scheduler: Scheduler, requests: Sequence[pa.RecordBatch], secs: float) -> Driven:
    """Binds and submits requests for some seconds, and waits for all of them.

    Raises:
      RowsFailed: a row has no prediction.
    """
    calls_ahead = scheduler.options.max_in_flight + _CALLS_AHEAD
    ahead = max(_REQUESTS_AHEAD, -(-calls_ahead * scheduler.ceiling // requests[0].num_rows))
    started, cpu = time.perf_counter(), time.process_time()
    waiting: deque[Ticket] = deque()
    rows = calls = number = 0
    while waiting or time.perf_counter() < started + secs:
        going = time.perf_counter() < started + secs
        if going:
            bound = scheduler.model.bind(requests[number % len(requests)])
            waiting += [scheduler.submit(group.feeds) for group in bound.groups]
            number += 1
        while waiting and (len(waiting) > ahead or not going):
            prediction = waiting.popleft().future.result()
            if prediction.failures:
                raise RowsFailed.by(next(iter(prediction.failures.values())))
            rows += sum(count for count, _ in prediction.versions)
            calls += len(prediction.calls)
    return Driven(rows, calls, time.perf_counter() - started, time.process_time() - cpu)
