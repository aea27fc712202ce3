"""Quantiles of latencies, in little memory however many there are."""

import math

import numpy as np

# Buckets grow by this much: a quantile is right to 2 %.
_GROWTH = 1.04
_LEAST, _MOST = 1e-4, 1e5
_BUCKETS = math.ceil(math.log(_MOST / _LEAST) / math.log(_GROWTH)) + 1


class Histogram:
    """Counts seconds, from 0.1 ms to a day."""

    def __init__(self) -> None:
        self._counts = np.zeros(_BUCKETS, np.int64)

    def add(self, secs: np.ndarray) -> None:
        """Counts values (float [values])."""
        places = np.log(np.clip(secs, _LEAST, _MOST) / _LEAST) / math.log(_GROWTH)
        self._counts += np.bincount(np.round(places).astype(np.int64), minlength=_BUCKETS)

    def merge(self, other: "Histogram") -> None:
        """Adds what another has counted."""
        self._counts += other._counts

    @property
    def total(self) -> int:
        return int(self._counts.sum())

    def quantile(self, share: float) -> float | None:
        """Returns the value that this share of the values does not exceed, in seconds; None if there are none."""
        total = self.total
        if not total:
            return None
        rank = max(1, math.ceil(share * total))
        return float(_LEAST * _GROWTH ** int(np.searchsorted(np.cumsum(self._counts), rank)))
