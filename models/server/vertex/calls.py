"""What was asked of the service, for the assertions of tests."""

import dataclasses
import threading
from collections import Counter


@dataclasses.dataclass(frozen=True)
class Call:
    """One call.

    Attributes:
      method: one of server.ROUTES; empty if there is no such method.
      path: with its query, as it was sent.
      status: HTTP's.
      received, sent: the bytes of the bodies, unpacked.
      authorization: the header; empty if there was none.
    """

    method: str
    path: str
    status: int
    received: int
    sent: int
    authorization: str


class Calls:
    """All calls so far, in the order in which they were answered. Thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._calls: list[Call] = []

    def add(self, call: Call) -> None:
        with self._changed:
            self._calls.append(call)
            self._changed.notify_all()

    def all(self, method: str = "") -> list[Call]:
        """Returns the calls of a method; empty: all calls."""
        with self._changed:
            return [call for call in self._calls if method in ("", call.method)]

    def count(self, method: str = "", status: int = 0) -> int:
        """Counts the calls of a method that were answered with this status; 0: with any."""
        return sum(status in (0, call.status) for call in self.all(method))

    def statuses(self, method: str = "") -> Counter[int]:
        """Counts the calls of a method by their status."""
        return Counter(call.status for call in self.all(method))

    def wait(self, count: int, method: str = "", timeout_secs: float = 120.0) -> bool:
        """Waits until so many calls of a method have been answered; returns whether they were in time."""
        with self._changed:
            return self._changed.wait_for(
                lambda: sum(method in ("", call.method) for call in self._calls) >= count, timeout_secs
            )

    def clear(self) -> None:
        """Forgets them all."""
        with self._changed:
            self._calls.clear()
