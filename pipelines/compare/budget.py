"""The time that a comparison may take, and how it is shared out."""

import time
from collections.abc import Callable

# A measurement under way may go on for so much of the whole after the end.
GRACE_SHARE = 0.08


class Budget:
    """So many minutes, from now on.

    Args:
      clock: seconds, monotonic.
    """

    def __init__(self, minutes: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.secs = 60 * minutes
        self._clock = clock
        self._started = clock()

    @property
    def spent(self) -> float:
        return self._clock() - self._started

    def left(self, share: float = 1.0) -> float:
        """Returns the seconds until a share of all is spent; negative after that."""
        return share * self.secs - self.spent

    def fits(self, secs: float, share: float = 1.0) -> bool:
        """Whether something that takes so long ends, at the latest, a little after a share of all is spent."""
        return secs <= self.left(share) + GRACE_SHARE * self.secs / 2 and self.left(share) > 0

    @property
    def limit(self) -> float:
        """The seconds after which whatever runs now is broken off."""
        return max(0.0, self.left() + GRACE_SHARE * self.secs)
