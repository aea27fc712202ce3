"""Which way a SavedModel is run: by TensorFlow's C API wherever that serves, else by Python TensorFlow."""

import contextlib
import logging
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

from sluice.models.devices import CPU, GPU
from sluice.models.errors import ModelNotFound, UsageError
from sluice.models.files import LocalFiles
from sluice.models.interface import ModelOptions
from sluice.models.saved_model.copies import Copies
from sluice.models.saved_model.gpus import warn_of_unused_gpus
from sluice.models.saved_model.graph_walk import unrestored_variables
from sluice.models.saved_model.native.devices import find_devices
from sluice.models.saved_model.native.library import Library, load_library
from sluice.models.saved_model.native.session import Session
from sluice.models.saved_model.ops import load_ops, load_python_ops, missing_ops
from sluice.models.saved_model.placement import named_devices, placed
from sluice.models.saved_model.python_ways import PythonSession, RestoredFunction
from sluice.models.saved_model.reasons import TensorFlowError, reason
from sluice.models.saved_model.session_options import SessionOptions
from sluice.models.saved_model.versions import missing_assets
from sluice.models.saved_model.way import Way
from sluice.models.signature import Signature

_LOG = logging.getLogger(__name__)


def load(
    directory: str,
    meta_graph: Any,
    options: ModelOptions,
    signature: Signature | None = None,
    find_library: Callable[[], Library | None] = load_library,
) -> Way:
    """Returns the SavedModel of a local directory, loaded on each device that the options name.

    Args:
      meta_graph: its `tensorflow.MetaGraphDef`.
      signature: the one that is called; None: any, as a server does.
      find_library: returns TensorFlow's C API; None: it does not serve.

    Raises:
      ModelNotFound: TensorFlow cannot load it; the text names ops that are not registered.
      UsageError: a library of ops cannot be loaded, or a device is not there.
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
    placement = options.devices
    look, open_ = _opener(directory, meta_graph, options, signature, find_library)
    if placement.devices or placement.is_strict:  # a session to look costs 40 ms
        there = look()
        check_devices(placement.devices, there)
        if placement.is_strict:
            _check_named_devices(directory, meta_graph, placement.devices, there)
    with contextlib.ExitStack() as stack:
        ways: list[Way] = []
        for device in placement.devices or ("",):
            ways.append(open_(device))
            stack.callback(ways[-1].close)
        stack.pop_all()
    if placement.uses_gpus:
        warn_of_unused_gpus(sum(name.startswith(f"{GPU}:") for name in ways[0].devices()))
    return ways[0] if len(ways) == 1 else Copies(ways)


def _opener(
    directory: str,
    meta_graph: Any,
    options: ModelOptions,
    signature: Signature | None,
    find_library: Callable[[], Library | None],
) -> tuple[Callable[[], dict[str, int]], Callable[[str], Way]]:
    """Returns what finds the devices that are there, and what loads the model on one of them."""
    session = SessionOptions(
        options.intra_op_threads, options.inter_op_threads, options.time_limit_secs, options.devices
    )
    fetches = [name for spec in signature.outputs for name in spec.tensors] if signature else []
    if signature and (unset := unrestored_variables(meta_graph, fetches)):
        load_python_ops(options.op_libraries)
        text = "%s is run by Python TensorFlow: its graph does not restore %d of its variables, such as '%s'"
        _LOG.info(text, directory, len(unset), unset[0])
        find = partial(RestoredFunction.find_devices, session)
        return find, lambda device: RestoredFunction(directory, signature, session, device)
    library = find_library()
    if library is None:
        load_python_ops(options.op_libraries)
        _LOG.info("%s is run by Python TensorFlow", directory)
        opened = _placing(directory, meta_graph, session, lambda place: PythonSession(place, session))
        return partial(PythonSession.find_devices, session), opened
    load_ops(library, options.op_libraries)
    if missing := missing_ops(meta_graph, library):
        raise ModelNotFound(f"TensorFlow cannot load the SavedModel {directory}: {missing}")
    graph_def = meta_graph.graph_def
    opened = _placing(directory, meta_graph, session, lambda place: Session(library, place, graph_def, session))
    return partial(find_devices, library, session), opened


def _placing(
    directory: str, meta_graph: Any, options: SessionOptions, open_: Callable[[str], Way]
) -> Callable[[str], Way]:
    def load_on(device: str) -> Way:
        with placed(directory, meta_graph, device, options.devices.is_strict) as place:
            return open_(place)

    return load_on


def check_devices(wanted: Collection[str], there: Collection[str]) -> None:
    """Checks that devices of --device are there.

    Raises:
      UsageError: one is not.
    """
    if missing := [name for name in wanted if name not in there]:
        raise UsageError(f"--device {','.join(missing)}: TensorFlow has no such device here; it has {', '.join(there)}")


def _check_named_devices(directory: str, meta_graph: Any, devices: Collection[str], there: Collection[str]) -> None:
    """Refuses a graph that names a device which is not there, and which --device does not replace."""
    for name, node in named_devices(meta_graph.graph_def).items():
        if name not in there and (not devices or name.startswith(f"{CPU}:")):
            raise ModelNotFound(
                f"TensorFlow cannot load the SavedModel {directory}: its node '{node}' is on {name}, and TensorFlow "
                f"has {', '.join(there)}; --device_placement=soft runs it there, and --device names another device"
            )
