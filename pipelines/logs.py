"""What a command tells while it runs, on standard error: lines for people, or a JSON object a line for machines."""

import contextlib
import datetime
import io
import json
import logging
import os
import sys
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, TextIO

TEXT, JSON = "text", "json"
FORMATS = (TEXT, JSON)

_LOGGER = "sluice"
# What prints errors that nobody has caught: of the main thread, of other threads, and where none can be raised.
_HOOKS = ((sys, "excepthook"), (threading, "excepthook"), (sys, "unraisablehook"))
_usual_hooks: list[Callable[..., object]] = []


class JsonFormatter(logging.Formatter):
    """A record as one line: time, level, logger and message; fields, if it has some; error, a traceback.

    Whoever logs gives fields as `extra={"fields": {...}}`. Characters beyond ASCII are escaped, so that the line is
    valid whatever the terminal's encoding.
    """

    def format(self, record: logging.LogRecord) -> str:
        made = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        entry: dict[str, Any] = {
            "time": made.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields = getattr(record, "fields", None)
        if fields:
            entry["fields"] = dict(fields)
        if record.exc_info:
            entry["error"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


def set_up(format_: str, level: int) -> None:
    """Has the root logger write to standard error. Has no effect on logging that was set up before, but for its form.

    Args:
      format_: "text": the time of day and the message; "json": see JsonFormatter.
      level: of loggers that have none of their own.
    """
    logging.basicConfig(level=level, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    for handler in logging.getLogger().handlers:
        if format_ == JSON:
            handler.setFormatter(JsonFormatter())
        elif isinstance(handler.formatter, JsonFormatter):  # of a command that ran in this process before
            handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logging.captureWarnings(format_ == JSON)
    _set_hooks(format_ == JSON)


def _set_hooks(json_: bool) -> None:
    """Has errors that nobody catches logged, which Python would print as lines of text; or else printed again."""
    ours = (_log_uncaught, _log_of_thread, _log_unraisable)
    if json_ and not _usual_hooks:
        _usual_hooks[:] = [getattr(module, name) for module, name in _HOOKS]
        for (module, name), hook in zip(_HOOKS, ours, strict=True):
            setattr(module, name, hook)
    elif not json_ and _usual_hooks:
        for (module, name), hook in zip(_HOOKS, _usual_hooks, strict=True):
            setattr(module, name, hook)
        _usual_hooks.clear()


def _log_uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    error = kind() if error is None else error
    text = f"{kind.__name__}: {error}"
    logging.getLogger(_LOGGER).critical("%s", text, exc_info=(kind, error, trace))


def _log_of_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_type is not SystemExit:  # by which a thread may end itself
        _log_uncaught(args.exc_type, args.exc_value, args.exc_traceback)


def _log_unraisable(args: "sys.UnraisableHookArgs") -> None:
    _log_uncaught(args.exc_type, args.exc_value, args.exc_traceback)


def is_json() -> bool:
    """Whether what is told has to be JSON."""
    return any(isinstance(handler.formatter, JsonFormatter) for handler in logging.getLogger().handlers)


class _NoStream(io.StringIO):
    """Keeps nothing of what is written to it."""

    def write(self, text: str) -> int:
        return len(text)


def standard_error() -> TextIO:
    """Returns standard error; where a supervisor gives none, a stream that is no terminal and keeps nothing."""
    return sys.stderr or _NoStream()


def tell(
    text: str, level: int = logging.INFO, message: str = "", fields: Callable[[], Mapping[str, Any]] | None = None
) -> None:
    """Tells people something: the text as it is, with its line ends; in JSON, an object with it as the message.

    Nothing is raised where nobody reads it: how a job ended does not depend on that.

    Args:
      message: in place of the text, in JSON; "": the text.
      fields: called for JSON only.
    """
    if not is_json():
        with contextlib.suppress(OSError, ValueError):  # nobody reads it, or it is closed
            standard_error().write(text)
        return
    extra = {"fields": fields()} if fields else None
    logging.getLogger(_LOGGER).log(level, "%s", message or text.strip("\n"), extra=extra)


def line_of(text: str) -> str:
    """Returns a text as a line, with its end: for handlers of signals, which may have interrupted what writes a log."""
    if not is_json():
        return f"{text}\n"
    record = logging.LogRecord(_LOGGER, logging.INFO, "", 0, text, None, None)
    return f"{JsonFormatter().format(record)}\n"


def tell_in_handler(text: str) -> None:
    """Tells a line from a handler of a signal, which may have interrupted a print; it begins a line for people."""
    begin = "" if is_json() else "\n"
    with contextlib.suppress(OSError, ValueError):  # there is none, nobody reads it, or it is closed
        os.write(standard_error().fileno(), f"{begin}{line_of(f'sluice: {text}')}".encode())
