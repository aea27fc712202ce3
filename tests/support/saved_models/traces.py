"""On which devices the ops of a call ran, as TensorFlow itself traces it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sluice.models.devices import short_name
from sluice.models.protos import message_class
from sluice.models.saved_model.native.session import Session
from sluice.models.saved_model.native.tensors import memories_of
from sluice.models.saved_model.python_ways import PythonSession
from sluice.models.saved_model.way import Way
from sluice.models.tensors.strings import Tensor

_FULL_TRACE = 3
# Nodes that hand over what is fed and fetched; they stay where the caller is.
_HANDOVER = ("_arg_", "_retval_", "_SOURCE", "_SINK", "_send", "_recv")


def traced(way: Way, feeds: Sequence[str], fetches: Sequence[str], tensors: Sequence[Tensor]) -> dict[str, list[str]]:
    """Returns the ops that a call of a model runs, by device."""
    stats = _STATS[type(way)](way, feeds, fetches, tensors)
    found: dict[str, list[str]] = {}
    for device in stats.dev_stats:
        ops = [each.node_name for each in device.node_stats if not each.node_name.startswith(_HANDOVER)]
        if ops:
            found[short_name(device.device)] = ops
    return found


def _native_stats(way: Session, feeds: Sequence[str], fetches: Sequence[str], tensors: Sequence[Tensor]) -> Any:
    call = way.prepare(feeds, fetches)
    library = call._library
    content = message_class("tensorflow.RunOptions")(trace_level=_FULL_TRACE).SerializeToString()
    options, metadata = library.TF_NewBufferFromString(content, len(content)), library.TF_NewBuffer()
    memories, _kept = memories_of(tensors)
    fed, fetched = (ctypes.c_void_p * len(call.inputs))(), (ctypes.c_void_p * len(call.outputs))()
    call._feed(tensors, memories, fed)
    library.checked(
        lambda status: library.TF_SessionRun(
            *(call._session._session, options, call.inputs, fed, len(fed), call.outputs, fetched, len(fetched)),
            *(None, 0, metadata, status),
        )
    )
    content = ctypes.string_at(metadata.contents.data, metadata.contents.length)
    for handle in (*fed, *fetched):
        library.TF_DeleteTensor(handle)
    for buffer in (options, metadata):
        library.TF_DeleteBuffer(buffer)
    return message_class("tensorflow.RunMetadata").FromString(content).step_stats


def _python_stats(way: PythonSession, feeds: Sequence[str], fetches: Sequence[str], tensors: Sequence[Tensor]) -> Any:
    from tensorflow.core.protobuf import config_pb2

    metadata = config_pb2.RunMetadata()
    given = dict(zip(feeds, map(np.asarray, tensors), strict=True))
    options = config_pb2.RunOptions(trace_level=_FULL_TRACE)
    way._session.run(list(fetches), given, options=options, run_metadata=metadata)
    return metadata.step_stats


_STATS: dict[type, Callable[..., Any]] = {Session: _native_stats, PythonSession: _python_stats}
