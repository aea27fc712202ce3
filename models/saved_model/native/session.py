"""A SavedModel in a session of TensorFlow's C API."""

import ctypes
import os
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from sluice.models.saved_model.graph_walk import keeps_feeds
from sluice.models.saved_model.native.copier import StringCopier, close_session
from sluice.models.saved_model.native.devices import devices_of
from sluice.models.saved_model.native.library import STRING, Library, Output
from sluice.models.saved_model.native.moulds import Moulds
from sluice.models.saved_model.native.tensors import (
    copy_tensor,
    dtype_of,
    memories_of,
    number_of,
    read_tensor,
    view_tensor,
)
from sluice.models.saved_model.reasons import INVALID_ARGUMENT, NoSuchTensor, SessionClosed, TensorFlowError
from sluice.models.saved_model.session_options import SessionOptions
from sluice.models.tensors.strings import Tensor, as_strings


class Session:
    """A loaded SavedModel: a `models.saved_model.way.Way`. Thread-safe; `close` comes after the last call.

    Args:
      graph_def: of the SavedModel in `directory`, to see what its ops do.

    Raises:
      TensorFlowError: TensorFlow cannot load it.
    """

    def __init__(self, library: Library, directory: str, graph_def: Any, options: SessionOptions) -> None:
        self._library, self._graph_def = library, graph_def
        self._options = options
        self._run_options = options.run_options()
        self.runner = f"the C API of TensorFlow {library.version}"
        self._graph = library.TF_NewGraph()
        self._process = os.getpid()
        try:
            self._session = library.checked(lambda status: self._load(directory, status))
        except TensorFlowError:
            library.TF_DeleteGraph(self._graph)
            raise
        self.close = weakref.finalize(self, close_session, library, self._session, self._graph, self._process)
        self.close.atexit = False

    def prepare(self, feeds: Sequence[str], fetches: Sequence[str]) -> "Call":
        """Returns what calls the model with tensors for `feeds` and answers with those of `fetches`.

        Raises:
          TensorFlowError: the graph has no tensor of some name.
        """
        fed, fetched = ([self._output(name) for name in names] for names in (feeds, fetches))
        keeper = keeps_feeds(self._graph_def, fetches, self._library.is_stateful)
        return Call(self, list(feeds), fed, list(fetches), fetched, keeper)

    def devices(self) -> dict[str, int]:
        """Returns the devices that TensorFlow sees, as TYPE:NUMBER, and the bytes of memory that each may use."""
        return devices_of(self._library, self._session)

    def _load(self, directory: str, status: int) -> int:
        library = self._library
        options = library.TF_NewSessionOptions()
        meta_graph = library.TF_NewBuffer()
        try:
            config = self._options.config().SerializeToString()
            library.TF_SetConfig(options, config, len(config), status)
            tags = (ctypes.c_char_p * 1)(b"serve")
            path = os.fsencode(directory)
            return library.TF_LoadSessionFromSavedModel(options, None, path, tags, 1, self._graph, meta_graph, status)
        finally:
            library.TF_DeleteBuffer(meta_graph)
            library.TF_DeleteSessionOptions(options)

    def _output(self, name: str) -> Output:
        operation, _, index = name.partition(":")
        found = self._library.TF_GraphOperationByName(self._graph, operation.encode())
        number = int(index or 0) if (index or "0").isdecimal() else -1
        if not found or not 0 <= number < self._library.TF_OperationNumOutputs(found):
            raise NoSuchTensor(name)
        return Output(found, number)

    def check_open(self) -> None:
        """Refuses calls that would hang or crash.

        Raises:
          SessionClosed: the session is closed, or of another process.
        """
        if not self.close.alive:
            raise SessionClosed("the model is closed")
        if os.getpid() != self._process:
            raise SessionClosed(
                f"the model was loaded in process {self._process}, and process {os.getpid()} was forked from it; a "
                "call would wait for TensorFlow's threads, which a fork does not have. Start processes by spawn"
            )

    def run(self, call: "Call", fed: Any, fetched: Any) -> None:
        """Fills `fetched` (TF_Tensor* []) with the answer to `fed`.

        Raises:
          TensorFlowError: the call failed.
        """
        library, content = self._library, self._run_options
        options = library.TF_NewBufferFromString(content, len(content)) if content else None
        try:
            feeds, fetches = (call.inputs, fed, len(fed)), (call.outputs, fetched, len(fetched))
            library.checked(
                lambda status: library.TF_SessionRun(self._session, options, *feeds, *fetches, None, 0, None, status)
            )
        finally:
            if options is not None:
                library.TF_DeleteBuffer(options)


