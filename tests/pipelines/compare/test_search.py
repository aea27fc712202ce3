"""The search on curves whose best point is known, with noise and without."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from sluice.pipelines.compare.search import MARGIN, Search


def saturating(call: float, row: float) -> Callable[[int], float]:
    """Rows a second where a call costs so much, and a row of it so much more."""
    return lambda size: size / (call + row * size)


def peaked(best: int, width: float = 1.0) -> Callable[[int], float]:
    return lambda size: math.exp(-((math.log2(size / best) / width) ** 2) / 8)


CURVES = {
    "more is better": saturating(1.0, 1e-6),
    "flat from 512 on": saturating(0.001, 1e-4),
    "flat": lambda size: 7.0,
    "less is better": lambda size: 1 / size,
    "a peak at the start": peaked(512),
    "a peak below": peaked(16),
    "a peak above": peaked(8192),
    "a peak between powers": peaked(3000),
}


@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize("start", [512, 4096])
@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_it_finds_nearly_the_best(name: str, start: int, noise: float) -> None:
    random = np.random.default_rng(1)
    curve = CURVES[name]
    search = Search(lambda size: curve(size) * (1 + random.normal(0, noise)), 1, 32_768)
    found = search.run(start)
    best = max(curve(2**power) for power in range(16))
    assert curve(found) >= (1 - 2.5 * MARGIN) * best, (found, search.points)
    assert len(search.points) <= 10, "it is no grid"


def test_what_is_as_good_is_left_as_it_is() -> None:
    assert Search(lambda size: 7.0, 1, 32_768).run(512) == 512
    assert Search(CURVES["flat from 512 on"], 1, 32_768).run(4096) == 4096


def test_of_points_that_are_as_good_the_least_is_taken() -> None:
    """From 64 on more does not help, but the start is bad."""
    found = Search(lambda size: min(size, 64.0), 1, 32_768).run(4)
    assert found == 64


def test_it_stays_within_its_bounds() -> None:
    for curve in CURVES.values():
        search = Search(curve, 4, 64)
        assert 4 <= search.run(32) <= 64
        assert all(4 <= point <= 64 for point in search.points)


def test_without_time_the_start_is_the_answer() -> None:
    measured: list[int] = []

    def measure(size: int) -> float:
        measured.append(size)
        return float(size)

    assert Search(measure, 1, 1024, goes_on=lambda: False).run(32) == 32
    assert measured == [32]


def test_time_that_ends_in_the_middle_leaves_the_best_so_far() -> None:
    measured: list[int] = []

    def measure(size: int) -> float:
        measured.append(size)
        return float(size)

    assert Search(measure, 1, 1 << 20, goes_on=lambda: len(measured) < 3).run(4) == 64
    assert measured == [4, 16, 64]
