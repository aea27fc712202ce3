"""One loaded version of a model: its graph and signatures."""

import functools
import logging
import threading
from collections.abc import Mapping, Sequence

import numpy as np
from google.protobuf.message import Message

from sluice.models.errors import BadOutput
from sluice.models.files import LocalFiles
from sluice.models.interface import ModelOptions
from sluice.models.saved_model.reasons import NoSuchTensor, TensorFlowError
from sluice.models.saved_model.start_line import start_line
from sluice.models.saved_model.versions import read_meta_graph
from sluice.models.saved_model.ways import load
from sluice.models.server.status import StatusError, invalid, tensorflow_status

_LOG = logging.getLogger(__name__)

# Each choice of inputs and outputs that clients make is prepared once; so many are kept.
_MOST_CALLS = 64


class Servable:
    """A loaded version, which all its signatures share. Thread-safe.

    Attributes:
      signatures: by name; TensorFlow's own initialiser is among them, as in TF Serving.

    Raises:
      ModelNotFound: TensorFlow cannot load it.
    """

    def __init__(self, name: str, version: int, directory: str) -> None:
        self.name, self.version = name, version
        meta_graph = read_meta_graph(directory, LocalFiles())
        options = ModelOptions()
        self._way = load(directory, meta_graph, options)
        _LOG.info("%s", start_line(name, version, self._way, options))
        self._prepare = functools.lru_cache(maxsize=_MOST_CALLS)(self._way.prepare)
        self.signatures: Mapping[str, Message] = dict(meta_graph.signature_def)
        self._users = threading.Condition()
        self._used = 0

    def run(self, feeds: Mapping[str, np.ndarray], fetches: Sequence[str]) -> list[np.ndarray]:
        """Returns the tensors of these names.

        The values reach TensorFlow's C API as they are, as in TF Serving, which compares no shapes.

        Raises:
          StatusError: the graph lacks a name, or TensorFlow failed.
        """
        try:
            call = self._prepare(tuple(feeds), tuple(fetches))
            return [np.asarray(tensor) for tensor in call(list(feeds.values()))]
        except NoSuchTensor as error:
            # A ragged or sparse output has parts and no name of its own, and TF Serving fetches it by name
            # (predict_util.cc); TensorFlow's text for that: https://github.com/tensorflow/serving/issues/2084
            text = f"Tensor {error.name or ':0'}, specified in either feed_devices or fetch_devices was not found"
            raise invalid(f"{text} in the Graph") from error
        except TensorFlowError as error:
            raise tensorflow_status(error) from error
        except BadOutput as error:
            raise StatusError("UNIMPLEMENTED", str(error)) from error

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
        self._way.close()
