"""The one place that imports TensorFlow."""

import contextlib
import functools
import os
import re
import sys
import threading
from collections.abc import Iterator
from typing import Any

# How lines begin that TensorFlow's native code writes while it is loaded: those of absl's log, and of TensorFlow's own.
_START_UP_LINE = re.compile(
    rb"WARNING: All log messages before absl|To enable the following instructions|"
    rb"[IWEF]\d{4} \d\d:\d\d:|\d{4}-\d\d-\d\d [\d:.]+: [IWEF] "
)
_redirection = threading.RLock()


@functools.cache
def tensorflow() -> Any:
    """Returns the module `tensorflow`, imported at the first call, which takes some seconds."""
    # Start-up lines of TensorFlow's C++ side drown the progress line; errors of calls come as exceptions.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with quiet_stderr():
        import tensorflow as module
    return module


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Drops the lines that TensorFlow's native code writes to file descriptor 2: it heeds no log level at import.

    What other threads write meanwhile appears at the end.
    """
    with _redirection:
        _flush()
        try:
            kept = os.dup(2)
        except OSError:  # no standard error at all
            yield
            return
        caught = os.memfd_create("stderr")
        os.dup2(caught, 2)
        try:
            yield
        finally:
            _flush()
            os.dup2(kept, 2)
            _write_again(caught, kept)
            os.close(caught)
            os.close(kept)


def _flush() -> None:
    # There may be no such stream, or one that is closed, or whose reader has gone: a model is loaded all the same.
    with contextlib.suppress(OSError, ValueError):
        if sys.stderr is not None:
            sys.stderr.flush()


def _write_again(caught: int, stderr: int) -> None:
    os.lseek(caught, 0, os.SEEK_SET)
    with os.fdopen(os.dup(caught), "rb") as file:
        lines = [line for line in file if not _START_UP_LINE.match(line)]
    if lines:
        with contextlib.suppress(OSError):  # its reader has gone, which whoever writes next will meet
            os.write(stderr, b"".join(lines))


@contextlib.contextmanager
def real_stderr() -> Iterator[None]:
    """Keeps `quiet_stderr` of other threads waiting: within the block, descriptor 2 is what it was at the start."""
    with _redirection:
        yield
