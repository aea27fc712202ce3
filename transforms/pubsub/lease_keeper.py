"""The leases of the messages that a process holds, extended until the messages are acknowledged or given back."""

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence

from google.api_core.retry import exponential_sleep_generator

from sluice.transforms.pubsub.subscription import Subscription, in_requests

_LOG = logging.getLogger(__name__)

# How long a message that was just pulled is held: no subscription has a shorter deadline.
_FIRST_LEASE_SECS = 10.0
# How often leases are checked, and how long before its end a lease is extended.
_TICK_SECS = 2.0
_MARGIN_SECS = 6.0
# How often a request is tried. After that its messages come again.
_ATTEMPTS = 5
_FIRST_PAUSE_SECS, _LAST_PAUSE_SECS = 0.2, 1.6
_ACKNOWLEDGED = "acknowledged"


def request_backoff() -> Iterator[float]:
    """Yields the seconds to wait between attempts at one request."""
    return exponential_sleep_generator(_FIRST_PAUSE_SECS, _LAST_PAUSE_SECS)


class LeaseKeeper:
    """Holds messages of a subscription. A thread of its own sends acknowledgements.

    Args:
      lease_secs: how long messages are held at a time; after this long, those of a killed process come again.
      clock: seconds, monotonic.
      backoff: returns the seconds to wait between attempts at one request.

    Attributes:
      extensions_failed: messages whose lease could not be extended at a try, each as often as it was tried in vain.
      acknowledgements_failed: messages that were done and could not be acknowledged.
    """

    def __init__(
        self,
        subscription: Subscription,
        lease_secs: int,
        clock: Callable[[], float],
        backoff: Callable[[], Iterator[float]] = request_backoff,
    ) -> None:
        self._subscription = subscription
        self._lease_secs = lease_secs
        self._clock = clock
        self._backoff = backoff
        self.extensions_failed = self.acknowledgements_failed = 0  # messages
        self._closed = threading.Event()
        self._lock = threading.Lock()  # guards all that follows
        self._to_send = threading.Condition(self._lock)
        self._expiries: dict[str, float] = {}
        self._done: list[str] = []
        self._threads = [
            threading.Thread(target=target, name=f"sluice-{name}", daemon=True)
            for name, target in (("leases", self._extend_in_time), ("acks", self._send_done))
        ]
        for thread in self._threads:
            thread.start()

    def __len__(self) -> int:
        return len(self._expiries)

    def hold(self, ack_ids: Iterable[str]) -> None:
        """Holds messages that were just pulled."""
        expiry = self._clock() + _FIRST_LEASE_SECS
        with self._lock:
            self._expiries.update(dict.fromkeys(ack_ids, expiry))

    def acknowledge(self, ack_ids: Sequence[str]) -> None:
        """Queues these to be acknowledged soon. They are held until that is sent."""
        with self._lock:
            self._done += ack_ids
            self._to_send.notify()

    def give_back(self, ack_ids: Sequence[str]) -> None:
        """Makes the service deliver these again, to whoever pulls."""
        self._forget(ack_ids)
        self._send(ack_ids, lambda ids: self._subscription.extend(ids, 0), "given back")

    def extend_due(self) -> None:
        """Extends the leases that end soon."""
        limit = self._clock() + _MARGIN_SECS
        with self._lock:
            due = [ack_id for ack_id, expiry in self._expiries.items() if expiry <= limit]
        for request in in_requests(due):
            with self._lock:  # some may have been acknowledged or given back while earlier requests were sent
                ids = [ack_id for ack_id in request if ack_id in self._expiries]
            if not ids:
                continue
            try:
                self._subscription.extend(ids, self._lease_secs)
            except Exception as error:  # noqa: BLE001  they are tried again at the next tick
                self.extensions_failed += len(ids)
                _LOG.warning("%s: %d leases were not extended: %s", self._subscription.name, len(ids), error)
                continue
            expiry = self._clock() + self._lease_secs
            with self._lock:
                self._expiries.update((ack_id, expiry) for ack_id in ids if ack_id in self._expiries)

    def close(self) -> None:
        """Sends the acknowledgements that are left, and ends the threads."""
        self._closed.set()
        with self._lock:
            self._to_send.notify_all()
        for thread in self._threads:
            thread.join()

    def _forget(self, ack_ids: Iterable[str]) -> None:
        with self._lock:
            for ack_id in ack_ids:
                self._expiries.pop(ack_id, None)

    def _extend_in_time(self) -> None:
        while not self._closed.wait(_TICK_SECS):
            self.extend_due()

    def _send_done(self) -> None:
        while True:
            with self._lock:
                self._to_send.wait_for(lambda: self._done or self._closed.is_set())
                ids, self._done = self._done, []
            if not ids:
                return
            self._send(ids, self._subscription.acknowledge, _ACKNOWLEDGED)
            self._forget(ids)

    def _send(self, ack_ids: Sequence[str], send: Callable[[Sequence[str]], None], what: str) -> None:
        for ids in in_requests(ack_ids):
            pauses = self._backoff()
            for attempt in range(1, _ATTEMPTS + 1):
                try:
                    send(ids)
                    break
                except Exception as error:  # noqa: BLE001  at worst its messages come again
                    if attempt == _ATTEMPTS:
                        self.acknowledgements_failed += len(ids) if what == _ACKNOWLEDGED else 0
                        _LOG.warning("%d messages could not be %s, and come again: %s", len(ids), what, error)
                    else:
                        self._closed.wait(next(pauses))
