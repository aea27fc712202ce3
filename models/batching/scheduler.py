"""Natural mini-batching: rows that wait while a call runs go together in the next one.

One scheduler serves all bundles and threads of a process. Its own threads call the model, so bundles that wait cannot
starve it.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from sluice.models.batching.budget import ByteBudget
from sluice.models.batching.ceiling import Ceiling
from sluice.models.batching.in_flight import InFlightLimit
from sluice.models.batching.invoke import Invoker
from sluice.models.batching.isolation import Isolation
from sluice.models.batching.mini_batch import Outcome, byte_count, pad, row_count
from sluice.models.batching.options import FAIL, SchedulerOptions
from sluice.models.batching.padding import Padding
from sluice.models.batching.proof import Proof
from sluice.models.batching.retry import Retry, backoffs
from sluice.models.batching.tickets import CallStats, Segment, Ticket, check_wanted, complete, note_start, score
from sluice.models.batching.waiting import Waiting
from sluice.models.batching.watchdog import Watchdog
from sluice.models.errors import BatchTooLarge, CallError, Cancelled, Refused, Unavailable
from sluice.models.interface import LocalModel, Model, Outputs, check_outputs
from sluice.models.tensors.binding import Feeds


class Scheduler:
    """Gathers requests of all threads into calls of one model.

    Args:
      clock: seconds, monotonic.
      sleep: waits this many seconds before a call is repeated; the default wakes when the model answers again, or the
        scheduler is closed.
      backoffs: returns an iterator over the seconds to wait before each repetition of one call.
    """

    def __init__(
        self,
        model: Model,
        options: SchedulerOptions,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] | None = None,
        backoffs: Callable[[], Iterator[float]] = backoffs,
    ) -> None:
        self.model = model
        self.options = options = options.resolved(model.remote)
        self.load_msec = 0.0  # the time that opening the model took; whoever reports it resets it
        self._clock = clock
        self._padding = Padding(model.signature, options.allowed_batch_sizes)
        self._closing = threading.Event()
        self._sleep = sleep or self._sleep_until_woken
        self._retry = Retry(
            options, clock, self._pause, backoffs, self._wake_sleepers, lambda: self.answers(self.proof.passed)
        )
        self._answered_version: int | None = None  # by the last answer
        self._invoke = Invoker(model, options.call_timeout_secs, clock, options.private)
        first = model.first_answered if isinstance(model, LocalModel) else None
        self.proof = Proof(first, self._retry, self._padding, clock)
        self._lock = threading.Lock()  # guards all that follows
        self._work_comes = threading.Condition(self._lock)  # notifies threads that wait for rows
        self._slot_comes = threading.Condition(self._lock)  # notifies calls that wait to be repeated
        self._woken = threading.Condition(self._lock)  # the model answers again, or the scheduler is closed
        self._budget = ByteBudget(options.max_pending_bytes, self._lock)
        largest = self._padding.largest(options.max_batch_size)
        self._ceiling = Ceiling(largest, options.max_batch_bytes, options.private)
        self._waiting = Waiting(options)
        self._limit = InFlightLimit(options.max_in_flight, options.adapt_in_flight)
        self._active = 0  # calls in flight
        self._resuming = 0  # calls to be repeated that wait for a slot; they go before new calls
        self._begun = 0  # all calls so far
        self._idle = 0  # threads that wait for rows
        self._threads: list[threading.Thread] = []

    @property
    def ceiling(self) -> int:
        """The most rows of one call now. See Ceiling."""
        return self._ceiling.rows

    @property
    def in_flight_limit(self) -> int:
        """The number of calls that may be in flight now."""
        return self._limit.value

    @property
    def in_flight(self) -> int:
        """The number of calls in flight now."""
        return self._active

    @property
    def version(self) -> int | None:
        """The version of the model that is called now, or else the one that answered last; None: it is not known."""
        return self._answered_version if self.model.version is None else self.model.version

    @property
    def pending_bytes(self) -> int:
        """The bytes of the requests that wait or are being scored."""
        return self._budget.used

    @property
    def throttled_secs(self) -> float:
        """The total time in which some call waited for a model that was away or overloaded; it grows meanwhile."""
        return self._retry.throttled_secs

    @property
    def away_secs(self) -> float:
        """For how long the model has been away or overloaded for all calls; 0: it is not."""
        return self._retry.away_secs

    def answers(self, unknown: bool = True) -> bool:
        """Whether the model answers a row that has passed before; `unknown` if there is none. Tries it once."""
        watchdog: Watchdog[Outputs] = Watchdog()
        try:
            return self.proof.answers(lambda feeds: self._invoke(feeds, watchdog), unknown)
        finally:
            watchdog.close()

    def submit(self, feeds: Feeds, on_wait: Callable[[], None] = lambda: None) -> Ticket:
        """Submits rows that share dtypes and inner shapes; blocks while too many bytes are pending.

        Args:
          on_wait: called now and then while this blocks.
        """
        ticket = Ticket(feeds, self._clock(), exact_bytes=self.model.remote)
        if not ticket.rows:
            ticket.future.set_result(ticket.prediction())
            return ticket
        with self._lock:
            self._budget.acquire(ticket.bytes, on_wait, self._check_open)
            try:
                self._wake_worker()
            except RuntimeError:
                self._budget.release(ticket.bytes)
                raise
            self._waiting.add(ticket)
        return ticket

    def cancel(self, tickets: Iterable[Ticket]) -> None:
        """Drops the waiting rows of these requests, because their bundle has failed; their futures raise Cancelled."""
        with self._lock:
            dropped = [ticket for ticket in tickets if self._drop(ticket)]
        for ticket in dropped:
            ticket.future.set_exception(Cancelled("the bundle that waited for these rows has failed"))

    def close(self) -> None:
        """Stops, and closes the model."""
        self.stop()
        self.model.close()

    def stop(self) -> None:
        """Cancels requests that wait, and ends the threads after their calls in flight."""
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

    def _drop(self, ticket: Ticket) -> bool:
        """Removes a request from the queues; returns False if it has all its outcomes, or was dropped before."""
        if ticket.cancelled or not ticket.remaining:
            return False
        ticket.cancelled = True
        ticket.remaining -= self._waiting.drop(ticket)
        if not ticket.remaining:  # else its bytes are released when its last call ends
            self._budget.release(ticket.bytes)
        return True

    def _check_open(self) -> None:
        if self._closing.is_set():
            raise Cancelled("the scheduler is closed")

    def _pause(self, secs: float) -> None:
        """Releases a call's slot, waits until the call is to be repeated, and acquires a slot again."""
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
                if self._waiting:  # threads that wanted a slot meanwhile have left it to this call
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
        """Makes a thread check the rows that wait, if one more call may be in flight."""
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
                return  # the existing threads do the work
            self._threads.append(thread)

    def _work(self) -> None:
        watchdog: Watchdog[Outputs] = Watchdog()
        while segments := self._next():
            self._settle(segments, self._score(segments, watchdog))
        watchdog.close()

    def _next(self) -> list[Segment]:
        """Waits for rows that may go into a call, and returns them; [] once the scheduler is closed."""
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

    def _score(self, segments: list[Segment], watchdog: Watchdog[Outputs]) -> list[list[Outcome]]:
        """Calls the model on the rows of all segments; returns the outcomes of each segment."""
        calls: list[CallStats] = []
        note_start(segments, self._clock())
        raised = (Unavailable, Refused) if self.options.on_unavailable == FAIL else ()
        isolation = Isolation(
            lambda part: self._call(part, calls, watchdog, segments),
            self.options.max_isolation_calls,
            self._lower_ceiling,
            raised,
            lambda: self.proof.check(lambda feeds: self._ask(feeds, watchdog, segments)),
            lambda part: self._call_once(part, watchdog, segments),
        )
        shares = score(segments, isolation.run)
        segments[0].ticket.calls.extend(calls)
        return shares

    def _call(
        self, feeds: Feeds, calls: list[CallStats], watchdog: Watchdog[Outputs], segments: Sequence[Segment]
    ) -> Outputs:
        """Calls the model until it answers, retries are used up, or all requests are cancelled."""
        rows = row_count(feeds)
        first = not calls
        started = self._clock()
        attempts = 0

        def attempt() -> Outputs:
            nonlocal attempts, started
            if attempts:
                check_wanted(segments)
            attempts, started = attempts + 1, self._clock()
            return self._attempt(padded, size, watchdog)

        try:
            while True:
                size = self._padding.size(rows)
                padded = pad(feeds, size)
                try:
                    # Where the server broke on a call, its parts are not repeated: they are halved again.
                    outputs = self._retry.run(
                        attempt, rows, None if first or rows == 1 else 0, lambda: check_wanted(segments)
                    )
                    return outputs if size == rows else outputs.slice(0, rows)
                except BatchTooLarge as error:
                    self._padding.shrink(size, rows, error)
        finally:
            calls.append(CallStats(rows, 1000 * (self._clock() - started), attempts - 1))

    def _call_once(self, feeds: Feeds, watchdog: Watchdog[Outputs], segments: Sequence[Segment]) -> Outputs:
        check_wanted(segments)
        size = self._padding.size(row_count(feeds))
        return self._attempt(pad(feeds, size), size, watchdog)

    def _attempt(self, feeds: Feeds, rows: int, watchdog: Watchdog[Outputs]) -> Outputs:
        with self._lock:
            begun, alone = self._begun, self._active == 1
        started = self._clock()
        try:
            outputs = self._invoke(feeds, watchdog)
        except CallError as error:
            with self._lock:
                self._limit.on_error(error, self._active)
            raise
        secs = self._clock() - started
        with self._lock:
            full = 2 * rows >= self._ceiling.rows
            self._limit.on_answer(rows, secs, alone and begun == self._begun, full, self._active)
            self._slot_comes.notify_all()  # the limit may be higher now
            if self._ceiling.lowered:
                self._ceiling.on_answer(rows, byte_count(feeds))
        self._answered_version = outputs.version
        checked = check_outputs(outputs, self.model.signature.outputs, rows)
        self.proof.note_answer(feeds)
        return checked

    def _ask(self, feeds: Feeds, watchdog: Watchdog[Outputs], segments: Sequence[Segment]) -> Outputs:
        """Calls the model with a row that has passed before, as long as the rows are wanted for which it is called."""
        check_wanted(segments)
        return self._invoke(feeds, watchdog)

    def _lower_ceiling(self, error: BatchTooLarge, passes: Feeds) -> None:
        with self._lock:
            self._ceiling.lower(error, passes)

    def _settle(self, segments: list[Segment], shares: list[list[Outcome]]) -> None:
        """Adds the outcomes to the requests of the segments, and completes requests that now have all of them."""
        finished = []
        with self._lock:
            self._active -= 1
            self._slot_comes.notify_all()
            for segment, outcomes in zip(segments, shares, strict=True):
                ticket = segment.ticket
                ticket.outcomes.extend(outcomes)
                ticket.remaining -= segment.rows
                if not ticket.remaining:
                    self._budget.release(ticket.bytes)
                    finished.append(ticket)
        for ticket in finished:
            if not ticket.cancelled:  # it has no rows left, so it cannot be cancelled from now on
                complete(ticket)
