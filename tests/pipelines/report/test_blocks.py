"""Histograms show where the values are: few values one by one, others in blocks; none tells of a single private row."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.pipelines.report.blocks import LEAST_PRIVATE, blocks_of
from sluice.transforms.core.sketch import Sketch


def sketch_of(values: Sequence[float] | np.ndarray) -> Sketch:
    sketch = Sketch()
    sketch.add(pa.array(np.asarray(values, np.float64)))
    return sketch


def test_few_values_have_a_block_each() -> None:
    found = blocks_of(sketch_of([2003.0] * 5 + [2004.0] * 7 + [2006.0]), private=False)
    assert [(round((low + high) / 2, 6), count) for low, high, count in found.blocks] == [
        (2003, 5),
        (2004, 7),
        (2006, 1),
    ]
    assert not found.log and not found.left_out


@pytest.mark.parametrize("value", [0.0, 7.5, -1e12])
def test_one_value_has_one_block(value: float) -> None:
    ((low, high, count),) = blocks_of(sketch_of([value] * 3), private=False).blocks
    assert low < value < high and count == 3


def test_even_blocks_are_near_those_of_numpy() -> None:
    values = np.random.default_rng(3).normal(50, 10, 100_000)
    found = blocks_of(sketch_of(values), private=False)
    edges = [found.blocks[0][0], *(high for _, high, _ in found.blocks)]
    exact, _ = np.histogram(values, edges)
    counts = np.array([count for _, _, count in found.blocks])
    assert not found.log and len(counts) == 32
    assert np.abs(counts - exact).sum() < 0.08 * len(values)


def test_values_of_many_magnitudes_have_a_logarithmic_scale() -> None:
    values = np.random.default_rng(3).lognormal(0, 3, 10_000)
    found = blocks_of(sketch_of([*values, *[0.0] * 500]), private=False)
    assert found.log and found.left_out == pytest.approx(500, abs=20)
    assert all(low > 0 for low, _, _ in found.blocks)
    assert 10 <= len(found.blocks) <= 70


def test_a_few_values_far_out_do_not_take_the_width() -> None:
    values = np.random.default_rng(3).normal(0, 1, 10_000)
    found = blocks_of(sketch_of([*values, 1e9, -1e9]), private=False)
    assert found.blocks[-1][1] < 10 and 2 <= found.left_out <= 200


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=300), st.booleans())
def test_blocks_rise_and_hold_what_is_not_left_out(values: list[float], private: bool) -> None:
    found = blocks_of(sketch_of(values), private)
    assert sum(count for _, _, count in found.blocks) + found.left_out == len(values)
    assert all(low < high for low, high, _ in found.blocks)
    assert all(
        one[1] <= other[0] + 1e-9 * abs(other[0]) for one, other in zip(found.blocks, found.blocks[1:], strict=False)
    )
    assert all(count >= (LEAST_PRIVATE if private else 1) for _, _, count in found.blocks)


def test_private_blocks_do_not_end_where_the_extremes_are() -> None:
    values = np.random.default_rng(3).uniform(10.123, 99.456, 5_000)
    found = blocks_of(sketch_of(values), private=True)
    assert len(found.blocks) > 20
    assert found.blocks[0][0] != values.min() and found.blocks[-1][1] != values.max()


def test_private_blocks_end_where_bins_do_also_where_the_values_are_close_together() -> None:
    values = np.random.default_rng(3).uniform(99.3, 100.9, 5_000)
    found = blocks_of(sketch_of(values), private=True)
    assert (found.blocks[0][0], found.blocks[-1][1]) == (96.0, 104.0)


def test_where_private_blocks_lie_no_lone_value_tells() -> None:
    often = [20.0] * 100 + [30.0] * 100
    assert blocks_of(sketch_of([*often, 33.7]), private=True).blocks == blocks_of(sketch_of(often), private=True).blocks


def test_many_values_of_one_private_row_are_not_drawn() -> None:
    sketch = Sketch()
    sketch.add(pa.array([[7.5] * 50, *[[1.0] * 50] * 20]))
    assert [count for _, _, count in blocks_of(sketch, private=True).blocks] == [1000]


def test_a_column_that_is_nearly_always_zero_shows_the_others() -> None:
    found = blocks_of(sketch_of([*[-1.0] * 10, *[0.0] * 30_000, *np.linspace(100, 130, 70)]), private=False)
    assert found.blocks[-1][1] == pytest.approx(130)


def test_without_values_there_are_no_blocks() -> None:
    assert blocks_of(sketch_of([]), private=False).blocks == ()
    assert blocks_of(sketch_of([1.5, 2.5]), private=True).blocks == ()
