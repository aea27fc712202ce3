"""A Keras model and its data, as docs/keras.md has them: in three commands from `sluice --help` to predictions."""

import csv
import json
import os
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sluice.models.cache import open_model
from sluice.pipelines.cli import main
from tests.support.pages.examples import FILE, SLUICE, examples_of
from tests.support.paths import ROOT
from tests.support.saved_models.keras import PENGUINS

NUMBERS, TEXTS = ("bill.length.mm", "bill.depth.mm", "flipper.length.mm"), ("island", "sex")


@pytest.fixture
def commands(cases: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The words of the page's commands after `sluice`, in a directory with its files."""
    monkeypatch.chdir(tmp_path)
    os.symlink(cases("penguins"), "penguins_model")
    examples = examples_of(PENGUINS)
    for example in examples:
        if example.kind == FILE:
            Path(example.file).write_text(example.text)
    return [shlex.split(example.text)[1:] for example in examples if example.kind == SLUICE]


def test_three_commands_from_help_to_predictions(commands: list[list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    help_, refused, scored = commands
    with pytest.raises(SystemExit) as end:
        main(help_)
    assert end.value.code == 0
    example = next(line.split() for line in capsys.readouterr().out.splitlines() if "sluice batch" in line)
    assert [word for word in example if word.startswith("--")] == [word for word in refused if word.startswith("--")]

    assert main(refused) == 2
    told = capsys.readouterr().err
    assert _shown(told) in " ".join((ROOT / PENGUINS).read_text().split())
    pasted = re.findall(r"--map \S+|--null_values [^\s,]+", told)
    assert scored == [*refused, *" ".join(pasted).split()], "what the third command adds is what the error names"

    assert main(scored) == 0
    with open("predictions-00000-of-00001.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    penguins = pd.read_csv("penguins.csv", keep_default_na=False, na_values={name: ["NA"] for name in NUMBERS})
    measured = penguins.dropna()
    assert [row["bill.length.mm"] for row in rows] == [f"{value:g}" for value in measured["bill.length.mm"]]
    np.testing.assert_allclose([float(row["body_mass"]) for row in rows], _called(measured), rtol=1e-6)
    (failure,) = map(json.loads, Path("predictions.failures-00000-of-00001.jsonl").read_text().splitlines())
    assert "is null" in failure["error_message"]
    assert len(rows) == len(penguins) - 1


def _shown(told: str) -> str:
    """Returns what the page shows of an error: in one line, and shortened where values are to be chosen."""
    return re.sub(r"--column_defaults \S+", "--column_defaults ...", " ".join(told.split()))


def _called(penguins: pd.DataFrame) -> np.ndarray:
    """Returns the model's answers to these rows by a direct call."""
    model = open_model("penguins_model")
    feeds = {name.replace(".", "_"): penguins[[name]].to_numpy(np.float32) for name in NUMBERS}
    feeds |= {name: np.array([[text.encode()] for text in penguins[name]], object) for name in TEXTS}
    try:
        return np.asarray(model.call(feeds).arrays["body_mass"])[:, 0]
    finally:
        model.close()
