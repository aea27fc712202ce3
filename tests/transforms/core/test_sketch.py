"""Sketches tell what NumPy tells of all values, as near as promised, however the values were shared out."""

import itertools
import math
import pickle
import warnings

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.transforms.core.sketch import BINS, MAX_DISTINCT, Sketch, bin_indices, edges, is_number

# Magnitudes of which bins are told apart, and zero.
NUMBERS = st.one_of(
    st.just(0.0), st.floats(2.0**-29, 2.0**53), st.floats(2.0**-29, 2.0**53).map(lambda x: -x), st.integers(-50, 50)
).map(float)
SHARES = st.sampled_from([0.0, 0.05, 0.5, 0.95, 1.0]) | st.floats(0, 1)


def sketch_of(*parts: object, kind: pa.DataType | None = None) -> Sketch:
    sketch = Sketch()
    for part in parts:
        sketch.add(pa.array(part, kind))
    return sketch


def assert_same(one: Sketch, other: Sketch) -> None:
    assert (one.count, one.nulls, one.not_finite) == (other.count, other.nulls, other.not_finite)
    assert (one.least, one.most) == (other.least, other.most)
    assert one.total == pytest.approx(other.total)
    assert one.values == other.values
    assert list(one.bins()) == list(other.bins())


@given(st.lists(NUMBERS, min_size=1, max_size=200), SHARES)
def test_a_quantile_is_near_the_value_of_that_rank(values: list[float], share: float) -> None:
    exact = float(np.quantile(values, share, method="inverted_cdf"))
    assert sketch_of(values).quantile(share) == pytest.approx(exact, rel=0.032, abs=2.0**-29)


@given(st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=100), SHARES)
def test_a_quantile_of_whole_numbers_is_whole(values: list[int], share: float) -> None:
    found = sketch_of(values).quantile(share)
    exact = sorted(values)[max(1, math.ceil(share * len(values))) - 1]
    assert found is not None and found.is_integer() and found == pytest.approx(exact, rel=0.063)
    if abs(exact) <= 16:
        assert found == exact


def test_quantiles_of_whole_numbers_of_any_sign_and_size() -> None:
    assert sketch_of([-100, -16, -16, -16]).quantile(0.5) == -16
    large = sketch_of([0, 5 * 10**18, 5 * 10**18, 9 * 10**18])
    assert large.quantile(0.5) == pytest.approx(5e18, rel=0.032)


def test_the_median_of_a_bin_tells_no_extreme_if_that_is_asked_for() -> None:
    sketch = sketch_of([99.0, 99.5])
    assert (sketch.quantile(0.5), sketch.quantile(0.5, whole=True)) == (99.0, 98.0)


@given(st.lists(NUMBERS, max_size=200))
def test_counts_and_moments_are_those_of_numpy(values: list[float]) -> None:
    sketch = sketch_of([*values, None, math.nan, math.inf], kind=pa.float64())
    assert (sketch.count, sketch.nulls, sketch.not_finite) == (len(values), 1, 2)
    if values:
        assert (sketch.least, sketch.most) == (min(values), max(values))
        assert sketch.mean == pytest.approx(np.mean(values), rel=1e-9, abs=1e-9 * max(map(abs, values)))
    else:
        assert sketch.mean is None and sketch.quantile(0.5) is None


@given(st.lists(st.lists(NUMBERS, max_size=30), max_size=5))
def test_what_is_merged_or_added_in_parts_is_as_if_added_at_once(parts: list[list[float]]) -> None:
    merged, at_once = Sketch(), sketch_of([value for part in parts for value in part], kind=pa.float64())
    for part in parts:
        merged.merge(pickle.loads(pickle.dumps(sketch_of(part, kind=pa.float64()))))
    assert_same(merged, at_once)
    assert_same(sketch_of(*parts, kind=pa.float64()), at_once)


