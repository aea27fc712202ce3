"""The one place that imports TensorFlow."""

import contextlib
import functools
import os
import sys
from collections.abc import Iterator
from typing import Any


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
    """Throws away what native code writes to file descriptor 2: TensorFlow 2.21 heeds no log level at import."""
    sys.stderr.flush()
    try:
        kept = os.dup(2)
    except OSError:  # no standard error at all
        yield
        return
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)
