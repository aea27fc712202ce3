"""An iterator that works ahead on a thread of its own: reading overlaps with the steps after it."""

import queue
import threading
from collections.abc import Generator, Iterator
from typing import TypeVar

Item = TypeVar("Item")


class _Failed:
    def __init__(self, error: BaseException) -> None:
        self.error = error


_END = object()


def prefetch(items: Iterator[Item], depth: int = 2) -> Generator[Item, None, None]:
    """Yields the items in order, and makes up to `depth` of them ahead.

    An error of `items` is raised here at its place in the order. When the consumer stops early, the thread ends after
    the item that it is making.
    """
    ready: queue.Queue[object] = queue.Queue(depth)
    stopped = threading.Event()

    def put(entry: object) -> bool:
        while not stopped.is_set():
            try:
                ready.put(entry, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            for item in items:
                if not put(item):
                    return
        except BaseException as error:  # noqa: BLE001  it is raised again on the consumer's thread
            put(_Failed(error))
        else:
            put(_END)

    thread = threading.Thread(target=work, name="sluice-prefetch", daemon=True)
    thread.start()
    try:
        while (entry := ready.get()) is not _END:
            if isinstance(entry, _Failed):
                raise entry.error
            yield entry  # type: ignore[misc]
    finally:
        stopped.set()
        thread.join()
