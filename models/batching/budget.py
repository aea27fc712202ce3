"""How many bytes may be in work: whoever brings more waits, first come, first served."""

import collections
import threading
from collections.abc import Callable

# How often one who waits is told so.
_TELL_SECS = 1.0


class ByteBudget:
    """A number of bytes. Its methods are called with the lock held.

    Args:
      most: bytes in work at most; a request that has more goes alone.
      lock: the scheduler's.
    """

    def __init__(self, most: int, lock: threading.Lock) -> None:
        self._most = most
        self.used = 0
        self._room_comes = threading.Condition(lock)
        self._line: collections.deque[object] = collections.deque()

    def take(self, size: int, on_wait: Callable[[], None], check_open: Callable[[], None]) -> None:
        """Waits until there is room, and takes it.

        Args:
          on_wait: called now and then while it waits.
          check_open: raises where there is nothing to wait for any more.
        """
        place = object()
        self._line.append(place)  # nobody passes a large request, or it would wait for ever
        try:
            while self._line[0] is not place or (self.used and self.used + size > self._most):
                check_open()
                if not self._room_comes.wait(_TELL_SECS):
                    on_wait()
            check_open()
            self.used += size
        finally:
            self._line.remove(place)
            self.wake()

    def give_back(self, size: int) -> None:
        """Gives room back."""
        self.used -= size
        self.wake()

    def wake(self) -> None:
        """Has those who wait look again."""
        if self._line:
            self._room_comes.notify_all()
