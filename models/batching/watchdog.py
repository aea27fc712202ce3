"""Abandons a call that passes its deadline, wherever it blocks.

gRPC and HTTP end their own calls at the deadline. This is for what they do not bound (a token file on a file system
that hangs, a client library that deadlocks) and for calls in this process, which nothing else can end. An executor of
`concurrent.futures` cannot do it: the interpreter joins its threads at exit, so an abandoned call would keep the
process from ending.
"""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from sluice.models.errors import TimedOut

Result = TypeVar("Result")
_Tasks = queue.SimpleQueue[tuple[Callable[[], Result], Future[Result]] | None]


# Clients end their calls at the deadline, as TensorFlow does between two ops. A call that goes on for this much longer
# is abandoned.
_GRACE_SECS = 5.0
# Calls that have not ended.
_ABANDONED: set[Future[Any]] = set()


def give_up_after(limit_secs: float) -> float:
    """Returns after how many seconds to abandon a call that is to end within `limit_secs`."""
    return limit_secs + min(_GRACE_SECS, limit_secs)


def hanging() -> int:
    """Returns how many abandoned calls of this process have not ended. While there are any, it cannot end by itself:
    at its exit it may wait for their threads."""
    return len(_ABANDONED)


class Watchdog(Generic[Result]):
    """Runs functions one after the other on a thread of its own, each until its deadline. For one caller's thread.

    A function that passes its deadline keeps its thread; the next one gets a new thread.

    Attributes:
      abandoned: how many functions have passed their deadline.
    """

    def __init__(self) -> None:
        self.abandoned = 0
        self._tasks: _Tasks[Result] | None = None

    def run(self, function: Callable[[], Result], timeout_secs: float) -> Result:
        """Returns what the function returns, or raises what it raises.

        Raises:
          TimedOut: the function has not ended in time.
        """
        future: Future[Result] = Future()
        if self._tasks is None:
            self._tasks = _start_thread()
        self._tasks.put((function, future))
        try:
            future.exception(timeout_secs)  # only waits: an error of the function is returned here, not raised
        except TimeoutError:
            self.close()
            self.abandoned += 1
            _ABANDONED.add(future)
            future.add_done_callback(_ABANDONED.discard)  # it holds the answer, or tensors in a traceback
            raise TimedOut(f"no answer within {timeout_secs:g} s; the call was given up") from None
        return future.result()

    def close(self) -> None:
        """Ends the thread, when its function ends."""
        if self._tasks is not None:
            self._tasks.put(None)
            self._tasks = None


def _start_thread() -> _Tasks[Result]:
    tasks: _Tasks[Result] = queue.SimpleQueue()
    threading.Thread(target=_work, args=(tasks,), name="sluice-watched-call", daemon=True).start()
    return tasks


def _work(tasks: _Tasks[Result]) -> None:
    while (task := tasks.get()) is not None:
        _complete(*task)
        del task  # a thread that waits must not keep tensors alive


def _complete(function: Callable[[], Result], future: Future[Result]) -> None:
    try:
        result = function()
    except BaseException as error:  # noqa: BLE001  it is raised again on the caller's thread
        future.set_exception(error)
    else:
        future.set_result(result)
