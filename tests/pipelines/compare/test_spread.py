"""Spreads, and which of two cannot be told apart."""

import pytest

from sluice.pipelines.compare.spread import Spread, ranked


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ((1, 2, 3), (3, 4, 5), True),  # they touch
        ((1, 2, 3), (3.1, 4, 5), False),
        ((1, 9), (4, 5), True),  # one within the other
        ((100,), (109,), True),  # measured once: a tenth to each side
        ((100,), (130,), False),
        ((100,), (111, 112), False),
        ((100,), (109, 130), True),
    ],
)
def test_spreads_that_overlap_cannot_be_told_apart(
    one: tuple[float, ...], other: tuple[float, ...], expected: bool
) -> None:
    assert Spread(one).overlaps(Spread(other)) is expected
    assert Spread(other).overlaps(Spread(one)) is expected


def test_the_median_and_the_ends() -> None:
    found = Spread((5, 1, 3))
    assert (found.median, found.least, found.most) == (3, 1, 5)


def test_ways_are_ranked_with_their_ties() -> None:
    """b ties with a. c ties with b, but not with a, the best of the group: it is the next one."""
    found = {"d": Spread((1, 2)), "c": Spread((80, 85)), "a": Spread((90, 110)), "b": Spread((84, 95))}
    assert ranked(found) == [["a", "b"], ["c"], ["d"]]
    assert ranked({}) == []
