"""A SavedModel in this process: loaded by the graph loader into a Session.

`tf.saved_model.load` fails on real Keras 2 exports under TensorFlow 2.21. The graph loader, which TF Serving uses too,
loads every kind. TensorFlow is imported when the first model is opened, not before.
"""

import io
import logging
import os
from typing import Any

import numpy as np
import pyarrow as pa

from sluice.models.errors import BadInput, BatchTooLarge, CorruptFile, ModelNotFound
from sluice.models.files import LocalFiles, ModelFiles
from sluice.models.interface import ModelOptions, Outputs, arrow_values
from sluice.models.protos import message_class
from sluice.models.saved_model.reasons import reason
from sluice.models.saved_model.signature_reader import pick_signature, read_signatures
from sluice.models.saved_model.tensorflow_import import tensorflow
from sluice.models.saved_model.versions import Version, find_version, read_meta_graph
from sluice.models.signature import Signature, TensorSpec
from sluice.models.tensors.binding import Bound, Feeds, bind
from sluice.models.tensors.tfrecord import read_records
from sluice.models.uri import ModelSpec

_LOG = logging.getLogger(__name__)

# The warm-up file and its largest number of records. https://www.tensorflow.org/tfx/serving/saved_model_warmup
_WARMUP = "assets.extra/tf_serving_warmup_requests"
_MAX_WARMUP_RECORDS = 1000


class SavedModel:
    """A loaded SavedModel. Thread-safe.

    Args:
      uri: the model's name in messages: what the user gave.
      found: the version to load.

    Raises:
      ModelNotFound: TensorFlow cannot load it.
      SignatureError: no such signature, or one that cannot be served from columns.
    """

    remote = False

    def __init__(self, uri: str, found: Version, options: ModelOptions, files: ModelFiles) -> None:
        self.uri = uri
        self.version = found.number
        self.signature = read_signature(found.directory, options, files)
        self._defaults = dict(options.defaults)
        directory = files.local_copy(found.directory)
        self._session, _ = load_session(directory, options)
        tensors = [self._session.graph.get_tensor_by_name(name) for name in _fetches(self.signature)]
        feeds = [self._session.graph.get_tensor_by_name(spec.tensors[0]) for spec in self.signature.inputs]
        self._run = self._session.make_callable(tensors, feed_list=feeds)
        if options.warm_up:
            self.warmed_up = self._warm_up(directory)

    def bind(self, batch: pa.RecordBatch) -> Bound:
        """Returns the batch as the signature's input tensors."""
        return bind(batch, self.signature, self._defaults)

    def call(self, feeds: Feeds) -> Outputs:
        """Returns the outputs for these tensors.

        Raises:
          BadInput: TensorFlow rejected the values.
          BatchTooLarge: memory does not suffice for this many rows.
        """
        errors = tensorflow().errors
        try:
            values = self._run(*(feeds[spec.name] for spec in self.signature.inputs))
        except errors.ResourceExhaustedError as error:
            raise BatchTooLarge(_reason(error)) from error
        except (errors.OpError, ValueError, TypeError) as error:
            raise BadInput(_reason(error)) from error
        return Outputs(_name_outputs(self.signature, values), self.version)

    def close(self) -> None:
        """Frees the session and its variables."""
        self._session.close()

    def _warm_up(self, directory: str) -> int:
        """Replays the recorded requests for this signature; returns their number."""
        path = os.path.join(directory, _WARMUP)
        if not os.path.exists(path):
            return 0
        done = 0
        try:
            for feeds in _warmup_feeds(path, self.signature):
                self.call(feeds)
                done += 1
        except (BadInput, BatchTooLarge, CorruptFile, ValueError) as error:
            _LOG.warning("Warm-up of %s stopped after %d requests: %s", self.uri, done, error)
        return done


