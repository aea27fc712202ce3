"""The course of a comparison: what is measured when, within the time that it may take."""

import dataclasses
import logging
from collections.abc import Callable, Sequence

from sluice.models.errors import SluiceError
from sluice.pipelines.compare.bench import Bench
from sluice.pipelines.compare.budget import Budget
from sluice.pipelines.compare.found import Found, Job, Stream, to_stream
from sluice.pipelines.compare.stream import Load
from sluice.pipelines.compare.subject import Point
from sluice.pipelines.compare.sweep import QUERIES, sweep
from sluice.pipelines.compare.tuning import Tuning
from sluice.pipelines.compare.ways import Way

_LOG = logging.getLogger(__name__)

# Shares of the time after which a part is over: the search, the first jobs, the streams. Jobs fill what is left.
_SEARCH, _JOBS, _STREAMS = 0.25, 0.6, 0.92
# Where opening the models took long, the search has so much of the time nonetheless.
_LEAST_SHARE = 0.1
# Seconds of one measurement of the search, and of one load.
_LEAST_SECS, _MOST_SECS = 0.3, 2.0
_LEAST_LOAD_SECS, _MOST_LOAD_SECS = 1.0, 6.0
# Measurements of a way, roughly: of a search, and of a sweep of rates.
_SEARCHED, _SWEPT = 15, 8
# How long the rows of a job take, start-up apart, and how fast a job is as a share of its model kept busy.
_LEAST_JOB_SECS, _MOST_JOB_SECS, _JOB_SHARE = 1.0, 8.0, 0.5
_JOBS_OF_A_WAY = 3
# Until one was run, a job's start-up is taken to be so long.
_START_SECS = 5.0


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What is asked for.

    Attributes:
      fixed: settings that the user gave; those parts that are not 0 are not searched for.
      target_p99_ms: of a stream; None: it is not given.
      streams: whether latency is measured.
      sample_bytes, max_bytes: of the sample, and of the largest input that is made of it.
    """

    fixed: Point = dataclasses.field(default_factory=Point)
    target_p99_ms: float | None = None
    streams: bool = True
    sample_bytes: int = 0
    max_bytes: int = 2 << 30


class Comparison:
    """Measures ways, the important things first.

    Args:
      say: is told what is measured now.

    Attributes:
      found: what there is so far, by way; `managed` likewise, of jobs that a service runs.
    """

    def __init__(
        self,
        bench: Bench,
        ways: Sequence[Way],
        budget: Budget,
        wanted: Wanted,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._bench, self._budget, self._wanted, self._say = bench, budget, wanted, say
        self.found = [Found(way, best=wanted.fixed) for way in ways if not way.is_managed_job]
        self.managed = [Found(way) for way in ways if way.is_managed_job]
        self._round = 0
        self._begun = 0.0
        self._took: dict[tuple[Way, int], float] = {}

    def run(self) -> None:
        """Measures until the time is over, then managed jobs: how long those wait for machines nobody knows."""
        if self.found:
            self._run_here()
        for found in self.managed:
            self._run_managed(found)

    def _run_managed(self, found: Found) -> None:
        """Runs a job of one row and one of many. They are paid for, so there is one of each."""
        times = max((times for (_, times), _ in self._took.items()), default=1) or 1
        try:
            found.starts.append(self._bench.job(found.way, found.best, 0, None))
            found.jobs.append(self._bench.job(found.way, found.best, times, None))
        except SluiceError as error:
            found.failed = str(error)
            _LOG.warning("%s is left out: %s", found.way.title, error)

    def _run_here(self) -> None:
        for found in self.found:
            self._guarded(found, self._load)
        self._begin()
        for found in self._left():
            self._guarded(found, self._search)
        self._jobs(_JOBS if self._wanted.streams else 1.0)
        if self._wanted.streams:
            self._begin()
            for found in self._left():
                self._guarded(found, self._streams)
            self._jobs(1.0)

    def _begin(self) -> None:
        """A part begins, whose time is shared by the ways."""
        self._begun = self._budget.spent / self._budget.secs

    def _part(self, found: Found, begun: float, end: float) -> float:
        """Returns the share of the time at which a way has had its part of what lies between two shares."""
        return begun + max(0.0, end - begun) * (1 + self.found.index(found)) / len(self.found)

    def _left(self) -> list[Found]:
        """Returns the ways whose models are open, and that have not failed."""
        return [found for found in self.found if found.loaded and not found.failed]

    def _guarded(self, found: Found, part: Callable[[Found], None]) -> None:
        """Runs a part; if it fails, the way is left out. What the end of the time has broken off is no failure."""
        try:
            part(found)
        except SluiceError as error:
            if self._budget.left() > 0:
                found.failed = str(error)
                _LOG.warning("%s is left out: %s", found.way.title, error)

    def _load(self, found: Found) -> None:
        self._say(f"{found.way.title}: opening the model")
        found.loaded = self._bench.load(found.way)

    def _search(self, found: Found) -> None:
        share = self._part(found, self._begun, max(_SEARCH, self._begun + _LEAST_SHARE))
        secs = _clamp(_SEARCH * self._budget.secs / len(self.found) / _SEARCHED, _LEAST_SECS, _MOST_SECS)
        Tuning(self._bench, self._budget, found, secs, share, self._say).run()
        found.stages = self._bench.stages(found.way, found.best)
        found.server_mb = self._bench.server_mb(found.way)

    def _jobs(self, share: float) -> None:
        """Runs jobs of one row and of many, all ways in turn and then in the opposite order, while there is time."""
        going = True
        while going:
            ran = [self._guarded_pair(found, share) for found in self._in_turn()]
            going = any(ran)
            self._round += going

    def _in_turn(self) -> list[Found]:
        return self._left()[:: -1 if self._round % 2 else 1]

    def _guarded_pair(self, found: Found, share: float) -> bool:
        """Runs a pair of jobs if there is time; returns whether there was."""
        times = self._times(found)
        if not self._budget.fits(self._guess(found, 0) + self._guess(found, times), share):
            return False
        self._guarded(found, lambda found: self._pair(found, times))
        return not found.failed

    def _pair(self, found: Found, times: int) -> None:
        one = self._timed(found, 0)
        many = self._timed(found, times)
        found.starts.append(one)
        found.jobs.append(many)

    def _timed(self, found: Found, times: int) -> Job:
        self._say(f"{found.way.title}: a job of {'one row' if not times else f'{times} times the sample'}")
        before = self._budget.spent
        job = self._bench.job(found.way, found.best, times, self._budget.limit)
        self._took[found.way, times] = self._budget.spent - before
        return job

    def _guess(self, found: Found, times: int) -> float:
        """Returns how long a job will take."""
        if known := self._took.get((found.way, times)):
            return known
        start = self._took.get((found.way, 0), _START_SECS)
        return start + times * self._sample_secs(found)

    def _sample_secs(self, found: Found) -> float:
        """Returns how long a job takes for the sample once, roughly."""
        assert found.loaded is not None
        rates = found.searched.get(found.best) or next(iter(found.searched.values()), [1e4])
        return found.loaded.sample_rows / (_JOB_SHARE * rates[-1])

    def _job_secs(self) -> float:
        of_a_pair = (_JOBS - _SEARCH) * self._budget.secs / len(self.found) / _JOBS_OF_A_WAY
        return _clamp(of_a_pair - 2 * _START_SECS, _LEAST_JOB_SECS, _MOST_JOB_SECS)

    def _times(self, found: Found) -> int:
        """Returns how often the sample makes a job of the wanted length."""
        known = [times for way, times in self._took if way == found.way and times]
        if known:
            return known[0]
        most = self._wanted.max_bytes // max(1, self._wanted.sample_bytes)
        return int(_clamp(round(self._job_secs() / self._sample_secs(found)), 1, max(1, most)))

    def _streams(self, found: Found) -> None:
        """Measures the sweeps of a way: with mini-batches, and one message a call."""
        end = self._part(found, self._begun, _STREAMS)
        half = max(0.0, _STREAMS - self._begun) / len(self.found) / 2
        span = (_STREAMS - _JOBS) / len(self.found) / 2
        secs = _clamp(span * self._budget.secs / _SWEPT, _LEAST_LOAD_SECS, _MOST_LOAD_SECS)
        self._sweep(found, True, secs, end - half)
        self._sweep(found, False, secs, end)

    def _sweep(self, found: Found, mini_batches: bool, secs: float, share: float) -> None:
        def measure(rate: float) -> Stream:
            queries = max(1, round(max(rate * secs, min(QUERIES, rate * 2 * secs))))
            load = Load(rate, queries, mini_batches)
            self._say(f"{found.way.title}: {queries:,} messages, {rate:,.0f} a second")
            stream = to_stream(load, self._bench.latency(found.way, load, found.best))
            found.streams.append(stream)
            return stream

        def goes_on() -> bool:
            return self._budget.fits(1.5 * secs, share)

        if goes_on():
            sweep(measure, QUERIES / secs, self._wanted.target_p99_ms, goes_on)


def _clamp(value: float, least: float, most: float) -> float:
    return min(most, max(least, value))
