"""What a streaming job is doing now, and what it has come to: for progress line, health port and summary."""

import collections
import dataclasses
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from sluice.pipelines.progress.histogram import Histogram
from sluice.pipelines.progress.summary import BATCH_SIZE, ROWS_FAILED, ROWS_PREDICTED, RPC_RETRIES, THROTTLED_SECS
from sluice.transforms.pubsub.message_source import MessageSource
from sluice.transforms.pubsub.subscription import Received

# Figures of the present are those of so many seconds.
_RECENT_SECS = 10
# Nothing acknowledged for so long, though messages are here, means that the job is stuck.
_STUCK_SECS = 600.0

MODEL_SWAPS, MODEL_REJECTED = "model_swaps", "model_versions_rejected"


@dataclasses.dataclass(frozen=True)
class StreamFigures:
    """Figures of one moment.

    Attributes:
      messages: acknowledged, each with its prediction or failure written.
      messages_per_second, latency_p50_ms, latency_p99_ms: of the last 10 s; latency from publishing until the
        prediction was written. None: there were no messages.
      buffered: pulled, and not yet in work: the backlog that is known here.
      bundle_secs: from handing bundles out until they were acknowledged, of all of them together.
      segments: pipelines that have run, one after the other; see MessageSource.
      batch_size: rows of a call of the model, the mean.
      secs_since_progress: for how long messages have been here, and none has been acknowledged; 0 if none is here.
    """

    seconds: float
    messages: int
    predictions: int
    failures: int
    messages_per_second: float
    latency_p50_ms: float | None
    latency_p99_ms: float | None
    buffered: int
    in_work: int
    batch_size: float | None
    bundles: int
    bundle_secs: float
    segments: int
    restarts: int
    rpc_retries: int
    throttled_seconds: int
    model_swaps: int
    model_versions_rejected: int
    reachable: bool
    draining: bool
    secs_since_progress: float

    @property
    def alive(self) -> bool:
        """Whether the job gets on, or has nothing to do."""
        return self.secs_since_progress < _STUCK_SECS

    @property
    def ready(self) -> bool:
        """Whether it takes messages."""
        return self.reachable and not self.draining

    def to_json(self) -> dict[str, Any]:
        """Returns the figures under their names, rounded. They are an interface: tests hold them."""
        record = {
            name: round(value, 3) if isinstance(value, float) else value
            for name, value in dataclasses.asdict(self).items()
        }
        return record | {"alive": self.alive, "ready": self.ready}


class StreamStats:
    """Gathers figures. Thread-safe.

    Args:
      tally, means: what the transforms have counted, by name.
      clock: seconds, monotonic; `wall`: seconds since the epoch.
    """

    def __init__(
        self,
        tally: Callable[[], Mapping[str, int]],
        means: Callable[[], Mapping[str, float]],
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.restarts = 0
        self._tally, self._means = tally, means
        self._clock, self._wall = clock, wall
        self._lock = threading.Lock()
        self._started = clock()
        self._all = Histogram()
        self._messages = 0
        self._recent: collections.deque[tuple[int, int, Histogram]] = collections.deque()  # by second

    def note(self, messages: Sequence[Received]) -> None:
        """Counts messages whose rows are written."""
        now = self._wall()
        secs = now - np.array([message.publish_time for message in messages], np.float64) / 1e6
        with self._lock:
            self._messages += len(messages)
            self._all.add(secs)
            second = int(self._clock())
            self._forget(second)  # here too: it may be that nobody looks
            if not self._recent or self._recent[-1][0] != second:
                self._recent.append((second, 0, Histogram()))
            number, count, histogram = self._recent.pop()
            histogram.add(secs)
            self._recent.append((number, count + len(messages), histogram))

    def note_restart(self) -> None:
        """Counts a segment that failed and is followed by another."""
        self.restarts += 1

    def figures(self, source: MessageSource) -> StreamFigures:
        """Returns the figures of this moment."""
        tally = self._tally()
        with self._lock:
            now = self._clock()
            count, recent, secs = self._of_late(now)
            return StreamFigures(
                seconds=now - self._started,
                messages=self._messages,
                predictions=tally.get(ROWS_PREDICTED, 0),
                failures=tally.get(ROWS_FAILED, 0),
                messages_per_second=count / secs,
                latency_p50_ms=_msec(recent.quantile(0.5)),
                latency_p99_ms=_msec(recent.quantile(0.99)),
                buffered=source.buffered,
                in_work=source.in_work,
                batch_size=self._means().get(BATCH_SIZE),
                bundles=source.stats.bundles,
                bundle_secs=source.stats.bundle_secs,
                segments=source.stats.segments,
                restarts=self.restarts,
                rpc_retries=tally.get(RPC_RETRIES, 0),
                throttled_seconds=tally.get(THROTTLED_SECS, 0),
                model_swaps=tally.get(MODEL_SWAPS, 0),
                model_versions_rejected=tally.get(MODEL_REJECTED, 0),
                reachable=source.reachable,
                draining=source.draining,
                secs_since_progress=source.stuck_secs,
            )

    def latency(self, share: float) -> float | None:
        """Returns a quantile of the latencies of the whole run, in milliseconds."""
        with self._lock:
            return _msec(self._all.quantile(share))

    def _of_late(self, now: float) -> tuple[int, Histogram, float]:
        """Returns how many messages were done lately, their latencies, and in how many seconds."""
        self._forget(int(now))
        merged = Histogram()
        for _, _, histogram in self._recent:
            merged.merge(histogram)
        since = max(self._started, int(now) - _RECENT_SECS)
        return sum(count for _, count, _ in self._recent), merged, max(1.0, now - since)

    def _forget(self, second: int) -> None:
        while self._recent and self._recent[0][0] < second - _RECENT_SECS:
            self._recent.popleft()


def _msec(secs: float | None) -> float | None:
    return None if secs is None else 1000 * secs
