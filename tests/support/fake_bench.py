"""A bench whose processes are reckoned and not run: each measurement moves a clock by what it would take."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from sluice.models.errors import SluiceError
from sluice.pipelines.compare.costs import Cost
from sluice.pipelines.compare.drive import Driven
from sluice.pipelines.compare.found import Job
from sluice.pipelines.compare.stream import Answered, Load, schedule
from sluice.pipelines.compare.subject import Loaded, Point
from sluice.pipelines.compare.ways import Way

SAMPLE_ROWS = 10_000


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclasses.dataclass(frozen=True)
class Nature:
    """How a way behaves.

    Attributes:
      call_us, row_us: a call of the model, and each row of it.
      job_us: of a row of a job, besides.
      server_share: of the CPU that the server takes; 0: there is no server.
    """

    call_us: float = 3000.0
    row_us: float = 100.0
    job_us: float = 50.0
    start_secs: float = 3.0
    copy_mb: float = 50.0
    server_share: float = 0.0


class FakeBench:
    """Answers by the natures of ways.

    Args:
      noise: the share by which measurements differ, in turn up and down.
      interrupt_after: ctrl-C at this measurement; 0: never.
      broken: by kind, the error of all measurements but the first.
    """

    def __init__(
        self,
        clock: Clock,
        natures: dict[str, Nature],
        noise: float = 0.01,
        interrupt_after: int = 0,
        broken: dict[str, str] | None = None,
    ) -> None:
        self._clock, self._natures, self._noise = clock, natures, noise
        self._interrupt_after, self._broken = interrupt_after, broken or {}
        self.asked: list[tuple[str, str]] = []

    def load(self, way: Way) -> Loaded:
        nature = self._begin("load", way, 4.0)
        remote = way.remote
        defaults = (512, 32) if remote else (4096, 1)
        return Loaded(1.0, nature.copy_mb, SAMPLE_ROWS, 0, SAMPLE_ROWS, *defaults)

    def throughput(self, way: Way, point: Point, secs: float) -> Driven:
        nature = self._begin("throughput", way, 1.25 * secs)
        rows = round(secs * 1e6 / self._row_us(nature, way, point) * self._jitter())
        return Driven(max(1, rows), 10, secs, secs)

    def latency(self, way: Way, load: Load, point: Point) -> Answered:
        """A queue with one server: what is due goes together, or one by one."""
        nature = self._begin("latency", way, 0.0)
        due = schedule(load)
        if load.mini_batches:
            answered = _together(due, nature)
        else:
            secs = (nature.call_us + nature.row_us) / 1e6
            behind = secs * np.arange(load.queries)
            answered = np.maximum.accumulate(due - behind) + behind + secs
        free, latest = float(answered[-1]), float(due[-1]) * 1.5 + 2
        self._clock.now += min(free, latest)
        return Answered(tuple((1000 * (answered - due)).tolist()), free, free < latest)

    def stages(self, way: Way, point: Point) -> dict[str, float]:
        nature = self._begin("stages", way, 1.5)
        return {"read": 1.0, "bind": 0.5, "call": nature.row_us, "encode": 0.4, "write": 0.1}

    def job(self, way: Way, point: Point, times: int, limit_secs: float | None) -> Job:
        nature = self._begin("job", way, 0.0)
        rows = times * SAMPLE_ROWS if times else 1
        work = rows * (self._row_us(nature, way, point) + nature.job_us) / 1e6 * self._jitter()
        secs = nature.start_secs * self._jitter() + work
        self._clock.now += secs if limit_secs is None else min(secs, limit_secs)
        if limit_secs is not None and secs > limit_secs:
            raise SluiceError("it took longer")
        server = nature.server_share
        cost = Cost(secs, 1.0 + 1.5 * work * (1 - server), 500 + nature.copy_mb)
        node = secs if way.is_managed_job else None
        return Job(rows, cost, 1.5 * work * server if way.is_reference else None, node)

    def server_mb(self, way: Way) -> float | None:
        return 700.0 if way.is_reference else None

    def _begin(self, what: str, way: Way, secs: float) -> Nature:
        self.asked.append((what, way.kind))
        self._clock.now += secs
        if len(self.asked) == self._interrupt_after:
            raise KeyboardInterrupt
        if what != "load" and way.kind in self._broken:
            raise SluiceError(self._broken[way.kind])
        return self._natures[way.kind]

    def _row_us(self, nature: Nature, way: Way, point: Point) -> float:
        batch = point.batch or (512 if way.remote else 4096)
        return nature.row_us + nature.call_us / batch

    def _jitter(self) -> float:
        return 1 + self._noise * math.sin(2.3 * len(self.asked))


def _together(due: np.ndarray, nature: Nature) -> np.ndarray:
    answered, free, number = np.empty(len(due)), 0.0, 0
    while number < len(due):
        begun = max(free, float(due[number]))
        ready = max(number + 1, int(np.searchsorted(due, begun, "right")))
        free = begun + (nature.call_us + nature.row_us * (ready - number)) / 1e6
        answered[number:ready] = free
        number = ready
    return answered
