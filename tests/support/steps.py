"""Pieces of code that a new process of Python runs one after the other: what each has imported, and how it ended.

A process for each would import the same for seconds every time.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tests.support.paths import ROOT

_SCRIPT = """
import json, sys, traceback

with open(sys.argv[1]) as file:
    names, steps = json.load(file)
wrong = {}
for name, (code, forbidden) in steps.items():
    try:
        exec(code, dict(names))
        found = set(forbidden) & set(sys.modules)
        wrong[name] = f"imported: {found}" if found else ""
    except BaseException:
        wrong[name] = traceback.format_exc()
with open(sys.argv[2], "w") as file:
    json.dump(wrong, file)
"""


class Step(NamedTuple):
    """A piece of code.

    Attributes:
      forbidden: the modules that must not have been imported when it is over.
    """

    code: str
    forbidden: set[str]


def run_steps(steps: Mapping[str, Step], directory: Path, **names: str) -> dict[str, str]:
    """Returns what is wrong with each step; "" if nothing.

    What one step imports stays for the next ones. So those that may import least come first; in another order, a step
    is told to have imported what an earlier one has, and fails.

    Args:
      directory: for what the process prints, and other files; its standard error is a file.
      names: strings that every step finds under these names.
    """
    request, answer = directory / "steps.json", directory / "wrong.json"
    request.write_text(json.dumps([names, {name: [step.code, sorted(step.forbidden)] for name, step in steps.items()}]))
    printed = directory / "printed.txt"
    with open(printed, "wb") as file:
        command = [sys.executable, "-c", _SCRIPT, str(request), str(answer)]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=file, check=False)
    assert done.returncode == 0, printed.read_text()
    wrong: dict[str, str] = json.loads(answer.read_text())
    return {name: error and f"{error}\n{printed.read_text()}" for name, error in wrong.items()}
