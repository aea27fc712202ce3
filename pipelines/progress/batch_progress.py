"""The progress line of a local batch job: how far it has got, how fast, and how long it will take."""

import collections
import dataclasses
import time
from collections.abc import Callable, Mapping

from sluice.pipelines.progress.display import clock_time, fit
from sluice.transforms.core.metrics import BYTES_READ, ROWS_FAILED, ROWS_PREDICTED

# The rate is the mean of so many seconds: steady enough to be read, and a stall shows.
_RATE_SECS = 5.0
_LEAST_FIRST = ("elapsed", "bar", "rate", "failed", "eta", "rows")
_LEAST_CELLS, _MOST_CELLS = 10, 30


@dataclasses.dataclass(frozen=True)
class Reading:
    """What had been counted at one moment.

    Attributes:
      seconds: of a monotonic clock.
      done: input read so far: bytes of files, or rows of a table.
    """

    seconds: float
    rows: int
    failed: int
    done: int


@dataclasses.dataclass(frozen=True)
class Sample:
    """What a progress line shows.

    Attributes:
      rows: predictions and failures.
      done: input read so far: bytes of files, or rows of a table.
      total: all of the input, likewise; 0: not known.
      rows_per_second: over the last seconds.
      eta_seconds: None: not known yet.
    """

    rows: int
    failed: int
    done: int
    total: int
    rows_per_second: float
    elapsed_seconds: float
    eta_seconds: float | None

    @property
    def share(self) -> float | None:
        """The share of the input that has been read, 0 to 1; None: not known.

        The bytes of a compressed file are counted at its end: until then there are rows and no bytes.
        """
        if not self.total or (self.rows and not self.done):
            return None
        return min(1.0, self.done / self.total)


class Meter:
    """Turns readings into samples."""

    def __init__(self, first: Reading, total: int) -> None:
        self._start = first
        self._total = total
        self._idle = first
        self._recent = collections.deque([first])

    def sample(self, reading: Reading) -> Sample:
        """Returns what to show at a reading; readings come in order of time."""
        if not (reading.rows or reading.done):  # the model still loads: rate and pace start later
            self._idle = reading
            self._recent.clear()
        self._recent.append(reading)
        while len(self._recent) > 2 and reading.seconds - self._recent[1].seconds >= _RATE_SECS:
            self._recent.popleft()
        then = self._recent[0]
        return Sample(
            reading.rows,
            reading.failed,
            reading.done,
            self._total,
            (reading.rows - then.rows) / max(reading.seconds - then.seconds, 1e-9),
            reading.seconds - self._start.seconds,
            self._eta(reading),
        )

    def _eta(self, reading: Reading) -> float | None:
        """Returns the time left by the mean pace since the first row; by the last seconds' pace it would jump."""
        if not self._total or not reading.done:
            return None
        seconds_per_unit = (reading.seconds - self._idle.seconds) / reading.done
        return max(0.0, (self._total - reading.done) * seconds_per_unit)


def render_line(sample: Sample, width: int) -> str:
    """Returns the sample in at most `width` characters."""
    fields = _fields(sample)
    if sample.share is not None:  # its width depends on the terminal alone, so that it does not jump
        fields = {"bar": _bar(sample.share, min(_MOST_CELLS, max(_LEAST_CELLS, width // 6)))} | fields
    return fit(fields, _LEAST_FIRST, width)


def render_log(sample: Sample) -> str:
    """Returns the sample as a line of a log."""
    fields = _fields(sample)
    fields["elapsed"] = f"after {fields['elapsed']}"
    return ", ".join(field.strip() for field in fields.values())


def _fields(sample: Sample) -> dict[str, str]:
    fields = {} if sample.share is None else {"share": f"{int(100 * sample.share):3d}%"}
    fields |= {"rows": f"{sample.rows:,} rows", "rate": f"{sample.rows_per_second:,.0f} rows/s"}
    if sample.failed:
        fields["failed"] = f"{sample.failed:,} failed"
    fields["elapsed"] = clock_time(sample.elapsed_seconds)
    if sample.share is not None:
        fields["eta"] = f"ETA {'-:--' if sample.eta_seconds is None else clock_time(sample.eta_seconds)}"
    return fields


def _bar(share: float, cells: int) -> str:
    done = int(share * cells)
    return f"[{('=' * done + '>' * (0 < share < 1)).ljust(cells)}]"


class BatchProgress:
    """The lines that a Display shows of a batch job.

    Args:
      tally: what this process has counted, by the names in transforms.core.metrics.
      total: of the input; 0: not known.
      counter: the count in the tally that reaches the total: bytes_read, or rows_read.
      rows: the count of the rows that have been handled and have not failed.
      clock: seconds, monotonic.
    """

    def __init__(
        self,
        tally: Callable[[], Mapping[str, int]],
        total: int,
        counter: str = BYTES_READ,
        rows: str = ROWS_PREDICTED,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tally = tally
        self._counter, self._rows = counter, rows
        self._clock = clock
        self._meter = Meter(self._read(), total)

    def line(self, width: int) -> str:
        return render_line(self._meter.sample(self._read()), width)

    def log_line(self) -> str:
        return render_log(self._meter.sample(self._read()))

    def _read(self) -> Reading:
        tally = self._tally()
        failed = tally.get(ROWS_FAILED, 0)
        rows = tally.get(self._rows, 0) + failed
        return Reading(self._clock(), rows, failed, tally.get(self._counter, 0))
