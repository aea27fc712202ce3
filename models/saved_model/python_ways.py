"""The second ways to run a SavedModel, in Python TensorFlow: where the C API does not serve.

Importing TensorFlow takes seconds and hundreds of megabytes, and its Session makes an object of each string.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sluice.models.saved_model.reasons import INVALID_ARGUMENT, NoSuchTensor, TensorFlowError
from sluice.models.saved_model.tensorflow_import import tensorflow
from sluice.models.signature import Signature
from sluice.models.tensors.strings import Tensor

Run = Callable[[Sequence[Tensor]], list[Any]]


class PythonSession:
    """A SavedModel, loaded by the graph loader into a Session: for a library whose C API is not known to work.

    `tf.saved_model.load` fails on real Keras 2 exports under TensorFlow 2.21; the graph loader, whose semantics TF
    Serving follows, loads every kind but that of `RestoredFunction`.

    Raises:
      TensorFlowError: TensorFlow cannot load it.
    """

    def __init__(self, directory: str, intra_op_threads: int, inter_op_threads: int) -> None:
        tf = tensorflow()
        config = tf.compat.v1.ConfigProto(
            intra_op_parallelism_threads=intra_op_threads,
            inter_op_parallelism_threads=inter_op_threads,
            allow_soft_placement=True,
        )
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

    def close(self) -> None:
        """Frees the session and its variables."""
        self._session.close()


class RestoredFunction:
    """A SavedModel, loaded as objects by `tf.saved_model.load`.

    For models whose variables the graph loader leaves unset: a Keras 3 model that `tf.saved_model.save` wrote.

    Raises:
      TensorFlowError: TensorFlow cannot load it.
    """

    def __init__(self, directory: str, signature: Signature) -> None:
        self._signature = signature
        try:
            self._loaded = tensorflow().saved_model.load(directory)
            self._function = self._loaded.signatures[signature.name]
        except Exception as error:
            raise _translated(error) from error

    def prepare(self, feeds: Sequence[str], fetches: Sequence[str]) -> Run:
        """Returns what calls the signature; the names of the graph's tensors are those of the signature's specs."""
        return lambda tensors: _translating(lambda: self._call(tensors))

    def close(self) -> None:
        """Frees the variables, once nobody refers to them."""
        del self._function, self._loaded

    def _call(self, tensors: Sequence[Tensor]) -> list[np.ndarray]:
        tf = tensorflow()
        inputs = zip(self._signature.inputs, tensors, strict=True)
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
