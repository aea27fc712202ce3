"""Sketches of columns of numbers: quantiles, extremes and frequent values, in memory of a fixed size.

A sketch is merged with that of another bundle or worker as if both had seen all. By hand, because it has to cost some
10 ns a value: a bin is a number's exponent and the first bits of its mantissa, which are the highest bits of a float64,
so that one shift finds it. Apache DataSketches is not among what workers have, and pays a call for each value.
"""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# A doubling is cut into so many bins: the ends of a bin are 6 % apart or less.
_BITS = 4
_PER_DOUBLING = 1 << _BITS
_MANTISSA_BITS = 52
_BIAS = 1023
# Magnitudes from 2**-30, below which a number counts as zero, to 2**64, above which it counts as that: beyond that are
# no whole numbers of 64 bits.
_LEAST, _MOST = -30, 64
_SIDE = (_MOST - _LEAST) * _PER_DOUBLING
_SHIFT = _MANTISSA_BITS - _BITS
_FIRST = (_LEAST + _BIAS) << _BITS
_MAGNITUDE = np.int64(0x7FFF_FFFF_FFFF_FFFF)
# Negative numbers, zero, positive numbers, in rising order.
BINS = 2 * _SIDE + 1
# So many different values are counted one by one.
MAX_DISTINCT = 64
_NOT_FINITE = 3  # NaN, and two infinities


@dataclasses.dataclass(frozen=True)
class Bin:
    """The values of [low, high], and how many they are."""

    low: float
    high: float
    count: int


def is_number(kind: pa.DataType) -> bool:
    """Whether a column of this type holds numbers or booleans, or lists of them."""
    while pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        kind = kind.value_type
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


