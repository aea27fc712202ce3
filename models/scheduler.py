"""Natural mini-batching: rows gather while the model is busy, and go together the moment it is free.

One scheduler serves all bundles and threads of a process. Its own threads call the model, so that bundles that wait
cannot starve it.
"""

import collections
import dataclasses
import math
import threading
import time
from collections.abc import Callable, Hashable, Iterable

from models.batching import Isolation, Outcome, RowFailure, merge, pad, padded_size, row_count, slice_feeds
from models.binding import Feeds
from models.errors import BatchTooLarge, CallError, Cancelled, UsageError
from models.interface import Model, Outputs, check_outputs
from models.tickets import CallStats, Segment, Ticket


@dataclasses.dataclass(frozen=True)
class SchedulerOptions:
    """How rows are gathered into calls. Hashable: part of the key of the process's model cache.

    Attributes:
      max_batch_size: rows of one call at most.
      max_batch_bytes: bytes of one call's tensors at most, as far as single rows allow.
      max_batch_delay_ms: how long rows wait for more when the model is free; 0: not at all.
      allowed_batch_sizes: a call is padded up to one of these; empty: any size.
      max_in_flight: calls under way at a time.
      max_pending_bytes: bytes of tensors that wait or are being scored; `submit` blocks past it.
      max_isolation_calls: calls more than one that finding the bad rows of a batch may cost.
    """

    max_batch_size: int = 4096
    max_batch_bytes: int = 64 << 20
    max_batch_delay_ms: float = 0.0
    allowed_batch_sizes: tuple[int, ...] = ()
    max_in_flight: int = 1
    max_pending_bytes: int = 256 << 20
    max_isolation_calls: int = 256

    def __post_init__(self) -> None:
        for name in ("max_batch_size", "max_in_flight"):
            if getattr(self, name) < 1:
                raise UsageError(f"--{name} is {getattr(self, name)}; give 1 or more")
        if min(self.allowed_batch_sizes, default=1) < 1:
            raise UsageError(f"--allowed_batch_sizes holds {min(self.allowed_batch_sizes)}; give sizes of 1 or more")


