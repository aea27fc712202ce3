"""Ends a process although a call hangs in native code."""

import atexit
import logging
import os
import sys

from sluice.models.batching.watchdog import hanging


def end_process(code: int) -> None:
    """Ends the process with an exit code.

    While a call hangs in native code, the interpreter is not taken down, because that may wait for the call or crash.
    What the interpreter does at its end is done before: temporary files are removed, and streams are flushed.
    """
    if not hanging():
        sys.exit(code)
    atexit._run_exitfuncs()
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # nobody reads it any more
            continue
    os._exit(code)
