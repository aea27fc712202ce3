"""Latencies, counted in buckets."""

import math
from collections.abc import Sequence

import numpy as np

# Latencies are counted in buckets that grow by this factor: a quantile is exact to 2 %.
_GROWTH = 1.04
_LEAST, _MOST = 1e-4, 1e5
_BUCKETS = math.ceil(math.log(_MOST / _LEAST) / math.log(_GROWTH)) + 1


class Histogram:
    """Quantiles of latencies, from 0.1 ms to a day, in constant memory."""

    def __init__(self) -> None:
        self.sum = 0.0
        self._counts = np.zeros(_BUCKETS, np.int64)

    def add(self, secs: np.ndarray) -> None:
        """Counts values (float [values])."""
        self.sum += float(secs.clip(0).sum())  # a clock behind the service's makes some negative
        buckets = np.log(np.clip(secs, _LEAST, _MOST) / _LEAST) / math.log(_GROWTH)
        self._counts += np.bincount(np.round(buckets).astype(np.int64), minlength=_BUCKETS)

    def merge(self, other: "Histogram") -> None:
        """Adds another histogram's counts."""
        self.sum += other.sum
        self._counts += other._counts

    @property
    def total(self) -> int:
        return int(self._counts.sum())

    def up_to(self, secs: Sequence[float]) -> list[int]:
        """Returns, for each of these seconds, how many values do not exceed it, exact to 2 %."""
        # A bucket reaches half of its width beyond the value that it stands for.
        places = np.round(np.log(np.array(secs) / _LEAST) / math.log(_GROWTH) - 0.5).astype(np.int64)
        return [int(count) for count in np.cumsum(self._counts)[places]]

    def quantile(self, share: float) -> float | None:
        """Returns the seconds that this share of the values does not exceed; None without values."""
        total = self.total
        if not total:
            return None
        rank = max(1, math.ceil(share * total))
        return float(_LEAST * _GROWTH ** int(np.searchsorted(np.cumsum(self._counts), rank)))
