"""Isolation on models that fail in every way."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.models.batching.isolation import Isolation, ModelBack
from sluice.models.batching.mini_batch import Outcome, RowFailure, row_count
from sluice.models.errors import BatchTooLarge, MessageTooLarge, ServerFault, Unavailable
from sluice.models.interface import Outputs
from sluice.models.tensors.binding import Feeds
from tests.support.fakes import FakeModel, double, refusing, x_feeds


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


def unsent(feeds: Feeds) -> Outputs:
    """A client that does not send row 0, and a server that breaks on all others."""
    if 0 in feeds["x"]:
        error = MessageTooLarge("row 0 is huge")
        error.is_unsent = True
        raise error
    raise ServerFault("segmentation fault")


def test_a_row_that_is_too_large_to_be_sent_says_nothing_about_the_server() -> None:
    """All other rows were blamed, as if the server had answered."""
    isolation = Isolation(FakeModel(unsent).call, 2000, lambda error, passes: None, (Unavailable,))
    with pytest.raises(Unavailable, match="whatever the rows"):
        isolation.run(x_feeds(*range(8)))


def test_a_row_that_is_too_large_to_be_sent_is_at_fault_itself() -> None:
    asked: list[bool] = []
    isolation = Isolation(
        FakeModel(unsent).call, 2000, lambda error, passes: None, answers=lambda: bool(asked.append(True))
    )
    (outcome,) = isolation.run(x_feeds(0))
    assert outcome.result == RowFailure("MessageTooLarge", "row 0 is huge")
    assert outcome.result.proven and not asked, "no server is asked about it"


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


@pytest.mark.parametrize("raised", [(), (Unavailable,)])
def test_a_model_that_fails_and_answers_in_turns_fails_the_batch_as_the_user_wants(raised: Any) -> None:
    def back() -> bool:
        raise ModelBack

    isolation = Isolation(breaking({0}).call, 100, lambda error, passes: None, raised, back)
    if raised:
        with pytest.raises(Unavailable, match="failed and answered again 5 times"):
            isolation.run(x_feeds(0))
        return
    (outcome,) = isolation.run(x_feeds(0, 1))
    assert (outcome.start, outcome.stop) == (0, 2)
    assert isinstance(outcome.result, RowFailure) and outcome.result.type == "Unavailable"


@pytest.mark.parametrize("raised", [(), (Unavailable,)])
def test_a_server_that_starts_again_after_it_broke_is_waited_for_before_all_rows_are_blamed(raised: Any) -> None:
    bad = {0, 1}
    model = breaking(bad)
    is_away = False

    def call(feeds: Feeds) -> Outputs:
        """Is repeated until the server has started again."""
        nonlocal is_away
        is_away = bool(bad.intersection(feeds["x"].tolist()))
        return model.call(feeds)

    def call_once(feeds: Feeds) -> Outputs:
        if is_away:
            raise Unavailable("connection refused")
        return call(feeds)

    isolation = Isolation(call, 100, lambda error, passes: None, raised, call_once=call_once)
    outcomes = isolation.run(x_feeds(*range(64)))
    assert {o.start for o in outcomes if isinstance(o.result, RowFailure)} == bad


def breaking(bad: set[int]) -> FakeModel:
    """A server that breaks on some rows."""

    def answer(feeds: Feeds) -> Outputs:
        if bad.intersection(feeds["x"].tolist()):
            raise ServerFault("segmentation fault")
        return double(feeds)

    return FakeModel(answer)


@pytest.mark.parametrize("bad", [{0, 1}, {0, 1, 2, 3}, {*range(200), 511}, {row for row in range(512) if row % 3}])
@pytest.mark.parametrize("raised", [(), (Unavailable,)])
def test_rows_that_break_a_server_are_told_apart_though_the_first_ones_do(
    bad: set[int], raised: tuple[type[Unavailable], ...]
) -> None:
    """No row has passed before, so that nothing else tells a server that breaks on these rows from a broken one."""
    isolation = Isolation(breaking(bad).call, 2000, lambda error, passes: None, raised)
    outcomes = isolation.run(x_feeds(*range(512)))
    assert {o.start for o in outcomes if isinstance(o.result, RowFailure)} == bad
    assert sum(o.stop - o.start for o in outcomes) == 512


@pytest.mark.parametrize("rows", [1, 2, 3, 20, 512])
def test_a_server_that_breaks_on_all_rows_is_called_a_few_times(rows: int) -> None:
    model = breaking(set(range(rows)))
    (outcome,) = Isolation(model.call, 2000, lambda error, passes: None).run(x_feeds(*range(rows)))
    assert isinstance(outcome.result, RowFailure) and "it is so whatever the rows" in outcome.result.message
    assert (outcome.start, outcome.stop) == (0, rows)
    assert len(model.calls) <= 1 + rows.bit_length() + 1 + 16
    with pytest.raises(Unavailable, match="whatever the rows"):
        Isolation(model.call, 2000, lambda error, passes: None, (Unavailable,)).run(x_feeds(*range(rows)))
