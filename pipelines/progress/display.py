"""Shows how a job gets on: a line on a terminal, renewed by a thread of its own, or else log lines now and then.

By hand: rich.progress, tried in its place, drops the percentage at 30 columns, and ends the process where the terminal
closes.
"""

import logging
import os
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self, TextIO

from sluice.pipelines.logs import is_json, standard_error

AUTO, BAR, LOG, NONE = "auto", "bar", "log", "none"

_LOG = logging.getLogger(__name__)

_INTERVAL_SECS = {BAR: 0.25, LOG: 30.0}
_CLEAR_LINE = "\r\x1b[K"
_DEFAULT_WIDTH = 80


class Lines(Protocol):
    """What a display shows."""

    def line(self, width: int) -> str:
        """Returns what a terminal shows now, in at most `width` characters."""

    def log_line(self) -> str:
        """Returns what a log shows now."""


class TextLines:
    """One text for a terminal and for a log; a narrow terminal cuts it."""

    def __init__(self, text: Callable[[], str]) -> None:
        self._text = text

    def line(self, width: int) -> str:
        return self._text()[:width]

    def log_line(self) -> str:
        return self._text()


def terminal_width(stream: TextIO) -> int:
    """Returns the present number of columns of the terminal that a stream writes to."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or _DEFAULT_WIDTH
    except (OSError, ValueError):
        return _DEFAULT_WIDTH


class Display:
    """Shows lines while its `with` block runs.

    Args:
      mode: "bar"; "log": lines through the logger "sluice"; "none"; "auto": "bar" on a terminal, else "log", as where
        the log is JSON.
      stream: standard error by default.
      wait: `(stop event, seconds) -> whether it is set`.
      width: columns of the stream's terminal.
    """

    def __init__(
        self,
        lines: Lines,
        mode: str = AUTO,
        stream: TextIO | None = None,
        wait: Callable[[threading.Event, float], bool] = threading.Event.wait,
        width: Callable[[TextIO], int] = terminal_width,
    ) -> None:
        self._lines = lines
        self._stream = stream or standard_error()
        self._mode = mode if mode != AUTO else BAR if self._stream.isatty() and not is_json() else LOG
        self._wait = wait
        self._width = width
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sluice-progress", daemon=True)

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
                    self._write(f"\r{self._lines.line(self._width(self._stream) - 1)}\x1b[K")
                else:
                    _LOG.info("%s", self._lines.log_line())
            if self._mode == BAR:
                self._write(_CLEAR_LINE)
        except (OSError, ValueError):  # the terminal is gone, or the stream closed: the job goes on
            return

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def fit(fields: dict[str, str], least_first: tuple[str, ...], width: int) -> str:
    """Returns the fields in at most `width` characters. Leaves fields out, the least important first.

    Args:
      least_first: names of fields that may be left out.
    """
    kept = dict(fields)
    for name in least_first:
        if len("  ".join(kept.values())) <= width:
            break
        kept.pop(name, None)
    return "  ".join(kept.values())[:width]


def clock_time(seconds: float) -> str:
    """Returns 0:05, 12:34 or 1:02:03."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
