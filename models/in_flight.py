"""How many calls of a served model are under way at a time: found by trial, as TCP finds its window.

Additive increase, multiplicative decrease: while calls take about as long as they do alone, one more is let go at a
time (doubling until the first setback); when they take longer, they only wait for each other at the server, and the
number is cut. So it is when the server says that it has too much.
"""

import math

# A call may take so many times what it takes alone. Full calls: enough to keep a server's next one waiting at its door.
# Others: less, for with fewer calls under way more rows would go together, which costs the server less a row.
_TOLERANCE = {True: 2.0, False: 1.4}
# Calls that are looked at before the number is changed, at least: a few may be slow by chance, which full calls bear.
_LEAST_CALLS = {True: 4, False: 16}
_CUT_ON_LATENCY = 0.75
_CUT_ON_OVERLOAD = 0.5
# Share that the newest call has in what a call is held to take alone.
_NEWEST = 0.1


class InFlightLimit:
    """The number of calls that may be under way. Holds no lock: the scheduler's guards it.

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
        self._round: list[tuple[int, float]] = []  # calls since the number was last looked at
        self._wanted_more = False
        self._holiday = 0  # calls still to end that began before the last cut: their troubles are known

    @property
    def value(self) -> int:
        """Calls that may be under way now, 1 or more."""
        return int(self._limit)

    def note_wait(self) -> None:
        """Rows wait because this many calls are under way: only then is it worth trying for more."""
        self._wanted_more = True

    def on_answer(self, rows: int, secs: float, alone: bool, full: bool) -> None:
        """A call ended well.

        Args:
          full: whether it had about as many rows as a call may have.
          alone: whether no other call was under way at any time of it.
        """
        if not self._adapt:
            return
        if self._holiday:
            self._holiday -= 1
            return
        size = rows.bit_length()
        if alone:
            self._alone[size] = secs + (1 - _NEWEST) * (self._alone.get(size, secs) - secs)
        self._round.append((size, secs))
        if len(self._round) < max(self.value, _LEAST_CALLS[full]):
            return
        if self._slowness() > _TOLERANCE[full]:
            self._cut(_CUT_ON_LATENCY)
        elif self._wanted_more:
            self._limit = min(self._limit * 2 if self._doubling else self._limit + 1, self._most)
        self._round.clear()
        self._wanted_more = False

    def on_overload(self) -> None:
        """The server could not take a call."""
        if self._adapt and self._holiday:
            self._holiday -= 1
        elif self._adapt:
            self._cut(_CUT_ON_OVERLOAD)

    def _cut(self, share: float) -> None:
        self._holiday = self.value - 1
        self._limit = max(1.0, math.floor(self._limit * share))
        self._doubling = False
        self._round.clear()

    def _slowness(self) -> float:
        """How many times longer the calls of the round took than they take alone."""
        taken = expected = 0.0
        for size in {size for size, _ in self._round}:
            secs = [secs for other, secs in self._round if other == size]
            mean = sum(secs) / len(secs)
            alone = self._expected(size)
            if alone is None or mean < alone:
                alone = self._alone[size] = mean
            taken += sum(secs)
            expected += alone * len(secs)
        return taken / max(expected, 1e-9)

    def _expected(self, size: int) -> float | None:
        """What a call of this size takes alone, as far as calls of it or of another size tell."""
        larger = [other for other in self._alone if other >= size]
        if larger:
            return self._alone[min(larger)]
        smaller = max(self._alone, default=None)
        # It takes no longer than as many of the smaller ones would.
        return None if smaller is None else self._alone[smaller] * 2.0 ** (size - smaller)
