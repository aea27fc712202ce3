"""TensorFlow's library, as it is loaded: in any thread, once, and with Python's lock free."""

import logging
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sluice.models.saved_model.native.library import begin_to_load, load_library, open_library
from tests.support.fakes import PATIENCE_SECS
from tests.support.paths import ROOT

# Counts how often Python runs while the library is loaded in another thread.
_COUNT = """
import threading
from sluice.models.saved_model.native import library

turns, ended = 0, threading.Event()
real, library._what_is_wrong = library._what_is_wrong, lambda found: ended.set() or real(found)
thread = library.begin_to_load()
while not ended.wait(0.001):
    turns += 1
thread.join()
assert library.load_library() is not None
print(turns)
"""


def test_python_runs_while_the_library_is_loaded() -> None:
    """Loading takes hundreds of milliseconds. ctypes.CDLL would keep Python's lock: about five turns, at any speed."""
    done = subprocess.run([sys.executable, "-c", _COUNT], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 20


def test_all_threads_get_the_same_library() -> None:
    thread = begin_to_load()
    with ThreadPoolExecutor(8) as pool:
        assert len({id(library) for library in pool.map(lambda _: load_library(), range(8))}) == 1
    thread.join(PATIENCE_SECS)


def test_a_library_that_cannot_be_loaded_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "libtensorflow_cc.so.2").write_text("no library")
    with caplog.at_level(logging.WARNING):
        assert open_library(str(tmp_path)) is None
    assert f"{tmp_path}/libtensorflow_cc.so.2: file too short" in caplog.text
