"""Holds `make test-fast` to what it says: no test of it imports Python's TensorFlow."""

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType


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
