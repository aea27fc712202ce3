"""One loaded version of a model: its session and signatures."""

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from sluice.models.interface import ModelOptions
from sluice.models.saved_model.loader import load_session
from sluice.models.saved_model.tensorflow_import import tensorflow
from sluice.models.server.status import invalid, tensorflow_status

if TYPE_CHECKING:
    from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef


class Servable:
    """A loaded version, which all its signatures share. Thread-safe.

    Attributes:
      signatures: by name; TensorFlow's own initialiser is among them, as in TF Serving.

    Raises:
      ModelNotFound: TensorFlow cannot load it.
    """

    def __init__(self, name: str, version: int, directory: str) -> None:
        self.name, self.version = name, version
        self._session, meta_graph = load_session(directory, ModelOptions())
        self.signatures: Mapping[str, SignatureDef] = dict(meta_graph.signature_def)
        self._outputs: dict[str, object] = {}  # `TF_Output` of TensorFlow's C API
        self._users = threading.Condition()
        self._used = 0

    def run(self, feeds: Mapping[str, np.ndarray], fetches: Sequence[str]) -> list[np.ndarray]:
        """Returns the tensors of these names.

        The values reach TensorFlow's C API as they are, as in TF Serving: `Session.run` would first cast them to the
        dtype of the placeholder and compare shapes.

        Raises:
          StatusError: the graph lacks a name, or TensorFlow failed.
        """
        fed = {self._tensor(name): array for name, array in feeds.items()}
        fetched = [self._tensor(name) for name in fetches]
        try:
            return list(self._session._call_tf_sessionrun(None, fed, fetched, [], None))
        except tensorflow().errors.OpError as error:
            raise tensorflow_status(error) from error

    def _tensor(self, name: str) -> object:
        if name not in self._outputs:
            try:
                self._outputs[name] = self._session.graph.get_tensor_by_name(name)._as_tf_output()
            except (KeyError, ValueError) as error:
                # A ragged or sparse output has parts but no name of its own, and TF Serving fetches it by name
                # (predict_util.cc). TensorFlow's text: https://github.com/tensorflow/serving/issues/2084
                text = f"Tensor {name or ':0'}, specified in either feed_devices or fetch_devices was not found"
                raise invalid(f"{text} in the Graph") from error
        return self._outputs[name]

    def acquire(self) -> None:
        """Keeps the session open until `release`."""
        with self._users:
            self._used += 1

    def release(self) -> None:
        with self._users:
            self._used -= 1
            self._users.notify_all()

    def close(self) -> None:
        """Waits until nobody uses the session, and frees it."""
        with self._users:
            self._users.wait_for(lambda: not self._used)
        self._session.close()
