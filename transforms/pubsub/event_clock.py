"""How far event time has come, by the messages that came lately."""

import collections


class EventClock:
    """Estimates a watermark: older messages than this are not expected any more.

    The service gives messages roughly, not strictly, in the order in which they were published, and does not tell how
    old the oldest one is that waits. So the watermark is that of the oldest message of the last seconds; once none has
    come for so long, it follows the wall clock at that distance. It never goes back.

    Args:
      slack_secs: how long after younger ones a message may come without being late.
    """

    def __init__(self, slack_secs: float) -> None:
        self._slack_secs = slack_secs
        self._recent: collections.deque[tuple[float, float]] = collections.deque()  # (when seen, oldest), both rising
        self._observed = False
        self._watermark: float | None = None

    def observe(self, oldest: float, now: float) -> None:
        """Notes the oldest event time of some messages; seconds since the epoch, as `now`."""
        while self._recent and self._recent[-1][1] >= oldest:
            self._recent.pop()
        self._recent.append((now, oldest))
        self._observed = True

    def watermark(self, now: float) -> float | None:
        """Returns it in seconds since the epoch; None as long as nothing is known: old messages may wait."""
        if not self._observed:
            return None
        while self._recent and self._recent[0][0] < now - self._slack_secs:
            self._recent.popleft()
        found = self._recent[0][1] if self._recent else now - self._slack_secs
        self._watermark = found if self._watermark is None else max(self._watermark, found)
        return self._watermark