class Scheduler:
    """Gathers requests of all threads into calls of one model.

    Args:
      clock: seconds, monotonic.
    """

    def __init__(self, model: Model, options: SchedulerOptions, clock: Callable[[], float] = time.monotonic) -> None:
        self.model = model
        self.options = options
        self.load_msec = 0.0  # what opening the model took; whoever reports it sets it back
        self._clock = clock
        self._fixed = _fixed_sizes(model)
        self._allowed = self._fixed or options.allowed_batch_sizes
        self._padding_limit = math.inf  # the smallest size that a call was padded to and that was too large
        self._ceiling = _largest_batch(self._allowed, options.max_batch_size)
        self._changed = threading.Condition()
        self._waiting: dict[Hashable, collections.deque[Segment]] = {}
        self._pending_bytes = 0
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"sluice-call-{number}", daemon=True)
            for number in range(options.max_in_flight)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def ceiling(self) -> int:
        """Rows of one call at most: what was asked for, or what the model was found to bear."""
        return self._ceiling

    @property
    def pending_bytes(self) -> int:
        """Bytes of the requests that wait or are being scored."""
        return self._pending_bytes

    def submit(self, feeds: Feeds) -> Ticket:
        """Hands in rows that share dtypes and inner shapes; blocks while too many bytes are in work."""
        ticket = Ticket(feeds, self._clock())
        if not ticket.rows:
            ticket.future.set_result(ticket.prediction())
            return ticket
        with self._changed:
            while self._pending_bytes and self._pending_bytes + ticket.bytes > self.options.max_pending_bytes:
                self._check_open()
                self._changed.wait()
            self._check_open()
            self._pending_bytes += ticket.bytes
            queue = self._waiting.setdefault(ticket.key, collections.deque())
            queue.append(Segment(ticket, 0, ticket.rows))
            self._changed.notify_all()
        return ticket

    def cancel(self, tickets: Iterable[Ticket]) -> None:
        """Drops what still waits of these requests, because their bundle has failed; their futures raise Cancelled."""
        with self._changed:
            dropped = [ticket for ticket in tickets if self._drop(ticket)]
            self._changed.notify_all()
        for ticket in dropped:
            ticket.future.set_exception(Cancelled("the bundle that waited for these rows has failed"))

    def close(self) -> None:
        """Ends the threads after the calls under way, cancels what waits, and closes the model."""
        with self._changed:
            self._closed = True
            waiting = dict.fromkeys(segment.ticket for queue in self._waiting.values() for segment in queue)
            self.cancel(waiting)
        for thread in self._threads:
            thread.join()
        self.model.close()

    def _drop(self, ticket: Ticket) -> bool:
        """Takes a request out of the queues; False if it has all its outcomes, or was dropped before."""
        if ticket.cancelled or not ticket.remaining:
            return False
        ticket.cancelled = True
        queue = self._waiting.get(ticket.key, collections.deque())
        for segment in [segment for segment in queue if segment.ticket is ticket]:
            queue.remove(segment)
            ticket.remaining -= segment.rows
        if not queue:
            self._waiting.pop(ticket.key, None)
        if not ticket.remaining:  # or else its bytes are given back when the call that has them ends
            self._pending_bytes -= ticket.bytes
        return True

    def _check_open(self) -> None:
        if self._closed:
            raise Cancelled("the scheduler is closed")

    def _work(self) -> None:
        while True:
            with self._changed:
                segments = self._take()
                while not segments:
                    if self._closed:
                        return
                    self._changed.wait(self._wait_secs())
                    segments = self._take()
            self._settle(segments, self._score(segments))

    def _take(self) -> list[Segment]:
        """Takes, of the requests of one key, all that waits up to the ceiling; [] if nothing is due."""
        due = [key for key, queue in self._waiting.items() if self._due_in(queue) <= 0]
        if not due:
            return []
        key = min(due, key=lambda each: self._waiting[each][0].ticket.submitted)
        queue = self._waiting[key]
        segments: list[Segment] = []
        rows, size = 0, 0.0
        while queue and rows < self._ceiling:
            head = queue[0]
            room = self._room(head, rows, size)
            if room < head.rows and rows * 2 >= self._ceiling:
                break  # cutting a request costs copies on both sides: not worth it for a batch that is half full
            if room <= 0:
                break
            segments.append(Segment(head.ticket, head.start, head.start + min(room, head.rows)))
            rows, size = rows + segments[-1].rows, size + segments[-1].bytes
            head.start += segments[-1].rows
            if not head.rows:
                queue.popleft()
        if not queue:
            del self._waiting[key]
        return segments

    def _room(self, head: Segment, rows: int, size: float) -> int:
        """How many rows of the segment still fit into a call of this size; one always fits into an empty call."""
        by_rows = self._ceiling - rows
        row_bytes = max(1.0, head.ticket.bytes / head.ticket.rows)
        by_bytes = int((self.options.max_batch_bytes - size) / row_bytes)
        return max(min(by_rows, by_bytes), 0 if rows else 1)

    def _due_in(self, queue: collections.deque[Segment]) -> float:
        """Seconds until these rows may go: none without a delay, or once they fill a call."""
        delay = self.options.max_batch_delay_ms / 1000
        if not delay or sum(segment.rows for segment in queue) >= self._ceiling:
            return 0.0
        if sum(segment.bytes for segment in queue) >= self.options.max_batch_bytes:
            return 0.0
        return queue[0].ticket.submitted + delay - self._clock()

    def _wait_secs(self) -> float | None:
        return min((self._due_in(queue) for queue in self._waiting.values()), default=None)

    def _score(self, segments: list[Segment]) -> list[list[Outcome]]:
        """Calls the model on the rows of all segments; returns the outcomes of each."""
        calls: list[CallStats] = []
        started = self._clock()
        for segment in segments:
            if segment.ticket.started is None:
                segment.ticket.started = started
        isolation = Isolation(
            lambda part: self._timed_call(part, calls), self.options.max_isolation_calls, self._lower_ceiling
        )
        try:
            shares = _share(
                segments, isolation.run(merge([slice_feeds(s.ticket.feeds, s.start, s.stop) for s in segments]))
            )
        except Exception as error:  # noqa: BLE001  a thread that dies would leave its rows waiting for ever
            failure = RowFailure(type(error).__name__, str(error))
            shares = [[Outcome(segment.start, segment.stop, failure)] for segment in segments]
        segments[0].ticket.calls.extend(calls)
        return shares

    def _timed_call(self, feeds: Feeds, calls: list[CallStats]) -> Outputs:
        rows = row_count(feeds)
        size = padded_size(rows, [size for size in self._allowed if size < self._padding_limit])
        started = self._clock()
        try:
            outputs = self.model.call(pad(feeds, size))
            outputs = check_outputs(outputs, self.model.signature.outputs, size)
        except BatchTooLarge as error:
            if size in self._fixed:
                raise CallError(f"the signature fixes a call at {size} rows, which are too many: {error}") from error
            if size > rows:  # halves would be padded to the same size again
                self._padding_limit = min(self._padding_limit, size)
            raise
        finally:
            calls.append(CallStats(rows, 1000 * (self._clock() - started)))
        return outputs if size == rows else outputs.slice(0, rows)

    def _lower_ceiling(self, rows: int) -> None:
        with self._changed:
            self._ceiling = min(self._ceiling, rows)

    def _settle(self, segments: list[Segment], shares: list[list[Outcome]]) -> None:
        """Gives each segment its outcomes, and completes the requests that have all of theirs."""
        finished = []
        with self._changed:
            for segment, share in zip(segments, shares, strict=True):
                ticket = segment.ticket
                ticket.outcomes.extend(share)
                ticket.remaining -= segment.rows
                if not ticket.remaining:
                    self._pending_bytes -= ticket.bytes
                    finished.append(ticket)
            self._changed.notify_all()
        for ticket in finished:
            if not ticket.cancelled:  # nobody can cancel it now: it has no rows left
                _complete(ticket)


def _complete(ticket: Ticket) -> None:
    try:
        prediction = ticket.prediction()
    except Exception as error:  # noqa: BLE001  answers that do not go together: whoever waits is to hear of it
        prediction = ticket.failed(RowFailure(type(error).__name__, f"the answers do not go together: {error}"))
    ticket.future.set_result(prediction)


def _share(segments: list[Segment], outcomes: list[Outcome]) -> list[list[Outcome]]:
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


def _fixed_sizes(model: Model) -> tuple[int, ...]:
    """The one size that every call must have where the signature's batch dimension is fixed; () where it is open."""
    fixed = {spec.shape[0] for spec in model.signature.inputs if spec.shape and spec.shape[0] is not None}
    return tuple(sorted(size for size in fixed if size))


def _largest_batch(allowed: tuple[int, ...], max_batch_size: int) -> int:
    """Rows of one call at most, so that padding goes past `max_batch_size` only where every allowed size does."""
    fitting = [size for size in allowed if size <= max_batch_size]
    return max(fitting) if fitting else max_batch_size
