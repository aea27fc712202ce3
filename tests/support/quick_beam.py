"""Makes Beam look for the arguments of a DoFn's method once, not at each of the 4,000 times that it asks in one job.

A third of the CPU of a job of a few rows goes into `inspect.signature`, which always finds the same.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Any, TypeAlias

_Arguments: TypeAlias = tuple[list[str], list[Any]]
_CORE, _NAME = "apache_beam.transforms.core", "get_function_args_defaults"


def remember_arguments() -> None:
    """Does so in this process from now on, if it has imported Beam."""
    core = sys.modules.get(_CORE)
    if core is not None and not isinstance(getattr(core, _NAME), Remembering):
        setattr(core, _NAME, Remembering(getattr(core, _NAME)))


class Remembering:
    """Beam's function, which is asked once for each function that is bound as a method.

    Args:
      find: returns the names of the arguments of a callable, and the values of their defaults.
    """

    def __init__(self, find: Callable[[Any], _Arguments]) -> None:
        self.find = find
        self._found: weakref.WeakKeyDictionary[FunctionType, _Arguments] = weakref.WeakKeyDictionary()

    def __call__(self, asked: Any) -> _Arguments:
        function = asked.__func__ if isinstance(asked, MethodType) else None
        if not isinstance(function, FunctionType):
            return self.find(asked)
        if function not in self._found:
            self._found[function] = self.find(asked)
        names, defaults = self._found[function]
        return list(names), list(defaults)
