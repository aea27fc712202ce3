"""Ends a process at once, although a call hangs in native code."""

import atexit
import contextlib
import logging
import os
import signal
import sys
import threading

from sluice.models.batching.watchdog import hanging
from sluice.pipelines.logs import standard_error, tell
from sluice.pipelines.outcome import EXIT_FAILED, EXIT_INTERRUPTED


def end_process(code: int) -> None:
    """Ends the process with an exit code; with 1 where that was 0 and its output cannot be written.

    What the interpreter does at its end is done: threads are waited for, temporary files are removed, and streams are
    flushed. Then the system takes the memory back. Python would take down every module and TensorFlow's every object
    first, which takes a tenth of a second, and while a call hangs in native code it may wait for the call or crash.

    Ctrl-C ends the wait for threads; once more, it ends the process. The exit code is then 130 where it was 0.
    """
    try:
        if not hanging():
            threading._shutdown()  # type: ignore[attr-defined]  # what Python calls, too, when its main thread ends
    except KeyboardInterrupt:
        code = code or EXIT_INTERRUPTED
    _end_at_ctrl_c(code or EXIT_INTERRUPTED)
    atexit._run_exitfuncs()
    os._exit(code if _flush() else code or EXIT_FAILED)


def _end_at_ctrl_c(code: int) -> None:
    # Functions of atexit would print a traceback, and go on. Who has had ctrl-C ignored wants it to stay so.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda *_: os._exit(code))


def _flush() -> bool:
    """Flushes the standard streams, of which there may be none; returns False if some output is lost."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
        lost = ""
    except (BrokenPipeError, ValueError):  # nobody reads it any more
        lost = ""
    except OSError as error:  # as on a full disk
        lost = error.strerror or type(error).__name__
    if lost:
        tell(f"sluice: standard output cannot be written: {lost}\n", logging.ERROR)
    with contextlib.suppress(OSError, ValueError):
        standard_error().flush()
    return not lost
