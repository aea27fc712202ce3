"""Which way a SavedModel is run: by TensorFlow's C API wherever that serves, else by Python TensorFlow."""

import logging
import os
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from sluice.models.errors import ModelNotFound, UsageError
from sluice.models.files import LocalFiles
from sluice.models.interface import ModelOptions
from sluice.models.saved_model.graph_walk import ops_of, unrestored_variables
from sluice.models.saved_model.native.library import Library, load_library
from sluice.models.saved_model.native.session import Session, SessionOptions
from sluice.models.saved_model.python_ways import PythonSession, RestoredFunction, Run
from sluice.models.saved_model.reasons import TensorFlowError, reason
from sluice.models.saved_model.tensorflow_import import tensorflow
from sluice.models.saved_model.versions import missing_assets
from sluice.models.signature import Signature

_LOG = logging.getLogger(__name__)


class Way(Protocol):
    """A loaded SavedModel, whichever way it is run."""

    def prepare(self, feeds: Sequence[str], fetches: Sequence[str]) -> Run:
        """Returns what calls the model with tensors for `feeds` and answers with those of `fetches`.

        Raises:
          TensorFlowError: the graph has no tensor of some name.
        """

    def close(self) -> None:
        """Frees the model; no call may follow."""


def load(
    directory: str,
    meta_graph: Any,
    options: ModelOptions,
    signature: Signature | None = None,
    find_library: Callable[[], Library | None] = load_library,
) -> Way:
    """Returns the SavedModel of a local directory, loaded.

    Args:
      meta_graph: its `tensorflow.MetaGraphDef`.
      signature: the one that is called; None: any, as a server does.
      find_library: returns TensorFlow's C API; None: it does not serve.

    Raises:
      ModelNotFound: TensorFlow cannot load it; the text names ops that are not registered.
      UsageError: a library of ops cannot be loaded.
    """
    missing = ", ".join(missing_assets(directory, meta_graph, LocalFiles()))
    try:
        way = _load(directory, meta_graph, options, signature, find_library)
    except TensorFlowError as error:
        text = reason(error.message) or f"error {error.code}"
        lacks = f"; it lacks {missing}, which its graph names" if missing else ""
        raise ModelNotFound(f"TensorFlow cannot load the SavedModel {directory}: {text}{lacks}") from error
    if missing:
        _LOG.warning("SavedModel %s lacks %s, which its graph names; it is run without", directory, missing)
    return way


def _load(
    directory: str,
    meta_graph: Any,
    options: ModelOptions,
    signature: Signature | None,
    find_library: Callable[[], Library | None],
) -> Way:
    fetches = [name for spec in signature.outputs for name in spec.tensors] if signature else []
    if signature and (unset := unrestored_variables(meta_graph, fetches)):
        _load_python_ops(options.op_libraries)
        text = "%s is run by Python TensorFlow: its graph does not restore %d of its variables, such as '%s'"
        _LOG.info(text, directory, len(unset), unset[0])
        return RestoredFunction(directory, signature)
    library = find_library()
    if library is None:
        _load_python_ops(options.op_libraries)
        _LOG.info("%s is run by Python TensorFlow", directory)
        return PythonSession(directory, options.intra_op_threads, options.inter_op_threads)
    _load_ops(library, options.op_libraries)
    if missing := [op for op in ops_of(meta_graph.graph_def) if library.is_stateful(op) is None]:
        raise ModelNotFound(
            f"TensorFlow cannot load the SavedModel {directory}: it has no op {', '.join(missing)}; give the library "
            "that has it with --op_libraries"
        )
    session = Session(library, directory, meta_graph.graph_def, _session_options(options))
    if _LOG.isEnabledFor(logging.DEBUG):
        devices = ", ".join(f"{name} ({memory >> 20} MiB)" for name, memory in session.devices())
        _LOG.debug("%s is run by the C API of TensorFlow %s on %s", directory, library.version, devices)
    return session


def _session_options(options: ModelOptions) -> SessionOptions:
    return SessionOptions(options.intra_op_threads, options.inter_op_threads, options.time_limit_secs)


def _load_ops(library: Library, paths: Sequence[str]) -> None:
    for path in paths:
        _check_path(path)
        try:
            library.load_ops(path)
        except TensorFlowError as error:
            raise UsageError(f"--op_libraries {path} cannot be loaded: {error}") from error


def _load_python_ops(paths: Sequence[str]) -> None:
    if not paths:
        return
    for path in paths:
        _check_path(path)
        try:
            tensorflow().load_op_library(path)
        except Exception as error:
            raise UsageError(f"--op_libraries {path} cannot be loaded: {error}") from error


def _check_path(path: str) -> None:
    if not os.path.isfile(path):
        raise UsageError(f"--op_libraries {path} is no file on this machine; give the path of a library of ops (.so)")
