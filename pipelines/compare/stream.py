"""Single messages at a steady rate, by the rules of the Server scenario of MLPerf Inference.

The gaps between messages are exponential, from a seed. A latency counts from the time at which a message was scheduled,
so that what cannot keep up is not spared by sending less. The 600 s that a run of the benchmark takes at least are
waived. Source: https://github.com/mlcommons/inference_policies/blob/master/inference_rules.adoc, "Scenarios".
"""

import dataclasses
import threading
import time
from collections.abc import Callable
from typing import Protocol

import numpy as np

# A message that has no answer after so long is not waited for.
_PATIENCE_SECS = 60.0
# Messages may take so much longer than was planned, or so many seconds, before a run is given up as overloaded.
_LATE_SHARE, _LATE_SECS = 0.5, 2.0
# A message that is due so soon is sent now.
_EARLY_SECS = 1e-6


@dataclasses.dataclass(frozen=True)
class Load:
    """Messages to send.

    Attributes:
      rate: a second.
      mini_batches: messages that are due together are bound and called together; otherwise each goes alone.
    """

    rate: float
    queries: int
    mini_batches: bool
    seed: int = 1


@dataclasses.dataclass(frozen=True)
class Answered:
    """What became of a load.

    Attributes:
      latencies_ms: of the messages, in the order in which they were scheduled; of fewer, if it was given up.
      secs: from the first message to the last answer.
      complete: it was not given up.
    """

    latencies_ms: tuple[float, ...]
    secs: float
    complete: bool

    @property
    def rate(self) -> float:
        return len(self.latencies_ms) / self.secs if self.secs else 0.0


class Sender(Protocol):
    """Sends messages [start, stop), and calls `done` for each, or for several, once they are answered."""

    def __call__(self, start: int, stop: int, done: Callable[[int, int], None]) -> None:
        """Returns at once, or when the messages are sent."""


def schedule(load: Load) -> np.ndarray:
    """Returns float64 [queries]: the seconds after the start at which messages are due."""
    gaps = np.random.default_rng(load.seed).exponential(1 / load.rate, load.queries)
    return np.cumsum(gaps) - gaps[0]


def send(
    load: Load,
    sender: Sender,
    clock: Callable[[], float] = time.perf_counter,
    pause: Callable[[float], None] = time.sleep,
    finished: threading.Event | None = None,
) -> Answered:
    """Sends messages when they are due, and waits for their answers.

    Args:
      clock: seconds, monotonic.
      finished: is set when all are answered.
    """
    due = schedule(load)
    answered = np.full(load.queries, np.nan)
    left, all_done = _Countdown(load.queries), finished or threading.Event()
    started = clock()

    def done(start: int, stop: int) -> None:
        answered[start:stop] = clock() - started
        if left.take(stop - start):
            all_done.set()

    latest = due[-1] * (1 + _LATE_SHARE) + _LATE_SECS
    sent = 0
    while sent < load.queries and (now := clock() - started) < latest:
        ready = int(np.searchsorted(due, now + _EARLY_SECS, "right"))
        if ready > sent:
            stop = ready if load.mini_batches else sent + 1
            sender(sent, stop, done)
            sent = stop
        else:
            pause(due[sent] - now)
    if sent == load.queries:
        all_done.wait(max(_LATE_SECS, min(_PATIENCE_SECS, latest - clock() + started)))
    return _answered(due, answered.copy(), clock() - started)


def _answered(due: np.ndarray, answered: np.ndarray, secs: float) -> Answered:
    """Messages without an answer have waited until now at least: that is their latency."""
    complete = not np.isnan(answered).any()
    came = due <= secs
    latencies = np.where(np.isnan(answered), secs, answered)[came] - due[came]
    last = float(np.nanmax(answered)) if complete else secs
    return Answered(tuple((1000 * latencies).tolist()), last, complete)


class _Countdown:
    def __init__(self, count: int) -> None:
        self._lock, self._left = threading.Lock(), count

    def take(self, count: int) -> bool:
        """Returns whether none is left."""
        with self._lock:
            self._left -= count
            return self._left <= 0
