"""Natural mini-batching, step by step: gates hold the model's calls, and the test advances the clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sluice.models.batching.mini_batch import RowFailure, row_count
from sluice.models.batching.options import SchedulerOptions
from sluice.models.batching.scheduler import Scheduler
from sluice.models.errors import BadInput, BatchTooLarge, UsageError
from sluice.models.interface import Outputs
from sluice.models.signature import Signature, TensorSpec
from sluice.models.tensors.binding import Feeds
from tests.support.fakes import PATIENCE_SECS, X_TO_Y, FakeClock, FakeModel, double, refusing, x_feeds
from tests.support.scheduling import outcome, scheduling, values

OPEN = Signature(
    "s", "", (TensorSpec("x", "int32", (None, None)),), (TensorSpec("running", "int32", (None, None)),)
)  # fmt: skip


def test_an_idle_model_is_called_at_once_with_what_there_is() -> None:
    model = FakeModel()
    with scheduling(model) as scheduler:
        prediction = outcome(scheduler.submit(x_feeds(21)))
    assert prediction.arrays["y"].tolist() == [42] and prediction.arrays["text"].tolist() == [b"21"]
    assert prediction.versions == ((1, 7),)
    assert [call.rows for call in prediction.calls] == [1]


def test_rows_gather_while_the_model_is_busy_and_go_together() -> None:
    model = FakeModel(gated=True)
    with scheduling(model) as scheduler:
        first = scheduler.submit(x_feeds(1))
        model.await_call()
        others = [scheduler.submit(x_feeds(n, -n)) for n in range(2, 6)]
        model.let_go(2)
        assert values(first) == [2]
        assert [values(ticket) for ticket in others] == [[2 * n, -2 * n] for n in range(2, 6)]
    assert model.call_rows == [1, 8]
    assert [len(outcome(ticket).calls) for ticket in others] == [1, 0, 0, 0]


def test_calls_are_cut_at_the_ceiling() -> None:
    model = FakeModel(gated=True)
    with scheduling(model, max_batch_size=10) as scheduler:
        scheduler.submit(x_feeds(0))
        model.await_call()
        tickets = [scheduler.submit(x_feeds(*range(n))) for n in (4, 5, 25)]
        model.let_go(100)
        assert [values(ticket) for ticket in tickets] == [[2 * x for x in range(n)] for n in (4, 5, 25)]
    # The third request is not split for one more row; then it is split into full calls.
    assert model.call_rows == [1, 9, 10, 10, 5]


def test_bytes_bound_a_call_too() -> None:
    model = FakeModel(gated=True)
    with scheduling(model, max_batch_bytes=80) as scheduler:
        scheduler.submit(x_feeds(0))
        model.await_call()
        tickets = [scheduler.submit(x_feeds(*range(n))) for n in (4, 4, 16)]
        model.let_go(100)
        assert [values(ticket) for ticket in tickets] == [[2 * x for x in range(n)] for n in (4, 4, 16)]
    assert model.call_rows == [1, 10, 10, 4]


def test_a_row_larger_than_a_call_may_be_goes_alone() -> None:
    model = FakeModel()
    with scheduling(model, max_batch_bytes=1) as scheduler:
        assert values(scheduler.submit(x_feeds(1, 2, 3))) == [2, 4, 6]
    assert model.call_rows == [1, 1, 1]


def test_requests_of_other_shapes_wait_their_turn_the_oldest_first() -> None:
    clock = FakeClock()
    model = FakeModel(lambda feeds: Outputs({"running": feeds["x"].cumsum(1, dtype=np.int32)}), OPEN, gated=True)
    with scheduling(model, clock) as scheduler:
        scheduler.submit({"x": np.ones((1, 9), np.int32)})
        model.await_call()
        tickets = []
        for length in (3, 1, 3, 2, 1):
            clock.advance(1)
            tickets.append(scheduler.submit({"x": np.ones((1, length), np.int32)}))
        model.let_go(100)
        found = [outcome(ticket).arrays["running"].tolist() for ticket in tickets]
    assert found == [[[1, 2, 3]], [[1]], [[1, 2, 3]], [[1, 2]], [[1]]]
    assert [feeds["x"].shape for feeds in model.calls] == [(1, 9), (2, 3), (2, 1), (1, 2)]


def test_answers_of_several_lengths_to_one_request_are_lists() -> None:
    lengths = iter([1, 3])

    def answer(feeds: Feeds) -> Outputs:
        return Outputs({"running": np.ones((len(feeds["x"]), next(lengths)), np.int32)})

    with scheduling(FakeModel(answer, OPEN), max_batch_size=2) as scheduler:
        prediction = outcome(scheduler.submit({"x": np.ones((3, 1), np.int32)}))
    assert prediction.arrays["running"].to_pylist() == [[1], [1], [1, 1, 1]]


def test_as_many_calls_are_under_way_as_are_allowed() -> None:
    model = FakeModel(gated=True)
    with scheduling(model, max_in_flight=3, max_batch_size=1) as scheduler:
        ticket = scheduler.submit(x_feeds(*range(5)))
        for _ in range(3):
            model.await_call()
        model.let_go(5)
        assert values(ticket) == [0, 2, 4, 6, 8]
    assert model.most_at_a_time == 3


def test_no_rows_are_done_at_once() -> None:
    model = FakeModel()
    with scheduling(model) as scheduler:
        assert outcome(scheduler.submit(x_feeds())).rows.tolist() == []  # type: ignore[union-attr]
    assert model.calls == []


@pytest.mark.parametrize(
    ("options", "shape", "rows", "calls"),
    [
        ({"allowed_batch_sizes": (4, 8)}, (None,), 3, [4]),
        ({"allowed_batch_sizes": (4, 8)}, (None,), 13, [8, 8]),
        ({"allowed_batch_sizes": (8, 64), "max_batch_size": 10}, (None,), 9, [8, 8]),
        ({"allowed_batch_sizes": (64,), "max_batch_size": 10}, (None,), 9, [64]),
        ({}, (8,), 11, [8, 8]),
        ({"allowed_batch_sizes": (4,)}, (8,), 3, [8]),
    ],
)
def test_calls_are_padded(options: Any, shape: Any, rows: int, calls: list[int]) -> None:
    model = FakeModel(signature=Signature("s", "", (TensorSpec("x", "int64", shape),), X_TO_Y.outputs))
    with scheduling(model, **options) as scheduler:
        ticket = scheduler.submit(x_feeds(*range(rows)))
        assert values(ticket) == [2 * x for x in range(rows)]
    assert model.call_rows == calls
    assert sum(call.rows for call in outcome(ticket).calls) == rows


def test_a_batch_too_large_is_halved_and_the_ceiling_remembered() -> None:
    model = FakeModel(refusing(frozenset(), max_rows=5))
    with scheduling(model, max_batch_size=16) as scheduler:
        assert values(scheduler.submit(x_feeds(*range(16)))) == [2 * x for x in range(16)]
        assert scheduler.ceiling == 4
        before = len(model.calls)
        assert values(scheduler.submit(x_feeds(*range(9)))) == [2 * x for x in range(9)]
    assert model.call_rows[before:] == [4, 4, 1]


def test_bad_rows_fail_alone_in_whatever_request_they_are() -> None:
    model = FakeModel(refusing(frozenset({3, 8})), gated=True)
    with scheduling(model) as scheduler:
        scheduler.submit(x_feeds(0))
        model.await_call()
        tickets = [scheduler.submit(x_feeds(*part)) for part in (range(1, 6), range(6, 8), range(8, 9))]
        model.let_go(100)
        first, good, bad = map(outcome, tickets)
    assert first.failures == {2: RowFailure("BadInput", "[3] are poison")}
    assert first.rows is not None and first.rows.tolist() == [0, 1, 3, 4]
    assert first.arrays["y"].tolist() == [2, 4, 8, 10]
    assert sum(count for count, _ in first.versions) == 4
    assert good.rows is None and good.arrays["y"].tolist() == [12, 14]
    assert bad.failures.keys() == {0} and bad.rows is not None and bad.rows.tolist() == [] and bad.arrays == {}


def test_isolation_stops_at_its_cap() -> None:
    model = FakeModel(refusing(frozenset(range(0, 100, 2))))
    with scheduling(model, max_isolation_calls=10) as scheduler:
        prediction = outcome(scheduler.submit(x_feeds(*range(100))))
    assert len(model.calls) <= 11
    assert len(prediction.failures) + len(prediction.rows) == 100  # type: ignore[arg-type]
    assert any("not isolated: one or more of" in failure.message for failure in prediction.failures.values())


def _raise(error: Exception) -> Callable[[Feeds], Outputs]:
    def answer(feeds: Feeds) -> Outputs:
        raise error

    return answer


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (_raise(KeyError("lost")), "KeyError"),
        (_raise(BadInput("no")), "BadInput"),
        (lambda feeds: None, "AttributeError"),
        (lambda feeds: Outputs({}), "BadOutput"),
        (lambda feeds: Outputs({"y": 1.0, "text": None}), "BadOutput"),
        (lambda feeds: Outputs({**double(feeds).arrays, "y": np.arange(99)}), "BadOutput"),
        (lambda feeds: Outputs({**double(feeds).arrays, "y": np.zeros((2, 2), np.int64)}), "BadOutput"),
    ],
)  # fmt: skip
def test_whatever_a_model_does_its_rows_get_an_outcome(answer: Any, failure: str) -> None:
    with scheduling(FakeModel(answer)) as scheduler:
        prediction = outcome(scheduler.submit(x_feeds(1, 2)))
        assert {row: each.type for row, each in prediction.failures.items()} == {0: failure, 1: failure}
        assert outcome(scheduler.submit(x_feeds(3))).failures  # the thread is still alive


def test_answers_that_do_not_go_together_fail_the_request() -> None:
    shapes = iter([(1,), (1, 1)])
    signature = Signature("s", "", X_TO_Y.inputs, (TensorSpec("y", "int64", None),))
    model = FakeModel(lambda feeds: Outputs({"y": np.zeros(next(shapes), np.int64)}), signature)
    with scheduling(model, max_batch_size=1) as scheduler:
        prediction = outcome(scheduler.submit(x_feeds(1, 2)))
    assert len(prediction.failures) == 2
    assert "do not go together" in prediction.failures[1].message


def test_a_request_larger_than_the_budget_goes_when_nothing_else_does() -> None:
    model = FakeModel()
    with scheduling(model, max_pending_bytes=1) as scheduler:
        tickets = [scheduler.submit(x_feeds(n, n)) for n in range(5)]
        assert [values(ticket) for ticket in tickets] == [[2 * n, 2 * n] for n in range(5)]


def test_rows_wait_for_more_up_to_the_delay() -> None:
    clock, model = FakeClock(), FakeModel()
    with scheduling(model, clock, max_batch_delay_ms=50, max_batch_size=8) as scheduler:
        tickets = [scheduler.submit(x_feeds(0))]
        clock.await_reads(1)  # the row was checked, and must wait
        clock.advance(0.049)
        tickets += [scheduler.submit(x_feeds(1)), scheduler.submit(x_feeds(2, 3))]
        seen = clock.reads
        clock.await_reads(seen + 1)
        assert model.calls == []
        clock.advance(0.002)
        assert [values(ticket) for ticket in tickets] == [[0], [2], [4, 6]]
        assert [outcome(ticket).queue_msec for ticket in tickets] == pytest.approx([51, 2, 2])
        full = [scheduler.submit(x_feeds(*range(4))) for _ in range(2)]
        assert [len(values(ticket)) for ticket in full] == [4, 4]  # a full call does not wait
    assert model.call_rows == [4, 8]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_batch_size": -1}, "--max_batch_size is -1"),
        ({"max_in_flight": -2}, "--max_in_flight is -2"),
        ({"max_retry_secs": -0.5}, "--max_retry_secs is -0.5"),
        ({"on_unavailable": "ignore"}, "--on_unavailable is ignore; give fail or dead_letter"),
        ({"allowed_batch_sizes": (8, -1)}, "--allowed_batch_sizes has -1"),
    ],
)
def test_options_that_could_never_call(options: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        SchedulerOptions(**options)


def test_a_size_that_was_too_large_is_not_padded_to_again() -> None:
    calls: list[int] = []

    def bears_64(feeds: Feeds) -> Outputs:
        calls.append(row_count(feeds))
        if calls[-1] > 64:
            raise BatchTooLarge("64 rows at most")
        return double(feeds)

    options = SchedulerOptions(max_batch_size=1024, allowed_batch_sizes=(128, 1024))
    scheduler = Scheduler(FakeModel(bears_64), options)
    prediction = scheduler.submit(x_feeds(*range(1024))).future.result(PATIENCE_SECS)
    scheduler.close()
    assert prediction.failures == {}
    assert len(calls) < 64
