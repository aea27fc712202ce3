"""A buffer of messages that were pulled ahead and wait to be handed out in bundles."""

import collections
import dataclasses
import threading
from collections.abc import Callable, Sequence

from sluice.transforms.pubsub.poison_guard import PoisonGuard, is_suspect, most_in_bundle
from sluice.transforms.pubsub.subscription import Received


@dataclasses.dataclass(frozen=True)
class BundleOptions:
    """How messages are gathered into bundles.

    Attributes:
      max_messages, max_bytes: of one bundle.
      gather_secs: how long after its first message a bundle waits for more.
      interval_secs: between the beginnings of two bundles, unless one is full: a bundle costs the runner some 3 ms.
      idle_secs: after this long without messages `take` returns none, so that the runner can go on.
      buffer_messages, buffer_bytes: how much is pulled ahead.
    """

    max_messages: int = 4000
    max_bytes: int = 16 << 20
    gather_secs: float = 0.0
    interval_secs: float = 0.02
    idle_secs: float = 0.5
    buffer_messages: int = 12_000
    buffer_bytes: int = 64 << 20


class MessageBuffer:
    """A queue between the threads that pull and the thread that takes bundles.

    Args:
      clock: seconds, monotonic.
    """

    def __init__(self, options: BundleOptions, clock: Callable[[], float]) -> None:
        self._options = options
        self._clock = clock
        self._closed = self._held_back = False
        # Guards all that follows. A signal's handler may close the buffer while its thread has the lock.
        self._lock = threading.RLock()
        self._arrived = threading.Condition(self._lock)
        self._room = threading.Condition(self._lock)
        self._messages: collections.deque[Received] = collections.deque()
        self._bytes = 0
        self._guard = PoisonGuard(options.buffer_messages)
        self._reserved = 0  # room set aside for pulls that are under way
        self._suspects = 0  # among the messages that wait
        self._first_arrived = 0.0  # the first of the messages that wait
        self._began: float | None = None  # the last bundle

    def __len__(self) -> int:
        return len(self._messages)

    def waiting(self) -> list[Received]:
        """Returns the messages that wait."""
        with self._lock:
            return list(self._messages)

    def add(self, messages: Sequence[Received], reserved: int = 0) -> None:
        """Appends the messages of a pull.

        Args:
          reserved: the room that `wait_for_room` set aside for the pull.
        """
        with self._lock:
            self._reserved -= reserved
            self._guard.note(messages)
            self._room.notify_all()
            if messages and not self._messages:
                self._first_arrived = self._clock()
            self._messages.extend(messages)
            self._suspects += sum(is_suspect(message) for message in messages)
            self._bytes += sum(len(message.payload) for message in messages)
            self._arrived.notify_all()

    def wait_for_room(self, most: int = 1) -> int:
        """Waits until more may be pulled, and sets room aside; returns for how many messages, 0 once it is closed."""
        with self._lock:
            self._room.wait_for(lambda: self._closed or self._has_room())
            if self._closed:
                return 0
            reserved = min(most, self._room_left())
            self._reserved += reserved
            return reserved

    def take(self, stop: Callable[[], bool]) -> list[Received]:
        """Waits until a bundle is due, and takes it; [] after `idle_secs` without one, or once `stop()` is true."""
        with self._lock:
            idle_until = self._clock() + self._options.idle_secs
            while not (stop() or self._closed):
                now = self._clock()
                due = idle_until if not self._messages else self._due()
                if now >= due:
                    return self._take(now)
                self._arrived.wait(due - now)
            return []

    def wake(self) -> None:
        """Makes `take` call its `stop` again."""
        with self._lock:
            self._arrived.notify_all()

    def hold_back(self, held: bool) -> None:
        """Has pulls wait, or no longer."""
        with self._lock:
            self._held_back = held
            self._room.notify_all()

    def close(self) -> None:
        """Ends pulling and handing out."""
        with self._lock:
            self._closed = True
            self._arrived.notify_all()
            self._room.notify_all()

    def clear(self) -> list[Received]:
        """Removes and returns all messages that wait."""
        with self._lock:
            left = list(self._messages)
            self._messages.clear()
            self._bytes = self._suspects = 0
            return left

    def _due(self) -> float:
        if self._suspects or self._is_full() or self._holds(self._options.max_messages, self._options.max_bytes):
            return 0.0
        gathered = self._first_arrived + self._options.gather_secs
        return gathered if self._began is None else max(gathered, self._began + self._options.interval_secs)

    def _has_room(self) -> bool:
        return not self._held_back and self._room_left() > 0 and not self._is_full()

    def _room_left(self) -> int:
        unknown = self._guard.value - self._suspects
        return min(unknown, self._options.buffer_messages - len(self._messages)) - self._reserved

    def _is_full(self) -> bool:
        return self._holds(self._options.buffer_messages, self._options.buffer_bytes)

    def _holds(self, messages: int, size: int) -> bool:
        return len(self._messages) >= messages or self._bytes >= size

    def _take(self, now: float) -> list[Received]:
        taken: list[Received] = []
        size, most = 0, self._options.max_messages
        while self._messages:
            most = most_in_bundle(self._messages[0], most)
            size += len(self._messages[0].payload)
            if taken and (len(taken) >= most or size > self._options.max_bytes):
                break
            message = self._messages.popleft()
            self._bytes -= len(message.payload)
            self._suspects -= is_suspect(message)
            taken.append(message)
        if taken:
            self._began = self._first_arrived = now
            self._room.notify_all()
        return taken
