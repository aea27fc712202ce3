"""What may import Beam and TensorFlow, and what workers need installed; test_rooms.py holds our own imports."""

import ast
import importlib.metadata
import re
import sys
from pathlib import Path

import pytest

from tests.support.imports import imports_of
from tests.support.paths import ROOT

PACKAGES = ("models", "transforms", "pipelines")
# Modules whose distribution has another name.
_DISTRIBUTIONS = {
    "apache_beam": "apache-beam",
    "google_crc32c": "google-crc32c",
    "google.api_core": "google-api-core",
    "google.auth": "google-auth",
    "google.cloud.aiplatform_v1": "google-cloud-aiplatform",
    "google.cloud.bigquery": "google-cloud-bigquery",
    "google.cloud.bigquery_storage_v1": "google-cloud-bigquery-storage",
    "google.cloud.pubsub": "google-cloud-pubsub",
    "google.cloud.pubsub_v1": "google-cloud-pubsub",
    "google.oauth2": "google-auth",
    "google.protobuf": "protobuf",
    "google.pubsub_v1": "google-cloud-pubsub",
    "grpc": "grpcio",
    "ml_dtypes": "ml-dtypes",
    "prometheus_client": "prometheus-client",
    "tensorflow_metadata": "tensorflow-metadata",
    "tfx_bsl": "tfx-bsl",
    "vl_convert": "vl-convert-python",
    "yaml": "pyyaml",
}
# What we do not import, and Beam does in a notebook. It breaks with pandas 3.
_IN_NOTEBOOKS = {"pandas"}


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports(path: Path, at_top: bool = False) -> set[str]:
    """Returns the first parts of the modules that a file imports, anywhere or at its top level only.

    Of ours the second; of Google's, which share a namespace, the first two; of google.cloud's, which share another, the
    first three.
    """
    found = set()
    for node, is_at_top in imports_of(path):
        if at_top and not is_at_top:
            continue
        if isinstance(node, ast.Import):
            found |= {_root(alias.name) for alias in node.names}
        else:
            assert node.level == 0 and node.module, f"{path}: relative import"
            found |= {_root(f"{node.module}.{alias.name}") for alias in node.names}
    return found


def _root(module: str) -> str:
    parts = module.split(".")
    depth = {"google": 3 if parts[1:2] == ["cloud"] else 2, "sluice": 2}.get(parts[0], 1)
    return ".".join(parts[:depth]).removeprefix("sluice.")


def test_models_never_import_beam() -> None:
    assert [path for path in modules("models") if "apache_beam" in imports(path)] == []


def test_only_models_import_tensorflow_and_there_within_functions() -> None:
    outside = [path for package in ("transforms", "pipelines") for path in modules(package)]
    assert [path for path in outside if {"tensorflow", "keras", "tf_keras"} & imports(path)] == []
    assert [path for path in modules("models") if {"tensorflow", "keras"} & imports(path, at_top=True)] == []


def test_all_that_is_imported_is_declared() -> None:
    setup = (ROOT / "setup.py").read_text()
    declared = set(re.findall(r'"([a-z0-9-]+)(?:\[\w+\])?[><=]', setup.split("TEST_REQUIRES")[0]))
    used = set().union(*(imports(path) for package in PACKAGES for path in modules(package)))
    third_party = used - set(sys.stdlib_module_names) - set(PACKAGES) - {"_typeshed"}  # known to type checkers only
    missing = {_DISTRIBUTIONS.get(name, name) for name in third_party} - declared
    assert not missing, f"setup.py does not declare {missing}"
    assert declared - _IN_NOTEBOOKS <= {_DISTRIBUTIONS.get(name, name) for name in third_party}, (
        "setup.py declares what nothing imports"
    )


@pytest.mark.parametrize("package", [*PACKAGES, "tests", "benchmarks"])
def test_nothing_imports_the_short_names(package: str) -> None:
    """As packages of their own, the three folders would take names that a user's own folders have."""
    for path in modules(package):
        for node, _ in imports_of(path):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.split(".")[0] in PACKAGES], path


def test_the_pins_satisfy_setup() -> None:
    from packaging.requirements import Requirement

    pins = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line and line[0] != "#"
    )
    pins = {name.lower().replace("_", "-"): version for name, version in pins.items()}
    for text in importlib.metadata.requires("sluice") or []:
        requirement = Requirement(text)
        name = requirement.name.lower().replace("_", "-")
        assert name in pins, f"{name} is not pinned"
        assert requirement.specifier.contains(pins[name]), f"{text}: {pins[name]} is pinned"
