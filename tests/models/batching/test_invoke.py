"""Invoker: calls that hang are abandoned, tried once more in a fresh session, and then the model is lost."""

from __future__ import annotations

import threading

import pytest

from sluice.models.batching.invoke import Invoker, call_once
from sluice.models.batching.watchdog import Watchdog, hanging
from sluice.models.errors import ModelHangs, ModelNotFound, OutOfMemory, TimedOut
from sluice.models.interface import Outputs
from sluice.models.tensors.binding import Feeds
from tests.support.fakes import PATIENCE_SECS, FakeClock, FakeModel, double, x_feeds
from tests.support.pubsub.streams import wait_until
from tests.support.scheduling import outcome, scheduling


class Hanging(FakeModel):
    """A model in this process: a call with a negative x hangs until `let_go_all`, in the first so many sessions."""

    first_answered: Feeds | None = None

    def __init__(self, sessions: int) -> None:
        super().__init__(self._hang)
        self.sessions = 1
        self.abandoned = 0
        self._hanging_sessions = sessions
        self._end = threading.Event()

    def _hang(self, feeds: Feeds) -> Outputs:
        if (feeds["x"] < 0).any() and self.sessions <= self._hanging_sessions:
            self._end.wait(PATIENCE_SECS)
        return double(feeds)

    def renew(self) -> None:
        self.sessions += 1

    def abandon(self) -> None:
        self.abandoned += 1

    def let_go_all(self) -> None:
        self._end.set()
        wait_until(lambda: not hanging(), "the end of calls that were abandoned")


def test_a_call_that_hangs_is_tried_once_more_in_a_fresh_session(caplog: pytest.LogCaptureFixture) -> None:
    model = Hanging(sessions=1)
    with scheduling(model, call_timeout_secs=0.05) as scheduler:
        assert outcome(scheduler.submit(x_feeds(-1, 2))).arrays["y"].tolist() == [-2, 4]
        assert hanging() == 1
    assert (model.sessions, model.abandoned) == (2, 0)
    assert "model fake, signature 'serving_default': a call of [x int64 [2]] has not ended in time" in caplog.text
    model.let_go_all()


def test_a_call_that_hangs_again_loses_the_model_for_all_calls() -> None:
    model = Hanging(sessions=9)
    text = r"signature 'serving_default': a call of \[x int64 \[3\]\] has not ended in time, nor when .*replaced"
    with scheduling(model, call_timeout_secs=0.05) as scheduler:
        with pytest.raises(ModelHangs, match=text):
            outcome(scheduler.submit(x_feeds(-1, 2, 3)))
        with pytest.raises(ModelHangs, match=text):
            outcome(scheduler.submit(x_feeds(1)))
        assert len(model.calls) == 2
    assert (model.sessions, model.abandoned) == (2, 1)
    model.let_go_all()


class NotThere(Hanging):
    """Its files have gone, so it cannot be loaded anew."""

    def renew(self) -> None:
        raise ModelNotFound("no SavedModel is there")


def test_a_model_that_cannot_be_loaded_anew_is_lost_and_no_row_is_at_fault() -> None:
    model = NotThere(sessions=1)
    text = "has not ended in time, and the model cannot be loaded anew: no SavedModel is there. .*replaced"
    with scheduling(model, call_timeout_secs=0.05) as scheduler, pytest.raises(ModelHangs, match=text):
        outcome(scheduler.submit(x_feeds(-1, 2)))
    assert model.abandoned == 1
    model.let_go_all()


def test_a_deadline_of_an_op_is_no_hang() -> None:
    def answer(feeds: Feeds) -> Outputs:
        raise TimedOut("a file system's own")

    model = Hanging(sessions=0)
    model._answer = answer
    invoke, watchdog = Invoker(model, 600.0, FakeClock()), Watchdog[Outputs]()
    with pytest.raises(TimedOut, match="a file system's own"):
        invoke(x_feeds(1), watchdog)
    watchdog.close()
    assert model.sessions == 1


def test_a_call_that_tensorflow_ends_is_tried_once_more_in_the_same_session() -> None:
    clock = FakeClock()

    def answer(feeds: Feeds) -> Outputs:
        clock.advance(300)
        raise TimedOut("DEADLINE_EXCEEDED")

    model = Hanging(sessions=0)
    model._answer = answer
    invoke, watchdog = Invoker(model, 600.0, clock), Watchdog[Outputs]()
    with pytest.raises(ModelHangs):
        invoke(x_feeds(1), watchdog)
    watchdog.close()
    assert (model.sessions, len(model.calls)) == (1, 2)


def test_memory_that_python_lacks_is_memory_that_the_call_lacks() -> None:
    def answer(feeds: Feeds) -> Outputs:
        raise MemoryError("malloc")

    with pytest.raises(OutOfMemory, match="no memory for a call of 2 rows: malloc"):
        Invoker(FakeModel(answer), 0.0, FakeClock())(x_feeds(1, 2), Watchdog())


def test_a_trial_that_hangs_is_given_up_and_the_model_left_alone() -> None:
    model = Hanging(sessions=9)
    assert call_once(model, x_feeds(1), 600.0).arrays["y"].tolist() == [2]
    assert call_once(model, x_feeds(1), 0.0).arrays["y"].tolist() == [2]
    with pytest.raises(TimedOut):
        call_once(model, x_feeds(-1), 0.01)
    assert model.abandoned == 1
    model.let_go_all()
