"""Finds how many calls of a served model should be in flight at a time, by trial, as TCP finds its window.

Additive increase, multiplicative decrease: while calls take about as long as they do alone, the limit grows by one (it
doubles until the first cut). When they take longer, they only wait for each other at the server, and the limit is cut.
It is also cut when the server says that it is overloaded, or when most calls do not get through.
"""

import math
import statistics

from sluice.models.errors import CallError, Overloaded, Unavailable

# How many times longer than alone a call may take, by whether it is full. Full calls: enough that the server always has
# a next one waiting. Others: less, because with fewer calls in flight more rows go together, at a lower cost a row.
_TOLERANCE = {True: 2.0, False: 1.4}
# The limit changes after this many calls at least, by whether they are full: a few of the others may be slow by chance.
_LEAST_CALLS = {True: 4, False: 16}
_CUT_ON_LATENCY = 0.75
_CUT_ON_OVERLOAD = 0.5
# Calls that do not get through say nothing about the load, unless they are more than this share of all.
_MANY_FAILURES = 0.5
# The weight of the newest call in the average time of a call alone.
_NEWEST = 0.1


class InFlightLimit:
    """The number of calls that may be in flight. Holds no lock: the scheduler's guards it.

    Exactly one `on_` method must be called at the end of each call. `active` is the number of calls in flight at that
    moment, this one included.

    Args:
      max_calls: the largest limit.
      adapt: False: the limit is always `max_calls`.
    """

    def __init__(self, max_calls: int, adapt: bool) -> None:
        self._max_calls = max_calls
        self._adapt = adapt
        self._limit = 1.0 if adapt else float(max_calls)
        self._doubling = True
        self._alone: dict[int, float] = {}  # by the bit length of the row count: seconds that a call takes alone
        self._round: list[tuple[int, float]] = []  # calls since the limit was last checked: bit length and seconds
        self._failures = 0  # in this round
        self._wanted_more = False
        self._ignored = 0  # calls in flight that began before the last cut: they met the load that caused it

    @property
    def value(self) -> int:
        """The number of calls that may be in flight now, 1 or more."""
        return int(self._limit)

    def note_wait(self) -> None:
        """Notes that rows wait because of the limit: only then is a higher one worth trying."""
        self._wanted_more = True

    def on_answer(self, rows: int, secs: float, alone: bool, full: bool, active: int) -> None:
        """Notes that a call was answered.

        Args:
          full: whether it had about as many rows as a call may have.
          alone: whether no other call was in flight at any time during it.
        """
        if not self._counts():
            return
        size = rows.bit_length()
        if alone:
            self._alone[size] = secs + (1 - _NEWEST) * (self._alone.get(size, secs) - secs)
        self._round.append((size, secs))
        if len(self._round) + self._failures < max(self.value, _LEAST_CALLS[full]):
            return
        if self._failures > _MANY_FAILURES * (len(self._round) + self._failures):
            self._cut(_CUT_ON_OVERLOAD, active)
        elif self._slowness() > _TOLERANCE[full]:
            self._cut(_CUT_ON_LATENCY, active)
        elif self._wanted_more:
            self._limit = min(self._limit * 2 if self._doubling else self._limit + 1, self._max_calls)
        self._start_round()

    def on_overload(self, active: int) -> None:
        """Notes that the server rejected a call because it is overloaded."""
        if self._counts():
            self._cut(_CUT_ON_OVERLOAD, active)

    def on_failure(self, active: int) -> None:
        """Notes that a call did not get through, or was not answered in time."""
        if not self._counts():
            return
        self._failures += 1
        if not self._round and self._failures >= max(self.value, _LEAST_CALLS[True]):
            self._cut(_CUT_ON_OVERLOAD, active)

    def on_refusal(self) -> None:
        """Notes that a call ended with an error that says nothing about the load."""
        self._counts()

    def on_error(self, error: CallError, active: int) -> None:
        """Notes that a call ended with this error."""
        if isinstance(error, Overloaded) and not error.is_unsent:
            self.on_overload(active)
        elif isinstance(error, Unavailable) and not error.is_unsent:
            self.on_failure(active)
        else:  # nothing has met the server, or it has answered
            self.on_refusal()

    def _counts(self) -> bool:
        """Whether the end of this call counts; called once for each call."""
        if self._ignored:
            self._ignored -= 1
            return False
        return self._adapt

    def _cut(self, share: float, active: int) -> None:
        self._ignored = active - 1
        self._limit = max(1.0, math.floor(self._limit * share))
        self._doubling = self.value == 1  # then it rises quickly again: an outage may be over
        self._start_round()

    def _start_round(self) -> None:
        self._round.clear()
        self._failures = 0
        self._wanted_more = False

    def _slowness(self) -> float:
        """How many times longer than alone the calls of the round took. The median: a few calls may linger."""
        for size in {size for size, _ in self._round}:
            median = statistics.median(secs for other, secs in self._round if other == size)
            alone = self._expected(size)
            if alone is None or median < alone:
                self._alone[size] = median
        return statistics.median(secs / max(self._expected(size) or secs, 1e-9) for size, secs in self._round)

    def _expected(self, size: int) -> float | None:
        """The seconds that a call of this size takes alone, derived from other sizes if need be; None: not known."""
        larger = [other for other in self._alone if other >= size]
        if larger:
            return self._alone[min(larger)]
        smaller = max(self._alone, default=None)
        # At most as long as the smaller calls that would do the same work.
        return None if smaller is None else self._alone[smaller] * 2.0 ** (size - smaller)
