"""Early stopping against the binomial distribution in whole numbers, and its intervals against repeated draws."""

from fractions import Fraction
from math import comb

import numpy as np
import pytest

from sluice.pipelines.compare.early_stopping import allowed_over, estimate, interval, percentile, queries_needed


def chance(over: int, queries: int, share: Fraction) -> Fraction:
    """Returns the chance of so many or fewer of the queries over the limit, exactly."""
    late = 1 - share
    return sum(
        (comb(queries, each) * late**each * share ** (queries - each) for each in range(over + 1)), start=Fraction(0)
    )


@pytest.mark.parametrize("share", [Fraction(1, 2), Fraction(9, 10), Fraction(99, 100)])
@pytest.mark.parametrize("queries", [1, 5, 44, 64, 100, 458, 459, 661, 662, 1000])
def test_it_allows_what_the_distribution_allows(queries: int, share: Fraction) -> None:
    allowed = allowed_over(queries, float(share), 0.99)
    some = range(queries) if queries <= 100 else ()
    passing = [over for over in some if chance(over, queries, share) <= Fraction(1, 100)]
    if some:
        assert allowed == (max(passing) if passing else None)
    elif allowed is None:
        assert chance(0, queries, share) > Fraction(1, 100)
    else:
        assert chance(allowed, queries, share) <= Fraction(1, 100) < chance(allowed + 1, queries, share)


def test_the_table_of_the_rules_begins_as_published() -> None:
    """Of p99: 459 queries with none over the latency, 662 with one; of p90: 44 and 64."""
    assert [queries_needed(over) for over in (0, 1)] == [459, 662]
    assert [queries_needed(over, share=0.9) for over in (0, 1)] == [44, 64]
    assert queries_needed(0, share=0.995) == 919


@pytest.mark.parametrize("over", [0, 1, 2, 5, 20])
@pytest.mark.parametrize("share", [0.9, 0.99])
def test_the_least_number_is_the_least(over: int, share: float) -> None:
    needed = queries_needed(over, share)
    assert allowed_over(needed, share) == over
    before = allowed_over(needed - 1, share)
    assert before is None or before < over


def test_many_queries_allow_nearly_their_share() -> None:
    allowed = allowed_over(1_000_000)
    assert allowed is not None and 9_700 < allowed < 10_000


def test_the_estimate_is_the_least_of_the_latencies_that_may_be_late() -> None:
    ascending = [float(value) for value in range(662)]
    assert estimate(ascending) == 661.0
    assert estimate(ascending[:661]) is None  # none may be late, and one has to be
    assert estimate([float(value) for value in range(queries_needed(5))]) == queries_needed(5) - 5


def test_the_interval_covers_the_percentile_as_often_as_it_says() -> None:
    random, missed = np.random.default_rng(3), 0
    true = -np.log(0.01)
    for _ in range(300):
        found = interval(np.sort(random.exponential(1.0, 2000)).tolist())
        assert found is not None
        missed += not found[0] <= true <= found[1]
    assert missed <= 15, "2 % of 300 are 6"
    assert interval([1.0] * 600) is None


def test_percentiles_are_values_that_a_share_does_not_exceed() -> None:
    ascending = [1.0, 2.0, 3.0, 4.0]
    assert [percentile(ascending, share) for share in (0.25, 0.26, 0.5, 0.99, 1.0)] == [1.0, 2.0, 2.0, 4.0, 4.0]
    assert percentile([float(value) for value in range(1, 101)], 0.99) == 99.0
