"""Natural mini-batching: rows gather while the model is busy, and go together the moment it is free.

One scheduler serves all bundles and threads of a process. Its own threads call the model, so that bundles that wait
cannot starve it.
"""

import random
import threading
import time
from collections.abc import Callable, Iterable, Sequence

from sluice.models.batching.budget import ByteBudget
from sluice.models.batching.ceiling import Ceiling
from sluice.models.batching.in_flight import InFlightLimit
from sluice.models.batching.mini_batch import (
    Isolation,
    Outcome,
    RowFailure,
    byte_count,
    merge,
    pad,
    row_count,
    slice_feeds,
)
from sluice.models.batching.options import FAIL, SchedulerOptions
from sluice.models.batching.padding import Padding
from sluice.models.batching.retry import Retry
from sluice.models.batching.tickets import CallStats, Segment, Ticket, complete, share
from sluice.models.batching.waiting import Waiting
from sluice.models.batching.watchdog import Watchdog
from sluice.models.errors import BatchTooLarge, CallError, Cancelled, Overloaded, Refused, Unavailable
from sluice.models.interface import Model, Outputs, check_outputs
from sluice.models.tensors.binding import Feeds

# A lone row that breaks a server is at fault if the server has answered others so short a time before.
_LATELY_SECS = 5.0


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
        self.options = options = options.resolved(model.remote)
        self.load_msec = 0.0  # what opening the model took; whoever reports it sets it back
        self._clock = clock
        self._padding = Padding(model.signature, options.allowed_batch_sizes)
        self._closing = threading.Event()
        self._sleep = sleep or self._sleep_until_woken
        self._retry = Retry(options, clock, self._pause, uniform, self._wake_sleepers)
        self._lock = threading.Lock()  # guards all that follows
        self._work_comes = threading.Condition(self._lock)  # rows, for a thread that waits for some
        self._slot_comes = threading.Condition(self._lock)  # a call may start, for one that is to be repeated
        self._woken = threading.Condition(self._lock)  # the model answers again, or the scheduler is closed
        self._budget = ByteBudget(options.max_pending_bytes, self._lock)
        self._ceiling = Ceiling(self._padding.largest(options.max_batch_size), options.max_batch_bytes)
        self._waiting = Waiting(options)
        self._limit = InFlightLimit(options.max_in_flight, options.adapt_in_flight)
        self._active = 0  # calls under way
        self._resuming = 0  # calls to be repeated that wait for a slot; they go before new ones
        self._begun = 0  # calls, in all
        self._idle = 0  # threads that wait for work
        self._threads: list[threading.Thread] = []

    @property
    def ceiling(self) -> int:
        """Rows of one call at most: what was asked for, or what the model was found to bear."""
        return self._ceiling.rows

    @property
    def in_flight_limit(self) -> int:
        """Calls that may be under way now."""
        return self._limit.value

    @property
    def pending_bytes(self) -> int:
        """Bytes of the requests that wait or are being scored."""
        return self._budget.used

    @property
    def throttled_secs(self) -> float:
        """How long, in all, some call has waited for a model that was away or overloaded. Grows while it does."""
        return self._retry.throttled_secs

    def submit(self, feeds: Feeds, on_wait: Callable[[], None] = lambda: None) -> Ticket:
        """Hands in rows that share dtypes and inner shapes; blocks while too many bytes are in work.

        Args:
          on_wait: called now and then while it blocks.
        """
        ticket = Ticket(feeds, self._clock(), exact_bytes=self.model.remote)
        if not ticket.rows:
            ticket.future.set_result(ticket.prediction())
            return ticket
        with self._lock:
            self._budget.take(ticket.bytes, on_wait, self._check_open)
            try:
                self._wake_worker()
            except RuntimeError:
                self._budget.give_back(ticket.bytes)
                raise
            self._waiting.add(ticket)
        return ticket

    def cancel(self, tickets: Iterable[Ticket]) -> None:
        """Drops what still waits of these requests, because their bundle has failed; their futures raise Cancelled."""
        with self._lock:
            dropped = [ticket for ticket in tickets if self._drop(ticket)]
        for ticket in dropped:
            ticket.future.set_exception(Cancelled("the bundle that waited for these rows has failed"))

    def close(self) -> None:
        """Ends the threads after the calls under way, cancels what waits, and closes the model."""
        self._closing.set()
        with self._lock:
            waiting = self._waiting.tickets()
        self.cancel(waiting)
        with self._lock:
            for condition in (self._work_comes, self._slot_comes, self._woken):
                condition.notify_all()
            self._budget.wake()
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
            self._budget.give_back(ticket.bytes)
        return True

    def _check_open(self) -> None:
        if self._closing.is_set():
            raise Cancelled("the scheduler is closed")

    def _pause(self, secs: float) -> None:
        """Gives up a call's slot, waits before it is repeated, and takes a slot again."""
        with self._slot_comes:
            self._active -= 1
            self._slot_comes.notify_all()
            if self._waiting and not self._resuming:
                self._wake_worker()
        try:
            self._sleep(secs)
        finally:
            with self._slot_comes:
                self._resuming += 1
                while self._active >= self._limit.value and not self._closing.is_set():
                    self._slot_comes.wait()
                self._resuming -= 1
                self._active += 1
                self._begun += 1
                if self._waiting:  # whoever looked for a slot meanwhile has left it to this call
                    self._wake_worker()
        self._check_open()

    def _sleep_until_woken(self, secs: float) -> None:
        with self._woken:
            if not self._closing.is_set():
                self._woken.wait(secs)

    def _wake_sleepers(self) -> None:
        with self._woken:
            self._woken.notify_all()

    def _wake_worker(self) -> None:
        """Has a thread look at what waits, if one more call may be under way."""
        if self._active >= self._limit.value:
            self._limit.note_wait()
        elif self._idle:
            self._work_comes.notify()
        elif len(self._threads) < self.options.max_in_flight:
            thread = threading.Thread(target=self._work, name=f"sluice-call-{len(self._threads)}", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the machine has no more threads
                if not self._threads:
                    raise
                return  # those there are do the work
            self._threads.append(thread)

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
                if self._active < self._limit.value and not self._resuming:
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
            lambda part: self._call(part, calls, watchdog, segments),
            self.options.max_isolation_calls,
            self._lower_ceiling,
            (Unavailable, Refused) if self.options.on_unavailable == FAIL else (),
            lambda rows: self._retry.answered_since(started - (_LATELY_SECS if rows == 1 else 0.0)),
        )
        try:
            shares = share(
                segments, isolation.run(merge([slice_feeds(s.ticket.feeds, s.start, s.stop) for s in segments]))
            )
        except (Unavailable, Refused, Cancelled) as error:  # it is not about the rows: whoever waits is to stop
            shares = [[Outcome(segment.start, segment.stop, error)] for segment in segments]
        except BaseException as error:  # noqa: BLE001  a thread that dies would leave its rows waiting for ever
            failure = RowFailure(type(error).__name__, str(error))
            shares = [[Outcome(segment.start, segment.stop, failure)] for segment in segments]
        segments[0].ticket.calls.extend(calls)
        return shares

    def _call(self, feeds: Feeds, calls: list[CallStats], watchdog: Watchdog, segments: Sequence[Segment]) -> Outputs:
        """Calls the model until it answers, or is given up, or nobody waits for it any more."""
        rows = row_count(feeds)
        first = not calls
        started = self._clock()
        attempts = 0

        def attempt() -> Outputs:
            nonlocal attempts, started
            if attempts and all(segment.ticket.cancelled for segment in segments):
                raise Cancelled("the bundles that waited for these rows have failed")
            attempts, started = attempts + 1, self._clock()
            return self._attempt(padded, size, watchdog)

        try:
            while True:
                size = self._padding.size(rows)
                padded = pad(feeds, size)
                try:
                    # The parts of a call that the server broke on are not repeated: they are called in parts again.
                    outputs = self._retry.run(attempt, rows, None if first or rows == 1 else 0)
                    return outputs if size == rows else outputs.slice(0, rows)
                except BatchTooLarge as error:
                    self._padding.shrink(size, rows, error)
        finally:
            calls.append(CallStats(rows, 1000 * (self._clock() - started), attempts - 1))

    def _attempt(self, feeds: Feeds, rows: int, watchdog: Watchdog) -> Outputs:
        timeout_secs = self.options.call_timeout_secs
        with self._lock:
            begun, alone = self._begun, self._active == 1
        started = self._clock()
        try:
            if timeout_secs:
                outputs = watchdog.run(lambda: self.model.call(feeds), timeout_secs)
            else:
                outputs = self.model.call(feeds)
        except CallError as error:
            with self._lock:
                self._tell_limit(error)
            raise
        secs = self._clock() - started
        with self._lock:
            full = 2 * rows >= self._ceiling.rows
            self._limit.on_answer(rows, secs, alone and begun == self._begun, full, self._active)
            self._slot_comes.notify_all()  # the limit may have risen
            if self._ceiling.lowered:
                self._ceiling.on_answer(rows, byte_count(feeds))
        return check_outputs(outputs, self.model.signature.outputs, rows)

    def _tell_limit(self, error: CallError) -> None:
        if isinstance(error, Overloaded):
            self._limit.on_overload(self._active)
        elif isinstance(error, Unavailable):
            self._limit.on_failure(self._active)
        else:
            self._limit.on_refusal()

    def _lower_ceiling(self, error: BatchTooLarge, passes: Feeds) -> None:
        with self._lock:
            self._ceiling.lower(error, passes)

    def _settle(self, segments: list[Segment], shares: list[list[Outcome]]) -> None:
        """Gives each segment its outcomes, and completes the requests that have all of theirs."""
        finished = []
        with self._lock:
            self._active -= 1
            self._slot_comes.notify_all()
            for segment, outcomes in zip(segments, shares, strict=True):
                ticket = segment.ticket
                ticket.outcomes.extend(outcomes)
                ticket.remaining -= segment.rows
                if not ticket.remaining:
                    self._budget.give_back(ticket.bytes)
                    finished.append(ticket)
        for ticket in finished:
            if not ticket.cancelled:  # nobody can cancel it now: it has no rows left
                complete(ticket)
