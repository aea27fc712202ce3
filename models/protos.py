"""Message classes of TF Serving's API and of SavedModel, without TensorFlow.

They live in a descriptor pool of their own, so TensorFlow may be imported beside them in the same process. The
descriptors come from tensorflow-serving-api by tools/make_protos.py.
"""

import functools
import importlib.resources
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory


@functools.cache
def _pool() -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    data = importlib.resources.files("sluice.models").joinpath("serving.binpb").read_bytes()
    for file in descriptor_pb2.FileDescriptorSet.FromString(data).file:
        pool.Add(file)
    return pool


@functools.cache
def message_class(name: str) -> Any:
    """Returns the class of the message with this full name, e.g. `tensorflow.serving.PredictRequest`.

    Raises:
      KeyError: no such message in models/serving.binpb.
    """
    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(name))
