"""Rows are sent as messages, by a thread of their own, and each is answered once."""

import threading
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest

from sluice.pipelines.compare.senders import OwnThread, RowSender
from sluice.pipelines.compare.stream import Load, send
from tests.support.fakes import FakeModel
from tests.support.scheduling import scheduling


class Gate:
    """A sender that is busy with its first message until it is let go."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, int]] = []
        self.begun, self.let_go = threading.Event(), threading.Event()

    def __call__(self, start: int, stop: int, done: Callable[[int, int], None]) -> None:
        self.sent.append((start, stop))
        self.begun.set()
        assert self.let_go.wait(60)
        done(start, stop)


@pytest.mark.parametrize(
    ("mini_batches", "sent"), [(True, [(0, 1), (1, 6)]), (False, [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 6)])]
)
def test_messages_that_are_due_meanwhile_wait_and_delay_no_schedule(
    mini_batches: bool, sent: list[tuple[int, int]]
) -> None:
    gate, answered, last = Gate(), list[tuple[int, int]](), threading.Event()

    def done(start: int, stop: int) -> None:
        answered.append((start, stop))
        if stop == 6:
            last.set()

    with OwnThread(gate, mini_batches) as thread:
        thread(0, 1, done)
        assert gate.begun.wait(60)
        for number in range(1, 6):
            thread(number, number + 1, done)
        assert not answered
        gate.let_go.set()
        assert last.wait(60)
    assert gate.sent == answered == sent and thread.error is None


def test_an_error_ends_the_load() -> None:
    def raises(start: int, stop: int, done: Callable[[int, int], None]) -> None:
        calls.append(start)
        raise ValueError("does not bind")

    calls: list[int] = []
    with OwnThread(raises, mini_batches=False) as thread:
        answered = send(Load(1000, 20, False), thread)
    assert answered.complete and calls == [0]
    assert str(thread.error) == "does not bind"


def test_messages_that_were_not_begun_are_dropped_at_the_end() -> None:
    gate = Gate()
    with OwnThread(gate, mini_batches=False) as thread:
        for number in range(5):
            thread(number, number + 1, lambda start, stop: None)
        assert gate.begun.wait(60)
        thread.stop()
        gate.let_go.set()
    assert gate.sent == [(0, 1)]


ROWS = pa.record_batch({"x": pa.array(range(7), pa.int64())})


@pytest.mark.parametrize("alone", [True, False])
def test_rows_are_sent_over_and_over_and_each_is_answered_once(alone: bool) -> None:
    model = FakeModel()
    answered, lock, everyone = np.zeros(20, int), threading.Lock(), threading.Event()

    def done(start: int, stop: int) -> None:
        with lock:
            answered[start:stop] += 1
            if answered.sum() >= 20:
                everyone.set()

    with scheduling(model, max_batch_size=1 if alone else 16) as scheduler:
        sender = RowSender(scheduler, ROWS, alone)
        sender(0, 5, done)
        sender(5, 20, done)
        assert everyone.wait(60)
    assert (answered == 1).all() and sender.error is None
    sizes = [len(feeds["x"]) for feeds in model.calls]
    assert sorted(value for feeds in model.calls for value in feeds["x"].tolist()) == sorted(n % 7 for n in range(20))
    assert max(sizes) == 1 if alone else max(sizes) <= 16


def test_a_row_without_a_prediction_is_told() -> None:
    def refuses(feeds: dict[str, np.ndarray]) -> object:
        raise ValueError("no such row")

    everyone = threading.Event()
    with scheduling(FakeModel(refuses)) as scheduler:  # type: ignore[arg-type]
        sender = RowSender(scheduler, ROWS, True)
        sender(0, 1, lambda start, stop: everyone.set())
        assert everyone.wait(60)
    assert "no such row" in str(sender.error)


def test_messages_that_are_given_up_do_not_delay_those_of_the_next_load() -> None:
    model, answered = FakeModel(gated=True), threading.Event()
    with scheduling(model, max_batch_size=1, max_in_flight=1) as scheduler:
        overloaded = RowSender(scheduler, ROWS, True)
        overloaded(0, 6, lambda start, stop: None)
        model.await_call()
        overloaded.give_up()
        following = RowSender(scheduler, ROWS, True)
        following(6, 7, lambda start, stop: answered.set())
        model.let_go(2)
        assert answered.wait(60)
    assert [feeds["x"].tolist() for feeds in model.calls] == [[0], [6]] and following.error is None
