"""docs/first_steps.ipynb, cell by cell, with Beam told that it runs in Jupyter."""

import ast
import json
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from sluice.models.opened import OPENED
from sluice.pipelines import cli
from tests.support.paths import ROOT
from tests.support.saved_models.zoo import ZooSample


def code_cells() -> list[str]:
    cells = json.loads((ROOT / "docs/first_steps.ipynb").read_text())["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def run(source: str, names: dict[str, Any]) -> object:
    """Runs a cell; returns the value of its last line, as Jupyter shows it."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "first_steps.ipynb", "exec"), names)
    return None if last is None else eval(compile(ast.Expression(last.value), "first_steps.ipynb", "eval"), names)


@pytest.fixture
def jupyter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes Beam import what it imports in a notebook: pandas, and its own DataFrames."""
    ipython = ModuleType("IPython")
    ipython.get_ipython = lambda: SimpleNamespace(execution_count=1, config={})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ipython)


@pytest.mark.slow
@pytest.mark.usefixtures("jupyter")
def test_first_steps(
    zoo_samples: Mapping[str, ZooSample],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sample, work = zoo_samples["natality"], tmp_path / "work"
    work.mkdir()
    (work / "model").symlink_to(sample.model)
    shutil.copy(sample.path("csv"), work / "natality.csv")
    monkeypatch.chdir(tmp_path)
    shell, *cells = code_cells()
    made = cli._parsers()[0].parse_args(shlex.split(shell.removeprefix("!sluice")))
    assert (made.command, made.export) == ("zoo", "work"), "what the cells use"
    names: dict[str, Any] = {"__name__": "first_steps"}
    shown = [run(cell, names) for cell in cells]
    OPENED.close()
    printed = capsys.readouterr().out
    assert "'mother_age': 'float32'" in printed and "2 of 700 rows cannot be predicted: 3, 7." in printed
    assert "698 rows with predictions" in printed
    assert [frame.index.tolist() for frame in (names["found"].failures, shown[5])] == [["0000003", "0000007"]] * 2
    assert float(printed.split("error: ")[1].split()[0]) < 2, "pounds"
    assert len(names["predictions"]) == 700 and "weight_pounds" in names["predictions"]
    assert names["failures"]["stage"].tolist() == ["decode"]
