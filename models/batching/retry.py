"""Calls that are worth repeating are repeated, with exponential back-off and full jitter.

What is waited for is an outage of the model, and it is one for all calls of the process: it begins with a call that
does not get through and ends with any answer. After it has lasted `max_retry_secs`, further calls are tried once and no
more.
https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/ (full jitter)
"""

import logging
import math
import threading
from collections.abc import Callable

from sluice.models.batching.options import SchedulerOptions
from sluice.models.errors import (
    CallError,
    OutOfMemory,
    Refused,
    ServerFault,
    SignatureChanged,
    TimedOut,
    TooSlow,
    Unavailable,
)
from sluice.models.interface import Outputs

_LOG = logging.getLogger(__name__)

_FIRST_BACKOFF_SECS = 0.1
_LAST_BACKOFF_SECS = 10.0
# If nobody has called for so long, the outage that was seen then says nothing about now.
_STALE_SECS = 3 * _LAST_BACKOFF_SECS
# An outage that is over sooner is not worth a line in the log.
_QUIET_SECS = 3.0
# A call of several rows that was not answered in time so often is tried with fewer.
_TIMEOUTS_BEFORE_HALVING = 2


class Retry:
    """Repeats calls. Thread-safe.

    Args:
      clock: seconds, monotonic.
      pause: waits so many seconds, or until `wake` is called; may raise to end the call.
      random: uniform in [0, 1).
      wake: called when the model answers again after an outage: nobody need wait any longer.
    """

    def __init__(
        self,
        options: SchedulerOptions,
        clock: Callable[[], float],
        pause: Callable[[float], None],
        random: Callable[[], float],
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self._options = options
        self._clock = clock
        self._pause = pause
        self._random = random
        self._wake = wake
        self._lock = threading.Lock()
        self._outage_since: float | None = None
        self._last_failure = -math.inf
        self._last_answer = -math.inf
        self._told = False
        self._sleepers = 0
        self._asleep_since = 0.0
        self._throttled_secs = 0.0

    @property
    def throttled_secs(self) -> float:
        """How long, in all, some call has waited for a model that was away or overloaded."""
        with self._lock:
            return self._throttled_secs + (self._clock() - self._asleep_since if self._sleepers else 0.0)

    def answered_since(self, when: float) -> bool:
        """Whether the model has answered some call since then, by the clock."""
        return self._last_answer >= when

    def run(self, attempt: Callable[[], Outputs], rows: int, max_faults: int | None = None) -> Outputs:
        """Returns what the attempt gave, repeated if need be.

        Args:
          rows: of the call.
          max_faults: how often the server may break on it, if not `max_retries` times.

        Raises:
          TooSlow: it was not answered in time, and with fewer rows it may be.
          CallError: what the last attempt raised; of an attempt that was repeated, with how long that was tried.
        """
        call = _Call(rows, self._options.max_retries if max_faults is None else max_faults, self._clock())
        while True:
            started = self._clock()
            try:
                outputs = attempt()
            except (Unavailable, ServerFault, Refused, OutOfMemory) as error:
                if not self._may_repeat(error, call, started):
                    if (told := self._tell(error, call)) is None:
                        raise
                    raise told from error
                self._wait(error, call)
                call.repeats += 1
            except CallError:
                self._answered()
                raise
            else:
                self._answered()
                return outputs

    def _may_repeat(self, error: CallError, call: "_Call", started: float) -> bool:
        if isinstance(error, ServerFault):
            call.faults += 1
            return call.faults <= call.max_faults
        if isinstance(error, SignatureChanged) or (isinstance(error, Refused) and self._last_answer == -math.inf):
            return False
        if isinstance(error, OutOfMemory) and call.rows > 1:
            return False
        if isinstance(error, TimedOut | OutOfMemory) and self.answered_since(call.begun):  # it is about this call
            call.timeouts += 1
            goes_on = call.timeouts <= self._options.max_retries
        else:
            call.timeouts += isinstance(error, TimedOut)
            goes_on = self._goes_on(error, call, started)
        if isinstance(error, TimedOut) and goes_on and call.rows > 1 and call.timeouts >= _TIMEOUTS_BEFORE_HALVING:
            raise TooSlow(f"{error} ({call.rows} rows; --max_batch_size, --rpc_timeout_secs)") from error
        return goes_on

    def _goes_on(self, error: CallError, call: "_Call", started: float) -> bool:
        """Whether the outage, which this failure belongs to, is still to be waited out."""
        now = self._clock()
        with self._lock:
            since = self._outage_since
            if since is None or started - self._last_failure > _STALE_SECS:
                since = self._outage_since = started
                self._told = False
            self._last_failure = now
            if not self._told and now - since >= _QUIET_SECS:
                self._told = True
                _LOG.warning("%s; waiting for it, up to %g s (--max_retry_secs)", error, self._options.max_retry_secs)
        call.secs_left = min(since, call.begun) + self._options.max_retry_secs - now
        return call.secs_left > 0

    def _answered(self) -> None:
        self._last_answer = self._clock()
        if self._outage_since is None:
            return
        with self._lock:
            since, self._outage_since = self._outage_since, None
        if since is not None:
            self._wake()
            if self._told:
                _LOG.warning("The model answers again, after %.1f s", self._last_answer - since)

    def _tell(self, error: CallError, call: "_Call") -> CallError | None:
        """The error with what was tried against it; None if nothing was."""
        now = self._clock()
        if call.repeats:
            flag = "--max_retries" if isinstance(error, ServerFault) else "--max_retry_secs"
            flag = "--max_retry_secs, --max_retries" if isinstance(error, TimedOut | OutOfMemory) else flag
            tried = f"gave up after {call.repeats + 1} attempts in {now - call.begun:.1f} s ({flag})"
        elif isinstance(error, OutOfMemory) and call.rows > 1:
            return None
        elif isinstance(error, Unavailable | OutOfMemory) and (since := self._outage_since or now) < now:
            tried = f"nothing was answered for {now - since:.1f} s (--max_retry_secs)"
        else:
            return None
        away = isinstance(error, OutOfMemory) and not self.answered_since(call.begun)
        return (Unavailable if away else type(error))(f"{error}; {tried}")

    def _wait(self, error: CallError, call: "_Call") -> None:
        secs = self._random() * min(_LAST_BACKOFF_SECS, _FIRST_BACKOFF_SECS * 2.0 ** min(call.repeats, 30))
        secs = min(secs, call.secs_left)
        if isinstance(error, ServerFault):
            self._pause(secs)
            return
        with self._lock:
            if not self._sleepers:
                self._asleep_since = self._clock()
            self._sleepers += 1
        try:
            self._pause(secs)
        finally:
            with self._lock:
                self._sleepers -= 1
                if not self._sleepers:
                    self._throttled_secs += self._clock() - self._asleep_since


class _Call:
    """What has become of a call so far."""

    def __init__(self, rows: int, max_faults: int, begun: float) -> None:
        self.rows = rows
        self.max_faults = max_faults
        self.begun = begun
        self.repeats = self.faults = self.timeouts = 0
        self.secs_left = math.inf  # of the outage, as far as it is waited for