@given(st.lists(NUMBERS, min_size=1, max_size=300))
def test_few_values_are_counted_each_and_bins_hold_all(values: list[float]) -> None:
    sketch = sketch_of(values)
    different, counts = np.unique(values, return_counts=True)
    expected = dict(zip(different.tolist(), counts.tolist(), strict=True)) if len(different) <= MAX_DISTINCT else None
    assert sketch.values == expected
    bins = list(sketch.bins())
    assert sum(each.count for each in bins) == len(values)
    assert bins[0].low == min(values) and bins[-1].high == max(values)
    assert all(before.high <= after.low for before, after in itertools.pairwise(bins))


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_bin_holds_its_numbers(value: float) -> None:
    (index,) = bin_indices(np.array([value])).tolist()
    low, high = edges(index)
    assert 0 <= index < BINS
    if 2.0**-30 <= abs(value) < 2.0**64:
        assert low <= value <= high and high - low <= 0.0626 * abs(low if value > 0 else high)


def test_infinities_of_both_signs_and_sums_that_are_too_large_warn_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sketch = sketch_of([math.inf, -math.inf, 1.0], [1.7e308, 1.7e308])
    assert (sketch.count, sketch.not_finite) == (3, 2)


@pytest.mark.parametrize(
    ("column", "width"),
    [
        (pa.array([1, 2]), 1),
        (pa.array([[1, 2, 3], None, [4]]), 3),
        (pa.array([[[1], [2, 3]], [[4, 5, 6]]]), 6),
        (pa.array([[1, 2], [3, 4]], pa.list_(pa.int8(), 2)), 2),
        (pa.array([[], None], pa.list_(pa.int8())), 1),
    ],
)
def test_no_row_has_more_values_than_its_width(column: pa.Array, width: int) -> None:
    sketch = Sketch()
    sketch.add(column)
    assert sketch.width == width
    other = sketch_of([1])
    other.merge(sketch)
    assert other.width == width


def test_bins_touch_and_rise() -> None:
    ends = [edges(index) for index in range(BINS)]
    assert all(before[1] == after[0] for before, after in itertools.pairwise(ends))


def test_numbers_beyond_the_bins_are_in_the_outermost() -> None:
    sketch = sketch_of([-1e300, 1e-300, 1e300])
    assert [(each.low, each.high) for each in sketch.bins()] == [
        (-1e300, -(2.0**63) * (1 + 15 / 16)),
        (-(2.0**-30), 2.0**-30),
        (2.0**63 * (1 + 15 / 16), 1e300),
    ]
    assert (sketch.quantile(0.0), sketch.quantile(1.0)) == (
        pytest.approx(-(2.0**64), rel=0.04),
        pytest.approx(2.0**64, rel=0.04),
    )
    assert sketch_of([1e300]).quantile(0.5) == 1e300


@pytest.mark.parametrize(
    ("column", "values"),
    [
        (pa.array([True, False, None, True]), {0.0: 1, 1.0: 2}),
        (pa.array([[1, 2], None, [2]]), {1.0: 1, 2.0: 2}),
        (pa.array([[[1.5], [2.5]]], pa.list_(pa.list_(pa.float32()))), {1.5: 1, 2.5: 1}),
        (pa.array([[1, 2], [3, 4]], pa.list_(pa.int8(), 2)).slice(1), {3.0: 1, 4.0: 1}),
        (pa.array([2**63], pa.uint64()), {float(2**63): 1}),
        (pa.array(np.array([0.5], np.float16)), {0.5: 1}),
        (pa.array([0.0, -0.0]), {0.0: 2}),
    ],
)
def test_columns_of_any_type_of_number(column: pa.Array, values: dict[float, int]) -> None:
    sketch = Sketch()
    sketch.add(column)
    assert is_number(column.type)
    assert sketch.values == values and sketch.count == sum(values.values())


@pytest.mark.parametrize("kind", [pa.string(), pa.list_(pa.binary()), pa.timestamp("us"), pa.null(), pa.decimal128(3)])
def test_other_columns_are_no_numbers(kind: pa.DataType) -> None:
    assert not is_number(kind)


def test_its_size_does_not_grow() -> None:
    random = np.random.default_rng(1)
    sketch = sketch_of(random.lognormal(0, 5, 10_000))
    size = len(pickle.dumps(sketch))
    sketch.add(pa.array(random.lognormal(0, 50, 100_000)))
    assert len(pickle.dumps(sketch)) <= size + 100 < 30_000
