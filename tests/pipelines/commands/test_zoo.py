"""The `sluice zoo` command."""

import argparse
from pathlib import Path

import pytest

from sluice.models.errors import UsageError
from sluice.pipelines.commands import zoo as command


def parse(*args: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(args)


@pytest.mark.job
def test_it_makes_a_model_and_input_and_says_what_to_try(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = tmp_path / "out"
    args = parse("natality", "--export", str(directory), "--rows", "12", "--formats", "jsonl, csv")
    assert command.run(args) == 0
    assert (directory / "model" / "1" / "saved_model.pb").exists()
    assert len((directory / "natality.jsonl").read_text().splitlines()) == 12
    assert len((directory / "natality.csv").read_text().splitlines()) == 13
    printed = capsys.readouterr().out
    assert f"model   {directory}/model/1" in printed
    assert (
        f"sluice batch --model {directory}/model --input {directory}/natality.jsonl "
        f"--output {directory}/predictions.jsonl" in printed
    )


@pytest.mark.job
def test_again_is_another_version_but_not_of_another_model(tmp_path: Path) -> None:
    natality = parse("natality", "--export", str(tmp_path), "--rows", "5")
    assert [command.run(natality), command.run(natality)] == [0, 0]
    assert (tmp_path / "model" / "2").exists()
    with pytest.raises(UsageError, match=r"model exists.*give census its own --export DIR"):
        command.run(parse("census", "--export", str(tmp_path), "--rows", "5"))
    assert not (tmp_path / "model" / "3").exists()


@pytest.mark.parametrize(
    "args,message",
    [
        (["titanic", "--export", "x"], "titanic"),
        (["census"], "--export"),
        (["census", "--export", "x", "--rows", "0"], "0 rows: give 1 or more"),
        (["census", "--export", "x", "--rows", "many"], "many"),
        (["census", "--export", "x", "--seed", "-1"], "seed -1: give 0 or more"),
        (["census", "--export", "x", "--formats", "csv,orc"], "no format 'orc'; there are csv, jsonl"),
    ],
)
def test_wrong_usage_is_exit_code_2(args: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        parse(*args)
    assert error.value.code == 2
    assert message in capsys.readouterr().err
