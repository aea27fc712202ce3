"""That `make test-fast` would notice an import of TensorFlow."""

import importlib.util
import sys

import pytest

from tests.support.fast import refuse_tensorflow


def test_an_import_of_tensorflow_is_an_error_and_its_directory_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    refuse_tensorflow()
    with pytest.raises(AssertionError, match="mark it `slow`"):
        importlib.import_module("tensorflow")
    spec = importlib.util.find_spec("tensorflow")
    assert spec is not None and spec.submodule_search_locations
