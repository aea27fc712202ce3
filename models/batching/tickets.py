"""A request to the scheduler, its share of calls, and what becomes of it."""

import concurrent.futures
import dataclasses
from collections.abc import Hashable, Sequence

import numpy as np
import pyarrow as pa

from sluice.models.batching.mini_batch import Outcome, RowFailure, byte_count, merge_key, row_count
from sluice.models.errors import SluiceError
from sluice.models.interface import Outputs, concat_outputs
from sluice.models.tensors.binding import Feeds


@dataclasses.dataclass(frozen=True)
class CallStats:
    """Figures of one call; counted once, with the first request that was in it.

    Attributes:
      latency_msec: of the attempt that was answered, or of the last one.
      repeats: how often it was repeated.
    """

    rows: int
    latency_msec: float
    repeats: int = 0


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The outcome of a request: every row of it is in `arrays` or in `failures`.

    Attributes:
      rows: int64: the rows that were predicted; None if all were.
      arrays: by output name, one entry for each of `rows`.
      versions: (rows, version) runs over `rows`: which version predicted how many.
      queue_msec: from submission to the start of the first call.
    """

    rows: np.ndarray | None
    arrays: dict[str, np.ndarray | pa.Array]
    versions: tuple[tuple[int, int | None], ...]
    failures: dict[int, RowFailure]
    calls: tuple[CallStats, ...]
    queue_msec: float


class Ticket:
    """A request that was submitted. `future` gives its Prediction."""

    def __init__(self, feeds: Feeds, now: float, exact_bytes: bool = False) -> None:
        self.feeds = feeds  # until it is complete
        self.rows = row_count(feeds)
        self.bytes = byte_count(feeds, exact_bytes)
        self.key: Hashable = merge_key(feeds)
        self.future: concurrent.futures.Future[Prediction] = concurrent.futures.Future()
        self.future.set_running_or_notify_cancel()  # only the scheduler ends it
        self.submitted = now
        self.started: float | None = None
        self.outcomes: list[Outcome] = []
        self.calls: list[CallStats] = []
        self.remaining = self.rows
        self.cancelled = False

    def prediction(self) -> Prediction:
        """Puts the outcomes together, once all are in.

        Raises:
          SluiceError: a part could not be called at all, and rows are not to fail for that.
        """
        outcomes = sorted(self.outcomes, key=lambda outcome: outcome.start)
        for outcome in outcomes:
            if isinstance(outcome.result, SluiceError):
                raise outcome.result
        failures = {
            row: outcome.result
            for outcome in outcomes
            if isinstance(outcome.result, RowFailure)
            for row in range(outcome.start, outcome.stop)
        }
        good = [outcome for outcome in outcomes if isinstance(outcome.result, Outputs)]
        rows = np.concatenate([np.arange(o.start, o.stop) for o in good]) if failures and good else None
        parts = [outcome.result for outcome in good if isinstance(outcome.result, Outputs)]
        return Prediction(
            rows=np.empty(0, np.int64) if not good else rows,
            arrays=concat_outputs(parts) if parts else {},
            versions=tuple((o.stop - o.start, part.version) for o, part in zip(good, parts, strict=True)),
            failures=failures,
            calls=tuple(self.calls),
            queue_msec=self._queue_msec(),
        )

    def failed(self, failure: RowFailure) -> Prediction:
        """What there is to say where the outcomes cannot be put together."""
        failures = dict.fromkeys(range(self.rows), failure)
        return Prediction(np.empty(0, np.int64), {}, (), failures, tuple(self.calls), self._queue_msec())

    def _queue_msec(self) -> float:
        return 0.0 if self.started is None else 1000 * (self.started - self.submitted)


@dataclasses.dataclass
class Segment:
    """Rows [start, stop) of a ticket that wait for a call."""

    ticket: Ticket
    start: int
    stop: int

    @property
    def rows(self) -> int:
        return self.stop - self.start

    @property
    def bytes(self) -> float:
        return self.ticket.bytes * self.rows / max(1, self.ticket.rows)


def complete(ticket: Ticket) -> None:
    """Ends the future of a request that has all its outcomes."""
    ticket.feeds = {}  # whoever has not looked at the answer yet need not keep the question
    try:
        prediction = ticket.prediction()
    except SluiceError as error:
        ticket.future.set_exception(error)
        return
    except Exception as error:  # noqa: BLE001  answers that do not go together: whoever waits is to hear of it
        prediction = ticket.failed(RowFailure(type(error).__name__, f"the answers do not go together: {error}"))
    ticket.future.set_result(prediction)


def share(segments: Sequence[Segment], outcomes: Sequence[Outcome]) -> list[list[Outcome]]:
    """Cuts the outcomes of merged segments into those of each segment, numbered by the rows of its request."""
    shares = []
    begin = 0
    for segment in segments:
        end = begin + segment.rows
        shares.append(
            [
                _cut(outcome, max(outcome.start, begin), min(outcome.stop, end), segment.start - begin)
                for outcome in outcomes
                if outcome.start < end and outcome.stop > begin
            ]
        )
        begin = end
    return shares


def _cut(outcome: Outcome, start: int, stop: int, shift: int) -> Outcome:
    result = outcome.result
    if isinstance(result, Outputs) and (start, stop) != (outcome.start, outcome.stop):
        result = result.slice(start - outcome.start, stop - outcome.start)
    return Outcome(start + shift, stop + shift, result)
