"""Directories made once per run, by the pytest-xdist worker that needs them first, and shared with the others."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")


class SharedDirectory:
    """A directory shared by the workers of a run."""

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        base = factory.getbasetemp()
        self._base = (base.parent if WORKER else base) / "shared"
        self._base.mkdir(exist_ok=True)

    def made(self, name: str, make: Callable[[Path], object]) -> Path:
        """Returns the subdirectory of a name, once it is complete.

        Args:
          make: fills a directory that does not exist yet.
        """
        directory = self._base / name
        with self._locked(name):
            if not directory.exists():
                unfinished = self._base / f"{name}.{os.getpid()}"
                make(unfinished)
                unfinished.rename(directory)
        return directory

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        with open(self._base / f"{name}.lock", "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
