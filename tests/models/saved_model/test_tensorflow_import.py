"""What is left on standard error of what is written while TensorFlow is loaded. See test_startup.py for the loading."""

import os
import subprocess
import sys
import threading

import pytest

from sluice.models.saved_model.tensorflow_import import quiet_stderr, real_stderr
from tests.support.fakes import PATIENCE_SECS
from tests.support.paths import ROOT

_SCRIPT = """
import os, sys
from sluice.models.saved_model.tensorflow_import import quiet_stderr

sys.stderr.write("before\\n")
with quiet_stderr(), quiet_stderr():
    os.write(2, b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\\n")
    os.write(2, b"I0000 00:00:1796042383.040469    8406 cudart_stub.cc:31] Could not find cuda drivers\\n")
    sys.stderr.write("12:28:11 Model work/model, version 1\\n")
    os.write(2, b"2026-11-30 12:28:11.123456: I tensorflow/core/platform/cpu_feature_guard.cc:227] optimized\\n")
    os.write(2, b"To enable the following instructions: AVX2 FMA, rebuild TensorFlow\\n")
    sys.stderr.write("sluice batch: --input x: no file matches\\n")
    sys.stderr.write("no end of line")
sys.stderr.write(" and after\\n")
"""


def _stderr(script: str, **kwargs: object) -> str:
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, check=False, **kwargs)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_lines_of_others_appear_when_tensorflow_is_loaded() -> None:
    assert _stderr(_SCRIPT).splitlines() == [
        "before",
        "12:28:11 Model work/model, version 1",
        "sluice batch: --input x: no file matches",
        "no end of line and after",
    ]


def test_a_process_may_have_no_standard_error() -> None:
    script = (
        "import os\n"
        "from sluice.models.saved_model.tensorflow_import import quiet_stderr\n"
        "kept = os.dup(2)\n"
        "os.close(2)\n"
        "with quiet_stderr():\n"
        "    os.write(kept, b'in the block')\n"
    )
    assert _stderr(script) == "in the block"


@pytest.mark.parametrize("has_one", [True, False])
def test_a_process_may_have_no_stream_of_errors(has_one: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(os.devnull, "w") as closed:
        pass
    monkeypatch.setattr(sys, "stderr", closed if has_one else None)
    before = os.fstat(2).st_ino
    with quiet_stderr():
        assert os.fstat(2).st_ino != before
    assert os.fstat(2).st_ino == before


def test_a_look_at_standard_error_waits_until_it_is_the_real_one() -> None:
    script = (
        "import os, threading\n"
        "from sluice.models.saved_model.tensorflow_import import quiet_stderr, real_stderr\n"
        "quiet, look = threading.Event(), threading.Event()\n"
        "def load():\n"
        "    with quiet_stderr():\n"
        "        quiet.set()\n"
        "        look.wait()\n"
        "before = os.fstat(2).st_ino\n"
        "thread = threading.Thread(target=load)\n"
        "thread.start()\n"
        "quiet.wait()\n"
        "assert os.fstat(2).st_ino != before\n"
        "look.set()\n"
        "with real_stderr():\n"
        "    assert os.fstat(2).st_ino == before\n"
    )
    _stderr(script)


def test_a_load_waits_for_whoever_looks_at_standard_error() -> None:
    begun, before = threading.Event(), os.fstat(2).st_ino

    def load() -> None:
        begun.set()
        with quiet_stderr():
            pass

    thread = threading.Thread(target=load)
    with real_stderr():
        thread.start()
        assert begun.wait(PATIENCE_SECS)
        assert os.fstat(2).st_ino == before
    thread.join(PATIENCE_SECS)
    assert not thread.is_alive()
