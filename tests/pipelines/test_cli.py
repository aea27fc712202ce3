"""What the command line says to what was typed wrongly: one line, and what may have been meant."""

import pytest

from sluice.pipelines import cli
from sluice.pipelines.cli import main
from sluice.pipelines.commands.listed import COMMANDS, Listed


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["bach", "--model=m"], ["invalid choice: 'bach'", "bach: did you mean batch?"]),
        (["batch", "--modle=m", "--input=i", "--output=o.csv"], ["--modle: did you mean --model?"]),
        (["batch", "--input=i"], ["required: --model"]),
        (["batch", "--modle=m", "--max_batch_size=many"], ["invalid int value: 'many'", "did you mean --model?"]),
        (["batch", "--model=m", "--input_format=cvs"], ["invalid choice: 'cvs'", "cvs: did you mean csv?"]),
        (["batch", "--model=m", "--max_batch_size=many"], ["--max_batch_size", "invalid int value: 'many'"]),
        (["serve", "--modle", "m", "--name", "n"], ["--modle: did you mean --model?"]),
        (["template", "metadata", "--pipelin", "batch"], ["--pipelin: did you mean --pipeline?"]),
        ([], ["required: COMMAND"]),
    ],
)
def test_what_is_typed_wrongly(typed: list[str], words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(typed)
    told = capsys.readouterr().err
    assert caught.value.code == 2
    assert told.count("\n") == 1 and "usage:" not in told and "--help lists all" in told
    assert [word for word in words if word not in told] == []


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--colums=a", "--colums=a: neither Sluice nor Beam has such a flag; did you mean --columns?"),
        ("data/b.csv", "'data/b.csv' is no flag; give a glob in quotes, and --input again for each further path"),
    ],
)
def test_flags_that_nobody_has(flag: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["batch", "--progress=none", "--model=m", "--input=data/a.csv", "--output=o.csv", flag]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("listed", COMMANDS.values(), ids=COMMANDS)
def test_what_is_listed_of_a_command_is_what_it_says_itself(listed: Listed) -> None:
    module = listed.load()
    assert listed.help == module.HELP
    assert module.DESCRIPTION and callable(module.add_arguments) and callable(module.run)


def test_the_help_of_a_command_has_its_flags_and_the_common_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["predict", "--help"])
    told = capsys.readouterr().out
    assert [
        word for word in ("sluice predict --model work/model", "--json ROWS", "--config FILE") if word not in told
    ] == []


def test_versions(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    told = capsys.readouterr().out
    assert caught.value.code == 0
    assert told.startswith("sluice ") and "tensorflow 2." in told and "apache-beam 2." in told


def test_ctrl_c_while_modules_are_imported_gives_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt() -> int:
        raise KeyboardInterrupt

    codes: list[int] = []
    monkeypatch.setattr(cli, "main", interrupt)
    monkeypatch.setattr(cli, "end_process", codes.append)
    cli.run_process()
    assert (codes, capsys.readouterr().err) == ([130], "sluice: interrupted\n")
