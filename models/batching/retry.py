"""Repeats calls that may pass when repeated, with exponential back-off and full jitter.

An outage of the model is one for all calls of the process: it begins with a call that does not get through and ends
with any answer. Once it has lasted `max_retry_secs`, further calls are tried once only.
https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/ (full jitter)
"""

import contextlib
import enum
import logging
import math
import threading
from collections.abc import Callable, Iterator

from sluice.models.batching.options import SchedulerOptions
from sluice.models.errors import (
    CallError,
    ModelLost,
    OutOfMemory,
    Refused,
    ServerFault,
    SignatureChanged,
    TimedOut,
    TooSlow,
    Unavailable,
)
from sluice.models.interface import Outputs
from sluice.models.wording import log_text

_LOG = logging.getLogger(__name__)

FIRST_BACKOFF_SECS = 0.1
LAST_BACKOFF_SECS = 10.0
# An outage says nothing about now if no call was made for this long.
_STALE_SECS = 3 * LAST_BACKOFF_SECS
# A shorter outage is not logged.
_QUIET_SECS = 3.0
# A call of several rows that timed out this often is tried with fewer rows.
_TIMEOUTS_BEFORE_HALVING = 2


def backoffs() -> Iterator[float]:
    """Yields the seconds to wait before each repetition of one call: random in [0, d], d doubles from 0.1 to 10."""
    # Not at the top: it imports gRPC and requests, which a model in this process never needs.
    from google.api_core.retry import exponential_sleep_generator

    return exponential_sleep_generator(FIRST_BACKOFF_SECS, LAST_BACKOFF_SECS)


class _Cause(enum.Enum):
    """Why an attempt failed. It decides for how long the call is repeated."""

    FINAL = enum.auto()  # never repeated: it would fail again
    FAULT = enum.auto()  # the server broke on the call: repeated up to `max_retries` times
    CALL = enum.auto()  # this call alone, for others were answered meanwhile: repeated up to `max_retries` times
    OUTAGE = enum.auto()  # the model is away or overloaded for all calls: repeated for up to `max_retry_secs`


