"""Tickets: a request to the scheduler, its share of calls, and its outcome."""

import concurrent.futures
import dataclasses
from collections.abc import Callable, Hashable, Sequence

import numpy as np
import pyarrow as pa

from sluice.models.batching.mini_batch import Outcome, RowFailure, byte_count, merge, merge_key, row_count, slice_feeds
from sluice.models.errors import Cancelled, Refused, SluiceError, Unavailable
from sluice.models.interface import Outputs, concat_outputs
from sluice.models.tensors.binding import Feeds
from sluice.models.tensors.strings import Tensor


@dataclasses.dataclass(frozen=True)
class CallStats:
    """Figures of one call. They are in the Prediction of the first request of the call, and in no other.

    Attributes:
      latency_msec: of the attempt that was answered, or else of the last one.
      repeats: attempts after the first one.
    """

    rows: int
    latency_msec: float
    repeats: int = 0


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The outcome of a request: every row is in `arrays` or in `failures`.

    Attributes:
      rows: int64 [n]: the rows that were predicted; None: all.
      arrays: by output name, [n, ...].
      versions: runs of rows with the same version of the model, as (number of rows, version).
      failures: by row.
      calls: the calls that began with a row of this request.
      queue_msec: from `submit` to the start of the first call.
    """

    rows: np.ndarray | None
    arrays: dict[str, Tensor | pa.Array]
    versions: tuple[tuple[int, int | None], ...]
    failures: dict[int, RowFailure]
    calls: tuple[CallStats, ...]
    queue_msec: float


class Ticket:
    """A submitted request. `future` returns its Prediction."""

    def __init__(self, feeds: Feeds, now: float, exact_bytes: bool = False) -> None:
        self.feeds = feeds  # emptied when the request is complete
        self.rows = row_count(feeds)
        self.bytes = byte_count(feeds, exact_bytes)
        self.key: Hashable = merge_key(feeds)
        self.future: concurrent.futures.Future[Prediction] = concurrent.futures.Future()
        self.future.set_running_or_notify_cancel()  # only the scheduler can cancel it
        self.submitted = now
        self.started: float | None = None
        self.outcomes: list[Outcome] = []
        self.calls: list[CallStats] = []
        self.remaining = self.rows
        self.cancelled = False

    def prediction(self) -> Prediction:
        """Merges the outcomes; all must be in.

        Raises:
          SluiceError: an outcome is an error that is not about rows.
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
        """Returns the Prediction in which every row has this failure."""
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
    """Completes the future of a request that has all its outcomes."""
    ticket.feeds = {}  # frees the memory even if nobody has read the result yet
    try:
        prediction = ticket.prediction()
    except SluiceError as error:
        ticket.future.set_exception(error)
        return
    except Exception as error:  # noqa: BLE001  the outputs of several calls cannot be merged: the waiter must hear of it
        prediction = ticket.failed(RowFailure(type(error).__name__, f"the answers do not go together: {error}"))
    ticket.future.set_result(prediction)


def note_start(segments: Sequence[Segment], now: float) -> None:
    """Notes when the first rows of each request go into a call."""
    for segment in segments:
        if segment.ticket.started is None:
            segment.ticket.started = now


def score(segments: Sequence[Segment], run: Callable[[Feeds], list[Outcome]]) -> list[list[Outcome]]:
    """Returns the outcomes of each segment, from one run of all their rows. What it raises is the outcome of all."""
    result: SluiceError | RowFailure
    try:
        return share(segments, run(merge([slice_feeds(each.ticket.feeds, each.start, each.stop) for each in segments])))
    except (Unavailable, Refused, Cancelled) as error:  # not about rows: the requests must raise it
        result = error
    except MemoryError as error:
        result = Unavailable(f"no memory to gather rows into a call: {error}")
    except BaseException as error:  # noqa: BLE001  a thread that dies would leave its rows waiting forever
        result = RowFailure.of(error)
    return [[Outcome(segment.start, segment.stop, result)] for segment in segments]


def check_wanted(segments: Sequence[Segment]) -> None:
    """Raises Cancelled if nobody waits for these rows any more."""
    if all(segment.ticket.cancelled for segment in segments):
        raise Cancelled("the bundles that waited for these rows have failed")


def share(segments: Sequence[Segment], outcomes: Sequence[Outcome]) -> list[list[Outcome]]:
    """Returns the outcomes of each segment, with the row numbers of its request, from those of the merged rows."""
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