class Sketch:
    """What is known of the values of a column. Not thread-safe.

    Attributes:
      count: of finite numbers; `total`, `least` and `most` are theirs.
      counts: int64 [BINS].
      each: how often each value has come; None: too many different ones have.
      whole: the column is of whole numbers or booleans.
      width: no row has more values than that; 1, but for lists.
    """

    # Numbers of smaller magnitude count as zero.
    ZERO = 2.0**_LEAST

    def __init__(self) -> None:
        self.count = 0
        self.nulls = 0
        self.not_finite = 0
        self.total = 0.0
        self.least, self.most = math.inf, -math.inf
        self.counts = np.zeros(BINS, np.int64)
        self.each: dict[float, int] | None = {}
        self.whole = True
        self.width = 1

    def add(self, array: pa.Array) -> None:
        """Counts the values of a column of numbers or booleans; of a list, those in it."""
        width = 1
        while isinstance(array, pa.ListArray | pa.LargeListArray | pa.FixedSizeListArray):
            self.nulls += array.null_count
            width *= max(1, pc.max(pc.list_value_length(array)).as_py() or 0)
            array = array.flatten()
        self.width = max(self.width, width)
        self.nulls += array.null_count
        known = array.drop_null() if array.null_count else array
        if pa.types.is_boolean(known.type):
            known = known.cast(pa.uint8())
        elif pa.types.is_float16(known.type):
            known = known.cast(pa.float32())
        self.whole = self.whole and pa.types.is_integer(known.type)
        if self.each is not None:
            self._count_each(pc.value_counts(known))
        self._add_numbers(known.to_numpy(zero_copy_only=False).astype(np.float64, copy=False))

    def merge(self, other: "Sketch") -> None:
        """Adds what another sketch has seen."""
        self.count, self.nulls = self.count + other.count, self.nulls + other.nulls
        self.not_finite, self.total = self.not_finite + other.not_finite, self.total + other.total
        self.least, self.most = min(self.least, other.least), max(self.most, other.most)
        self.counts += other.counts
        self.whole = self.whole and other.whole
        self.width = max(self.width, other.width)
        if other.each is None:
            self.each = None
        else:
            self._add_values(other.each.items())

    @property
    def mean(self) -> float | None:
        """None without values."""
        return self.total / self.count if self.count else None

    @property
    def values(self) -> Mapping[float, int] | None:
        """Returns each value with its number, in rising order; None: there are too many different ones."""
        return None if self.each is None else dict(sorted(self.each.items()))

    def bins(self, whole: bool = False) -> Iterator[Bin]:
        """Yields the bins that hold values, in rising order.

        Args:
          whole: with ends of their own; otherwise the outer ones end where the values do.
        """
        for index in np.flatnonzero(self.counts).tolist():
            low, high = edges(index)
            if not whole:
                low = self.least if index == 0 else max(low, self.least)
                high = self.most if index == BINS - 1 else min(high, self.most)
            yield Bin(low, high, int(self.counts[index]))

    def quantile(self, share: float, whole: bool = False) -> float | None:
        """Returns a value of the bin with the value that this share does not exceed; None without values.

        Args:
          whole: also one beyond the least or the most value; otherwise that one is returned.
        """
        if not self.counts.any():  # or only few are, which a file of private values leaves out
            return None
        middle = sum(self.bin_at(share)) / 2
        if self.whole:  # a bin of one whole number is that number: its end that is nearer to zero
            middle = float(math.trunc(middle))
        return middle if whole else min(max(middle, self.least), self.most)

    def bin_at(self, share: float) -> tuple[float, float]:
        """Returns the ends of the bin with the value that this share does not exceed; there is a value at least."""
        below = np.cumsum(self.counts)
        return edges(int(np.searchsorted(below, max(1, math.ceil(share * int(below[-1]))))))

    def _add_numbers(self, numbers: np.ndarray) -> None:
        with np.errstate(over="ignore", invalid="ignore"):
            total = float(numbers.sum())
        if not math.isfinite(total):  # or the numbers are too large for their sum
            finite = numbers[np.isfinite(numbers)]
            self.not_finite += len(numbers) - len(finite)
            numbers = finite
            with np.errstate(over="ignore"):
                total = float(numbers.sum())
        if not len(numbers):
            return
        self.count, self.total = self.count + len(numbers), self.total + total
        self.least, self.most = min(self.least, float(numbers.min())), max(self.most, float(numbers.max()))
        self.counts += np.bincount(bin_indices(numbers), minlength=BINS)

    def _count_each(self, counts: pa.StructArray) -> None:
        if len(counts) > MAX_DISTINCT + _NOT_FINITE:
            self.each = None
            return
        pairs = zip(counts.field(0).to_pylist(), counts.field(1).to_pylist(), strict=True)
        self._add_values((float(value), count) for value, count in pairs)

    def _add_values(self, pairs: Iterable[tuple[float, int]]) -> None:
        if self.each is None:
            return
        for value, count in pairs:
            if math.isfinite(value):
                self.each[value] = self.each.get(value, 0) + count
        if len(self.each) > MAX_DISTINCT:
            self.each = None


def bin_indices(numbers: np.ndarray) -> np.ndarray:
    """Returns int64 [values]: the bin of each number (float64 [values], finite)."""
    bits = np.ascontiguousarray(numbers).view(np.int64)
    places = ((bits & _MAGNITUDE) >> _SHIFT) - (_FIRST - 1)
    np.clip(places, 0, _SIDE, out=places)
    np.negative(places, out=places, where=bits < 0)
    places += _SIDE
    return places


def edges(index: int) -> tuple[float, float]:
    """Returns the ends of a bin. Positive numbers are in [low, high), negative ones in (low, high]."""
    place = index - _SIDE
    if not place:
        return -(2.0**_LEAST), 2.0**_LEAST
    low, high = _edge(abs(place) - 1), _edge(abs(place))
    return (low, high) if place > 0 else (-high, -low)


def _edge(place: int) -> float:
    doublings, part = divmod(place, _PER_DOUBLING)
    return float(2.0 ** (_LEAST + doublings) * (1 + part / _PER_DOUBLING))
