"""A trained model of the zoo -> a version on disk, complete from the moment it is visible."""

import os
import shutil

from google.protobuf.message import Message

from sluice.models.protos import message_class
from sluice.models.saved_model.tensorflow_import import tensorflow
from sluice.models.tensors import tfrecord
from sluice.models.zoo.base import ZooModel, feature_arrays

# Where TensorFlow Serving looks: tensorflow_serving/servables/tensorflow/saved_model_warmup_util.h
WARMUP_FILE = os.path.join("assets.extra", "tf_serving_warmup_requests")


def export_model(model: ZooModel, base_dir: str, rows: int = 20_000, seed: int = 1) -> str:
    """Trains the model and saves it as `base_dir/1/`, or under the next free number.

    Returns:
      The directory of the new version. It appears complete: a server that polls `base_dir` never sees a part of it.
    """
    tf = tensorflow()
    trained = model.train(model.make_rows(rows, seed), seed)
    os.makedirs(base_dir, exist_ok=True)
    version = next_version(base_dir)
    # Not a number, so that nothing takes it for a version before the rename.
    unfinished = os.path.join(base_dir, f".{version}-{os.getpid()}")
    try:
        tf.saved_model.save(trained.module, unfinished, signatures=dict(trained.signatures))
        if model.warmup_rows:
            write_warmup(model, unfinished, seed)
        final = os.path.join(base_dir, str(version))
        os.rename(unfinished, final)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return final


def next_version(base_dir: str) -> int:
    """Returns one more than the highest number among the directories in `base_dir`; 1 if there is none."""
    return 1 + max((int(name) for name in os.listdir(base_dir) if name.isdecimal()), default=0)


def write_warmup(model: ZooModel, directory: str, seed: int) -> None:
    """Writes one PredictionLog, which servers replay before a version serves requests."""
    path = os.path.join(directory, WARMUP_FILE)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        tfrecord.write_records(file, [warmup_log(model, seed).SerializeToString()])


def warmup_log(model: ZooModel, seed: int) -> Message:
    """Returns a tensorflow.serving.PredictionLog: a Predict of `serving_default` with `warmup_rows` rows."""
    tf = tensorflow()
    log = message_class("tensorflow.serving.PredictionLog")()
    request = log.predict_log.request
    request.model_spec.name = model.name
    request.model_spec.signature_name = "serving_default"
    batch = model.make_rows(model.warmup_rows, seed)
    for name, values in feature_arrays(batch, model.label).items():
        request.inputs[name].ParseFromString(tf.make_tensor_proto(values).SerializeToString())
    return log
