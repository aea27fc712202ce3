"""The same streaming job with what Beam itself has: its local Pub/Sub source, RunInference, its Pub/Sub sink.

Functions stand here and not in `benchmarks.streaming`, which is run as `__main__`.
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

# What RunInference is given: the message's attributes as the key, and its fields in the order of NAMES.
Keyed = tuple[Mapping[str, str], list[Any]]


def to_fields(message: PubsubMessage) -> Keyed:
    """Returns a message of a JSON object as its attributes and its fields."""
    row = orjson.loads(message.data)
    return message.attributes, [row[name] for name in NAMES]


def to_message(scored: tuple[Mapping[str, str], tuple[list[Any], float]]) -> PubsubMessage:
    """Returns the message of a row and its score, with the attributes of the one that the row came in."""
    attributes, (fields, score) = scored
    return PubsubMessage(orjson.dumps(dict(zip(NAMES, fields, strict=True)) | {"score": score}), dict(attributes))


@functools.cache
def _load(model: str) -> Callable[..., np.ndarray]:
    return load(model, "serving_default", INPUTS)


class CachedHandler(ModelHandler):
    """The batch benchmark's handler, with the model kept in the process.

    RunInference has this runner load it anew for every bundle, of which each has 10 messages at most.
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
    """Scores messages until the process is killed: `cancel` does not come to an end while a pull waits.

    The runner is named: Beam's DirectRunner goes to it for streaming, unless it can download another one.
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
