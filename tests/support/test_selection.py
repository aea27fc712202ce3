"""Which tests are found to be dear, by what they use."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.saved_models import built
from tests.support.selection import _functions, _reaches

NAMES = frozenset({"tensorflow", "dear"})


def imports_a_part() -> None:
    from tensorflow.core import example  # noqa: F401


def by_a_function() -> None:
    imports_a_part()


class Loaded:
    def load(self) -> None:
        imports_a_part()


class Inherits(Loaded):
    pass


def by_a_class() -> object:
    return Inherits()


def by_an_attribute(used: Any) -> None:
    used.dear()


def by_another_file() -> object:
    return built.BuiltModels


def not_at_all() -> str:
    return "tensorflow"


@pytest.mark.parametrize("test", [imports_a_part, by_a_function, by_a_class, by_an_attribute])
def test_what_a_test_uses_is_found(test: Callable[..., object]) -> None:
    assert any(_reaches(function, NAMES) for function in _functions(test))


@pytest.mark.parametrize("test", [not_at_all, by_another_file, pytest.raises, len])
def test_what_it_does_not_use_is_not(test: Callable[..., object]) -> None:
    assert not any(_reaches(function, NAMES) for function in _functions(test))
