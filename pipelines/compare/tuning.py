"""Finds the batch size of a way, then the calls in flight at that size, by keeping its model busy."""

import dataclasses
from collections.abc import Callable

from sluice.pipelines.compare.bench import Bench
from sluice.pipelines.compare.budget import Budget
from sluice.pipelines.compare.found import Found
from sluice.pipelines.compare.search import Search
from sluice.pipelines.compare.subject import Point

_MAX_BATCH, _MAX_IN_FLIGHT = 32_768, 64
# A measurement takes so much longer than it lasts, because it warms up.
_WITH_WARM_UP = 1.25


class Tuning:
    """The search of one way. Its measurements go to `found.searched`, and what is best so far to `found.best`.

    Args:
      secs: of a measurement.
      share: of the time, after which no measurement begins.
      say: is told what is measured now.
    """

    def __init__(
        self, bench: Bench, budget: Budget, found: Found, secs: float, share: float, say: Callable[[str], None]
    ) -> None:
        self._bench, self._budget, self._found, self._say = bench, budget, found, say
        self._secs, self._share = secs, share
        self._took = _WITH_WARM_UP * secs

    def run(self) -> None:
        """Searches for what the user has not set."""
        found, loaded = self._found, self._found.loaded
        assert loaded is not None
        given = found.best
        if not given.batch:
            search = Search(lambda size: self._rate(self._sized(size)), 1, _MAX_BATCH, self._goes_on)
            found.best = self._sized(search.run(loaded.batch))
        if not given.in_flight:
            search = Search(lambda calls: self._rate(self._flying(calls)), 1, _MAX_IN_FLIGHT, self._goes_on)
            found.best = self._flying(search.run(loaded.in_flight))
        if not found.searched:
            self._rate(found.best)

    def _sized(self, batch: int) -> Point:
        default = self._found.loaded.batch if self._found.loaded else 0
        return dataclasses.replace(self._found.best, batch=0 if batch == default else batch)

    def _flying(self, calls: int) -> Point:
        default = self._found.loaded.in_flight if self._found.loaded else 0
        return dataclasses.replace(self._found.best, in_flight=0 if calls == default else calls)

    def _rate(self, point: Point) -> float:
        self._say(f"{self._found.way.title}: {_text(point)}")
        before = self._budget.spent
        rate = self._bench.throughput(self._found.way, point, self._secs).rows_per_second
        self._took = self._budget.spent - before
        self._found.searched.setdefault(point, []).append(rate)
        return rate

    def _goes_on(self) -> bool:
        return self._budget.fits(self._took, self._share)


def _text(point: Point) -> str:
    batch = f"{point.batch:,} rows a call" if point.batch else "the default batch size"
    return f"{batch}, {point.in_flight} calls in flight" if point.in_flight else batch
