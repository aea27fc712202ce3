"""What can be checked of a SavedModel before a job starts: TensorFlow's library is loaded for it, and no model."""

import os
from collections.abc import Callable, Sequence
from typing import Any

from sluice.models.errors import ModelNotFound
from sluice.models.saved_model.native.devices import find_devices
from sluice.models.saved_model.native.library import Library, load_library
from sluice.models.saved_model.ops import load_ops, missing_ops
from sluice.models.saved_model.session_options import SessionOptions
from sluice.models.saved_model.ways import check_devices


def check_ops(
    uri: str, meta_graph: Any, libraries: Sequence[str], find_library: Callable[[], Library | None] = load_library
) -> None:
    """Checks that TensorFlow has all ops of a model.

    Libraries that are on the workers and not on this machine are trusted to have what is missing.

    Args:
      meta_graph: the model's `tensorflow.MetaGraphDef`.
      libraries: those of --op_libraries.

    Raises:
      ModelNotFound: it lacks one; the text names it, and what to do.
      UsageError: a library that is here cannot be loaded.
    """
    library = find_library()
    if library is None:
        return
    here = [path for path in libraries if os.path.isfile(path)]
    load_ops(library, here)
    missing = missing_ops(meta_graph, library)
    if missing and len(here) == len(libraries):
        raise ModelNotFound(f"--model {uri}: TensorFlow cannot load it: {missing}")


def check_devices_here(options: SessionOptions) -> None:
    """Checks that the devices of --device are on this machine. Makes a session: only for a job that runs here.

    Raises:
      UsageError: one is not.
    """
    library = load_library()
    if library is not None:
        check_devices(options.devices.devices, find_devices(library, options))
