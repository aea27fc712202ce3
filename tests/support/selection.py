"""Finds what a test uses, from the names in its code."""

import functools
import inspect
from collections.abc import Iterator
from types import CodeType, FunctionType

import pytest


def reaches(item: pytest.Item, names: frozenset[str]) -> bool:
    """Whether a test has one of the names in its code, or a fixture, function or class of the tests that it uses.

    A name stands also for the modules in it: `tensorflow` for `tensorflow.core`.
    """
    handle = getattr(getattr(item, "obj", None), "hypothesis", None)
    test = getattr(handle, "inner_test", getattr(item, "obj", None))
    fixtures = getattr(getattr(item, "_fixtureinfo", None), "name2fixturedefs", {})
    used = [test, *(definition.func for each in fixtures.values() for definition in each)]
    return any(_reaches(function, names) for each in used for function in _functions(each))


@functools.cache
def _reaches(function: FunctionType, names: frozenset[str]) -> bool:
    seen, waiting = {function}, [function]
    while waiting:
        now = waiting.pop()
        found = _names(now.__code__)
        if found & names:
            return True
        for name in found:
            for each in _functions(now.__globals__.get(name)):
                if each not in seen:
                    seen.add(each)
                    waiting.append(each)
    return False


def _functions(used: object) -> Iterator[FunctionType]:
    """Yields a function of the tests, or the methods of a class of theirs."""
    if isinstance(used, type):
        for each in used.__mro__:
            if _is_ours(each):
                yield from (member for member in vars(each).values() if isinstance(member, FunctionType))
    elif callable(used):
        function = inspect.unwrap(used)
        if isinstance(function, FunctionType) and _is_ours(function):
            yield function


def _is_ours(used: FunctionType | type) -> bool:
    return (used.__module__ or "").split(".")[0] == "tests"


@functools.cache
def _names(code: CodeType) -> frozenset[str]:
    """Returns the names that code loads, with those of the functions within it; of a module's name also its package."""
    inner = (_names(each) for each in code.co_consts if isinstance(each, CodeType))
    roots = (name.partition(".")[0] for name in code.co_names)
    return frozenset(code.co_names).union(roots, *inner)
