"""The same streaming job with Beam's own parts: its local Pub/Sub source, RunInference, its Pub/Sub sink.

These functions are not in `benchmarks.streaming`, because that runs as `__main__`.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import orjson
from apache_beam.io.gcp.pubsub import PubsubMessage
from apache_beam.ml.inference.base import KeyedModelHandler, ModelHandler, RunInference
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.direct.direct_runner import BundleBasedDirectRunner

from benchmarks.contenders import INPUTS, NAMES, load, make_handler

# RunInference's input: the message's attributes as the key, and its fields in the order of NAMES.
Keyed = tuple[Mapping[str, str], list[Any]]


def to_fields(message: PubsubMessage) -> Keyed:
    """Returns the attributes and the fields of a message that holds a JSON object."""
    row = orjson.loads(message.data)
    return message.attributes, [row[name] for name in NAMES]


def to_message(scored: tuple[Mapping[str, str], tuple[list[Any], float]]) -> PubsubMessage:
    """Returns the message of a row and its score, with the attributes of the row's own message."""
    attributes, (fields, score) = scored
    return PubsubMessage(orjson.dumps(dict(zip(NAMES, fields, strict=True)) | {"score": score}), dict(attributes))


@functools.cache
def _load(model: str) -> Callable[..., np.ndarray]:
    return load(model, "serving_default", INPUTS)


class CachedHandler(ModelHandler):
    """The batch benchmark's handler, with the model kept in the process.

    With this runner RunInference would load the model again for every bundle, and a bundle has at most 10 messages.
    """

    def __init__(self, model: str) -> None:
        self._model = model
        self._handler = make_handler(model, "serving_default")

    def load_model(self) -> Callable[..., np.ndarray]:
        return _load(self._model)

    def batch_elements_kwargs(self) -> Mapping[str, Any]:
        return self._handler.batch_elements_kwargs()

    def run_inference(
        self, batch: Sequence[list[Any]], model: Callable[..., np.ndarray], inference_args: Any = None
    ) -> Iterable[tuple[list[Any], float]]:
        return self._handler.run_inference(batch, model)


def run_beam(subscription: str, topic: str, model: str) -> None:
    """Scores messages until the process is killed: `cancel` does not return while a pull waits.

    Names the runner that Beam's DirectRunner uses for streaming unless it can download another one.
    """
    pipeline = beam.Pipeline(BundleBasedDirectRunner(), options=PipelineOptions(streaming=True))
    (
        pipeline
        | beam.io.ReadFromPubSub(subscription=subscription, with_attributes=True)
        | beam.Map(to_fields)
        | RunInference(KeyedModelHandler(CachedHandler(model)))
        | beam.Map(to_message)
        | beam.io.WriteToPubSub(topic, with_attributes=True)
    )
    pipeline.run().wait_until_finish()
