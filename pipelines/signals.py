"""Signal handlers that are set while a block runs."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

Handler = Callable[[int, FrameType | None], object]


@contextlib.contextmanager
def handling(handler: Handler, *signals: signal.Signals) -> Iterator[None]:
    """Sets the handler for these signals while the block runs.

    Does nothing outside the main thread: only the main thread gets signals, and only it may set handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in signals}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
