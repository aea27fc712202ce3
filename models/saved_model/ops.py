"""The ops of a model: whether TensorFlow has them, and the libraries of those that are not its own."""

import os
from collections.abc import Sequence
from typing import Any

from sluice.models.errors import UsageError
from sluice.models.saved_model.graph_walk import ops_of
from sluice.models.saved_model.native.library import Library
from sluice.models.saved_model.reasons import TensorFlowError
from sluice.models.saved_model.tensorflow_import import tensorflow


def missing_ops(meta_graph: Any, library: Library) -> str:
    """Returns which ops of a graph are not registered, and the remedy; "" if all are."""
    missing = [op for op in ops_of(meta_graph.graph_def) if library.is_stateful(op) is None]
    if not missing:
        return ""
    return f"it has no op {', '.join(missing)}; give the library that has it with --op_libraries"


def load_ops(library: Library, paths: Sequence[str]) -> None:
    """Registers the ops of --op_libraries.

    Raises:
      UsageError: one cannot be loaded.
    """
    for path in paths:
        _check_path(path)
        try:
            library.load_ops(path)
        except TensorFlowError as error:
            raise UsageError(f"--op_libraries {path} cannot be loaded: {error}") from error


def load_python_ops(paths: Sequence[str]) -> None:
    """Registers the ops of --op_libraries with Python TensorFlow.

    Raises:
      UsageError: one cannot be loaded.
    """
    for path in paths:
        _check_path(path)
        try:
            tensorflow().load_op_library(path)
        except Exception as error:
            raise UsageError(f"--op_libraries {path} cannot be loaded: {error}") from error


def _check_path(path: str) -> None:
    if not os.path.isfile(path):
        raise UsageError(f"--op_libraries {path} is no file on this machine; give the path of a library of ops (.so)")
