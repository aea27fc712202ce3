"""A subscription in this process, for tests and benchmarks of what reads one."""

import collections
import threading
import time
from collections.abc import Mapping, Sequence

from sluice.transforms.pubsub.subscription import Received, SubscriptionLost

# How long a pull that finds nothing waits, unless it is interrupted.
_EMPTY_SECS = 30.0


class MemorySubscription:
    """A `transforms.pubsub.subscription.Subscription`. Messages given back come again first, as one more delivery.

    Attributes:
      acknowledged, returned: ids, in the order in which they were acknowledged or given back.
      failing: raised by pulls while it is set; `failures` counts them.
      left: the argument of `close`.
    """

    def __init__(self, name: str = "projects/p/subscriptions/memory", a_pull: int = 1000) -> None:
        self.name = name
        self.acknowledged: list[str] = []
        self.returned: list[str] = []
        self.extended: list[str] = []
        self.failing: Exception | None = None
        self.closed = False
        self.left = 0
        self.failures = 0
        self._a_pull = a_pull
        self._lock = threading.Condition()
        self._waiting: collections.deque[Received] = collections.deque()
        self._leased: dict[str, Received] = {}
        self._interrupted = False
        self._published = 0

    def publish(self, payloads: Sequence[bytes], attributes: Mapping[str, str] | None = None) -> list[str]:
        """Adds messages; returns their ids."""
        now = round(time.time() * 1_000_000)
        with self._lock:
            ids = [str(self._published + number) for number in range(len(payloads))]
            self._published += len(payloads)
            self._waiting.extend(
                Received(f"ack-{id_}-1", payload, id_, now, attributes or {}, "", 1)
                for id_, payload in zip(ids, payloads, strict=True)
            )
            self._lock.notify_all()
        return ids

    @property
    def outstanding(self) -> int:
        """How many messages are not acknowledged."""
        with self._lock:
            return len(self._waiting) + len(self._leased)

    def fail(self, error: Exception | None) -> None:
        """Makes pulls raise this error, those that wait included; None: no longer."""
        with self._lock:
            self.failing = error
            self._lock.notify_all()

    def lose(self) -> None:
        """Makes pulls fail as if the subscription had been deleted."""
        self.fail(SubscriptionLost(f"{self.name} is gone"))

    def pull(self, max_messages: int) -> list[Received]:
        with self._lock:
            self._lock.wait_for(lambda: self._waiting or self._interrupted or self.failing, _EMPTY_SECS)
            if self.failing:
                self.failures += 1
                raise self.failing
            count = min(max_messages, self._a_pull, len(self._waiting))
            pulled = [self._waiting.popleft() for _ in range(count)]
            self._leased.update((message.ack_id, message) for message in pulled)
            return pulled

    def acknowledge(self, ack_ids: Sequence[str]) -> None:
        with self._lock:
            self.acknowledged += [self._leased.pop(ack_id).id for ack_id in ack_ids if ack_id in self._leased]

    def extend(self, ack_ids: Sequence[str], secs: int) -> None:
        with self._lock:
            if secs:
                self.extended += ack_ids
                return
            for ack_id in ack_ids:
                if message := self._leased.pop(ack_id, None):
                    attempt = message.delivery_attempt + 1
                    self.returned.append(message.id)
                    again = message._replace(ack_id=f"ack-{message.id}-{attempt}", delivery_attempt=attempt)
                    self._waiting.appendleft(again)
            self._lock.notify_all()

    def interrupt(self) -> None:
        with self._lock:
            self._interrupted = True
            self._lock.notify_all()

    def close(self, left: int = 0) -> None:
        self.closed, self.left = True, left
