"""Writes the device that the user wants into a SavedModel's graph, because TensorFlow's loader takes none.

Nodes of functions have no device, as a rule, and run on that of the node that calls them.
"""

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from typing import Any

from sluice.models.devices import CPU
from sluice.models.protos import message_class
from sluice.models.saved_model.graph_walk import INIT_SIGNATURE, called_above

_SAVED_MODEL = "saved_model.pb"
# The device in a node's, such as /job:worker/task:0/device:GPU:1 or /gpu:1.
_DEVICE = re.compile(r"/(?:device:)?([A-Za-z_]+):(\d+|\*)$")
# The attribute of a node that calls a function. Its ConfigProto counts in the body, and says soft in exported models.
_CONFIG = "config_proto"


@contextlib.contextmanager
def placed(directory: str, meta_graph: Any, device: str, strict: bool) -> Iterator[str]:
    """Yields a directory with the same SavedModel on a device, for as long as it takes to load it.

    Args:
      meta_graph: its `tensorflow.MetaGraphDef`.
      device: as TYPE:NUMBER; "": what the graph says.
      strict: whether each op of a signature has to run there, or else only those that can.
    """
    if not device and not strict:
        yield directory
        return
    with tempfile.TemporaryDirectory(prefix="sluice-placed-") as place:
        for name in os.listdir(directory):
            if name != _SAVED_MODEL:
                os.symlink(os.path.join(os.path.abspath(directory), name), os.path.join(place, name))
        saved_model = message_class("tensorflow.SavedModel")(saved_model_schema_version=1)
        saved_model.meta_graphs.append(meta_graph)
        place_nodes(saved_model.meta_graphs[0], device, strict)
        with open(os.path.join(place, _SAVED_MODEL), "wb") as file:
            file.write(saved_model.SerializeToString())
        yield place


def place_nodes(meta_graph: Any, device: str, strict: bool) -> None:
    """Sets the device of the nodes of a `tensorflow.MetaGraphDef`. Those that it keeps on a CPU stay there.

    Nodes of functions get one only if it is strict: without one they run where they can. A strict device is for the ops
    of signatures, and not for those that restore variables, which may have no kernel for it.
    """
    graph_def = meta_graph.graph_def
    nodes, functions = called_above(graph_def, _fetches(meta_graph)) if strict else (None, frozenset())
    for node in graph_def.node:
        _place(node, device, nodes is None or node.name in nodes)
        _set_strict(node, strict)
    for function in graph_def.library.function:
        for node in function.node_def:
            _place(node, device, function.signature.name in functions)
            _set_strict(node, strict)


def named_devices(graph_def: Any) -> dict[str, str]:
    """Returns the devices that a graph and its functions name, as TYPE:NUMBER, each with a node that names it."""
    bodies = (function.node_def for function in graph_def.library.function)
    found: dict[str, str] = {}
    for nodes in (graph_def.node, *bodies):
        for node in nodes:
            if (match := _DEVICE.search(node.device)) and match.group(2) != "*":
                found.setdefault(f"{match.group(1).upper()}:{match.group(2)}", node.name)
    return found


def _fetches(meta_graph: Any) -> list[str]:
    return [
        tensor
        for name, signature in meta_graph.signature_def.items()
        if name != INIT_SIGNATURE
        for info in signature.outputs.values()
        for tensor in _tensors(info)
    ]


def _tensors(info: Any) -> Iterator[str]:
    sparse = info.coo_sparse
    yield from filter(None, (info.name, sparse.values_tensor_name, sparse.indices_tensor_name))
    for component in info.composite_tensor.components:
        yield component.name


def _place(node: Any, device: str, wanted: bool) -> None:
    match = _DEVICE.search(node.device)
    is_elsewhere = match is not None and match.group(1).upper() != CPU
    if device and (is_elsewhere or (wanted and not node.device)):
        node.device = f"/device:{device}"


def _set_strict(node: Any, strict: bool) -> None:
    if strict and _CONFIG in node.attr:
        config = message_class("tensorflow.ConfigProto").FromString(node.attr[_CONFIG].s)
        config.allow_soft_placement = False
        node.attr[_CONFIG].s = config.SerializeToString()
