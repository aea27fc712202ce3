"""Models that stay open between calls, and are opened anew when their files change."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sluice.models.batching.options import SchedulerOptions
from sluice.models.batching.scheduler import Scheduler
from sluice.models.cache import ModelRecipe, recipe_of
from sluice.models.errors import ModelNotFound
from sluice.models.files import LocalFiles, ModelFiles
from sluice.models.interface import ModelOptions
from sluice.models.opened import OpenedModels
from tests.support.fakes import FakeModel


class Opener:
    """Opens fakes, and keeps them with the versions that were asked for."""

    def __init__(self) -> None:
        self.models: list[FakeModel] = []
        self.versions: list[int | None] = []

    def __call__(self, recipe: ModelRecipe, files: ModelFiles) -> Scheduler:
        self.models.append(FakeModel())
        self.versions.append(recipe.spec.version)
        return Scheduler(self.models[-1], SchedulerOptions())


@pytest.fixture
def base(cases: Callable[[str], str], tmp_path: Path) -> Path:
    shutil.copytree(cases("picky"), tmp_path / "m" / "1")
    return tmp_path / "m"


def touch(directory: Path) -> None:
    os.utime(directory / "saved_model.pb", ns=(1, 1))


def test_a_model_is_opened_once(base: Path) -> None:
    opener = Opener()
    opened = OpenedModels(opener)
    for _ in range(2):
        with opened.lend(recipe_of(base), LocalFiles()) as scheduler:
            assert scheduler.model is opener.models[0]
    with opened.lend(ModelRecipe(recipe_of(base).spec, ModelOptions(warm_up=False)), LocalFiles()):
        assert len(opener.models) == 2, "other options are another model"
    opened.close()
    assert all(model.closed for model in opener.models)


def test_one_that_was_exported_again_is_opened_again_and_the_old_one_closes_after_its_last_call(base: Path) -> None:
    opener = Opener()
    opened = OpenedModels(opener)
    with opened.lend(recipe_of(base), LocalFiles()):
        touch(base / "1")
        with opened.lend(recipe_of(base), LocalFiles()) as scheduler:
            assert scheduler.model is opener.models[1]
        assert not opener.models[0].closed, "a call uses it"
    assert opener.models[0].closed
    shutil.copytree(base / "1", base / "2")
    with opened.lend(recipe_of(base), LocalFiles()):
        assert opener.versions == [1, 1, 2]
    assert opener.models[1].closed, "no call used it"
    opened.close()


def test_a_broken_export_is_an_error_and_leaves_what_was_open(base: Path) -> None:
    opener = Opener()
    opened = OpenedModels(opener)
    with opened.lend(recipe_of(base), LocalFiles()):
        pass
    (base / "1" / "saved_model.pb").rename(base / "kept")
    with pytest.raises(ModelNotFound), opened.lend(recipe_of(base), LocalFiles()):
        pass
    (base / "kept").rename(base / "1" / "saved_model.pb")
    with opened.lend(recipe_of(base), LocalFiles()):
        assert len(opener.models) == 1
    opened.close()


def test_the_models_that_were_used_last_stay_open() -> None:
    opener = Opener()
    opened = OpenedModels(opener)

    def use(number: int) -> None:
        with opened.lend(recipe_of(f"grpc://h:1/m{number}"), LocalFiles()):
            pass

    with opened.lend(recipe_of("grpc://h:1/m0"), LocalFiles()):
        for number in (1, 2, 3, 4, 5, 6, 7, 1, 8, 9):
            use(number)
        assert [place for place, model in enumerate(opener.models) if model.closed] == [2]
    assert opener.models[0].closed, "its call has ended"
    use(1)
    assert len(opener.models) == 10, "it is open"
    opened.close()
    assert all(model.closed for model in opener.models)


def test_a_served_model_has_no_files_here() -> None:
    opener = Opener()
    opened = OpenedModels(opener)
    for _ in range(2):
        with opened.lend(recipe_of("grpc://h:1/m"), LocalFiles()):
            assert len(opener.models) == 1
    opened.close()