class Retry:
    """Repeats calls. Thread-safe.

    Args:
      clock: seconds, monotonic.
      pause: waits this many seconds, or until `wake` is called; may raise to end the call.
      backoffs: returns an iterator over the seconds to wait before each repetition of one call.
      wake: called when the model answers again after an outage: nobody need wait any longer.
      answers: whether the model answers a row that has passed before; False: it does not, or none is known.
    """

    def __init__(
        self,
        options: SchedulerOptions,
        clock: Callable[[], float],
        pause: Callable[[float], None],
        backoffs: Callable[[], Iterator[float]] = backoffs,
        wake: Callable[[], None] = lambda: None,
        answers: Callable[[], bool] = lambda: False,
    ) -> None:
        self._options = options
        self._clock = clock
        self._pause = pause
        self._backoffs = backoffs
        self._wake = wake
        self._answers = answers
        self._lock = threading.Lock()
        self._outage_since: float | None = None
        self._last_failure = -math.inf
        self._last_answer = -math.inf
        self._is_logged = False  # the outage
        self._sleepers = 0
        self._repeating = 0  # attempts under way that are not the first of their calls
        self._asleep_since = 0.0
        self._throttled_secs = 0.0

    @property
    def throttled_secs(self) -> float:
        """The total time in which some call waited for a model that was away or overloaded."""
        with self._lock:
            return self._throttled_secs + (self._clock() - self._asleep_since if self._sleepers else 0.0)

    @property
    def away_secs(self) -> float:
        """For how long the model has been away or overloaded for all calls; 0: it is not, as far as calls have seen."""
        with self._lock:
            now = self._clock()
            waiting = self._sleepers or self._repeating
            if self._outage_since is None or (not waiting and now - self._last_failure > _STALE_SECS):
                return 0.0
            return now - self._outage_since

    def answered_since(self, when: float) -> bool:
        """Whether the model has answered some call since `when`, by the clock."""
        return self._last_answer >= when

    def run(
        self,
        attempt: Callable[[], Outputs],
        rows: int,
        max_faults: int | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> Outputs:
        """Returns what the attempt returned, repeated if need be.

        Args:
          rows: the number of rows of the call.
          max_faults: how often the server may break on the call; None: `max_retries` times.
          check: is called now and then in a long wait that the server has asked for; may raise to end the call.

        Raises:
          TooSlow: the call timed out; with fewer rows it may pass.
          CallError: from the last attempt. If there were several, the text says how many and for how long.
        """
        call = _Call(rows, self._options.max_retries if max_faults is None else max_faults, self._clock())
        while True:
            started = self._clock()
            try:
                outputs = self._repeat(attempt) if call.repeats else attempt()
            except (Unavailable, ServerFault, Refused, OutOfMemory) as error:
                cause = self._cause(error, call)
                call.count(error, cause)
                secs_left = self._secs_left(error, cause, call, started)
                if secs_left <= 0:
                    if tried := self._tried(error, cause, call):
                        raise self._given_up(error, cause, tried) from error
                    raise
                call.check_rows(error)
                # Of a call that fails alone, secs_left does not say how long the user would wait for it.
                left = min(secs_left, max(0.0, call.begun + self._options.max_retry_secs - self._clock()))
                backoff = min(call.next_backoff(self._backoffs), secs_left)
                self._wait(backoff, cause, min(_asked(error), left), check)
            except CallError as error:
                if not error.is_unsent:
                    self._on_answer()
                raise
            else:
                self._on_answer()
                return outputs

    def _repeat(self, attempt: Callable[[], Outputs]) -> Outputs:
        with self._lock:
            self._repeating += 1
        try:
            return attempt()
        finally:
            with self._lock:
                self._repeating -= 1

    def _cause(self, error: CallError, call: "_Call") -> _Cause:
        if isinstance(error, ServerFault):
            return _Cause.FAULT
        never_accepted = isinstance(error, Refused) and self._last_answer == -math.inf
        if isinstance(error, SignatureChanged | ModelLost) or never_accepted:
            return _Cause.FINAL
        if isinstance(error, OutOfMemory) and call.rows > 1:  # fewer rows may pass
            return _Cause.FINAL
        if isinstance(error, TimedOut | OutOfMemory) and self.answered_since(call.begun):
            return _Cause.CALL
        if isinstance(error, OutOfMemory) and self._answers():  # there is memory for another row
            self._on_answer()
            return _Cause.CALL
        return _Cause.OUTAGE

    def _secs_left(self, error: CallError, cause: _Cause, call: "_Call", started: float) -> float:
        """Returns for how many seconds the call may still be repeated; 0 or less: not at all."""
        match cause:
            case _Cause.FINAL:
                return 0.0
            case _Cause.FAULT:
                return math.inf if call.faults <= call.max_faults else 0.0
            case _Cause.CALL:
                return math.inf if call.timeouts <= self._options.max_retries else 0.0
            case _Cause.OUTAGE:
                now = self._clock()
                since = self._outage_begin(error, started, now)
                return min(since, call.begun) + self._options.max_retry_secs - now

    def _outage_begin(self, error: CallError, started: float, now: float) -> float:
        """Returns when the outage began that this failure belongs to."""
        with self._lock:
            since = self._outage_since
            if since is None or started - self._last_failure > _STALE_SECS:
                since = self._outage_since = started
                self._is_logged = False
            self._last_failure = now
            if not self._is_logged and now - since >= _QUIET_SECS:
                self._is_logged = True
                said, limit = log_text(error, self._options.private), self._options.max_retry_secs
                _LOG.warning("%s; waiting for it, up to %g s (--max_retry_secs)", said, limit)
        return since

    def _on_answer(self) -> None:
        """Ends the outage, if there is one."""
        self._last_answer = self._clock()
        if self._outage_since is None:
            return
        with self._lock:
            since, self._outage_since = self._outage_since, None
        if since is not None:
            self._wake()
            if self._is_logged:
                _LOG.warning("The model answers again, after %.1f s", self._last_answer - since)

    def _tried(self, error: CallError, cause: _Cause, call: "_Call") -> str:
        """Says what was done about a failure before the call was given up; "" if nothing was."""
        now = self._clock()
        if call.repeats:
            flag = "--max_retries" if cause is _Cause.FAULT else "--max_retry_secs"
            flag = "--max_retry_secs, --max_retries" if isinstance(error, TimedOut | OutOfMemory) else flag
            return f"gave up after {call.repeats + 1} attempts in {now - call.begun:.1f} s ({flag})"
        since = self._outage_since
        if cause is _Cause.OUTAGE and not isinstance(error, Refused) and since is not None and since < now:
            return f"nothing was answered for {now - since:.1f} s (--max_retry_secs)"
        return ""

    def _given_up(self, error: CallError, cause: _Cause, tried: str) -> CallError:
        """Returns the error to raise. Memory that is short for all calls is no fault of this call's row."""
        is_away = isinstance(error, OutOfMemory) and cause is _Cause.OUTAGE
        given_up = (Unavailable if is_away else type(error))(f"{error}; {tried}")
        given_up.version = error.version
        return given_up

    def _wait(self, secs: float, cause: _Cause, least: float, check: Callable[[], None]) -> None:
        """Waits before a call is repeated.

        Args:
          least: waits for so long at least, although the model answers others meanwhile: its server asked for that.
          check: see `run`.
        """
        until = self._clock() + least if least else 0.0
        with contextlib.nullcontext() if cause is _Cause.FAULT else self._throttled():
            self._pause(min(max(secs, least), max(secs, LAST_BACKOFF_SECS)))
            while least and (left := until - self._clock()) > 0:
                check()
                self._pause(min(left, LAST_BACKOFF_SECS))

    @contextlib.contextmanager
    def _throttled(self) -> Iterator[None]:
        """Adds the time of the context to `throttled_secs`; time of several threads counts once."""
        with self._lock:
            if not self._sleepers:
                self._asleep_since = self._clock()
            self._sleepers += 1
        try:
            yield
        finally:
            with self._lock:
                self._sleepers -= 1
                if not self._sleepers:
                    self._throttled_secs += self._clock() - self._asleep_since


def _asked(error: CallError) -> float:
    """Returns how long the server asks to wait; 0: it does not ask."""
    return error.retry_after_secs if isinstance(error, Unavailable) else 0.0


class _Call:
    """The history of one call.

    Attributes:
      max_faults: how often the server may break on it.
      begun: when, by the clock.
      repeats: attempts after the first one.
      faults: how often the server broke on it.
      timeouts: how often it timed out, or, alone among others, found no memory.
    """

    def __init__(self, rows: int, max_faults: int, begun: float) -> None:
        self.rows = rows
        self.max_faults = max_faults
        self.begun = begun
        self.repeats = self.faults = self.timeouts = 0
        self._waits: Iterator[float] | None = None

    def count(self, error: CallError, cause: _Cause) -> None:
        """Counts a failed attempt."""
        self.faults += cause is _Cause.FAULT
        self.timeouts += cause is _Cause.CALL or isinstance(error, TimedOut)

    def check_rows(self, error: CallError) -> None:
        """Raises TooSlow if the call has several rows and has timed out often enough."""
        if isinstance(error, TimedOut) and self.rows > 1 and self.timeouts >= _TIMEOUTS_BEFORE_HALVING:
            raise TooSlow(f"{error} ({self.rows} rows; --max_batch_size, --rpc_timeout_secs)") from error

    def next_backoff(self, backoffs: Callable[[], Iterator[float]]) -> float:
        """Returns the seconds to wait before the next attempt, and counts that one."""
        self._waits = self._waits or backoffs()
        self.repeats += 1
        return next(self._waits)
