"""What a process of a runner's does where only a new process can help."""

import logging
import os
import sys
import threading
from collections.abc import Callable

from sluice.models.wording import log_text

_LOG = logging.getLogger(__name__)

_WORKER_MODULE = "apache_beam.runners.worker.sdk_worker_main"
# Until then the bundle's error has reached the runner.
_LAST_SECS = 5.0
_EXIT_CODE = 1


def is_worker() -> bool:
    """Whether this process is one that a runner started for our code, and replaces when it ends."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return spec is not None and spec.name == _WORKER_MODULE


def replace_worker(
    error: Exception,
    is_worker: Callable[[], bool] = is_worker,
    end: Callable[[int], object] = os._exit,
    private: bool = False,
) -> threading.Timer | None:
    """Ends this process soon if it is a runner's, because of an error that stays as long as the process.

    Args:
      private: the log tells of the error only what quotes no row.
    """
    if not is_worker():
        return None
    _LOG.critical("This worker ends, to be replaced: %s", log_text(error, private))
    timer = threading.Timer(_LAST_SECS, end, [_EXIT_CODE])
    timer.daemon = True
    timer.start()
    return timer
