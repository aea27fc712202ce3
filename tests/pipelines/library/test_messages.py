"""Readers and writers of a stream with plain arguments: what they decide, and a pipeline of them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to

import sluice
from sluice.models.errors import UsageError
from sluice.transforms.core.messages import message_batch
from tests.support.formats.decode_cases import example
from tests.support.servers import Pubsub

SCHEMA = {"zip": pa.string()}
AVRO = json.dumps({"type": "record", "name": "r", "fields": [{"name": "x", "type": "float"}]})


def messages(*payloads: bytes) -> pa.RecordBatch:
    count = len(payloads)
    times = np.arange(count, dtype=np.int64)
    ids = [f"m{number}" for number in range(count)]
    return message_batch("s", payloads, ids, times, times, [{}] * count, [""] * count, [1] * count)


def decoded(decode: sluice.DecodeMessages, *payloads: bytes) -> list[dict[str, Any]]:
    """Returns what messages hold, without Beam."""
    outputs = list(decode._fn.process(messages(*payloads)))
    names = [name for name in outputs[0].schema.names if not name.startswith("_sluice_")]
    return [row for batch in outputs for row in batch.select(names).to_pylist()]


@pytest.mark.parametrize(
    ("options", "payload", "row"),
    [
        ({}, b'{"x": 4, "zip": "01234"}', {"x": 4.0}),
        ({"schema": SCHEMA}, b'{"x": 4, "zip": "01234"}', {"x": 4.0, "zip": "01234"}),
        ({"schema": pa.schema(SCHEMA), "columns": []}, b'{"x": 4, "zip": "01234"}', {"x": 4.0}),
        ({"format": "example", "schema": SCHEMA}, example(x=4.0, zip="01234"), {"x": 4.0, "zip": "01234"}),
        ({"format": "avro", "avro_schema": AVRO}, np.float32(4).tobytes(), {"x": 4.0}),
    ],
    ids=["json", "json with a schema", "json of some columns", "tf.Example", "avro"],
)
def test_the_model_and_the_schema_type_columns(
    options: dict[str, Any], payload: bytes, row: dict[str, Any], cases: Callable[[str], str]
) -> None:
    assert decoded(sluice.DecodeMessages(cases("picky"), **options), payload) == [row]


def test_without_a_model_the_schema_says_all() -> None:
    decode = sluice.DecodeMessages(schema={"zip": pa.string(), "n": pa.int64()})
    assert decoded(decode, b'{"n": 1, "zip": "01234"}', b'{"n": null}') == [
        {"zip": "01234", "n": 1},
        {"zip": None, "n": None},
    ]


def test_the_columns_that_a_recipe_has_values_for_may_be_missing(cases: Callable[[str], str]) -> None:
    recipe = sluice.ModelRecipe(sluice.parse_model_uri(cases("picky")), sluice.ModelOptions(defaults=(("x", 9.0),)))
    assert decoded(sluice.DecodeMessages(recipe, schema=SCHEMA), b'{"zip": "01234"}') == [{"x": None, "zip": "01234"}]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"format": "csv"}, "format is 'csv'; give one of json, example, avro, raw"),
        ({"format": "avro"}, "give it as JSON text, as avro_schema"),
        ({"format": "raw"}, "give the model"),
        ({}, "no column is known; give the model, or types"),
        ({"schema": SCHEMA, "columns": ["zip", "n"]}, "the type of column 'n' is not known; give it, as schema="),
    ],
)
def test_what_cannot_be(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        sluice.DecodeMessages(**options)


def test_writers_of_places_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'t' is not a Pub/Sub topic"):
        sluice.WriteMessages("t")
    with pytest.raises(UsageError, match="the format is not clear"):
        sluice.WriteStreamFiles(tmp_path / "out")


def test_messages_through_a_model_to_files_and_a_topic(
    cases: Callable[[str], str], tmp_path: Path, pubsub: Pubsub
) -> None:
    topic, model = pubsub.make_topic(), cases("picky")
    subscription = pubsub.make_subscription(topic)
    given = messages(b'{"x": 4, "zip": "01234"}', b'{"x": -1}', b"no JSON")
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        read = pipeline | beam.Create([given]) | sluice.DecodeMessages(model, schema=SCHEMA)
        scored = read.rows | sluice.Predict(model)
        refused = scored.rows | "Files" >> sluice.WriteStreamFiles(tmp_path / "out.jsonl")
        also = scored.rows | "Topic" >> sluice.WriteMessages(topic)
        failed = (read.failures, scored.failures, refused, also) | beam.Flatten()
        assert_that(failed | beam.Map(lambda each: each.stage), equal_to(["decode", "predict"]))
    (written,) = [json.loads(line) for path in tmp_path.glob("out-*.jsonl") for line in path.open()]
    assert written == {"x": 4.0, "zip": "01234", "root": 2.0, "_model": model, "_version": None}
    (message,) = [each.message for each in pubsub.pull_all(subscription, 1)]
    assert json.loads(message.data) == {"x": 4.0, "zip": "01234", "root": 2.0}
    assert message.attributes["sluice_model"] == model
