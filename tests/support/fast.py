"""Holds `make test-fast` to what it says: no test of it imports Python's TensorFlow, or has a fixture start a server.

conftest.py makes this module a plugin there: hooks of its own are not asked for fixtures of the whole session.
"""

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType

import pytest

# Fixtures that start a server or train models. `uris` starts one only for a model that is not loaded in this process.
SERVERS = frozenset({"gcs", "pubsub", "bigquery", "zoo_samples", "zoo_uris", "uris"})


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[object]) -> None:
    """Raises AssertionError if the fixture starts a server: a test has asked for it by `getfixturevalue`."""
    if fixturedef.argname in SERVERS and fixturedef.argname != "uris":
        raise AssertionError(f"a test of `make test-fast` uses {fixturedef.argname}: mark it `slow`")


def refuse_tensorflow() -> None:
    """Makes `import tensorflow` an error from now on. Its directory can still be found, and its library loaded."""
    sys.meta_path.insert(0, _Finder())


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != "tensorflow":
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        if spec is not None:
            spec.loader = _Loader()
        return spec


class _Loader(importlib.abc.Loader):
    def exec_module(self, module: ModuleType) -> None:
        raise AssertionError("a test of `make test-fast` imports Python's TensorFlow: mark it `slow`")
