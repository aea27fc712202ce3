"""Many calls of natively loaded models: no crash, no wrong answer, no memory lost."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.sizes import size


@pytest.mark.soak
def test_random_calls_leave_memory_as_it_was(cases: Callable[[str], str]) -> None:
    calls, seed = size(1_000, soak=200_000), 7 if os.environ.get("CI") else random.randrange(10**6)
    directory = str(Path(cases("typed")).parent)
    command = [sys.executable, "-m", "tests.support.saved_models.native_soak", str(calls), str(seed), directory]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, (seed, done.stderr)
    assert re.match(rf"{calls} calls, of which \d+ were refused; memory \d+ -> \d+ -> \d+ MB$", done.stdout)
    print(done.stdout)
