"""The blocks of a histogram, from a sketch: a few of equal width, or one for each value where they are few."""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from sluice.transforms.core.observed_file import LEAST_PRIVATE
from sluice.transforms.core.sketch import Bin, Sketch

_BLOCKS = 32
# A scale is logarithmic where the largest values are so many times the usual one.
_WIDE_RANGE = 200.0
# A linear scale leaves out the outermost values where they would take most of its width.
_OUTER_SHARE = 0.005
_FAR = 4.0
# A block of one value is drawn if it is at least this share of the chart's width.
_LEAST_WIDTH = 1 / 150


@dataclasses.dataclass(frozen=True)
class Blocks:
    """What a histogram shows.

    Attributes:
      blocks: (from, to, values), in rising order.
      log: for a logarithmic scale.
      left_out: values that no block stands for.
    """

    blocks: tuple[tuple[float, float, int], ...]
    log: bool
    left_out: int


def blocks_of(sketch: Sketch, private: bool) -> Blocks:
    """Returns the blocks of a sketch.

    Args:
      private: no block stands for fewer than LEAST_PRIVATE rows, and where blocks lie no value of fewer tells.
    """
    least = LEAST_PRIVATE * sketch.width if private else 1
    bins = [each for each in sketch.bins(whole=private) if each.count >= least]
    if not bins:
        return Blocks((), False, sketch.count)
    values = {value: count for value, count in (sketch.values or {}).items() if count >= least}
    blocks, log = _single_values(values), False
    if not blocks:
        log = bins[0].low >= -Sketch.ZERO and bins[-1].high > _WIDE_RANGE * _usual(sketch, bins)
        blocks = _spread(bins, _log_edges(bins) if log else _even_edges(sketch, bins))
    kept = tuple(block for block in blocks if block[2] >= least)
    return Blocks(kept, log, sketch.count - sum(count for _, _, count in kept))


def _usual(sketch: Sketch, bins: Sequence[Bin]) -> float:
    """Returns the median of the values that are not zero."""
    zeros = sum(each.count for each in bins if each.low <= 0 <= each.high)
    return max(sketch.quantile(0.5 + zeros / max(1, 2 * sketch.count)) or 0.0, Sketch.ZERO)


def _single_values(values: Mapping[float, int]) -> list[tuple[float, float, int]]:
    """Returns a block for each value; none if there are no values, or some lie too close together to be seen."""
    if not values:
        return []
    gaps = [after - before for before, after in itertools.pairwise(values)]
    gap = min(gaps, default=1.0)
    if gap < _LEAST_WIDTH * sum(gaps):
        return []
    return [(value - 0.4 * gap, value + 0.4 * gap, count) for value, count in values.items()]


def _even_edges(sketch: Sketch, bins: Sequence[Bin]) -> np.ndarray:
    """Returns edges that are equally far from each other, between ends of bins."""
    low, high = bins[0].low, bins[-1].high
    below, above = sketch.bin_at(_OUTER_SHARE), sketch.bin_at(1 - _OUTER_SHARE)
    inner_low = max((each.low for each in bins if each.low <= below[0]), default=low)
    inner_high = min((each.high for each in bins if each.high >= above[1]), default=high)
    if below != above and high - low > _FAR * (inner_high - inner_low):
        low, high = inner_low, inner_high
    if high <= low:
        low, high = low - 0.5, low + 0.5
    return np.linspace(low, high, _BLOCKS + 1)


def _log_edges(bins: Sequence[Bin]) -> np.ndarray:
    """Returns edges at whole fractions of powers of 2, from the first number above zero."""
    low = next((each.low for each in bins if each.low > Sketch.ZERO / 2), bins[-1].high / 2)
    first, last = math.floor(math.log2(low)), math.ceil(math.log2(bins[-1].high))
    per_doubling = max(1, min(4, _BLOCKS // max(1, last - first)))
    return 2.0 ** np.linspace(first, last, (last - first) * per_doubling + 1)


def _spread(bins: Sequence[Bin], edges: np.ndarray) -> list[tuple[float, float, int]]:
    """Returns blocks between the edges; the values of a bin are taken as spread evenly over it."""
    ends = [end for each in bins for end in (each.low, max(each.high, np.nextafter(each.low, np.inf)))]
    below = np.repeat(np.cumsum([0, *(each.count for each in bins)]), 2)[1:-1]
    counts = np.diff(np.round(np.interp(edges, ends, below, left=0, right=below[-1])).astype(int))
    return list(zip(edges[:-1].tolist(), edges[1:].tolist(), counts.tolist(), strict=True))
