"""Operations on mini-batches, and Isolation on models that fail in every way."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.models.batching.mini_batch import (
    Isolation,
    Outcome,
    RowFailure,
    byte_count,
    merge,
    merge_key,
    pad,
    padded_size,
    row_count,
    slice_feeds,
)
from sluice.models.errors import BatchTooLarge, Unavailable
from sluice.models.interface import Outputs
from sluice.models.tensors.binding import Feeds
from tests.support.fakes import FakeModel, double, refusing, x_feeds


def strings(*values: bytes) -> np.ndarray:
    return np.array(values, object)


def test_slices_merge_back() -> None:
    feeds = {"x": np.arange(7), "s": strings(*b"a b c d e f g".split())}
    parts = [slice_feeds(feeds, start, stop) for start, stop in ((0, 2), (2, 2), (2, 7))]
    assert [row_count(part) for part in parts] == [2, 0, 5]
    merged = merge(parts)
    assert merged["x"].tolist() == feeds["x"].tolist() and merged["s"].tolist() == feeds["s"].tolist()
    assert merge([feeds]) is feeds
    assert np.shares_memory(parts[2]["x"], feeds["x"])


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ({"b": np.zeros((5, 2)), "a": strings(b"longer")}, True),
        ({"b": np.zeros((1, 3)), "a": strings(b"a")}, False),
        ({"b": np.zeros((1, 2), np.float32), "a": strings(b"a")}, False),
        ({"b": np.zeros((1, 2)), "c": strings(b"a")}, False),
        ({"b": np.zeros((1, 2))}, False),
    ],
)
def test_requests_go_together_if_names_dtypes_and_inner_shapes_agree(other: Feeds, same: bool) -> None:
    assert (merge_key({"a": strings(b"a"), "b": np.zeros((1, 2))}) == merge_key(other)) is same


@pytest.mark.parametrize(
    ("feeds", "count"),
    [
        ({"x": np.zeros((3, 4), np.float32)}, 48),
        ({"x": np.zeros(0), "s": strings()}, 0),
        ({"s": strings(*[b"12345"] * 1000)}, 1000 * (5 + 41)),
        ({"s": strings(*[b"", b"1234567890"] * 8)}, 16 * (5 + 41)),
        ({"x": np.zeros(2), "s": strings(b"ab", b"abcd").reshape(2, 1)}, 16 + 2 * (3 + 41)),
    ],
)
def test_bytes_of_strings_count_with_the_objects_around_them(feeds: Feeds, count: int) -> None:
    assert byte_count(feeds) == byte_count(feeds, exact=True) == count


def test_bytes_are_exact_where_asked_for() -> None:
    for large in (0, 50, 5000):
        values = [b"x" * 3] * 99 + [b"y" * large]
        assert byte_count({"s": strings(*values)}, exact=True) == 99 * 3 + large + 100 * 41


@pytest.mark.parametrize(
    ("rows", "allowed", "size"),
    [(5, (), 5), (5, (8, 4, 16), 8), (4, (4, 8), 4), (17, (4, 16), 17), (0, (4,), 4)],
)
def test_padded_size(rows: int, allowed: tuple[int, ...], size: int) -> None:
    assert padded_size(rows, allowed) == size


def test_padding_repeats_the_last_row() -> None:
    feeds = {"x": np.array([[1, 2], [3, 4]]), "s": strings(b"a", b"b")}
    padded = pad(feeds, 4)
    assert padded["x"].tolist() == [[1, 2], [3, 4], [3, 4], [3, 4]]
    assert padded["s"].tolist() == [b"a", b"b", b"b", b"b"]
    assert pad(feeds, 2) is feeds


def isolate(model: FakeModel, rows: int, extra_calls: int = 1000) -> tuple[list[Outcome], list[int]]:
    ceilings: list[int] = []
    isolation = Isolation(model.call, extra_calls, lambda error, passes: ceilings.append(row_count(passes)))
    return isolation.run(x_feeds(*range(rows))), ceilings


@given(st.integers(1, 40), st.frozensets(st.integers(0, 40)), st.none() | st.integers(1, 40), st.integers(0, 30))
def test_outcomes_cover_every_row_once_and_blame_only_parts_that_hold_a_bad_row(
    rows: int, poison: frozenset[int], max_rows: int | None, extra_calls: int
) -> None:
    model = FakeModel(refusing(poison, max_rows))
    outcomes, ceilings = isolate(model, rows, extra_calls)
    assert [outcome.start for outcome in outcomes] == [0, *(outcome.stop for outcome in outcomes[:-1])]
    assert outcomes[-1].stop == rows
    for outcome in outcomes:
        part = range(outcome.start, outcome.stop)
        if isinstance(outcome.result, Outputs):
            assert outcome.result.arrays["y"].tolist() == [2 * row for row in part]
        else:
            assert outcome.result.type == "BadInput" and poison.intersection(part)
            assert (len(part) > 1) == ("not isolated" in outcome.result.message)
    parts_too_large = sum(len(feeds["x"]) > (max_rows or rows) for feeds in model.calls)
    assert len(model.calls) <= 1 + extra_calls + 2 * parts_too_large
    assert all(ceiling >= 1 for ceiling in ceilings)
    if ceilings and not poison:
        assert max_rows is not None and max_rows // 2 < min(ceilings) <= max_rows


@given(st.integers(1, 200), st.frozensets(st.integers(0, 199), max_size=3))
def test_a_few_bad_rows_cost_a_logarithm_of_calls_each(rows: int, poison: frozenset[int]) -> None:
    model = FakeModel(refusing(poison))
    outcomes, _ = isolate(model, rows)
    bad = {row for row in poison if row < rows}
    assert {o.start for o in outcomes if isinstance(o.result, RowFailure)} == bad
    assert len(model.calls) <= 1 + 2 * len(bad) * (rows - 1).bit_length()


def test_one_row_that_is_too_large_by_itself_does_not_lower_the_ceiling() -> None:
    def answer(feeds: Feeds) -> Outputs:
        if 3 in feeds["x"]:
            raise BatchTooLarge("row 3 is huge")
        return double(feeds)

    outcomes, ceilings = isolate(FakeModel(answer), 8)
    assert [(o.start, o.result.type) for o in outcomes if isinstance(o.result, RowFailure)] == [(3, "BatchTooLarge")]
    assert ceilings == []


def test_the_cap_fails_what_is_left_together_and_says_so() -> None:
    outcomes, _ = isolate(FakeModel(refusing(frozenset({6}))), 8, extra_calls=3)
    assert [(o.start, o.stop) for o in outcomes] == [(0, 4), (4, 8)]
    assert outcomes[1].result == RowFailure(
        "BadInput", "not isolated: one or more of 4 rows called together; [6] are poison"
    )


def test_other_failures_are_the_whole_calls_and_are_not_bisected() -> None:
    def answer(feeds: Feeds) -> Outputs:
        raise Unavailable("the server is away")

    model = FakeModel(answer)
    assert isolate(model, 8)[0] == [Outcome(0, 8, RowFailure("Unavailable", "the server is away"))]
    assert len(model.calls) == 1


def test_what_is_no_error_of_ours_is_bisected() -> None:
    def answer(feeds: Feeds) -> Outputs:
        if 2 in feeds["x"]:
            raise ZeroDivisionError("by 2")
        return double(feeds)

    outcomes, _ = isolate(FakeModel(answer), 4)
    assert [o.result for o in outcomes if isinstance(o.result, RowFailure)] == [RowFailure("ZeroDivisionError", "by 2")]
