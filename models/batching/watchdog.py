"""Abandons a call that passes its deadline, wherever it blocks.

gRPC and HTTP end their own calls at the deadline. This is for what they do not bound (a token file on a file system
that hangs, a client library that deadlocks) and for calls in this process, which nothing else can end. An executor of
`concurrent.futures` cannot do it: the interpreter joins its threads at exit, so an abandoned call would keep the
process from ending.
"""

import queue
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from sluice.models.errors import TimedOut

Result = TypeVar("Result")

# Clients end their calls at the deadline, as TensorFlow does between two ops. A call that goes on for this much longer
# is abandoned.
_GRACE_SECS = 5.0
# Threads with a call that was abandoned and has not ended.
_ABANDONED: set["_Runner[Any]"] = set()


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
        self._runner: _Runner[Result] | None = None

    def run(self, function: Callable[[], Result], timeout_secs: float) -> Result:
        """Returns what the function returns, or raises what it raises.

        Raises:
          TimedOut: the function has not ended in time.
        """
        if self._runner is None:
            self._runner = _Runner()
        self._runner.tasks.put(function)
        try:
            ended = self._runner.ended.get(timeout=timeout_secs)
        except queue.Empty:
            self.abandoned += 1
            _ABANDONED.add(self._runner)
            self.close()
            raise TimedOut(f"no answer within {timeout_secs:g} s; the call was given up") from None
        return ended.result()

    def close(self) -> None:
        """Ends the thread, when its function ends."""
        if self._runner is not None:
            self._runner.tasks.put(None)
            self._runner = None


class _Ended(Generic[Result]):
    """How a function has ended."""

    def __init__(self, function: Callable[[], Result]) -> None:
        self._error: BaseException | None = None
        try:
            self._value = function()
        except BaseException as error:  # noqa: BLE001  it is raised again on the caller's thread
            self._error = error

    def result(self) -> Result:
        """Returns what the function returned, or raises what it raised."""
        if self._error is None:
            return self._value
        try:
            raise self._error
        finally:
            self._error = None  # its traceback refers to this


class _Runner(Generic[Result]):
    """A thread that runs functions.

    It hands over by queues in C: a Future for each call would be a lock and a condition in Python for each.
    """

    def __init__(self) -> None:
        self.tasks: queue.SimpleQueue[Callable[[], Result] | None] = queue.SimpleQueue()
        self.ended: queue.SimpleQueue[_Ended[Result]] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="sluice-watched-call", daemon=True).start()

    def _work(self) -> None:
        while (task := self.tasks.get()) is not None:
            self.ended.put(_Ended(task))
            del task  # a thread that waits must not keep tensors alive
        _ABANDONED.discard(self)
