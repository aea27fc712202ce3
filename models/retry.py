"""Calls that are worth repeating are repeated, with exponential back-off and full jitter.

What is waited for is an outage of the model, and it is one for all calls of the process: after it has lasted
`max_retry_secs` without any answer, further calls are tried once and no more, until one is answered.
https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/ (full jitter)
"""

import logging
import threading
from collections.abc import Callable

from models.errors import CallError, ServerFault, TimedOut, Unavailable
from models.interface import Outputs
from models.scheduler_options import SchedulerOptions

_LOG = logging.getLogger(__name__)

_FIRST_BACKOFF_SECS = 0.1
_LAST_BACKOFF_SECS = 10.0
# If nobody has called for so long, the outage that was seen then says nothing about now.
_STALE_SECS = 3 * _LAST_BACKOFF_SECS
# An outage that is over sooner is not worth a line in the log.
_QUIET_SECS = 3.0


class Retry:
    """Repeats calls. Thread-safe.

    Args:
      clock: seconds, monotonic.
      sleep: waits so many seconds; may raise to end the call.
      random: uniform in [0, 1).
    """

    def __init__(
        self,
        options: SchedulerOptions,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
        random: Callable[[], float],
    ) -> None:
        self._options = options
        self._clock = clock
        self._sleep = sleep
        self._random = random
        self._lock = threading.Lock()
        self._outage_since: float | None = None
        self._last_failure = 0.0
        self._told = False
        self._sleepers = 0
        self._asleep_since = 0.0
        self._throttled_secs = 0.0

    @property
    def throttled_secs(self) -> float:
        """How long, in all, some call has waited for a model that was away or overloaded."""
        with self._lock:
            return self._throttled_secs + (self._clock() - self._asleep_since if self._sleepers else 0.0)

    def run(self, attempt: Callable[[], Outputs]) -> Outputs:
        """Returns what the attempt gave, repeated if need be.

        Raises:
          CallError: what the last attempt raised; of an attempt that was repeated, with how long that was tried.
        """
        begun = self._clock()
        repeats = faults = 0
        while True:
            started = self._clock()
            try:
                outputs = attempt()
            except (Unavailable, ServerFault) as error:
                faults += isinstance(error, ServerFault | TimedOut)
                if not self._may_repeat(error, faults, begun, started):
                    if repeats:
                        raise _gave_up(error, repeats, self._clock() - begun) from error
                    raise
                self._wait(error, repeats)
                repeats += 1
            else:
                self._answered()
                return outputs

    def _may_repeat(self, error: CallError, faults: int, begun: float, started: float) -> bool:
        if isinstance(error, ServerFault | TimedOut):
            return faults <= self._options.max_retries
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
        return now - min(since, begun) < self._options.max_retry_secs

    def _answered(self) -> None:
        if self._outage_since is None:
            return
        with self._lock:
            since, self._outage_since = self._outage_since, None
        if since is not None and self._told:
            _LOG.warning("The model answers again, after %.1f s", self._clock() - since)

    def _wait(self, error: CallError, repeats: int) -> None:
        secs = self._random() * min(_LAST_BACKOFF_SECS, _FIRST_BACKOFF_SECS * 2.0 ** min(repeats, 30))
        if isinstance(error, ServerFault | TimedOut):
            self._sleep(secs)
            return
        with self._lock:
            if not self._sleepers:
                self._asleep_since = self._clock()
            self._sleepers += 1
        try:
            self._sleep(secs)
        finally:
            with self._lock:
                self._sleepers -= 1
                if not self._sleepers:
                    self._throttled_secs += self._clock() - self._asleep_since


def _gave_up(error: CallError, repeats: int, secs: float) -> CallError:
    """The error, with what was tried against it."""
    flag = "--max_retries" if isinstance(error, ServerFault | TimedOut) else "--max_retry_secs"
    return type(error)(f"{error}; gave up after {repeats + 1} attempts in {secs:.1f} s ({flag})")
