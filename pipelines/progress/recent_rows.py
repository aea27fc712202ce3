"""How many rows were scored and how many failed, of late: whether most of them fail."""

import collections
from collections.abc import Mapping

from sluice.pipelines.progress.summary import failures_by_stage
from sluice.transforms.core import metrics
from sluice.transforms.core.failures import ENCODE, WRITE

# The rows of so many seconds tell, or the last ones, if they are fewer than this.
_SECS = 60
_LEAST_ROWS = 20


class RecentRows:
    """Rows that had an outcome in the last minute, or the last 20. For one thread at a time.

    Args:
      second: from which time counts.

    Attributes:
      second: of the last look.
    """

    def __init__(self, second: int) -> None:
        self.second = second
        self._good = self._failed = 0  # by the last look
        self._looks = collections.deque([(second, 0, 0)])  # the first is where the time begins that counts

    def look(self, second: int, tally: Mapping[str, int]) -> None:
        """Notes the rows that have had an outcome so far. A look a second is enough.

        Args:
          tally: see transforms.core.metrics.tally.
        """
        self.second = second
        self._good, self._failed = _outcomes(tally)
        if second != self._looks[-1][0] and (self._good, self._failed) != self._looks[-1][1:]:  # else nothing has come
            self._looks.append((second, self._good, self._failed))
        while len(self._looks) > 1 and self._is_enough_since(*self._looks[1]):
            self._looks.popleft()

    @property
    def counts(self) -> tuple[int, int]:
        """How many rows had an outcome, and how many of them failed."""
        _, good, failed = self._looks[0]
        return max(0, self._good - good) + self._failed - failed, self._failed - failed

    def _is_enough_since(self, second: int, good: int, failed: int) -> bool:
        return second <= self.second - _SECS and self._good - good + self._failed - failed >= _LEAST_ROWS


def _outcomes(tally: Mapping[str, int]) -> tuple[int, int]:
    """Returns how many rows have got through, and how many failed: what an output refuses was predicted before."""
    failures = failures_by_stage(tally)
    late = sum(sum(failures.get(stage, {}).values()) for stage in (ENCODE, WRITE))
    return max(0, tally.get(metrics.ROWS_PREDICTED, 0) - late), tally.get(metrics.ROWS_FAILED, 0)
