"""Models are built once, and one that cannot be built leaves the others."""

import os
from pathlib import Path

import pytest

from tests.support.saved_models import built
from tests.support.saved_models.built import BuiltModels, build_all


def write(directory: str) -> None:
    os.mkdir(directory)
    Path(directory, "saved_model.pb").write_text("model")


def fail(directory: str) -> None:
    write(directory)
    raise ValueError("no model")


def test_what_is_there_is_not_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(built, "BUILDERS", {"bad": fail, "good": write})
    assert build_all(tmp_path) == 1
    assert (tmp_path / "good").is_dir() and not (tmp_path / "bad").exists()
    monkeypatch.setattr(built, "BUILDERS", {"good": fail, "later": write})
    assert build_all(tmp_path) == 0
    assert (tmp_path / "later").is_dir()


def test_models_are_kept_until_what_builds_them_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = BuiltModels(tmp_path)
    monkeypatch.setattr(built, "BUILDERS", {"good": write})
    directory = tmp_path / built._key() / "good"
    directory.mkdir(parents=True)
    assert models("good") == str(directory)
    monkeypatch.setattr(built.importlib.metadata, "version", lambda package: "another")
    assert built._key() != directory.parent.name