def read_signature(directory: str, options: ModelOptions, files: ModelFiles) -> Signature:
    """Returns the signature that the options name, read without TensorFlow.

    Raises:
      SignatureError: the model has none of this name, or it cannot be served from columns.
    """
    signatures = read_signatures(read_meta_graph(directory, files))
    return pick_signature(signatures, options.signature, options.outputs)


def open_saved_model(spec: ModelSpec, options: ModelOptions, files: ModelFiles | None = None) -> SavedModel:
    """Returns the SavedModel, loaded and warmed up.

    Raises:
      ModelNotFound: the URI has no complete SavedModel, or TensorFlow cannot load it.
      SignatureError: no such signature, or one that cannot be served from columns.
    """
    files = files or LocalFiles()
    return SavedModel(spec.uri, find_version(spec.uri, files, spec.version), options, files)


def load_session(directory: str, options: ModelOptions) -> tuple[Any, Any]:
    """Returns a Session with the SavedModel of a local directory, and its MetaGraphDef.

    Raises:
      ModelNotFound: TensorFlow cannot load it.
    """
    tf = tensorflow()
    config = tf.compat.v1.ConfigProto(
        intra_op_parallelism_threads=options.intra_op_threads,
        inter_op_parallelism_threads=options.inter_op_threads,
    )
    session = tf.compat.v1.Session(graph=tf.Graph(), config=config)
    level = tf.get_logger().level
    tf.get_logger().setLevel(logging.ERROR)  # every load logs that the loader is deprecated
    try:
        with session.graph.as_default():
            meta_graph = tf.compat.v1.saved_model.loader.load(session, ["serve"], directory)
    except Exception as error:
        session.close()
        raise ModelNotFound(f"TensorFlow cannot load the SavedModel {directory}: {_reason(error)}") from error
    finally:
        tf.get_logger().setLevel(level)
    return session, meta_graph


def _fetches(signature: Signature) -> list[str]:
    return [name for spec in signature.outputs for name in spec.tensors]


def _name_outputs(signature: Signature, values: list[Any]) -> dict[str, np.ndarray | pa.Array]:
    arrays: dict[str, np.ndarray | pa.Array] = {}
    position = 0
    for spec in signature.outputs:
        parts = values[position : position + len(spec.tensors)]
        position += len(spec.tensors)
        arrays[spec.name] = _as_array(spec, parts)
    return arrays


def _as_array(spec: TensorSpec, parts: list[np.ndarray]) -> np.ndarray | pa.Array:
    if spec.kind == "dense":
        return parts[0]
    if spec.kind == "ragged":
        values, splits = parts
    else:  # sparse: a row is the list of its values, in order
        values, indices, shape = parts
        row = indices[:, 0]
        values = values if (row[1:] >= row[:-1]).all() else values[np.argsort(row, kind="stable")]
        splits = np.append(0, np.cumsum(np.bincount(row, minlength=int(shape[0]))))
    return pa.ListArray.from_arrays(pa.array(splits.astype(np.int32)), arrow_values(values))


def _warmup_feeds(path: str, signature: Signature) -> list[Feeds]:
    """Returns the inputs of a warm-up file's Predict requests for this signature."""
    tf = tensorflow()
    from tensorflow.core.framework import tensor_pb2

    log_class = message_class("tensorflow.serving.PredictionLog")
    feeds = []
    with open(path, "rb") as file:
        for _, record in read_records(io.BytesIO(file.read())):
            request = log_class.FromString(record).predict_log.request
            named = request.model_spec.signature_name or "serving_default"
            if named != signature.name or set(request.inputs) != {spec.name for spec in signature.inputs}:
                continue
            tensors = {
                name: tensor_pb2.TensorProto.FromString(tensor.SerializeToString())
                for name, tensor in request.inputs.items()
            }
            feeds.append({name: tf.make_ndarray(tensor) for name, tensor in tensors.items()})
    return feeds[:_MAX_WARMUP_RECORDS]


def _reason(error: Exception) -> str:
    return reason(str(getattr(error, "message", None) or error)) or type(error).__name__
