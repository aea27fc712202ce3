"""Quantiles from buckets: as near to those of the values as promised, and nothing is lost by merging."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.pipelines.progress.histogram import Histogram

# The extremes, what is reported, and any.
SHARES = st.sampled_from([0.0, 0.5, 0.9, 0.99, 1.0]) | st.floats(0, 1)
# From 0.1 ms to 100,000 s, as many in each decade.
SECS = st.floats(-4, 5).map(lambda power: float(10**power)).filter(lambda secs: 1e-4 <= secs <= 1e5)


def counted(values: list[float]) -> Histogram:
    histogram = Histogram()
    histogram.add(np.array(values))
    return histogram


@given(st.lists(SECS, min_size=1), SHARES)
def test_a_quantile_is_near_the_value_of_that_rank(values: list[float], share: float) -> None:
    exact = np.quantile(values, share, method="inverted_cdf")
    assert counted(values).quantile(share) == pytest.approx(exact, rel=0.02)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.01, 0.5, 0.8, 0.95, 0.99])
def test_of_many_values_it_is_that_of_numpy(seed: int, share: float) -> None:
    random = np.random.default_rng(seed)
    fast, slow = random.lognormal(-4, 0.5, 18_000), random.exponential(30, 2_000) + 1
    values = np.concatenate([fast, slow])
    assert counted(list(values)).quantile(share) == pytest.approx(np.quantile(values, share), rel=0.04)


@given(st.lists(st.lists(SECS, max_size=20), max_size=6), SHARES)
def test_what_is_merged_or_added_in_parts_is_as_if_added_at_once(parts: list[list[float]], share: float) -> None:
    merged, in_parts = Histogram(), Histogram()
    for part in parts:
        merged.merge(counted(part))
        in_parts.add(np.array(part))
    at_once = counted([value for part in parts for value in part])
    assert merged.total == in_parts.total == at_once.total == sum(map(len, parts))
    assert merged.quantile(share) == in_parts.quantile(share) == at_once.quantile(share)


@given(st.lists(SECS, min_size=1), SHARES, SHARES)
def test_quantiles_rise(values: list[float], one: float, other: float) -> None:
    histogram = counted(values)
    low, high = histogram.quantile(min(one, other)), histogram.quantile(max(one, other))
    assert low is not None and high is not None and low <= high


def test_merging_leaves_the_other_as_it_was() -> None:
    one, other = counted([1.0]), counted([100.0, 100.0])
    one.merge(other)
    one.add(np.array([100.0]))
    assert (one.total, other.total) == (4, 2)
    assert other.quantile(0.0) == pytest.approx(100, rel=0.02)


def test_of_nothing_there_is_no_quantile() -> None:
    histogram = counted([])
    assert histogram.total == 0
    assert [histogram.quantile(share) for share in (0.0, 0.5, 1.0)] == [None] * 3


@pytest.mark.parametrize("value", [1e-4, 0.0123, 1.0, 86_400.0, 1e5])
def test_of_one_value_every_quantile_is_it(value: float) -> None:
    histogram = counted([value])
    for share in (0.0, 1e-9, 0.5, 1.0):
        assert histogram.quantile(share) == pytest.approx(value, rel=0.02)


@pytest.mark.parametrize(
    "value,taken_as", [(0.0, 1e-4), (-3.0, 1e-4), (9.9e-5, 1e-4), (1.1e5, 1e5), (1e300, 1e5), (np.inf, 1e5)]
)
def test_what_is_out_of_range_counts_as_its_end(value: float, taken_as: float) -> None:
    histogram = counted([value, value, 1.0])
    assert histogram.total == 3
    assert histogram.quantile(0.0 if value < 1 else 1.0) == pytest.approx(taken_as, rel=0.02)


@given(st.lists(SECS, max_size=50), st.floats(1e-3, 1e4))
def test_how_many_values_do_not_exceed_a_bound(values: list[float], bound: float) -> None:
    """To 2 % of the bound. The sum is exact."""
    histogram = counted(values)
    (found,) = histogram.up_to([bound])
    assert sum(value <= bound / 1.0201 for value in values) <= found <= sum(value <= bound * 1.0201 for value in values)
    assert histogram.sum == pytest.approx(sum(values))
    assert histogram.up_to([]) == []
