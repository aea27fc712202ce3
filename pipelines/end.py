"""Ends a process at once, although a call hangs in native code."""

import atexit
import os
import sys
import threading

from sluice.models.batching.watchdog import hanging


def end_process(code: int) -> None:
    """Ends the process with an exit code.

    What the interpreter does at its end is done: threads are waited for, temporary files are removed, and streams are
    flushed. Then the system takes the memory back. Python would take down every module and TensorFlow's every object
    first, which takes a tenth of a second, and while a call hangs in native code it may wait for the call or crash.
    """
    if not hanging():
        threading._shutdown()  # type: ignore[attr-defined]  # what Python calls, too, when its main thread ends
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # nobody reads it any more
            continue
    os._exit(code)
