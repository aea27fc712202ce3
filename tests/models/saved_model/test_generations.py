"""A model is replaced while it is called, and none is called after it was closed."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

import pytest

from sluice.models.errors import BadInput
from sluice.models.interface import Outputs
from sluice.models.saved_model.generations import Generations
from sluice.models.tensors.binding import Feeds
from tests.support.fakes import PATIENCE_SECS, FakeModel, refusing, x_feeds
from tests.support.sizes import size


class Numbered(FakeModel):
    """A model that answers with its number in `y`, until it is closed."""

    def __init__(self, number: int) -> None:
        super().__init__(self._number)
        self.number = number

    def _number(self, feeds: Feeds) -> Outputs:
        assert not self.closed, f"model {self.number} is called after it was closed"
        return Outputs({"y": 0 * feeds["x"] + self.number}, self.number)


def test_a_model_is_closed_when_its_last_call_ends() -> None:
    old, new = FakeModel(gated=True), FakeModel()
    generations = Generations(old)

    def call() -> FakeModel:
        with generations.use() as model:
            model.call(x_feeds(1))
            assert isinstance(model, FakeModel)
            return model

    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(call) for _ in range(2)]
        old.await_call()
        old.await_call()
        generations.replace(new)
        assert call() is new
        assert not old.closed
        old.let_go()
        assert len(wait(calls, PATIENCE_SECS, FIRST_COMPLETED).done) == 1
        assert not old.closed
        old.let_go()
        assert [each.result(PATIENCE_SECS) for each in calls] == [old, old]
    assert old.closed and not new.closed
    generations.close()
    assert new.closed


def test_a_model_that_nobody_calls_is_closed_at_once() -> None:
    old = FakeModel()
    generations = Generations(old)
    generations.replace(FakeModel())
    assert old.closed


def test_a_call_that_fails_lets_its_model_go() -> None:
    old = FakeModel(refusing(frozenset({1})))
    generations = Generations(old)
    with pytest.raises(BadInput), generations.use() as model:
        generations.replace(FakeModel())
        assert not old.closed
        model.call(x_feeds(1))
    assert old.closed


@pytest.mark.soak
def test_many_threads_call_while_models_are_replaced() -> None:
    models = [Numbered(number) for number in range(size(40, soak=200))]
    generations = Generations(models[0])
    over = threading.Event()
    called = Counter[int]()
    one_more = threading.Condition()

    def call_on() -> None:
        while not over.is_set():
            with generations.use() as model:
                outputs = model.call(x_feeds(1, 2))
            assert outputs.arrays["y"].tolist() == [outputs.version] * 2
            with one_more:
                called[outputs.version or 0] += 1
                one_more.notify_all()

    with ThreadPoolExecutor(4) as pool:
        threads = [pool.submit(call_on) for _ in range(4)]
        try:
            for model in models[1:]:
                generations.replace(model)
                with one_more:
                    assert one_more.wait_for(lambda: called[model.number], PATIENCE_SECS)  # noqa: B023
        finally:
            over.set()
        for thread in threads:
            thread.result(PATIENCE_SECS)
    assert [model.number for model in models if not model.closed] == [len(models) - 1]
