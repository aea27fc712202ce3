"""Beam transforms over models/: readers, `Predict`, writers. Importing this package imports no TensorFlow.

The names below are loaded when they are first used: `transforms.schema` and others are of use without Beam.
"""

import importlib
from typing import Any

_HOMES = {
    "CommitFiles": "commit_files",
    "Failure": "failures",
    "Predict": "predict",
    "ReadFiles": "read_files",
    "Result": "failures",
    "SluiceModelHandler": "model_handler",
    "WriteFailures": "write_files",
    "WriteFiles": "write_files",
}

__all__ = [
    "CommitFiles",
    "Failure",
    "Predict",
    "ReadFiles",
    "Result",
    "SluiceModelHandler",
    "WriteFailures",
    "WriteFiles",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
