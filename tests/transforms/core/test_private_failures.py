"""Under --failure_payload none and hash no value of a row is in a failure: of no cell, attribute or payload."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice.models.batching.mini_batch import RowFailure
from sluice.models.errors import BadInput
from sluice.models.signature import Signature, TensorSpec
from sluice.models.tensors.binding import bind
from sluice.transforms.bigquery.write_failures import failure_row
from sluice.transforms.core.batches import failure_of
from sluice.transforms.core.failures import BIND, HASH, NONE, PREDICT, Failure, to_json
from sluice.transforms.core.messages import message_batch
from sluice.transforms.decode.spec import InputSpec
from sluice.transforms.pubsub.decode_messages import MessageSpec, decode_messages
from sluice.transforms.pubsub.message_attributes import failure_message

SECRET = "Zq7Jane0Doe"
COLUMNS = (
    ("age", pa.int64()),
    ("height", pa.float32()),
    ("name", pa.string()),
    ("born", pa.timestamp("us")),
    ("member", pa.bool_()),
    ("photo", pa.binary()),
    ("scores", pa.list_(pa.int64())),
    ("price", pa.decimal128(5, 2)),
)
SIGNATURE = Signature(
    "serving_default",
    "tensorflow/serving/predict",
    (TensorSpec("age", "int8", (None,), ("age:0",)), TensorSpec("scores", "int64", (None, 2), ("scores:0",))),
    (TensorSpec("y", "float32", (None,), ("y:0",)),),
)
HOLDERS = st.sampled_from([SECRET, f"{SECRET} \u00fc", [SECRET], {"b64": SECRET}, {SECRET: 1}, [[SECRET], [1, SECRET]]])
GOOD: dict[str, Any] = {
    "age": 1,
    "height": 1.5,
    "name": "a",
    "born": "2024-01-01T00:00:00",
    "scores": [1, 2],
    "price": "1.5",
}

AVRO = {"type": "record", "name": "r", "fields": [{"name": "name", "type": {"type": "map", "values": "int"}}]}


def messages(*payloads: bytes) -> pa.RecordBatch:
    rows = len(payloads)
    times = np.zeros(rows, np.int64)
    ids, keys = [str(row) for row in range(rows)], [SECRET] * rows
    attributes = [{"user": SECRET, "sluice_attempt": "2"}] * rows
    return message_batch("projects/p/subscriptions/s", payloads, ids, times, times, attributes, keys, [1] * rows)


def forms(failure: Failure, mode: str) -> str:
    """Everything that a failure is written as."""
    data, attributes, _ = failure_message(failure, mode)
    return "\n".join(
        [to_json(failure, mode).decode(), data.decode(), str(attributes), json.dumps(failure_row(failure, mode))]
    )


def assert_private(failures: list[Failure]) -> None:
    for failure in failures:
        for mode in (NONE, HASH):
            assert SECRET not in forms(failure, mode), failure.error_message


@settings(deadline=None, max_examples=60)
@given(st.sampled_from([name for name, _ in COLUMNS]), HOLDERS)
def test_a_cell_of_json(name: str, holder: Any) -> None:
    payloads = [
        orjson.dumps({**GOOD, name: holder}),
        orjson.dumps(GOOD),
        orjson.dumps(holder),
        f'{{"age": {SECRET}'.encode(),
    ]
    decoded = decode_messages(messages(*payloads), MessageSpec("json", InputSpec("json", COLUMNS)))
    assert len(decoded.failures) >= 2
    assert_private(decoded.failures)


@pytest.mark.parametrize("payload", [before + SECRET.encode() for before in (b"", b"\xff", b"\xef\xbb\xbf")])
@pytest.mark.parametrize("format_", ["json", "example", "raw", "avro"])
def test_a_payload_of_another_format(format_: str, payload: bytes) -> None:
    schema = json.dumps(AVRO)
    columns = (("name", pa.string()),)
    spec = MessageSpec(format_, InputSpec(format_, columns), schema if format_ == "avro" else "")
    decoded = decode_messages(messages(payload), spec)
    assert_private(decoded.failures)


def test_a_cell_that_does_not_fit_the_model() -> None:
    batch = pa.RecordBatch.from_pydict({"age": [777123, 1], "scores": [[1, 2], [777123]]})
    errors = bind(batch, SIGNATURE).errors
    failures = [failure_of(batch, row, BIND, "InvalidRow", text) for row, text in errors.items()]
    told = [json.loads(to_json(failure, NONE)) for failure in failures]
    assert [each["error_message"] for each in told] == [
        "column 'age': [withheld] does not fit int8",
        "column 'scores': the model takes int64[2], found a list of 1",
    ]
    assert not any("777123" in json.dumps(each) for each in told)


def test_what_a_model_says_of_a_row() -> None:
    failure = RowFailure.of(BadInput(f"could not convert string: {SECRET}"))
    made = failure_of(messages(b"{}"), 0, PREDICT, failure.type, failure.message, model="gs://m")
    assert_private([made])
    record = json.loads(to_json(made, HASH))
    assert (record["error_type"], record["model"], record["attempt"]) == ("BadInput", "gs://m", 2)
    assert record["attributes"]["user"].startswith("sha256:")
    assert json.loads(to_json(made, NONE))["attributes"] == {}
    assert "withheld" in record["error_message"]
