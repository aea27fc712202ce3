"""The SavedModels of all tests, built once by a process of its own, and kept until what builds them changes.

`python -m tests.support.saved_models.built DIRECTORY` builds those that the directory lacks. So a worker that only
calls models does not import Python TensorFlow, which takes 6 s of CPU, and a second run of the tests finds them built.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from tests.support.paths import ROOT
from tests.support.saved_models.cases import CASES
from tests.support.saved_models.keras import PENGUINS, build_penguins, save_keras3
from tests.support.saved_models.native_soak import SOAKED
from tests.support.saved_models.special import SPECIAL

BUILDERS: dict[str, Callable[[str], None]] = {
    **{case.name: case.build for case in CASES},
    **SOAKED,
    **SPECIAL,
    "keras3_saved": save_keras3,
    "penguins": build_penguins,
}


class BuiltModels:
    """Returns the directory of a model of BUILDERS by its name. No test may write to it.

    Args:
      kept: a directory that outlives the run; it is shared by the workers.
    """

    def __init__(self, kept: Path) -> None:
        self._kept = kept
        self._directory = kept / _key()

    def __call__(self, name: str) -> str:
        directory = self._directory / name
        if not directory.exists():
            self.build()
        return str(directory)

    def build(self) -> None:
        """Builds the models that are not there."""
        with open(self._kept / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if all((self._directory / name).exists() for name in BUILDERS):
                return  # by another worker, meanwhile
            for other in self._kept.iterdir():
                if other.is_dir() and other != self._directory:
                    shutil.rmtree(other)
            command = [sys.executable, "-m", "tests.support.saved_models.built", str(self._directory)]
            built = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=_environment(), check=False)
            assert built.returncode == 0, built.stderr


def _key() -> str:
    """Returns a name that changes with all that builds the models."""
    digest = hashlib.sha256()
    for package in ("tensorflow", "keras", "tf-keras"):
        digest.update(importlib.metadata.version(package).encode())
    digest.update((ROOT / PENGUINS).read_bytes())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _environment() -> dict[str, str]:
    """Returns ours without a sanitizer, which would slow the build down."""
    return {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}


def build_all(directory: Path) -> int:
    """Builds the models that the directory lacks; returns how many could not be."""
    failed = 0
    directory.mkdir(parents=True, exist_ok=True)
    for name, build in BUILDERS.items():
        if not (directory / name).exists():
            unfinished = directory / f"{name}.{os.getpid()}"
            try:
                build(str(unfinished))
                unfinished.rename(directory / name)
            except Exception:  # noqa: BLE001  the others are built nevertheless
                print(f"{name}:", traceback.format_exc(), file=sys.stderr)
                failed += 1
    return failed


if __name__ == "__main__":
    sys.exit(build_all(Path(sys.argv[1])))
