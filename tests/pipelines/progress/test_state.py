"""The state of a streaming job, and what a probe makes of it."""

import dataclasses

import pytest

from sluice.pipelines.progress.state import State, stuck_after
from sluice.pipelines.progress.stream_stats import StreamFigures
from tests.support.pubsub.fakes_stream import FIGURES

STILL = "4,300 messages are here, and nothing has moved for 600 s"


def figures(**changes: object) -> StreamFigures:
    return dataclasses.replace(FIGURES, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, State("working")),
        ({"secs_since_progress": 599.9}, State("working")),
        ({"recent_rows": 9, "recent_failures": 9}, State("working")),  # too few to say most
        ({"recent_rows": 100, "recent_failures": 50}, State("working")),
        ({"recent_rows": 100, "recent_failures": 51}, State("degraded", "51 of the last 100 rows failed")),
        ({"recent_rows": 10, "recent_failures": 10}, State("degraded", "10 of the last 10 rows failed")),
        ({"secs_since_progress": 600.0}, State("stuck", STILL)),
        # Rows that failed before it got stuck do not hide that.
        ({"secs_since_progress": 600.0, "recent_rows": 99, "recent_failures": 99}, State("stuck", STILL)),
        # A call of the model that is slow, and may be: a supervisor must not end the job.
        ({"secs_since_progress": 1809.9, "stuck_after_secs": 1810.0}, State("working")),
        ({"secs_since_progress": 1e9, "stuck_after_secs": None}, State("working")),
        ({"trouble": "the model does not answer: gone"}, State("paused", "the model does not answer: gone")),
        ({"model_away_secs": 2.9}, State("working")),
        (
            {"model_away_secs": 3.0},
            State("paused", "the model has not answered for 3 s, and is called again and again"),
        ),
        ({"away": True}, State("paused", "the subscription cannot be pulled")),
        # A new process would not help against an environment at fault, however long it lasts.
        ({"away": True, "secs_since_progress": 1e6}, State("paused", "the subscription cannot be pulled")),
        ({"trouble": "x", "recent_rows": 99, "recent_failures": 99}, State("paused", "x")),
        ({"reachable": False}, State("working")),  # it has not begun to pull
        ({"draining": True}, State("working")),
    ],
)
def test_the_state(changes: dict[str, object], wanted: State) -> None:
    assert figures(**changes).state == wanted


@pytest.mark.parametrize(("call_secs", "wanted"), [(0.0, 600.0), (1210.0, 1810.0), (None, None)])
def test_what_calls_may_take_is_no_standstill(call_secs: float | None, wanted: float | None) -> None:
    assert stuck_after(call_secs) == wanted


@pytest.mark.parametrize(
    ("name", "is_stuck", "gets_on"),
    [("working", False, True), ("degraded", False, True), ("paused", False, False), ("stuck", True, False)],
)
def test_what_probes_ask_for(name: str, is_stuck: bool, gets_on: bool) -> None:
    assert (State(name).is_stuck, State(name).gets_on) == (is_stuck, gets_on)
