"""Writes models/serving.binpb: the protobuf descriptors of TF Serving's API and of SavedModel.

Importing `tensorflow_serving.apis` or `tensorflow.core.protobuf` imports all of TensorFlow (5 s and 600 MB in every
worker). The descriptors alone take some ten kilobytes; `models.protos` makes message classes of them in their own pool.
Run `python tools/make_protos.py` after an upgrade of tensorflow-serving-api; a test compares.
"""

import pathlib
import sys

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import FileDescriptor

ROOTS = (
    "tensorflow_serving.apis.predict_pb2",
    "tensorflow_serving.apis.get_model_metadata_pb2",
    "tensorflow_serving.apis.get_model_status_pb2",
    "tensorflow_serving.apis.prediction_log_pb2",
    "tensorflow_serving.apis.classification_pb2",
    "tensorflow_serving.apis.regression_pb2",
    "tensorflow_serving.apis.inference_pb2",
    "tensorflow.core.protobuf.saved_model_pb2",
    "tensorflow.core.example.example_pb2",
)
TARGET = pathlib.Path(__file__).parent.parent / "models" / "serving.binpb"


def descriptor_set() -> descriptor_pb2.FileDescriptorSet:
    """Returns the files of ROOTS and all that they import, each after its imports."""
    import importlib

    files = descriptor_pb2.FileDescriptorSet()
    seen: set[str] = set()

    def add(file: FileDescriptor) -> None:
        if file.name in seen:
            return
        seen.add(file.name)
        for dependency in file.dependencies:
            add(dependency)
        file.CopyToProto(files.file.add())

    for root in ROOTS:
        add(importlib.import_module(root).DESCRIPTOR)
    return files


if __name__ == "__main__":
    TARGET.write_bytes(descriptor_set().SerializeToString(deterministic=True))
    sys.stdout.write(f"{TARGET.name}: {TARGET.stat().st_size} bytes\n")
