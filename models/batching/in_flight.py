"""How many calls of a served model are under way at a time: found by trial, as TCP finds its window.

Additive increase, multiplicative decrease: while calls take about as long as they do alone, one more is let go at a
time (doubling until the first setback); when they take longer, they only wait for each other at the server, and the
number is cut. So it is when the server says that it has too much, or when most calls do not get through to it.
"""

import math
import statistics

# A call may take so many times what it takes alone. Full calls: enough to keep a server's next one waiting at its door.
# Others: less, for with fewer calls under way more rows would go together, which costs the server less a row.
_TOLERANCE = {True: 2.0, False: 1.4}
# Calls that are looked at before the number is changed, at least: a few may be slow by chance, which full calls bear.
_LEAST_CALLS = {True: 4, False: 16}
_CUT_ON_LATENCY = 0.75
_CUT_ON_OVERLOAD = 0.5
# Calls that fail for other reasons say nothing of the load, unless they are more than this share of all.
_MANY_FAILURES = 0.5
# Share that the newest call has in what a call is held to take alone.
_NEWEST = 0.1


class InFlightLimit:
    """The number of calls that may be under way. Holds no lock: the scheduler's guards it.

    Each end of a call is told of once; `active` is how many calls are under way at that moment, itself included.

    Args:
      most: never more than this many.
      adapt: False: always `most`.
    """

    def __init__(self, most: int, adapt: bool) -> None:
        self._most = most
        self._adapt = adapt
        self._limit = 1.0 if adapt else float(most)
        self._doubling = True
        self._alone: dict[int, float] = {}  # by the bit length of the row count: seconds that a call takes alone
        self._round: list[tuple[int, float]] = []  # calls since the number was last looked at: size and seconds
        self._failures = 0  # in this round
        self._wanted_more = False
        self._holiday = 0  # calls still to end that began before the last cut: their troubles are known

    @property
    def value(self) -> int:
        """Calls that may be under way now, 1 or more."""
        return int(self._limit)

    def note_wait(self) -> None:
        """Rows wait because this many calls are under way: only then is it worth trying for more."""
        self._wanted_more = True

    def on_answer(self, rows: int, secs: float, alone: bool, full: bool, active: int) -> None:
        """A call ended well.

        Args:
          full: whether it had about as many rows as a call may have.
          alone: whether no other call was under way at any time of it.
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
            self._limit = min(self._limit * 2 if self._doubling else self._limit + 1, self._most)
        self._start_round()

    def on_overload(self, active: int) -> None:
        """The server could not take a call."""
        if self._counts():
            self._cut(_CUT_ON_OVERLOAD, active)

    def on_failure(self, active: int) -> None:
        """A call did not get through, or was not answered in time."""
        if not self._counts():
            return
        self._failures += 1
        if not self._round and self._failures >= max(self.value, _LEAST_CALLS[True]):
            self._cut(_CUT_ON_OVERLOAD, active)

    def on_refusal(self) -> None:
        """A call ended with an answer that says nothing of the load."""
        self._counts()

    def _counts(self) -> bool:
        """Whether the end of this call is to be looked at."""
        if self._holiday:
            self._holiday -= 1
            return False
        return self._adapt

    def _cut(self, share: float, active: int) -> None:
        self._holiday = active - 1
        self._limit = max(1.0, math.floor(self._limit * share))
        self._doubling = self.value == 1  # from there up it is quick again: an outage may be over
        self._start_round()

    def _start_round(self) -> None:
        self._round.clear()
        self._failures = 0
        self._wanted_more = False

    def _slowness(self) -> float:
        """How many times longer the calls of the round took than they take alone, in the middle: a few may linger."""
        for size in {size for size, _ in self._round}:
            middle = statistics.median(secs for other, secs in self._round if other == size)
            alone = self._expected(size)
            if alone is None or middle < alone:
                self._alone[size] = middle
        return statistics.median(secs / max(self._expected(size) or secs, 1e-9) for size, secs in self._round)

    def _expected(self, size: int) -> float | None:
        """What a call of this size takes alone, as far as calls of it or of another size tell."""
        larger = [other for other in self._alone if other >= size]
        if larger:
            return self._alone[min(larger)]
        smaller = max(self._alone, default=None)
        # It takes no longer than as many of the smaller ones would.
        return None if smaller is None else self._alone[smaller] * 2.0 ** (size - smaller)
