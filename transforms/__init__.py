"""Beam transforms over models/: readers, `Predict`, writers. Importing this package imports no TensorFlow.

The names below are loaded when they are first used: `transforms.schema` and others are of use without Beam.
"""

import importlib
from typing import Any

_HOMES = {
    "Commit": "commit",
    "DecodeMessages": "decode_messages",
    "ExplodeRows": "window_rows",
    "Failure": "failures",
    "FilesPlace": "commit_files",
    "Predict": "predict",
    "ReadFiles": "read_files",
    "ReadMessages": "read_pubsub",
    "ReadTable": "read_bigquery",
    "Result": "failures",
    "SluiceModelHandler": "model_handler",
    "TablePlace": "commit_table",
    "WindowRows": "window_rows",
    "WriteFailureFiles": "write_stream_files",
    "WriteFailureMessages": "write_pubsub",
    "WriteFailureRows": "write_failure_rows",
    "WriteFailureTable": "write_failure_table",
    "WriteFailures": "write_files",
    "WriteFiles": "write_files",
    "WriteMessages": "write_pubsub",
    "WriteStreamFiles": "write_stream_files",
    "WriteStreamTable": "write_bigquery",
    "WriteTable": "write_table",
    "WriteTableRows": "write_bigquery",
}

__all__ = [
    "Commit",
    "DecodeMessages",
    "ExplodeRows",
    "Failure",
    "FilesPlace",
    "Predict",
    "ReadFiles",
    "ReadMessages",
    "ReadTable",
    "Result",
    "SluiceModelHandler",
    "TablePlace",
    "WindowRows",
    "WriteFailureFiles",
    "WriteFailureMessages",
    "WriteFailureRows",
    "WriteFailureTable",
    "WriteFailures",
    "WriteFiles",
    "WriteMessages",
    "WriteStreamFiles",
    "WriteStreamTable",
    "WriteTable",
    "WriteTableRows",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
