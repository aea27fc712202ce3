"""The same streaming job with what Beam itself has: its local Pub/Sub source, RunInference, its Pub/Sub sink.

Functions stand here and not in `benchmarks.streaming`, which is run as `__main__`.
"""

from collections.abc import Mapping
from typing import Any

import orjson

from benchmarks.contenders import INPUTS, NAMES, make_handler

# What RunInference is given and gives: the message's attributes as the key, its fields in the order of NAMES.
Keyed = tuple[Mapping[str, str], list[Any]]


def to_fields(message: Any) -> Keyed:
    """Returns a PubsubMessage of a JSON object as its attributes and its fields."""
    row = orjson.loads(message.data)
    return message.attributes, [row["id"], *(row[name] for name in INPUTS), row["label"]]


def to_message(scored: tuple[Mapping[str, str], tuple[list[Any], float]]) -> Any:
    """Returns the PubsubMessage of a row and its score, with the attributes of the message that it came in."""
    from apache_beam.io.gcp.pubsub import PubsubMessage

    attributes, (fields, score) = scored
    return PubsubMessage(orjson.dumps(dict(zip(NAMES, fields, strict=True)) | {"score": score}), dict(attributes))


def run_beam(subscription: str, topic: str, model: str) -> None:
    """Scores messages until the process is killed: `cancel` does not come to an end while a pull waits.

    The runner is named: Beam's DirectRunner goes to it for streaming, unless it can download another one.
    """
    import apache_beam as beam
    from apache_beam.ml.inference.base import KeyedModelHandler, RunInference
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.direct.direct_runner import BundleBasedDirectRunner

    pipeline = beam.Pipeline(BundleBasedDirectRunner(), options=PipelineOptions(streaming=True))
    (
        pipeline
        | beam.io.ReadFromPubSub(subscription=subscription, with_attributes=True)
        | beam.Map(to_fields)
        | RunInference(KeyedModelHandler(make_handler(model, "serving_default")))
        | beam.Map(to_message)
        | beam.io.WriteToPubSub(topic, with_attributes=True)
    )
    pipeline.run().wait_until_finish()
