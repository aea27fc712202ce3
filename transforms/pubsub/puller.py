"""Threads that pull a subscription ahead of its reader, as long as there is room for more."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from google.api_core.retry import exponential_sleep_generator

from sluice.transforms.pubsub.message_buffer import MessageBuffer
from sluice.transforms.pubsub.subscription import MAX_REQUEST_IDS, Received, Subscription, SubscriptionLost

_LOG = logging.getLogger(__name__)

# Between pulls that fail.
_FIRST_PAUSE_SECS, _LAST_PAUSE_SECS = 0.2, 10.0
# This many failures in a row, counted over all threads, mean more than a broken connection.
_AWAY_AFTER = 3


def pull_backoff() -> Iterator[float]:
    """Yields the seconds to wait between pulls that fail in a row."""
    return exponential_sleep_generator(_FIRST_PAUSE_SECS, _LAST_PAUSE_SECS)


class Reachability:
    """Whether a subscription can be pulled, by the pulls that failed in a row; logs each change once. Thread-safe."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._failures = 0

    @property
    def away(self) -> bool:
        return self._failures >= _AWAY_AFTER

    def failed(self, error: Exception) -> None:
        with self._lock:
            self._failures += 1
            becomes_away = self._failures == _AWAY_AFTER
        if becomes_away:
            _LOG.warning("%s cannot be pulled; trying again: %s", self._name, error)

    def answered(self) -> None:
        with self._lock:
            was_away, self._failures = self.away, 0
        if was_away:
            _LOG.warning("%s can be pulled again", self._name)


class Puller:
    """Pulls a subscription into a buffer, on threads of its own, until it is stopped and the buffer is closed.

    Args:
      count: how many pulls may be under way at a time.
      hold: called with the messages of each pull before they enter the buffer, so that they are held from then on.
      stopped: set when pulling is to end; it cuts pauses short.
      backoff: returns the seconds to wait between pulls that fail in a row.

    Attributes:
      lost: why pulling again soon is of no use; None while it is of use.
    """

    def __init__(
        self,
        subscription: Subscription,
        buffer: MessageBuffer,
        count: int,
        hold: Callable[[Sequence[Received]], None],
        stopped: threading.Event,
        backoff: Callable[[], Iterator[float]] = pull_backoff,
    ) -> None:
        self.lost: SubscriptionLost | None = None
        self._subscription = subscription
        self._buffer = buffer
        self._hold = hold
        self._stopped = stopped
        self._backoff = backoff
        self._reachability = Reachability(subscription.name)
        self._lock = threading.Lock()  # guards the turn with `lost`, and the start of the threads
        self._turn = 0
        self._threads = [
            threading.Thread(target=self._pull, name=f"sluice-pull-{number}", daemon=True) for number in range(count)
        ]

    @property
    def reachable(self) -> bool:
        """Whether it pulls, and pulls are answered."""
        return self._threads[0].ident is not None and not self._reachability.away and self.lost is None

    @property
    def away(self) -> bool:
        """Whether several pulls in a row have failed, or the subscription is lost."""
        return self._reachability.away or self.lost is not None

    def start(self) -> None:
        """Starts the threads, unless they have been started or pulling is to end."""
        with self._lock:
            if not self._threads[0].ident and not self._stopped.is_set():
                for thread in self._threads:
                    thread.start()

    def begin_turn(self) -> None:
        """Forgets that the subscription was lost. Pulls that are under way do not count: the cause may be mended."""
        with self._lock:
            self._turn += 1
            self.lost = None

    def join(self, secs: float | None = None) -> None:
        """Waits until the threads have ended, or at most this long."""
        with self._lock:
            running = [thread for thread in self._threads if thread.ident]
        deadline = None if secs is None else time.monotonic() + secs
        for thread in running:
            thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))

    def _pull(self) -> None:
        pauses = self._backoff()
        while reserved := self._buffer.wait_for_room(MAX_REQUEST_IDS):
            turn = self._turn
            try:
                received = self._subscription.pull(reserved)
            except Exception as error:  # noqa: BLE001  the service is away: it is asked again
                self._buffer.add([], reserved)
                self._note_failed(error, turn)
                self._stopped.wait(next(pauses))
                continue
            pauses = self._backoff()
            self._reachability.answered()
            self._hold(received)
            self._buffer.add(received, reserved)

    def _note_failed(self, error: Exception, turn: int) -> None:
        """Notes a failure, unless pulling is to end.

        Args:
          turn: in which the pull began.
        """
        if self._stopped.is_set():
            return
        self._reachability.failed(error)
        with self._lock:
            if isinstance(error, SubscriptionLost) and turn == self._turn:
                self.lost = error
        self._buffer.wake()
