"""The figures of a local streaming job: for its progress line, its health port and its summary."""

import collections
import dataclasses
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from sluice.pipelines.progress.summary import rounded
from sluice.transforms.core import metrics
from sluice.transforms.pubsub.message_source import MessageSource
from sluice.transforms.pubsub.subscription import Received

# Figures of the present are means over so many seconds.
_RECENT_SECS = 10
# A job is stuck if it has messages and acknowledges none for so long.
_STUCK_SECS = 600.0

# Latencies are counted in buckets that grow by this factor: a quantile is exact to 2 %.
_GROWTH = 1.04
_LEAST, _MOST = 1e-4, 1e5
_BUCKETS = math.ceil(math.log(_MOST / _LEAST) / math.log(_GROWTH)) + 1


@dataclasses.dataclass(frozen=True)
class StreamFigures:
    """Figures of one moment.

    Attributes:
      messages: acknowledged, each with its prediction or failure written.
      messages_per_second, latency_p50_ms, latency_p99_ms: of the last 10 s; latency from publishing until the
        prediction was written. None: there were no messages.
      buffered: pulled and not yet in work: the backlog as far as this process knows it.
      bundle_secs: from handing out a bundle until it was acknowledged, summed over all bundles.
      segments: pipelines that have run, one after the other; see MessageSource.
      batch_size: rows per call of the model, on average.
      secs_since_progress: how long the job has had messages without acknowledging one; 0 if it has none.
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
        """Whether the job makes progress, or has nothing to do."""
        return self.secs_since_progress < _STUCK_SECS

    @property
    def ready(self) -> bool:
        """Whether the job reads messages."""
        return self.reachable and not self.draining

    def to_json(self) -> dict[str, Any]:
        """Returns the figures under their names, rounded. They are an interface: tests hold them."""
        return rounded(self) | {"alive": self.alive, "ready": self.ready}


class Histogram:
    """Quantiles of latencies, from 0.1 ms to a day, in constant memory."""

    def __init__(self) -> None:
        self._counts = np.zeros(_BUCKETS, np.int64)

    def add(self, secs: np.ndarray) -> None:
        """Counts values (float [values])."""
        buckets = np.log(np.clip(secs, _LEAST, _MOST) / _LEAST) / math.log(_GROWTH)
        self._counts += np.bincount(np.round(buckets).astype(np.int64), minlength=_BUCKETS)

    def merge(self, other: "Histogram") -> None:
        """Adds another histogram's counts."""
        self._counts += other._counts

    @property
    def total(self) -> int:
        return int(self._counts.sum())

    def quantile(self, share: float) -> float | None:
        """Returns the seconds that this share of the values does not exceed; None without values."""
        total = self.total
        if not total:
            return None
        rank = max(1, math.ceil(share * total))
        return float(_LEAST * _GROWTH ** int(np.searchsorted(np.cumsum(self._counts), rank)))


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
            self._forget(second)  # here too, for `figures` may never be called
            if not self._recent or self._recent[-1][0] != second:
                self._recent.append((second, 0, Histogram()))
            number, count, histogram = self._recent.pop()
            histogram.add(secs)
            self._recent.append((number, count + len(messages), histogram))

    def note_restart(self) -> None:
        """Counts a segment that failed and was followed by another."""
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
                predictions=tally.get(metrics.ROWS_PREDICTED, 0),
                failures=tally.get(metrics.ROWS_FAILED, 0),
                messages_per_second=count / secs,
                latency_p50_ms=_msec(recent.quantile(0.5)),
                latency_p99_ms=_msec(recent.quantile(0.99)),
                buffered=source.buffered,
                in_work=source.in_work,
                batch_size=self._means().get(metrics.BATCH_SIZE),
                bundles=source.stats.bundles,
                bundle_secs=source.stats.bundle_secs,
                segments=source.stats.segments,
                restarts=self.restarts,
                rpc_retries=tally.get(metrics.RPC_RETRIES, 0),
                throttled_seconds=tally.get(metrics.THROTTLED_SECS, 0),
                model_swaps=tally.get(metrics.MODEL_SWAPS, 0),
                model_versions_rejected=tally.get(metrics.MODEL_REJECTED, 0),
                reachable=source.reachable,
                draining=source.draining,
                secs_since_progress=source.stuck_secs,
            )

    def latency(self, share: float) -> float | None:
        """Returns a quantile of the latencies of the whole run, in milliseconds."""
        with self._lock:
            return _msec(self._all.quantile(share))

    def _of_late(self, now: float) -> tuple[int, Histogram, float]:
        """Returns how many messages were done lately, their latencies, and over how many seconds."""
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
