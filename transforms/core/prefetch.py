"""An iterator that works ahead on other threads: reading overlaps with the steps after it."""

import collections
import itertools
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Generic, TypeVar

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
    yield from prefetch_all([items], depth=depth)


def prefetch_all(sources: Iterable[Iterator[Item]], width: int = 1, depth: int = 2) -> Generator[Item, None, None]:
    """Yields the items of the sources, one source after the other, and works ahead in `width` of them at once.

    For the others see `prefetch`.
    """
    left = iter(sources)
    begun: collections.deque[_Ahead[Item]] = collections.deque()
    threads = _Threads(width)
    try:
        while True:
            begun.extend(_Ahead(items, depth, threads) for items in itertools.islice(left, width - len(begun)))
            if not begun:
                return
            yield from begun[0]
            begun.popleft().stop()
    finally:
        for ahead in begun:
            ahead.stop()
        threads.close()


class _Threads:
    """Threads for tasks, of which no more than `most` are under way: to begin a thread takes longer than a small file.

    They are daemons: those of concurrent.futures would keep a process from its end while a consumer is in the middle.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def run(self, task: Callable[[], None]) -> None:
        self._tasks.put(task)
        if len(self._threads) < self._most:
            self._threads.append(threading.Thread(target=self._work, name="sluice-prefetch", daemon=True))
            self._threads[-1].start()

    def close(self) -> None:
        """Ends the threads, after the tasks."""
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while task := self._tasks.get():
            task()
            del task  # it holds what the task was over, such as an open file


class _Ahead(Generic[Item]):
    """Makes items on one of the threads. To be iterated once, and stopped."""

    def __init__(self, items: Iterator[Item], depth: int, threads: _Threads) -> None:
        self._items = items
        self._ready: queue.Queue[object] = queue.Queue(depth)
        self._stopped, self._done = threading.Event(), threading.Event()
        threads.run(self._work)

    def __iter__(self) -> Iterator[Item]:
        while (entry := self._ready.get()) is not _END:
            if isinstance(entry, _Failed):
                raise entry.error
            yield entry  # type: ignore[misc]

    def stop(self) -> None:
        self._stopped.set()
        self._done.wait()

    def _work(self) -> None:
        try:
            for item in self._items:
                if not self._put(item):
                    return
        except BaseException as error:  # noqa: BLE001  it is raised again on the consumer's thread
            self._put(_Failed(error))
        else:
            self._put(_END)
        finally:
            self._done.set()

    def _put(self, entry: object) -> bool:
        while not self._stopped.is_set():
            try:
                self._ready.put(entry, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False
