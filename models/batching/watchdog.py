"""A call that does not end by its deadline is given up, whatever it hangs in."""

import queue
import threading
from collections.abc import Callable
from typing import Any

from sluice.models.errors import TimedOut


class Watchdog:
    """Runs one function after the other on a thread of its own, each for so long at most. For one caller's thread.

    A function that does not end in time keeps that thread; the next one gets another.
    """

    def __init__(self) -> None:
        self._runner: _Runner | None = None

    def run(self, function: Callable[[], Any], timeout_secs: float) -> Any:
        """Returns what the function returns, or raises what it raises.

        Raises:
          TimedOut: it has not ended in time.
        """
        runner = self._runner = self._runner or _Runner()
        done = runner.start(function)
        if not done.wait(timeout_secs):
            self._runner = None
            runner.end()
            raise TimedOut(f"no answer within {timeout_secs:g} s; the call was given up")
        return runner.result()

    def close(self) -> None:
        """Ends the thread."""
        if self._runner is not None:
            self._runner.end()


class _Runner:
    def __init__(self) -> None:
        self._tasks: queue.SimpleQueue[tuple[Callable[[], Any], threading.Event] | None] = queue.SimpleQueue()
        self._value: Any = None
        self._error: BaseException | None = None
        threading.Thread(target=self._work, name="sluice-watched-call", daemon=True).start()

    def start(self, function: Callable[[], Any]) -> threading.Event:
        done = threading.Event()
        self._tasks.put((function, done))
        return done

    def result(self) -> Any:
        value, error = self._value, self._error
        self._value = self._error = None
        if error is not None:
            raise error
        return value

    def end(self) -> None:
        self._tasks.put(None)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            function, done = task
            try:
                self._value = function()
            except BaseException as error:  # noqa: BLE001  it is raised again on the caller's thread
                self._error = error
            done.set()
