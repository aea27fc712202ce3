"""Natural mini-batching: rows gather while the model is busy, and go together the moment it is free.

One scheduler serves all bundles and threads of a process. Its own threads call the model, so that bundles that wait
cannot starve it.
"""

import math
import random
import threading
import time
from collections.abc import Callable, Iterable

from models.batching import Isolation, Outcome, RowFailure, merge, pad, padded_size, row_count, slice_feeds
from models.binding import Feeds
from models.errors import BatchTooLarge, CallError, Cancelled, Refused, Unavailable
from models.in_flight import InFlightLimit
from models.interface import Model, Outputs, check_outputs
from models.retry import Retry
from models.scheduler_options import FAIL, SchedulerOptions
from models.tickets import CallStats, Segment, Ticket, complete, share
from models.waiting import Waiting
from models.watchdog import Watchdog

__all__ = ["Scheduler", "SchedulerOptions"]


class Scheduler:
    """Gathers requests of all threads into calls of one model.

    Args:
      clock: seconds, monotonic.
      sleep: waits so many seconds before a call is repeated; by default until the scheduler is closed at the latest.
      uniform: random in [0, 1), for the jitter of those waits.
    """

    def __init__(
        self,
        model: Model,
        options: SchedulerOptions,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] | None = None,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        self.model = model
        self.options = options.resolved(model.remote)
        self.load_msec = 0.0  # what opening the model took; whoever reports it sets it back
        self._clock = clock
        self._fixed = _fixed_sizes(model)
        self._allowed = self._fixed or options.allowed_batch_sizes
        self._padding_limit = math.inf  # the smallest size that a call was padded to and that was too large
        self._ceiling = _largest_batch(self._allowed, self.options.max_batch_size)
        self._closing = threading.Event()
        self._retry = Retry(self.options, clock, sleep or self._sleep, uniform)
        lock = threading.Lock()  # guards all that follows
        self._work_comes = threading.Condition(lock)
        self._room_comes = threading.Condition(lock)
        self._waiting = Waiting(self.options)
        self._limit = InFlightLimit(self.options.max_in_flight, self.options.adapt_in_flight)
        self._pending_bytes = 0
        self._active = 0  # calls under way
        self._begun = 0  # calls, in all
        self._idle = 0  # threads that wait for work
        self._threads: list[threading.Thread] = []

    @property
    def ceiling(self) -> int:
        """Rows of one call at most: what was asked for, or what the model was found to bear."""
        return self._ceiling

    @property
    def in_flight_limit(self) -> int:
        """Calls that may be under way now."""
        return self._limit.value

    @property
    def pending_bytes(self) -> int:
        """Bytes of the requests that wait or are being scored."""
        return self._pending_bytes

    @property
    def throttled_secs(self) -> float:
        """How long, in all, some call has waited for a model that was away or overloaded. Grows while it does."""
        return self._retry.throttled_secs

    def submit(self, feeds: Feeds) -> Ticket:
        """Hands in rows that share dtypes and inner shapes; blocks while too many bytes are in work."""
        ticket = Ticket(feeds, self._clock())
        if not ticket.rows:
            ticket.future.set_result(ticket.prediction())
            return ticket
        with self._room_comes:
            while self._pending_bytes and self._pending_bytes + ticket.bytes > self.options.max_pending_bytes:
                self._check_open()
                self._room_comes.wait()
            self._check_open()
            self._pending_bytes += ticket.bytes
            self._waiting.add(ticket)
            self._wake_worker()
        return ticket

    def cancel(self, tickets: Iterable[Ticket]) -> None:
        """Drops what still waits of these requests, because their bundle has failed; their futures raise Cancelled."""
        with self._room_comes:
            dropped = [ticket for ticket in tickets if self._drop(ticket)]
            self._room_comes.notify_all()
        for ticket in dropped:
            ticket.future.set_exception(Cancelled("the bundle that waited for these rows has failed"))

    def close(self) -> None:
        """Ends the threads after the calls under way, cancels what waits, and closes the model."""
        self._closing.set()
        with self._room_comes:
            waiting = self._waiting.tickets()
        self.cancel(waiting)
        with self._work_comes:
            self._work_comes.notify_all()
        for thread in self._threads:
            thread.join()
        self.model.close()

    def _drop(self, ticket: Ticket) -> bool:
        """Takes a request out of the queues; False if it has all its outcomes, or was dropped before."""
        if ticket.cancelled or not ticket.remaining:
            return False
        ticket.cancelled = True
        ticket.remaining -= self._waiting.drop(ticket)
        if not ticket.remaining:  # or else its bytes are given back when the call that has them ends
            self._pending_bytes -= ticket.bytes
        return True

    def _check_open(self) -> None:
        if self._closing.is_set():
            raise Cancelled("the scheduler is closed")

    def _sleep(self, secs: float) -> None:
        if self._closing.wait(secs):
            raise Cancelled("the scheduler is closed")

    def _wake_worker(self) -> None:
        """Has a thread look at what waits, if one more call may be under way."""
        if self._active >= self._limit.value:
            self._limit.note_wait()
        elif self._idle:
            self._work_comes.notify()
        elif len(self._threads) < self.options.max_in_flight:
            thread = threading.Thread(target=self._work, name=f"sluice-call-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _work(self) -> None:
        watchdog = Watchdog()
        while segments := self._next():
            self._settle(segments, self._score(segments, watchdog))
        watchdog.close()

    def _next(self) -> list[Segment]:
        """Waits for rows that may go into a call, and takes them; [] once the scheduler is closed."""
        with self._work_comes:
            while not self._closing.is_set():
                wait_secs = None
                if self._active < self._limit.value:
                    now = self._clock()
                    if segments := self._waiting.take(self._ceiling, now):
                        self._active += 1
                        self._begun += 1
                        if self._waiting:
                            self._wake_worker()
                        return segments
                    wait_secs = self._waiting.due_in(self._ceiling, now)
                self._idle += 1
                self._work_comes.wait(wait_secs)
                self._idle -= 1
        return []

    def _score(self, segments: list[Segment], watchdog: Watchdog) -> list[list[Outcome]]:
        """Calls the model on the rows of all segments; returns the outcomes of each."""
        calls: list[CallStats] = []
        started = self._clock()
        for segment in segments:
            if segment.ticket.started is None:
                segment.ticket.started = started
        isolation = Isolation(
            lambda part: self._call(part, calls, watchdog),
            self.options.max_isolation_calls,
            self._lower_ceiling,
            (Unavailable, Refused) if self.options.on_unavailable == FAIL else (),
        )
        try:
            shares = share(
                segments, isolation.run(merge([slice_feeds(s.ticket.feeds, s.start, s.stop) for s in segments]))
            )
        except (Unavailable, Refused, Cancelled) as error:  # it is not about the rows: whoever waits is to stop
            shares = [[Outcome(segment.start, segment.stop, error)] for segment in segments]
        except Exception as error:  # noqa: BLE001  a thread that dies would leave its rows waiting for ever
            failure = RowFailure(type(error).__name__, str(error))
            shares = [[Outcome(segment.start, segment.stop, failure)] for segment in segments]
        segments[0].ticket.calls.extend(calls)
        return shares

    def _call(self, feeds: Feeds, calls: list[CallStats], watchdog: Watchdog) -> Outputs:
        """Calls the model until it answers, or is given up."""
        rows = row_count(feeds)
        size = padded_size(rows, [size for size in self._allowed if size < self._padding_limit])
        padded = pad(feeds, size)
        started = self._clock()
        attempts = 0

        def attempt() -> Outputs:
            nonlocal attempts
            attempts += 1
            return self._attempt(padded, size, watchdog)

        try:
            outputs = self._retry.run(attempt)
        except BatchTooLarge as error:
            if size in self._fixed:
                raise CallError(f"the signature fixes a call at {size} rows, which are too many: {error}") from error
            if size > rows:  # halves would be padded to the same size again
                self._padding_limit = min(self._padding_limit, size)
            raise
        finally:
            calls.append(CallStats(rows, 1000 * (self._clock() - started), attempts - 1))
        return outputs if size == rows else outputs.slice(0, rows)

    def _attempt(self, feeds: Feeds, rows: int, watchdog: Watchdog) -> Outputs:
        timeout_secs = self.options.call_timeout_secs
        with self._work_comes:
            begun, alone = self._begun, self._active == 1
        started = self._clock()
        try:
            if timeout_secs:
                outputs = watchdog.run(lambda: self.model.call(feeds), timeout_secs)
            else:
                outputs = self.model.call(feeds)
        except Unavailable:
            with self._work_comes:
                self._limit.on_overload()
            raise
        secs = self._clock() - started
        with self._work_comes:
            self._limit.on_answer(rows, secs, alone and begun == self._begun, 2 * rows >= self._ceiling)
        return check_outputs(outputs, self.model.signature.outputs, rows)

    def _lower_ceiling(self, rows: int) -> None:
        with self._work_comes:
            self._ceiling = min(self._ceiling, rows)

    def _settle(self, segments: list[Segment], shares: list[list[Outcome]]) -> None:
        """Gives each segment its outcomes, and completes the requests that have all of theirs."""
        finished = []
        with self._work_comes:
            self._active -= 1
            for segment, outcomes in zip(segments, shares, strict=True):
                ticket = segment.ticket
                ticket.outcomes.extend(outcomes)
                ticket.remaining -= segment.rows
                if not ticket.remaining:
                    self._pending_bytes -= ticket.bytes
                    finished.append(ticket)
            if finished:
                self._room_comes.notify_all()
        for ticket in finished:
            if not ticket.cancelled:  # nobody can cancel it now: it has no rows left
                complete(ticket)


def _fixed_sizes(model: Model) -> tuple[int, ...]:
    """The one size that every call must have where the signature's batch dimension is fixed; () where it is open."""
    fixed = {spec.shape[0] for spec in model.signature.inputs if spec.shape and spec.shape[0] is not None}
    return tuple(sorted(size for size in fixed if size))


def _largest_batch(allowed: tuple[int, ...], max_batch_size: int) -> int:
    """Rows of one call at most, so that padding goes past `max_batch_size` only where every allowed size does."""
    fitting = [size for size in allowed if size <= max_batch_size]
    return max(fitting) if fitting else max_batch_size
