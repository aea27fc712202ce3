"""Limits the bytes in work: a request that does not fit waits, first come, first served."""

import collections
import threading
from collections.abc import Callable

# How often `on_wait` is called.
_ON_WAIT_SECS = 1.0


class ByteBudget:
    """A number of bytes that requests share. Call its methods with the lock held.

    Args:
      max_bytes: the most bytes in work; a larger request goes alone.
      lock: the scheduler's.
    """

    def __init__(self, max_bytes: int, lock: threading.Lock) -> None:
        self._max_bytes = max_bytes
        self.used = 0
        self._changed = threading.Condition(lock)
        self._queue: collections.deque[object] = collections.deque()

    def acquire(self, size: int, on_wait: Callable[[], None], check_open: Callable[[], None]) -> None:
        """Waits until `size` bytes are free, and takes them.

        Args:
          on_wait: called now and then while it waits.
          check_open: raises if waiting has become pointless.
        """
        turn = object()
        self._queue.append(turn)  # small requests must not overtake a large one, or it would wait forever
        try:
            while self._queue[0] is not turn or (self.used and self.used + size > self._max_bytes):
                check_open()
                if not self._changed.wait(_ON_WAIT_SECS):
                    on_wait()
            check_open()
            self.used += size
        finally:
            self._queue.remove(turn)
            self.wake()

    def release(self, size: int) -> None:
        """Returns `size` bytes."""
        self.used -= size
        self.wake()

    def wake(self) -> None:
        """Makes requests that wait check again."""
        if self._queue:
            self._changed.notify_all()
