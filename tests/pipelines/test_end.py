"""`end_process`: what the interpreter does at its end is done, though it is not taken down."""

import os
import subprocess
import sys

import pytest

_SCRIPT = """
import atexit, threading
from sluice.models.batching.watchdog import Watchdog
from sluice.models.errors import TimedOut
from sluice.pipelines.end import end_process

atexit.register(print, "files are removed")
threading.Thread(target=threading.Event().wait).start()  # the interpreter would wait for it
try:
    Watchdog().run(threading.Event().wait, 0.01)
except TimedOut:
    end_process(7)
"""


# A thread that still works, output that is not flushed, and a frame that would be taken down at the interpreter's end.
_ORDINARY = """
import atexit, sys, threading, time
from sluice.pipelines.end import end_process

atexit.register(print, "files are removed")
threading.Thread(target=lambda: (time.sleep(0.2), print("the thread has ended"))).start()
sys.stdout.write("unflushed, ")
end_process(3)
"""


def test_what_is_at_work_is_waited_for() -> None:
    ran = subprocess.run([sys.executable, "-c", _ORDINARY], capture_output=True, text=True, timeout=120, check=False)
    assert (ran.returncode, ran.stderr) == (3, "")
    assert ran.stdout == "unflushed, the thread has ended\nfiles are removed\n"


def test_a_process_ends_though_a_call_hangs() -> None:
    ran = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True, timeout=120, check=False)
    assert (ran.returncode, ran.stdout) == (7, "files are removed\n"), ran.stderr


def test_output_that_is_lost_is_a_failure() -> None:
    """Output of less than a buffer meets a full disk only when the process ends."""
    script = "from sluice.pipelines.end import end_process\nprint('an answer')\nend_process({})"
    buffered = {**os.environ, "PYTHONUNBUFFERED": ""}
    for code, wanted in ((0, 1), (3, 3)):
        with open("/dev/full", "w") as full:
            words = [sys.executable, "-c", script.format(code)]
            ran = subprocess.run(
                words, stdout=full, stderr=subprocess.PIPE, env=buffered, text=True, timeout=120, check=False
            )
        assert (ran.returncode, ran.stderr) == (
            wanted,
            "sluice: standard output cannot be written: No space left on device\n",
        )


def test_a_process_may_have_no_standard_output() -> None:
    script = "from sluice.pipelines.end import end_process\nend_process(0)"
    words = ["sh", "-c", 'exec "$0" -c "$1" >&-', sys.executable, script]
    ran = subprocess.run(words, stderr=subprocess.PIPE, text=True, timeout=120, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")


# A thread presses ctrl-C while the process waits for it, or a function of atexit does, and it goes on for longer.
_INTERRUPTED = """
import atexit, os, signal, sys, threading
from sluice.pipelines.end import end_process

def press():
    os.kill(os.getpid(), signal.SIGINT)

def waits():
    frame = sys._current_frames()[threading.main_thread().ident]
    return frame.f_code.co_name == "_shutdown"

def work():
    while not waits():
        pass
    press()
    threading.Event().wait(30)

atexit.register(print, "files are removed", flush=True)
{}
end_process({})
"""


@pytest.mark.parametrize(
    ("presses", "code", "wanted", "stdout"),
    [
        ("threading.Thread(target=work).start()", 0, 130, "files are removed\n"),
        ("threading.Thread(target=work).start()", 3, 3, "files are removed\n"),
        ("atexit.register(press)", 0, 130, ""),
    ],
    ids=["a thread works", "a failed job", "files are being removed"],
)
def test_ctrl_c_ends_it_without_a_traceback(presses: str, code: int, wanted: int, stdout: str) -> None:
    words = [sys.executable, "-c", _INTERRUPTED.format(presses, code)]
    ran = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (wanted, stdout, "")
