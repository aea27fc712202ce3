"""Score data with TensorFlow models on Apache Beam: the public names.

The code lives in models/, transforms/ and pipelines/ beside this folder, which reaches them by links: an installed
Sluice takes one top-level name. Each public name is imported when it is first used, so that `import sluice` brings in
neither Beam nor TensorFlow.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sluice.models.batching.options import SchedulerOptions
    from sluice.models.cache import ModelRecipe, open_model
    from sluice.models.errors import FailedRow, RowsFailed
    from sluice.models.interface import Model, ModelOptions, Outputs
    from sluice.models.uri import parse_model_uri
    from sluice.pipelines.library.messages import DecodeMessages, WriteMessages, WriteStreamFiles
    from sluice.pipelines.library.read_files import ReadFiles
    from sluice.pipelines.library.read_table import ReadTable
    from sluice.pipelines.library.write_files import WriteFailures, WriteFiles
    from sluice.pipelines.library.write_table import WriteFailureTable, WriteTable
    from sluice.transforms.core.failures import Failure, Result
    from sluice.transforms.files.write_stream import WriteFailureFiles
    from sluice.transforms.model_handler import SluiceModelHandler
    from sluice.transforms.predict.data import Predicted, predict
    from sluice.transforms.predict.transform import Predict
    from sluice.transforms.pubsub.read import ReadMessages
    from sluice.transforms.pubsub.write import WriteFailureMessages
    from sluice.transforms.window_rows import ExplodeRows, WindowRows

# Where each public name lives.
_HOMES = {
    "DecodeMessages": "sluice.pipelines.library.messages",
    "ExplodeRows": "sluice.transforms.window_rows",
    "FailedRow": "sluice.models.errors",
    "Failure": "sluice.transforms.core.failures",
    "Model": "sluice.models.interface",
    "ModelOptions": "sluice.models.interface",
    "ModelRecipe": "sluice.models.cache",
    "Outputs": "sluice.models.interface",
    "Predict": "sluice.transforms.predict.transform",
    "Predicted": "sluice.transforms.predict.data",
    "ReadFiles": "sluice.pipelines.library.read_files",
    "ReadMessages": "sluice.transforms.pubsub.read",
    "ReadTable": "sluice.pipelines.library.read_table",
    "Result": "sluice.transforms.core.failures",
    "RowsFailed": "sluice.models.errors",
    "SchedulerOptions": "sluice.models.batching.options",
    "SluiceModelHandler": "sluice.transforms.model_handler",
    "WindowRows": "sluice.transforms.window_rows",
    "WriteFailureFiles": "sluice.transforms.files.write_stream",
    "WriteFailureMessages": "sluice.transforms.pubsub.write",
    "WriteFailureTable": "sluice.pipelines.library.write_table",
    "WriteFailures": "sluice.pipelines.library.write_files",
    "WriteFiles": "sluice.pipelines.library.write_files",
    "WriteMessages": "sluice.pipelines.library.messages",
    "WriteStreamFiles": "sluice.pipelines.library.messages",
    "WriteTable": "sluice.pipelines.library.write_table",
    "open_model": "sluice.models.cache",
    "parse_model_uri": "sluice.models.uri",
    "predict": "sluice.transforms.predict.data",
}

__all__ = [
    "DecodeMessages",
    "ExplodeRows",
    "FailedRow",
    "Failure",
    "Model",
    "ModelOptions",
    "ModelRecipe",
    "Outputs",
    "Predict",
    "Predicted",
    "ReadFiles",
    "ReadMessages",
    "ReadTable",
    "Result",
    "RowsFailed",
    "SchedulerOptions",
    "SluiceModelHandler",
    "WindowRows",
    "WriteFailureFiles",
    "WriteFailureMessages",
    "WriteFailureTable",
    "WriteFailures",
    "WriteFiles",
    "WriteMessages",
    "WriteStreamFiles",
    "WriteTable",
    "open_model",
    "parse_model_uri",
    "predict",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
