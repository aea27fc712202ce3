"""Prism, Beam's runner in Go, where its binary is found."""

import os
import shutil
from importlib.metadata import version

import pytest


def prism_binary() -> str:
    """Returns the path of Prism's binary: PRISM_BIN, or `prism` on PATH. Skips the test without it."""
    path = os.environ.get("PRISM_BIN") or shutil.which("prism")
    if not path:
        package = f"github.com/apache/beam/sdks/v2/go/cmd/prism@v{version('apache-beam')}"
        pytest.skip(f"Prism is not found: go install {package} (some minutes, 1.5 GB of caches), or PRISM_BIN=PATH")
    if not os.access(path, os.X_OK):
        pytest.fail(f"PRISM_BIN={path}: it is no program", pytrace=False)
    return path
