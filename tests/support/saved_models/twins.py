"""One SavedModel, called by TensorFlow's C API and by a Session of Python TensorFlow, side by side."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from sluice.models.files import LocalFiles
from sluice.models.saved_model.native.library import load_library
from sluice.models.saved_model.native.session import Call, Session
from sluice.models.saved_model.python_ways import PythonSession
from sluice.models.saved_model.session_options import SessionOptions
from sluice.models.saved_model.signature_reader import read_signatures
from sluice.models.saved_model.versions import read_meta_graph
from sluice.models.saved_model.way import Run
from sluice.models.tensors.strings import Strings, Tensor

_GARBAGE = 0xDD


class Twins:
    """Both, with the same feeds and fetches. A test that does not use `twin` does without Python TensorFlow.

    Attributes:
      feeds, fetches: names of the graph's tensors.
      native: the C API. `once` is the same without tensors that are used again, as calls of many values are.
    """

    def __init__(self, directory: str, signature: str = "serving_default", **options: Any) -> None:
        self._directory, self._options = directory, SessionOptions(**options)
        self._python: PythonSession | None = None
        meta_graph = read_meta_graph(directory, LocalFiles())
        self.signature = read_signatures(meta_graph)[signature]
        self.feeds = [spec.tensors[0] for spec in self.signature.inputs]
        self.fetches = [name for spec in self.signature.outputs for name in spec.tensors]
        library = load_library()
        assert library is not None
        self.session = Session(library, directory, meta_graph.graph_def, self._options)
        self.native: Call = self.session.prepare(self.feeds, self.fetches)
        self.once: Call = self.session.prepare(self.feeds, self.fetches)
        self.once._moulds = None

    def either(self, reused: bool) -> Call:
        """Returns `native`, or `once`."""
        return self.native if reused else self.once

    @functools.cached_property
    def twin(self) -> Run:
        """Calls the Session of Python TensorFlow, which the first use of it imports and opens."""
        self._python = PythonSession(self._directory, self._options)
        return self._python.prepare(self.feeds, self.fetches)

    def close(self) -> None:
        self.session.close()
        if self._python is not None:
            self._python.close()


class Lent:
    """Tensors over memory that is spoilt once a call is over: who reads it then reads garbage."""

    def __init__(self, arrays: Sequence[np.ndarray], offset: int = 0) -> None:
        self._memory: list[bytearray] = []
        self.tensors: list[Tensor] = [self._lend(array, offset) for array in arrays]

    def spoil(self) -> None:
        for memory in self._memory:
            memory[:] = bytes([_GARBAGE]) * len(memory)

    def _lend(self, array: np.ndarray, offset: int) -> Tensor:
        """`offset` bytes off the alignment that TensorFlow wants for numbers."""
        if array.dtype != object:
            buffer = self._hold(array.tobytes(), offset)
            return np.frombuffer(buffer, array.dtype).reshape(array.shape)
        values = array.reshape(-1).tolist()
        offsets = np.append(0, np.cumsum([len(value) for value in values])).astype(np.int32)
        buffers = [None, self._hold(offsets.tobytes(), 0), self._hold(b"".join(values), offset)]
        return Strings(pa.Array.from_buffers(pa.binary(), len(values), buffers), array.shape)

    def _hold(self, content: bytes, offset: int) -> pa.Buffer:
        memory = bytearray(len(content) + 128 + offset)
        self._memory.append(memory)
        start = -pa.py_buffer(memory).address % 64 + offset
        memory[start : start + len(content)] = content
        return pa.py_buffer(memory).slice(start, len(content))


def same(found: Any, wanted: Any) -> bool:
    """Whether two tensors are the same, bit for bit."""
    found, wanted = np.asarray(found), np.asarray(wanted)
    if (found.dtype, found.shape) != (wanted.dtype, wanted.shape):
        return False
    if found.dtype == object:
        return found.tolist() == wanted.tolist()
    return found.tobytes() == wanted.tobytes()
