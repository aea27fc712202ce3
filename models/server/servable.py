"""One loaded version of a model: its graph and signatures."""

import functools
import logging
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from google.protobuf.message import Message

from sluice.models.batching.watchdog import Watchdog, give_up_after
from sluice.models.errors import BadOutput, TimedOut
from sluice.models.files import LocalFiles
from sluice.models.interface import ModelOptions
from sluice.models.saved_model.reasons import NoSuchTensor, TensorFlowError
from sluice.models.saved_model.start_line import start_line
from sluice.models.saved_model.versions import read_meta_graph
from sluice.models.saved_model.way import Way
from sluice.models.saved_model.ways import load
from sluice.models.server.status import StatusError, invalid, tensorflow_status
from sluice.models.tensors.strings import Tensor

_LOG = logging.getLogger(__name__)

Result = TypeVar("Result")

# Each choice of inputs and outputs that clients make is prepared once; so many are kept.
_MOST_CALLS = 64


class Input(NamedTuple):
    """An input of a signature: its name there, its tensor in the graph, and the number of its DataType."""

    alias: str
    tensor: str
    dtype: int


class Watch:
    """Bounds the time of calls, whoever makes them.

    Args:
      limit_secs: of a call; 0: none.
      on_lost: called with the reason when a model cannot be called any more.
    """

    def __init__(self, limit_secs: float = 0.0, on_lost: Callable[[str], None] = lambda reason: None) -> None:
        self.limit_secs, self.on_lost = limit_secs, on_lost
        self._idle: queue.SimpleQueue[Watchdog[Any]] = queue.SimpleQueue()

    def run(self, function: Callable[[], Result]) -> Result:
        """Returns what the function returns.

        Raises:
          TimedOut: it has not ended in time.
        """
        if not self.limit_secs:
            return function()
        try:
            watchdog = self._idle.get_nowait()
        except queue.Empty:
            watchdog = Watchdog()
        try:
            return watchdog.run(function, give_up_after(self.limit_secs))
        finally:
            self._idle.put(watchdog)


class Servable:
    """A loaded version, which all its signatures share. Thread-safe.

    Attributes:
      signatures: by name; TensorFlow's own initialiser is among them, as in TF Serving.
      inputs: of each signature, by name. To read them from the message for each call would take 0.2 ms for 39 inputs.

    Raises:
      ModelNotFound: TensorFlow cannot load it.
    """

    def __init__(self, name: str, version: int, directory: str, watch: Watch | None = None) -> None:
        self.name, self.version = name, version
        self._watch = watch or Watch()
        meta_graph = read_meta_graph(directory, LocalFiles())
        options = ModelOptions(time_limit_secs=self._watch.limit_secs)
        self._load = functools.partial(load, directory, meta_graph, options)
        self._renewing, self._renewed, self._abandoned = threading.Lock(), False, False
        self._take(self._load())
        _LOG.info("%s", start_line(name, version, self._way, options))
        self.signatures: Mapping[str, Message] = dict(meta_graph.signature_def)
        self.inputs: Mapping[str, Sequence[Input]] = {
            name: [Input(alias, info.name, info.dtype) for alias, info in sorted(signature.inputs.items())]
            for name, signature in self.signatures.items()
        }
        self._users = threading.Condition()
        self._used = 0

    def run(self, feeds: Mapping[str, Tensor], fetches: Sequence[str]) -> list[np.ndarray]:
        """Returns the tensors of these names.

        The values reach TensorFlow's C API as they are, as in TF Serving, which compares no shapes.

        Raises:
          StatusError: the graph lacks a name, or TensorFlow failed.
        """
        try:
            return self._run(feeds, fetches)
        except NoSuchTensor as error:
            # A ragged or sparse output has parts and no name of its own, and TF Serving fetches it by name
            # (predict_util.cc); TensorFlow's text for that: https://github.com/tensorflow/serving/issues/2084
            text = f"Tensor {error.name or ':0'}, specified in either feed_devices or fetch_devices was not found"
            raise invalid(f"{text} in the Graph") from error
        except TensorFlowError as error:
            raise tensorflow_status(error) from error
        except BadOutput as error:
            raise StatusError("UNIMPLEMENTED", str(error)) from error

    def _take(self, way: Way) -> None:
        self._way, self._prepare = way, functools.lru_cache(maxsize=_MOST_CALLS)(way.prepare)

    def _run(self, feeds: Mapping[str, Tensor], fetches: Sequence[str]) -> list[np.ndarray]:
        """Calls the model; a call that hangs is abandoned, and tried once more in a fresh session."""

        def call() -> list[np.ndarray]:
            run = self._prepare(tuple(feeds), tuple(fetches))
            return [np.asarray(tensor) for tensor in run(list(feeds.values()))]

        try:
            return self._watch.run(call)
        except TimedOut:
            shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in feeds.items())
            text = f"model {self.name}, version {self.version}: a call of [{shapes}] has not ended in time"
            _LOG.warning("%s; it is tried once more, in a fresh session", text)
        try:
            with self._renewing:
                if not self._renewed:
                    self._take(self._watch.run(self._load))
                    self._renewed = True
            return self._watch.run(call)
        except TimedOut as error:
            self._abandoned = True
            text += ", nor when it was tried once more; this process has to be replaced (--model_timeout_secs)"
            self._watch.on_lost(text)
            raise StatusError("UNAVAILABLE", text) from error

    def acquire(self) -> None:
        """Keeps the model open until `release`."""
        with self._users:
            self._used += 1

    def release(self) -> None:
        with self._users:
            self._used -= 1
            self._users.notify_all()

    def close(self) -> None:
        """Waits until nobody uses the model, and frees it."""
        with self._users:
            self._users.wait_for(lambda: not self._used)
        if not self._abandoned:
            self._way.close()
