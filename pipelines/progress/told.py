"""The figures of a batch job: what this process has counted, or what the job's runner tells of its workers."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from apache_beam.runners.runner import PipelineResult

from sluice.pipelines.progress.display import Lines, clock_time
from sluice.transforms.core import metrics

# Counters, and the means of distributions, by name.
Figures = tuple[Mapping[str, int], Mapping[str, float]]

# A runner's metrics cost a call, and change no faster.
_INTERVAL_SECS = 3.0


def figures_of(query: Mapping[str, Sequence[Any]]) -> Figures:
    """Returns our counters, and the means of our distributions, from what Beam's `query` returns."""
    counters: dict[str, int] = {}
    for counter in query.get("counters", ()):
        if counter.key.metric.namespace == metrics.NAMESPACE:
            name = counter.key.metric.name
            counters[name] = counters.get(name, 0) + (counter.result or 0)
    means = {
        each.key.metric.name: each.result.mean
        for each in query.get("distributions", ())
        if each.key.metric.namespace == metrics.NAMESPACE and each.result and each.result.count
    }
    return counters, means


class Told:
    """What is known of a job's figures.

    Attributes:
      result: the job, once it runs.
    """

    def __init__(self, here: bool, portable: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        """Tells of a job.

        Args:
          here: this process scores the rows.
          portable: a job server runs the job.
        """
        self.result: PipelineResult | None = None
        self._here, self._portable = here, portable
        self._clock = clock
        self._asked_at = float("-inf")
        self._latest: Mapping[str, int] = {}

    def figures(self) -> Figures | None:
        """Returns the figures now; None: they are not known."""
        counted = (metrics.tally(), metrics.means() if self._portable else {}) if self._here else None
        if self.result is None:
            return counted
        if not self._portable:
            return figures_of(self.result.metrics().query())
        told = self._ask()
        return told if told[0] else counted

    def tally(self) -> Mapping[str, int]:
        """Returns the counters, of some seconds ago at most; {}: none is known."""
        if self._here:
            return metrics.tally()
        if self._portable and self.result is not None and self._clock() - self._asked_at > _INTERVAL_SECS:
            self._latest = self._ask()[0] or self._latest
            self._asked_at = self._clock()
        return self._latest

    def _ask(self) -> Figures:
        from sluice.pipelines.portable.told import ask_metrics  # other jobs do without Beam's portable runners

        return figures_of(ask_metrics(self.result))


class ToldLines:
    """The lines of a job elsewhere: how far it is, where its runner tells that, or how long it runs.

    Args:
      lines: of the counters.
    """

    def __init__(self, lines: Lines, told: Told, clock: Callable[[], float] = time.monotonic) -> None:
        self._lines, self._told, self._clock = lines, told, clock
        self._begun = clock()

    def line(self, width: int) -> str:
        return self._lines.line(width) if self._told.tally() else self._untold()[:width]

    def log_line(self) -> str:
        return self._lines.log_line() if self._told.tally() else self._untold()

    def _untold(self) -> str:
        course = "starting" if self._told.result is None else "running"
        return f"{course}, {clock_time(self._clock() - self._begun)}; the runner has not told how many rows are done"
