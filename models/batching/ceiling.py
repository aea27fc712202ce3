"""The most rows and bytes of a call: what the options allow, or less where the model was found to take less."""

import logging

from sluice.models.batching.mini_batch import byte_count, row_count
from sluice.models.errors import BatchTooLarge, MessageTooLarge
from sluice.models.tensors.binding import Feeds
from sluice.models.wording import log_text

_LOG = logging.getLogger(__name__)

# This many full calls must pass before the ceiling is doubled; after each doubling, twice as many.
_FIRST_PATIENCE = 100
_LAST_PATIENCE = 6400


class Ceiling:
    """The most rows and bytes of one call.

    A call that was too large once may pass later (others have freed memory, the server was changed), so a larger one is
    tried from time to time. Holds no lock: the scheduler's guards it.

    Args:
      rows, size: the most rows and bytes that the options allow.
      private: the log tells of errors only what quotes no row.
    """

    def __init__(self, rows: int, size: int, private: bool = False) -> None:
        self._private = private
        self._most_rows, self._most_bytes = rows, float(size)
        self.rows, self.bytes = rows, float(size)
        self._passed = 0
        self._patience = _FIRST_PATIENCE

    @property
    def lowered(self) -> bool:
        """Whether the ceiling is below what the options allow."""
        return self.rows < self._most_rows or self.bytes < self._most_bytes

    def lower(self, error: BatchTooLarge, passes: Feeds) -> None:
        """Notes that a call was too large, and that one with the rows `passes` is not."""
        rows, size = row_count(passes), float(byte_count(passes, exact=True))
        if isinstance(error, MessageTooLarge):
            if size >= self.bytes:
                return
            self.bytes = max(1.0, size)
            _LOG.warning("Calls are cut to %d bytes of tensors: %s", size, log_text(error, self._private))
        else:
            if rows >= self.rows:
                return
            self.rows = rows
            _LOG.warning("Calls are cut to %d rows: %s", rows, log_text(error, self._private))
        self._passed = 0

    def on_answer(self, rows: int, size: float) -> None:
        """Notes that a call of `rows` rows and `size` bytes was answered."""
        if not self.lowered or (rows < self.rows and 2 * size < self.bytes):
            return
        self._passed += 1
        if self._passed >= self._patience:
            self.rows, self.bytes = min(2 * self.rows, self._most_rows), min(2 * self.bytes, self._most_bytes)
            self._passed, self._patience = 0, min(2 * self._patience, _LAST_PATIENCE)
