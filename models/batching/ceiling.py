"""How many rows and bytes a call may have: what was asked for, or what the model was found to bear."""

import logging

from sluice.models.batching.mini_batch import byte_count, row_count
from sluice.models.errors import BatchTooLarge, MessageTooLarge
from sluice.models.tensors.binding import Feeds

_LOG = logging.getLogger(__name__)

# So many full calls must pass before twice as much is tried again; after a trial that failed, twice as many.
_FIRST_PATIENCE = 100
_LAST_PATIENCE = 6400


class Ceiling:
    """The most rows and bytes of one call. What was too much once may pass later (memory that others had, a server that
    was changed), so more is tried from time to time. Holds no lock: the scheduler's guards it.

    Args:
      rows, size: what was asked for.
    """

    def __init__(self, rows: int, size: int) -> None:
        self._most_rows, self._most_bytes = rows, float(size)
        self.rows, self.bytes = rows, float(size)
        self._passed = 0
        self._patience = _FIRST_PATIENCE

    @property
    def lowered(self) -> bool:
        """Whether it is below what was asked for."""
        return self.rows < self._most_rows or self.bytes < self._most_bytes

    def lower(self, error: BatchTooLarge, passes: Feeds) -> None:
        """A call was too large; one with these rows is not."""
        rows, size = row_count(passes), float(byte_count(passes, exact=True))
        if isinstance(error, MessageTooLarge):
            if size >= self.bytes:
                return
            self.bytes = max(1.0, size)
            _LOG.warning("Calls are cut to %d bytes of tensors: %s", size, error)
        else:
            if rows >= self.rows:
                return
            self.rows = rows
            _LOG.warning("Calls are cut to %d rows: %s", rows, error)
        self._passed = 0

    def on_answer(self, rows: int, size: float) -> None:
        """A call of so many rows and bytes was answered."""
        if not self.lowered or (rows < self.rows and 2 * size < self.bytes):
            return
        self._passed += 1
        if self._passed >= self._patience:
            self.rows, self.bytes = min(2 * self.rows, self._most_rows), min(2 * self.bytes, self._most_bytes)
            self._passed, self._patience = 0, min(2 * self._patience, _LAST_PATIENCE)
