"""Searches for the batch size, or the number of calls in flight, that gives the most rows a second."""

import statistics
from collections.abc import Callable, Sequence

# What is better by less than this may be noise, and is not worth another setting.
MARGIN = 0.05
# How often the last candidates are measured.
_CONFIRMED = 3


class Search:
    """The highest point of a curve that rises, then falls, measured with noise.

    It climbs from a start in steps of a factor of 4, looks at the neighbours of the best point at a factor of 2, and
    measures again what is near the best. Equal to within `MARGIN`, the start is kept; without it, the least.

    Args:
      measure: returns the rows a second at a point.
      least, most: the points that are allowed.
      goes_on: whether there is time for another measurement.

    Attributes:
      points: what was measured, by point.
    """

    def __init__(
        self,
        measure: Callable[[int], float],
        least: int,
        most: int,
        goes_on: Callable[[], bool] = lambda: True,
    ) -> None:
        self._measure, self._least, self._most, self._goes_on = measure, least, most, goes_on
        self.points: dict[int, list[float]] = {}

    def run(self, start: int) -> int:
        """Returns the best point; the start, if there is no time for any other."""
        self._try(start)
        if not self._climb(start, 4.0):
            self._climb(start, 0.25)
        for factor in (2.0, 0.5):
            self._try(self._step(self._best(), factor))
        for _ in range(_CONFIRMED - 1):
            for point in self._near():
                self._try(point, again=True)
        near = self._near()
        return start if start in near or not near else min(near)

    def _climb(self, start: int, factor: float) -> bool:
        """Goes on from a point while it gets better; returns whether it did."""
        at = start
        while True:
            following = self._step(at, factor)
            if following == at or not self._try(following):
                break
            # Downwards, what is as good is gone to as well: it may get better from there.
            wanted = 1 + MARGIN if factor > 1 else 1 - MARGIN
            if self._value(following) < wanted * self._value(at):
                break
            at = following
        return at != start

    def _try(self, point: int, again: bool = False) -> bool:
        """Measures a point unless it is known; returns whether it is known now."""
        if again or point not in self.points:
            if self.points and not self._goes_on():
                return point in self.points
            self.points.setdefault(point, []).append(self._measure(point))
        return True

    def _step(self, point: int, factor: float) -> int:
        return int(min(self._most, max(self._least, point * factor)))

    def _value(self, point: int) -> float:
        return statistics.median(self.points[point])

    def _best(self) -> int:
        return max(self.points, key=self._value)

    def _near(self) -> Sequence[int]:
        """Returns the points that the best one is not clearly better than."""
        top = self._value(self._best())
        return sorted(point for point in self.points if self._value(point) >= (1 - MARGIN) * top)
