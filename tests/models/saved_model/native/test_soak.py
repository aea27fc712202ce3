"""Many calls of natively loaded models: no crash, no wrong answer, no memory lost."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.saved_models.native_soak import SOAKED
from tests.support.sizes import size


@pytest.mark.soak
def test_random_calls_leave_memory_as_it_was(tmp_path: Path) -> None:
    for name, build in SOAKED.items():
        build(str(tmp_path / name))
    calls, seed = size(1_000, soak=200_000), 7 if os.environ.get("CI") else random.randrange(10**6)
    command = [sys.executable, "-m", "tests.support.saved_models.native_soak", str(calls), str(seed), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, (seed, done.stderr)
    assert re.match(rf"{calls} calls, of which \d+ were refused; memory \d+ -> \d+ -> \d+ MB$", done.stdout)
    print(done.stdout)
