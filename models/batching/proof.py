"""Tells rows at fault from a model at fault: it calls the model with a row that has passed before.

If that row fails now, something around the model is at fault, and no row is blamed.
"""

import threading
from collections.abc import Callable, Sequence

from sluice.models.batching.mini_batch import ModelBack, Outcome, RowFailure, byte_count, pad, slice_feeds
from sluice.models.batching.padding import Padding
from sluice.models.batching.retry import Retry
from sluice.models.errors import BadOutput, Cancelled, ModelLost, Unavailable
from sluice.models.interface import Outputs
from sluice.models.tensors.binding import Feeds

# How often the row is replaced by a newer one: a copy costs as much as a small call.
_RENEW_SECS = 10.0
# A larger row is not kept.
_MOST_BYTES = 8 << 20
# After so many rows that failed, or so long, without one that passed, a stream ends.
_MOST_FAILED = 1000
_MOST_SECS = 60.0


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
        self._failed = 0
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

    def check(self, ask: Callable[[Feeds], Outputs]) -> bool:
        """Whether the model answers the row; False: no row is known. While it fails, this waits.

        Args:
          ask: calls the model.

        Raises:
          ModelBack: it failed, and answers again.
          CallError: it has failed for --max_retry_secs, or cannot be called any more.
        """
        if self._feeds is None:
            return False
        feeds = pad(self._feeds, self._padding.size(1))
        failed = False

        def attempt() -> Outputs:
            nonlocal failed
            try:
                return ask(feeds)
            except BadOutput:
                return Outputs({})
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

    def answers(self, ask: Callable[[Feeds], Outputs]) -> bool:
        """Whether the model answers the row now; it is tried once. True if no row is known."""
        if self._feeds is None:
            return True
        try:
            ask(pad(self._feeds, self._padding.size(1)))
        except (ModelLost, Cancelled):
            raise
        except BadOutput:
            return True
        except Exception:  # noqa: BLE001  whatever the model raises, it does not answer
            return False
        return True

    def note_failures(self, outcomes: Sequence[Outcome]) -> None:
        """Notes the rows that failed while no row had passed, which may be the model's fault."""
        for outcome in outcomes:
            failure = outcome.result
            if isinstance(failure, RowFailure) and not failure.proven:
                self._note_failure(outcome.stop - outcome.start, failure)

    def _note_failure(self, rows: int, failure: RowFailure) -> None:
        with self._lock:
            self._failed += rows
            if self._failing_since is None:
                self._failing_since, self._first_reason = self._clock(), failure.message

    def verdict(self) -> str:
        """Why no more rows should be tried; "" if a row has passed, or few have failed yet."""
        with self._lock:
            if self._passed or self._failing_since is None:
                return ""
            secs = self._clock() - self._failing_since
            if self._failed < _MOST_FAILED and secs < _MOST_SECS:
                return ""
            return f"all {self._failed} rows of the first {secs:.0f} s failed, the first with: {self._first_reason}"
