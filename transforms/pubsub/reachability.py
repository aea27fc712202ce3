"""Whether a subscription can be pulled, as several threads find it; said once each time that it changes."""

import logging
import threading

_LOG = logging.getLogger(__name__)

# So many pulls in a row, whichever threads they were of, mean more than a connection that was broken.
_AWAY_AFTER = 3


class Reachability:
    """Counts pulls that failed in a row. Thread-safe."""

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
            _LOG.warning("%s cannot be pulled, and is tried again: %s", self._name, error)

    def answered(self) -> None:
        with self._lock:
            was_away, self._failures = self.away, 0
        if was_away:
            _LOG.warning("%s can be pulled again", self._name)
