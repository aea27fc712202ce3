"""The second ways to run a SavedModel, in Python TensorFlow: where the C API does not serve.

Importing TensorFlow takes seconds and hundreds of megabytes, and its Session makes an object of each string.
"""

import contextlib
import functools
import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sluice.models.devices import CPU, GPU, short_name
from sluice.models.saved_model.reasons import INVALID_ARGUMENT, NoSuchTensor, TensorFlowError
from sluice.models.saved_model.session_options import SessionOptions
from sluice.models.saved_model.tensorflow_import import tensorflow
from sluice.models.saved_model.way import Run
from sluice.models.signature import Signature
from sluice.models.tensors.strings import Tensor


@functools.lru_cache(maxsize=1)
def set_up_eager(options: SessionOptions) -> Any:
    """Returns TensorFlow, set up as the options say. What was set before the first model of a process stays."""
    tf, devices = tensorflow(), options.devices
    gpus = tf.config.list_physical_devices(GPU)
    with contextlib.suppress(RuntimeError):  # it runs already
        if not devices.uses_gpus:
            tf.config.set_visible_devices([], GPU)
        elif devices.gpu_memory_growth:
            for gpu in gpus:
                tf.config.experimental.set_memory_growth(gpu, True)
        if devices.cpu_devices:
            parts = [tf.config.LogicalDeviceConfiguration()] * devices.cpu_devices
            tf.config.set_logical_device_configuration(tf.config.list_physical_devices(CPU)[0], parts)
        tf.config.threading.set_intra_op_parallelism_threads(options.intra_op_threads)
        tf.config.threading.set_inter_op_parallelism_threads(options.inter_op_threads)
    tf.config.set_soft_device_placement(not devices.is_strict)
    return tf


class PythonSession:
    """A SavedModel, loaded by the graph loader into a Session: for a library whose C API is not known to work.

    `tf.saved_model.load` fails on real Keras 2 exports under TensorFlow 2.21; the graph loader, whose semantics TF
    Serving follows, loads every kind but that of `RestoredFunction`.

    Raises:
      TensorFlowError: TensorFlow cannot load it.
    """

    def __init__(self, directory: str, options: SessionOptions) -> None:
        tf = tensorflow()
        self.runner = f"Python TensorFlow {tf.__version__}"
        config = tf.compat.v1.ConfigProto.FromString(options.config().SerializeToString())
        self._session = tf.compat.v1.Session(graph=tf.Graph(), config=config)
        level = tf.get_logger().level
        tf.get_logger().setLevel(logging.ERROR)  # the loader warns that it is deprecated, on every load
        try:
            with self._session.graph.as_default():
                tf.compat.v1.saved_model.loader.load(self._session, ["serve"], directory)
        except Exception as error:
            self._session.close()
            raise _translated(error) from error
        finally:
            tf.get_logger().setLevel(level)

    @staticmethod
    def find_devices(options: SessionOptions) -> dict[str, int]:
        """Returns the devices of a session with these options, before there is one."""
        tf = tensorflow()
        config = tf.compat.v1.ConfigProto.FromString(options.config().SerializeToString())
        with tf.compat.v1.Session(graph=tf.Graph(), config=config) as session:
            return _session_devices(session)

    def prepare(self, feeds: Sequence[str], fetches: Sequence[str]) -> Run:
        """Returns what calls the model with tensors for `feeds` and answers with those of `fetches`.

        Raises:
          TensorFlowError: the graph has no tensor of some name.
        """
        fed, fetched = ([self._tensor(name) for name in names] for names in (feeds, fetches))
        run = self._session.make_callable(fetched, feed_list=fed)
        return lambda tensors: _translating(lambda: run(*map(np.asarray, tensors)))

    def _tensor(self, name: str) -> Any:
        try:
            return self._session.graph.get_tensor_by_name(name)
        except (KeyError, ValueError) as error:
            raise NoSuchTensor(name) from error

    def devices(self) -> dict[str, int]:
        """Returns the devices that TensorFlow sees, as TYPE:NUMBER, and the bytes of memory that each may use."""
        return _session_devices(self._session)

    def close(self) -> None:
        """Frees the session and its variables."""
        self._session.close()


def _session_devices(session: Any) -> dict[str, int]:
    return {short_name(device.name): device.memory_limit_bytes for device in session.list_devices()}


class RestoredFunction:
    """A SavedModel, loaded as objects by `tf.saved_model.load`.

    For models whose variables the graph loader leaves unset: a Keras 3 model that `tf.saved_model.save` wrote.

    Args:
      device: where its variables are, and its calls run; "": where TensorFlow places them.

    Raises:
      TensorFlowError: TensorFlow cannot load it.
    """

    def __init__(self, directory: str, signature: Signature, options: SessionOptions, device: str = "") -> None:
        tf = set_up_eager(options)
        self.runner = f"Python TensorFlow {tf.__version__}"
        self._signature, self._options = signature, options
        self._device = f"/device:{device}" if device else None
        try:
            with tf.device(self._device):
                self._loaded = tf.saved_model.load(directory)
            self._function = self._loaded.signatures[signature.name]
        except Exception as error:
            raise _translated(error) from error

    def prepare(self, feeds: Sequence[str], fetches: Sequence[str]) -> Run:
        """Returns what calls the signature; the names of the graph's tensors are those of the signature's specs."""
        return lambda tensors: _translating(lambda: self._call(tensors))

    def devices(self) -> dict[str, int]:
        """Returns the devices that TensorFlow sees, as TYPE:NUMBER; the memory of each is not known, and 0."""
        return self.find_devices(self._options)

    @staticmethod
    def find_devices(options: SessionOptions) -> dict[str, int]:
        """Returns the devices of TensorFlow, once it is set up so."""
        return {short_name(device.name): 0 for device in set_up_eager(options).config.list_logical_devices()}

    def close(self) -> None:
        """Frees the variables, once nobody refers to them."""
        del self._function, self._loaded

    def _call(self, tensors: Sequence[Tensor]) -> list[np.ndarray]:
        tf = tensorflow()
        inputs = zip(self._signature.inputs, tensors, strict=True)
        with tf.device(self._device):
            answer = self._function(**{spec.name: tf.constant(np.asarray(tensor)) for spec, tensor in inputs})
        parts = [part for spec in self._signature.outputs for part in _parts(answer[spec.name], spec.kind)]
        return [part.numpy() for part in parts]


def _parts(value: Any, kind: str) -> Sequence[Any]:
    """The tensors of an output, in the order of its spec."""
    if kind == "ragged":
        return value.values, value.row_splits
    if kind == "sparse":
        return value.values, value.indices, value.dense_shape
    return (value,)


def _translating(call: Callable[[], list[Any]]) -> list[Any]:
    try:
        return call()
    except (tensorflow().errors.OpError, ValueError, TypeError) as error:
        raise _translated(error) from error


def _translated(error: Exception) -> TensorFlowError:
    text = str(getattr(error, "message", None) or error) or type(error).__name__
    return TensorFlowError(getattr(error, "error_code", INVALID_ARGUMENT), text)
