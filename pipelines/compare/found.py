"""What was measured of each way. It is filled bit by bit, so that an interrupted comparison has what there is."""

import dataclasses
from collections.abc import Callable, Sequence

from sluice.pipelines.compare.costs import Cost
from sluice.pipelines.compare.early_stopping import P99, interval, percentile
from sluice.pipelines.compare.spread import Spread
from sluice.pipelines.compare.stream import Answered, Load, schedule
from sluice.pipelines.compare.subject import Loaded, Point
from sluice.pipelines.compare.ways import Way

# A stream has fallen behind if its last answer comes after so many times the time in which messages were due, and so
# many times the least latency besides.
_BEHIND, _LEAST_TIMES = 1.1, 5.0


@dataclasses.dataclass(frozen=True)
class Job:
    """A whole pipeline: `sluice batch`, from the start of its process to its exit.

    Attributes:
      server_cpu_secs: of the reference server meanwhile; None: another server, or none.
      node_secs: from the creation of a managed job to its end; None: it is none.
    """

    rows: int
    cost: Cost
    server_cpu_secs: float | None = None
    node_secs: float | None = None


@dataclasses.dataclass(frozen=True)
class Stream:
    """A load of single messages, and what became of it.

    Attributes:
      complete: all were answered, and the last of them in time, so that the stream has not fallen behind.
      p50_ms, p95_ms, p99_ms: None: no message was answered.
      p99_between_ms: what the percentile is between, each bound with 99 % confidence; None: too few messages.
    """

    load: Load
    answered: int
    complete: bool
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    p99_between_ms: tuple[float, float] | None

    @property
    def p99_sure_ms(self) -> float | None:
        """What 99 % of all messages are within, by early stopping; None: too few messages."""
        return self.p99_between_ms[1] if self.p99_between_ms else None


def to_stream(load: Load, answered: Answered) -> Stream:
    """Returns the figures of a load."""
    ascending = sorted(answered.latencies_ms)
    kept_up = ascending and 1000 * answered.secs <= _BEHIND * 1000 * schedule(load)[-1] + _LEAST_TIMES * ascending[0]
    complete = bool(answered.complete and kept_up)
    p50, p95, p99 = (percentile(ascending, share) if ascending else None for share in (0.5, 0.95, P99))
    return Stream(load, len(ascending), complete, p50, p95, p99, interval(ascending) if ascending else None)


@dataclasses.dataclass
class Found:
    """What was measured of one way.

    Attributes:
      searched: rows a second of the model kept busy, by setting.
      best: the setting that was found best; zeros: the defaults.
      stages: microseconds of CPU of a row.
      starts: jobs of one row.
      jobs: jobs of many rows, each after the one of `starts` at the same place.
      server_mb: the memory of the reference server.
      failed: why the way is left out; "": it is not.
    """

    way: Way
    loaded: Loaded | None = None
    searched: dict[Point, list[float]] = dataclasses.field(default_factory=dict)
    best: Point = dataclasses.field(default_factory=Point)
    stages: dict[str, float] = dataclasses.field(default_factory=dict)
    starts: list[Job] = dataclasses.field(default_factory=list)
    jobs: list[Job] = dataclasses.field(default_factory=list)
    streams: list[Stream] = dataclasses.field(default_factory=list)
    server_mb: float | None = None
    failed: str = ""

    @property
    def whole_rate(self) -> Spread | None:
        """Rows a second of whole jobs, start-up included."""
        return _spread([job.rows / job.cost.secs for job in self.jobs])

    @property
    def marginal_us(self) -> Spread | None:
        """Microseconds of a row more."""
        return self._marginal(lambda job: job.cost.secs)

    @property
    def rate(self) -> Spread | None:
        """Rows a second, start-up apart."""
        marginal = self.marginal_us
        return Spread(tuple(1e6 / value for value in marginal.values)) if marginal else None

    @property
    def cpu_us(self) -> Spread | None:
        """Microseconds of CPU of a row more, in the job's process."""
        return self._marginal(lambda job: job.cost.cpu_secs)

    @property
    def server_cpu_us(self) -> Spread | None:
        """Microseconds of CPU of a row more, in the reference server; None: not known, or there is none."""
        if any(job.server_cpu_secs is None for job in (*self.starts, *self.jobs)):
            return None
        return self._marginal(lambda job: job.server_cpu_secs or 0.0)

    @property
    def node_us(self) -> Spread | None:
        """Microseconds that the machine of a managed job takes for a row more; None: not known, or there is none."""
        if any(job.node_secs is None for job in (*self.starts, *self.jobs)):
            return None
        return self._marginal(lambda job: job.node_secs or 0.0)

    @property
    def start_secs(self) -> Spread | None:
        """Seconds of a job of one row, from the start of its process to its exit."""
        return _spread([job.cost.secs for job in self.starts])

    @property
    def peak_mb(self) -> float | None:
        """The most memory that a job took."""
        return max((job.cost.peak_mb for job in self.jobs), default=None)

    def _marginal(self, of: Callable[[Job], float]) -> Spread | None:
        """Returns the microseconds of a row more; None: not known.

        Where a job of many rows takes no more than one of one row, start-up varies by more than all rows take. A few
        larger differences beside it would then say no more, and would be too large.
        """
        values = [1e6 * (of(many) - of(one)) / (many.rows - one.rows) for one, many in self._pairs()]
        return _spread(values) if all(value > 0 for value in values) else None

    def _pairs(self) -> list[tuple[Job, Job]]:
        """Returns jobs of one row, each with the one of many rows after it, if that took longer and more CPU."""
        return [
            (one, many)
            for one, many in zip(self.starts, self.jobs, strict=False)
            if many.rows > one.rows and many.cost.secs > one.cost.secs and many.cost.cpu_secs > one.cost.cpu_secs
        ]


def _spread(values: Sequence[float]) -> Spread | None:
    return Spread(tuple(values)) if values else None
