"""The figures of a local streaming job: for its progress line, its health port and its summary."""

import collections
import dataclasses
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from sluice.pipelines.progress.histogram import Histogram
from sluice.pipelines.progress.recent_rows import RecentRows
from sluice.pipelines.progress.state import STUCK_SECS, State, state_of, stuck_after
from sluice.pipelines.progress.summary import rounded
from sluice.transforms.core import metrics
from sluice.transforms.pubsub.message_source import MessageSource
from sluice.transforms.pubsub.subscription import Received

# Figures of the present are means over so many seconds.
_RECENT_SECS = 10


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
      secs_since_progress: how long the job has had messages without acknowledging one, and without an outcome of any
        row; 0 if it has no messages.
      stuck_after_secs: the job is stuck when `secs_since_progress` is so much; None: it never is.
      away: the subscription does not answer pulls.
      trouble: why nothing is handed out, though no message is at fault; "": it is not so.
      model_away_secs: how long the model has been away, or overloaded, for all calls; 0: it is not.
      recent_rows, recent_failures: rows that had an outcome in the last minute, or the last 20, and those that failed.
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
    stuck_after_secs: float | None = STUCK_SECS
    away: bool = False
    trouble: str = ""
    model_away_secs: float = 0.0
    recent_rows: int = 0
    recent_failures: int = 0

    @property
    def state(self) -> State:
        """How the job is."""
        return state_of(self)

    @property
    def alive(self) -> bool:
        """Whether the job need not be started anew: it moves, has nothing to do, or waits for its environment."""
        return not self.state.is_stuck

    @property
    def ready(self) -> bool:
        """Whether the job reads messages, and gets on with them."""
        return self.reachable and not self.draining and self.state.gets_on

    def to_json(self) -> dict[str, Any]:
        """Returns the figures under their names, rounded. They are an interface: tests hold them."""
        state = {"state": self.state.name, "why": self.state.why}
        return state | rounded(self) | {"alive": self.alive, "ready": self.ready}


class StreamStats:
    """Gathers figures. Thread-safe.

    Attributes:
      restarts: how many segments failed and were followed by another.
      began: when, in seconds since the epoch.

    Args:
      tally, means: what the transforms have counted, by name.
      model_away_secs: how long the model has been away for all calls.
      call_secs: for how long a call of the model may go on, with its repetitions; None: for any time.
      clock: seconds, monotonic; `wall`: seconds since the epoch.
    """

    def __init__(
        self,
        tally: Callable[[], Mapping[str, int]],
        means: Callable[[], Mapping[str, float]],
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        model_away_secs: Callable[[], float] = lambda: 0.0,
        call_secs: Callable[[], float | None] = lambda: 0.0,
    ) -> None:
        self.restarts = 0
        self._tally, self._means = tally, means
        self._model_away_secs, self._call_secs = model_away_secs, call_secs
        self._clock, self._wall = clock, wall
        self._lock = threading.Lock()
        self._started = clock()
        self.began = wall()
        self._all = Histogram()
        self._messages = 0
        self._rows = RecentRows(int(self._started))
        self._moved, self._moved_at = 0, self._started
        self._recent: collections.deque[tuple[int, int, Histogram]] = collections.deque()  # by second

    def note(self, messages: Sequence[Received]) -> None:
        """Counts messages whose rows are written."""
        now = self._wall()
        secs = now - np.array([message.publish_time for message in messages], np.float64) / 1e6
        with self._lock:
            self._messages += len(messages)
            self._all.add(secs)
            second = int(self._clock())
            if second != self._rows.second:
                self._rows.look(second, self._tally())
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
            self._rows.look(int(now), tally)
            recent_rows, recent_failures = self._rows.counts
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
                secs_since_progress=min(source.stuck_secs, self._still_secs(now, tally)),
                stuck_after_secs=stuck_after(self._call_secs()),
                away=source.away,
                trouble=source.trouble,
                model_away_secs=self._model_away_secs(),
                recent_rows=recent_rows,
                recent_failures=recent_failures,
            )

    def latencies(self, secs: Sequence[float]) -> tuple[list[int], float]:
        """Returns how many latencies of the whole run do not exceed each of these seconds, and the sum of all."""
        with self._lock:
            return [*self._all.up_to(secs), self._all.total], self._all.sum

    def _still_secs(self, now: float, tally: Mapping[str, int]) -> float:
        """Returns for how long no row has had an outcome, as far as those who asked for figures have seen."""
        moved = tally.get(metrics.ROWS_PREDICTED, 0) + tally.get(metrics.ROWS_FAILED, 0)
        if moved != self._moved:
            self._moved, self._moved_at = moved, now
        return now - self._moved_at

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