class Call:
    """A session's answer to some tensors, by others. Thread-safe.

    Attributes:
      keeper: an op that may keep what is fed, for which copies are fed; "" if there is none.
    """

    def __init__(
        self,
        session: Session,
        feeds: list[str],
        inputs: list[Output],
        fetches: list[str],
        outputs: list[Output],
        keeper: str,
    ) -> None:
        self._session, self._feeds, self._fetches, self.keeper = session, feeds, fetches, keeper
        self._library = library = session._library
        self._numbers = [library.TF_OperationOutputType(each) for each in inputs]
        self._dtypes = [dtype_of(number) for number in self._numbers]
        # TensorFlow refuses to fetch what is fed.
        self._asked = [at for at, name in enumerate(fetches) if name not in feeds]
        asked = [outputs[at] for at in self._asked]
        self.inputs, self.outputs = (Output * len(inputs))(*inputs), (Output * len(asked))(*asked)
        self._fed_type, self._fetched_type = ctypes.c_void_p * len(inputs), ctypes.c_void_p * len(asked)
        strings = self._numbers.count(STRING)
        self._copier = StringCopier(library, strings) if keeper and strings else None
        dtypes = [dtype for dtype in self._dtypes if dtype is not None]
        reusable = not keeper and len(dtypes) == len(inputs)
        self._moulds = Moulds(library, self._numbers, dtypes) if reusable else None

    def __call__(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Returns the tensors that are fetched, in memory of their own.

        Raises:
          TensorFlowError: a tensor has another dtype than the graph's, or what TensorFlow says.
        """
        self._session.check_open()
        tensors = [_native(tensor) for tensor in tensors]
        try:
            answers = self._call(tensors)
        except pa.ArrowException as error:
            raise TensorFlowError(INVALID_ARGUMENT, str(error)) from error
        if len(answers) == len(self._fetches):
            return answers
        asked = dict(zip(self._asked, answers, strict=True))
        return [
            asked[at] if at in asked else _copy(tensors[self._feeds.index(name)])
            for at, name in enumerate(self._fetches)
        ]

    def _call(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        if self._moulds and (mould := self._moulds.take(tensors)):
            _kept = mould.fill(tensors)
            answers = self._run(mould.handles)
            self._moulds.give(mould)  # not after a call that failed
            return answers
        memories, _kept = memories_of(tensors)
        fed = self._fed_type()
        try:
            self._feed(tensors, memories, fed)
            return self._run(fed)
        finally:
            self._delete(fed)

    def _run(self, fed: Any) -> list[Tensor]:
        fetched = self._fetched_type()
        try:
            self._session.run(self, fed, fetched)
            return [read_tensor(self._library, handle) for handle in fetched if handle]
        finally:
            self._delete(fetched)

    def _delete(self, handles: Any) -> None:
        for handle in handles:
            if handle:
                self._library.TF_DeleteTensor(handle)

    def _feed(self, tensors: Sequence[Tensor], memories: Sequence[np.ndarray], fed: Any) -> None:
        """Fills `fed` (TF_Tensor* []). A tensor of another dtype than the graph's is refused by TensorFlow."""
        library, strings = self._library, []
        for at, (tensor, memory) in enumerate(zip(tensors, memories, strict=True)):
            number = self._numbers[at] if tensor.dtype == self._dtypes[at] else _number(self._feeds[at], tensor.dtype)
            make = copy_tensor if self.keeper and number != STRING else view_tensor
            fed[at] = make(library, number, tensor.shape, memory)
            if number == STRING:
                strings.append(at)
        if self._copier is not None and len(strings) == self._numbers.count(STRING):
            self._copier.copy(fed, strings)


def _number(name: str, dtype: np.dtype) -> int:
    """Returns the DataType of an array that is fed where the graph has another, which TensorFlow refuses itself."""
    number = number_of(dtype)
    if number is None:
        raise TensorFlowError(INVALID_ARGUMENT, f"'{name}' is fed {dtype}, which no tensor holds")
    return number


def _native(tensor: Tensor) -> Tensor:
    """Returns the same tensor, numbers in the machine's byte order."""
    if tensor.dtype == object or tensor.dtype.isnative:
        return tensor
    return np.asarray(tensor, tensor.dtype.newbyteorder("="))


def _copy(tensor: Tensor) -> Tensor:
    return (as_strings(tensor) if tensor.dtype == object else tensor).copy()
