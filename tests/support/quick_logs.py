"""Makes pytest look for the loggers that do not propagate without a walk over all names, six times a test.

Three hundred libraries have loggers here. The walk takes a fifth of what an empty test costs.
"""

from __future__ import annotations

import logging

from _pytest.logging import catching_logs


def remember_loggers() -> None:
    """Does so in this process from now on."""
    catching_logs.__enter__ = _attach  # type: ignore[method-assign]


def _attach(self: catching_logs[logging.Handler]) -> logging.Handler:
    """Does what pytest's own does, in the same order."""
    root = logging.getLogger()
    if self.level is not None:
        self.handler.setLevel(self.level)
    self.attached_loggers += [root, *(logger for logger in _named() if not logger.propagate)]
    for logger in self.attached_loggers:
        logger.addHandler(self.handler)
    if self.level is not None:
        self.orig_level = root.level
        root.setLevel(min(root.level, self.level))
    return self.handler


class _Loggers:
    """The loggers that have a name, found anew when there are more names.

    So one whose name only stood above others, until then, may be missed as long as no other name comes.
    """

    def __init__(self) -> None:
        self.names = 0
        self.found: list[logging.Logger] = []


_LOGGERS = _Loggers()


def _named() -> list[logging.Logger]:
    names = logging.root.manager.loggerDict
    if len(names) != _LOGGERS.names:
        _LOGGERS.names = len(names)
        _LOGGERS.found = [each for each in names.values() if isinstance(each, logging.Logger)]
    return _LOGGERS.found
