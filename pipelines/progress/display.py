"""A line that shows how a job fares, renewed from a thread of its own; or log lines, where there is no terminal."""

import logging
import os
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self, TextIO

AUTO, BAR, LOG, NONE = "auto", "bar", "log", "none"

_LOG = logging.getLogger(__name__)

_INTERVAL_SECS = {BAR: 0.25, LOG: 30.0}
_CLEAR_LINE = "\r\x1b[K"
_DEFAULT_WIDTH = 80


def terminal_width(stream: TextIO) -> int:
    """Returns the columns of the terminal that a stream writes to, as they are now."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or _DEFAULT_WIDTH
    except (OSError, ValueError):
        return _DEFAULT_WIDTH


class Display:
    """Shows lines while its `with` block runs. A subclass says what they are.

    Args:
      mode: "bar"; "log": lines through the logger "sluice"; "none"; "auto": "bar" on a terminal, else "log".
      stream: standard error by default.
      wait: `(stop event, seconds) -> whether it is set`.
      width: columns of the stream's terminal.
    """

    def __init__(
        self,
        mode: str = AUTO,
        stream: TextIO | None = None,
        wait: Callable[[threading.Event, float], bool] = threading.Event.wait,
        width: Callable[[TextIO], int] = terminal_width,
    ) -> None:
        self._stream = stream or sys.stderr
        self._mode = mode if mode != AUTO else BAR if self._stream.isatty() else LOG
        self._wait = wait
        self._width = width
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sluice-progress", daemon=True)

    def line(self, width: int) -> str:
        """Returns what a terminal shows now, in at most `width` characters."""
        raise NotImplementedError

    def log_line(self) -> str:
        """Returns what a log shows now."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        if self._mode != NONE:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._mode != NONE:
            self._thread.join()

    def _run(self) -> None:
        try:
            while not self._wait(self._stop, _INTERVAL_SECS[self._mode]):
                if self._mode == BAR:
                    # A full last column makes some terminals wrap.
                    self._write(f"\r{self.line(self._width(self._stream) - 1)}\x1b[K")
                else:
                    _LOG.info("%s", self.log_line())
            if self._mode == BAR:
                self._write(_CLEAR_LINE)
        except (OSError, ValueError):  # the terminal is gone, or the stream closed: the job goes on
            return

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
