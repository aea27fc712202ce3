"""The memory of a local job does not grow with its failures."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sluice.pipelines.cli import main
from tests.support.sizes import SOAK

# Runs a job as the command does, and tells the most memory that it had, in kilobytes.
_JOB = """
import re, sys
from sluice.pipelines.cli import main
code = main(sys.argv[1:])
most = re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]  # ru_maxrss has the parent's, too
print(code, most)
"""
_GOOD_ROWS = 1_000
_FEW, _MANY = 5_000, 500_000
_MOST_GROWTH = 1.2
# What a failure took when the runner held those of a whole job: some 8 kB.
_MOST_KB_A_FAILURE = 2.0


def flags(model: str, directory: Path, failures: int) -> list[str]:
    """Returns the flags of a job with so many failures."""
    directory.mkdir()
    source = directory / "in.csv"
    source.write_text("x\n" + "4\n" * _GOOD_ROWS + "bad\n" * failures)
    files = [f"--input={source}", f"--output={directory}/out.csv", f"--summary_file={directory}/summary.json"]
    return ["batch", f"--model={model}", "--max_failure_rate=1", "--progress=none", *files]


def check(directory: Path, failures: int) -> None:
    found = json.loads((directory / "summary.json").read_text())
    assert (found["predictions"], found["failures"]) == (_GOOD_ROWS, failures)


def kilobytes(what: str) -> int:
    found = re.search(rf"{what}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1])


def growth(model: str, directory: Path, failures: int) -> int:
    """Returns how far the memory of this process grows while it runs a job, in kilobytes."""
    arguments = flags(model, directory, failures)
    before = kilobytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    assert main(arguments) == 0
    check(directory, failures)
    return kilobytes("VmHWM") - before


def peak(model: str, directory: Path, failures: int) -> int:
    """Returns the peak of a job in a process of its own, in kilobytes."""
    command = [sys.executable, "-c", _JOB, *flags(model, directory, failures)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    code, most = map(int, done.stdout.split())
    assert code == 0
    check(directory, failures)
    return most


@pytest.mark.soak
def test_memory_does_not_grow_with_failures(cases: Callable[[str], str], tmp_path: Path) -> None:
    model = cases("picky")
    if SOAK:  # in processes of their own, which start from nothing
        few, many = (peak(model, tmp_path / str(failures), failures) for failures in (_FEW, _MANY))
        assert many <= _MOST_GROWTH * few, f"{few} kB with {_FEW} failures, {many} kB with {_MANY}"
        return
    # The first one loads what this process lacks; the others fill the blocks that are under way at once, some 50 MB.
    _, few, many = (growth(model, tmp_path / str(failures), failures) for failures in (1_000, 11_000, 21_000))
    assert many - few < 10_000 * _MOST_KB_A_FAILURE, f"{few} kB with 11,000 failures, {many} kB with 21,000"
