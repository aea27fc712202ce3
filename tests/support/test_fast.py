"""That `make test-fast` would notice an import of TensorFlow, and a server."""

import importlib.util
import sys
from types import SimpleNamespace

import pytest

from tests.support.fast import pytest_fixture_setup, refuse_tensorflow


def test_an_import_of_tensorflow_is_an_error_and_its_directory_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    refuse_tensorflow()
    with pytest.raises(AssertionError, match="mark it `slow`"):
        importlib.import_module("tensorflow")
    spec = importlib.util.find_spec("tensorflow")
    assert spec is not None and spec.submodule_search_locations


@pytest.mark.parametrize("name", ["gcs", "zoo_samples"])
def test_a_fixture_that_starts_a_server_is_an_error(name: str) -> None:
    pytest_fixture_setup(SimpleNamespace(argname="tmp_path"))  # type: ignore[arg-type]
    with pytest.raises(AssertionError, match=f"uses {name}: mark it `slow`"):
        pytest_fixture_setup(SimpleNamespace(argname=name))  # type: ignore[arg-type]


def test_it_is_asked_for_every_fixture(pytestconfig: pytest.Config) -> None:
    is_fast = pytestconfig.getoption("markexpr") == "not slow"
    assert pytestconfig.pluginmanager.has_plugin("tests.support.fast") == is_fast
