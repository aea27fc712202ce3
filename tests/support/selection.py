"""Finds what a test uses, from the names in its code."""

import functools
import inspect
from types import CodeType, FunctionType


def reaches(test: object, names: frozenset[str]) -> bool:
    """Whether a test function, or a function of its file that it calls, has one of the names in its code."""
    handle = getattr(test, "hypothesis", None)
    function = inspect.unwrap(getattr(handle, "inner_test", test))  # type: ignore[arg-type]
    return isinstance(function, FunctionType) and _reaches(function, names)


@functools.cache
def _reaches(function: FunctionType, names: frozenset[str]) -> bool:
    seen, waiting = {function}, [function]
    while waiting:
        found = _names(waiting.pop().__code__)
        if found & names:
            return True
        of_file = (function.__globals__.get(name) for name in found)
        for each in of_file:
            if isinstance(each, FunctionType) and each.__module__ == function.__module__ and each not in seen:
                seen.add(each)
                waiting.append(each)
    return False


@functools.cache
def _names(code: CodeType) -> frozenset[str]:
    """Returns the names that code loads, with those of the functions within it."""
    inner = (_names(each) for each in code.co_consts if isinstance(each, CodeType))
    return frozenset(code.co_names).union(*inner)
