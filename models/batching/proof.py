"""Tells rows at fault from a model at fault: it calls the model with a row that has passed before.

If that row fails now, something around the model is at fault, and no row is blamed.
"""

import threading
from collections.abc import Callable, Iterable

from sluice.models.batching.isolation import ModelBack
from sluice.models.batching.mini_batch import byte_count, pad, slice_feeds
from sluice.models.batching.padding import Padding
from sluice.models.batching.retry import Retry
from sluice.models.errors import BadOutput, Cancelled, ModelLost, Unavailable
from sluice.models.interface import Outputs
from sluice.models.tensors.binding import Feeds

# How often the row is replaced by a newer one: a copy costs as much as a small call.
_RENEW_SECS = 10.0
# A larger row is not kept.
_MOST_BYTES = 8 << 20
# After so many rows that failed, or so long, without one that passed, a stream ends. A few rows alone do not end it,
# however long they are all that comes: they may be bad, and delivered again and again.
_MOST_FAILED, _SOME_FAILED = 1000, 10
_MOST_SECS = 60.0

# Calls the model.
Call = Callable[[Feeds], Outputs]


class Proof:
    """A row that the model has answered, and what failed while there was none. Thread-safe.

    Args:
      first: a request that the model answered when it was loaded; None: there is none.
      clock: seconds, monotonic.
    """

    def __init__(self, first: Feeds | None, retry: Retry, padding: Padding, clock: Callable[[], float]) -> None:
        self._retry, self._padding, self._clock = retry, padding, clock
        self._feeds = None if first is None else slice_feeds(first, 0, 1)
        self._renewed = clock()
        self._passed = first is not None
        self._lock = threading.Lock()  # guards all that follows
        self._failed: set[object] = set()
        self._failing_since: float | None = None
        self._first_reason = ""

    @property
    def passed(self) -> bool:
        """Whether some row has passed."""
        return self._passed

    def note_answer(self, feeds: Feeds) -> None:
        """Notes that the model has answered these rows."""
        self._passed = True
        now = self._clock()
        if self._feeds is not None and now - self._renewed < _RENEW_SECS:
            return
        row = {name: array.copy() for name, array in slice_feeds(feeds, 0, 1).items()}
        if byte_count(row, exact=True) <= _MOST_BYTES:
            self._feeds, self._renewed = row, now

    def answers(self, call: Call, unknown: bool) -> bool:
        """Whether the model answers the row now; it is tried once.

        Args:
          unknown: what is returned if no row is known.

        Raises:
          ModelLost: the model cannot be called any more.
        """
        if self._feeds is None:
            return unknown
        try:
            self._ask(self._feeds, call)
        except (ModelLost, Cancelled):
            raise
        except Exception:  # noqa: BLE001  whatever the model raises, it does not answer
            return False
        return True

    def check(self, call: Call) -> bool:
        """Whether the model answers the row; False: no row is known. While it fails, this waits.

        Raises:
          ModelBack: it failed, and answers again.
          CallError: it has failed for --max_retry_secs, or cannot be called any more.
        """
        if self._feeds is None:
            return False
        feeds = self._feeds
        failed = False

        def attempt() -> Outputs:
            nonlocal failed
            try:
                return self._ask(feeds, call)
            except (ModelLost, Cancelled):
                raise
            except Exception as error:
                failed = True
                text = f"{error}; a row that passed before fails too"
                raise (type(error) if isinstance(error, Unavailable) else Unavailable)(text) from error

        self._retry.run(attempt, 1)
        if failed:
            raise ModelBack
        return True

    def _ask(self, feeds: Feeds, call: Call) -> Outputs:
        """Calls the model with the row; raises what the call raises, unless it is about what was answered."""
        try:
            return call(pad(feeds, self._padding.size(1)))
        except BadOutput:
            return Outputs({})

    def note_failed(self, rows: Iterable[object], reason: str) -> None:
        """Notes rows that failed while no row had passed, which may be the model's fault.

        Args:
          rows: where each came from: one that is delivered again counts once.
          reason: why the first of them failed.
        """
        with self._lock:
            if self._failing_since is None:
                self._failing_since, self._first_reason = self._clock(), reason
            if len(self._failed) < _MOST_FAILED:
                self._failed.update(rows)

    def verdict(self) -> str:
        """Why no more rows should be tried; "" if a row has passed, or few have failed yet."""
        with self._lock:
            if self._passed or self._failing_since is None:
                return ""
            secs, rows = self._clock() - self._failing_since, len(self._failed)
            if rows < _MOST_FAILED and (secs < _MOST_SECS or rows < _SOME_FAILED):
                return ""
            return f"all {rows} rows of the first {secs:.0f} s failed, the first with: {self._first_reason}"
