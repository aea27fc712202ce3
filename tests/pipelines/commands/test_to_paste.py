"""What a person is told to paste."""

from pathlib import Path

import pytest

from sluice.pipelines.commands.to_paste import activation, to_paste


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An environment below the current directory."""
    script = tmp_path / ".venv" / "bin" / "activate"
    script.parent.mkdir(parents=True)
    script.touch()
    monkeypatch.chdir(tmp_path)
    return str(tmp_path / ".venv")


def test_an_environment_that_is_not_active_is_activated_first(environment: str) -> None:
    first = activation(lambda _: None, environment)
    assert first == ". .venv/bin/activate"
    assert to_paste("sluice batch", first=first) == "  . .venv/bin/activate\n  sluice batch"


def test_an_environment_elsewhere_is_named_in_full(
    environment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    assert activation(lambda _: None, environment) == f". {environment}/bin/activate"


@pytest.mark.parametrize("found,missing", [("/usr/bin/sluice", ""), (None, "x")])
def test_nothing_is_needed_where_it_is_found_or_there_is_no_environment(
    found: str | None, missing: str, environment: str
) -> None:
    assert activation(lambda _: found, environment + missing) == ""
    assert to_paste("sluice batch", first="") == "  sluice batch"
