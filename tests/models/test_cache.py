"""One model and one scheduler per process and recipe."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from sluice.models.batching.options import SchedulerOptions
from sluice.models.batching.scheduler import Scheduler
from sluice.models.cache import ModelRecipe, _Cache, longest_call_secs, schedule
from sluice.models.errors import ModelNotFound
from sluice.models.files import ModelFiles
from sluice.models.interface import ModelOptions
from sluice.models.uri import ModelSpec
from tests.support.fakes import PATIENCE_SECS, FakeModel, x_feeds

RECIPE = ModelRecipe(ModelSpec("m"), ModelOptions(defaults=(("x", float("nan")),)))


class Opener:
    """Opens fake models; if gated, only when the test lets it."""

    def __init__(self) -> None:
        self.opened: list[FakeModel] = []
        self.errors: list[Exception] = []
        self.held: dict[str, threading.Event] = {}
        self.begun = threading.Semaphore(0)

    def __call__(self, recipe: ModelRecipe, files: ModelFiles | None) -> Scheduler:
        self.begun.release()
        if recipe.spec.uri in self.held:
            assert self.held[recipe.spec.uri].wait(PATIENCE_SECS)
        if self.errors:
            raise self.errors.pop()
        self.opened.append(FakeModel())
        return Scheduler(self.opened[-1], recipe.scheduler)


@pytest.fixture
def opener() -> Opener:
    return Opener()


@pytest.fixture
def cache(opener: Opener) -> Iterator[_Cache]:
    cache = _Cache(opener)
    yield cache
    cache.clear()


def test_concurrent_callers_get_the_one_that_the_first_opens(opener: Opener, cache: _Cache) -> None:
    opener.held["m"] = threading.Event()
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(cache.scheduler, RECIPE, None) for _ in range(8)]
        assert opener.begun.acquire(timeout=PATIENCE_SECS)
        opener.held["m"].set()
        schedulers = {future.result(PATIENCE_SECS) for future in futures}
    assert len(schedulers) == len(opener.opened) == 1
    assert cache.scheduler(pickle.loads(pickle.dumps(RECIPE)), None) in schedulers


@pytest.mark.parametrize(
    "other",
    [
        ModelRecipe(ModelSpec("m", 2), RECIPE.model),
        ModelRecipe(ModelSpec("other"), RECIPE.model),
        ModelRecipe(ModelSpec("m"), ModelOptions("other")),
        ModelRecipe(ModelSpec("m"), RECIPE.model, SchedulerOptions(max_batch_size=2)),
    ],
)
def test_another_recipe_is_another_model(opener: Opener, cache: _Cache, other: ModelRecipe) -> None:
    assert cache.scheduler(RECIPE, None) is not cache.scheduler(other, None)
    assert len(opener.opened) == 2


def test_a_model_that_loads_does_not_keep_others_waiting(opener: Opener, cache: _Cache) -> None:
    opener.held["slow"] = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(cache.scheduler, ModelRecipe(ModelSpec("slow")), None)
        assert opener.begun.acquire(timeout=PATIENCE_SECS)
        assert cache.scheduler(RECIPE, None).model is opener.opened[0]
        opener.held["slow"].set()
        assert slow.result(PATIENCE_SECS).model is opener.opened[1]


def test_a_model_that_could_not_be_opened_is_tried_again(opener: Opener, cache: _Cache) -> None:
    opener.errors.append(ModelNotFound("not yet"))
    with pytest.raises(ModelNotFound):
        cache.scheduler(RECIPE, None)
    assert cache.scheduler(RECIPE, None).model is opener.opened[0]


def test_clearing_closes_every_model_and_opens_anew(opener: Opener, cache: _Cache) -> None:
    scheduler = cache.scheduler(RECIPE, None)
    assert scheduler.submit(x_feeds(1)).future.result(PATIENCE_SECS).arrays["y"].tolist() == [2]
    cache.clear()
    assert opener.opened[0].closed
    assert cache.scheduler(RECIPE, None) is not scheduler
    assert len(opener.opened) == 2


def test_a_model_that_is_opened_ahead_is_the_one_that_callers_get(opener: Opener, cache: _Cache) -> None:
    opener.held["m"] = threading.Event()
    thread = cache.open_ahead(RECIPE, None)
    assert opener.begun.acquire(timeout=PATIENCE_SECS)
    assert not opener.opened  # and nobody waited for it
    opener.held["m"].set()
    assert cache.scheduler(RECIPE, None).model is opener.opened[0]
    thread.join(PATIENCE_SECS)
    assert len(opener.opened) == 1


def test_a_model_that_cannot_be_opened_ahead_is_refused_once_and_with_the_same_error(
    opener: Opener, cache: _Cache
) -> None:
    opener.errors.append(error := ModelNotFound("not yet"))
    cache.open_ahead(RECIPE, None)
    with pytest.raises(ModelNotFound) as raised:
        cache.scheduler(RECIPE, None)
    assert raised.value is error
    assert opener.begun.acquire(blocking=False) and not opener.begun.acquire(blocking=False)  # it was not tried again
    assert cache.scheduler(RECIPE, None).model is opener.opened[0]


def test_without_a_thread_to_open_it_ahead_a_model_is_opened_by_who_comes(
    opener: Opener, cache: _Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        cache.open_ahead(RECIPE, None)
    with ThreadPoolExecutor() as threads:
        assert threads.submit(cache.scheduler, RECIPE, None).result(PATIENCE_SECS).model is not None


def test_clearing_waits_for_models_that_are_opened_ahead(opener: Opener, cache: _Cache) -> None:
    cache.open_ahead(RECIPE, None)
    cache.clear()
    assert opener.opened[0].closed


@pytest.mark.parametrize(
    ("remote", "limit_secs", "wanted"), [(False, 600.0, 2 * 605.0), (False, 0.0, None), (True, 600.0, 4 * 605.0)]
)
def test_a_call_may_go_on_for_its_limit_as_often_as_it_is_tried(
    remote: bool, limit_secs: float, wanted: float | None
) -> None:
    model = FakeModel()
    model.remote = remote
    scheduler = schedule(model, SchedulerOptions(max_retries=3), ModelOptions(time_limit_secs=limit_secs))
    scheduler.close()
    assert longest_call_secs(scheduler) == wanted
