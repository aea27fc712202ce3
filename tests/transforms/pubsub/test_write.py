"""Predictions and failures as messages: what they hold, which are refused; a bundle waits for all of them."""

import datetime
import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from sluice.models.errors import SluiceError
from sluice.models.reserved import ATTRIBUTES, PAYLOAD
from sluice.transforms.core import metrics
from sluice.transforms.core.failures import FULL, Failure
from sluice.transforms.core.messages import message_batch, with_envelope
from sluice.transforms.encode.base import OutputSpec
from sluice.transforms.pubsub.message_attributes import failure_message, messages_of
from sluice.transforms.pubsub.publish_sender import PublishOptions
from sluice.transforms.pubsub.write import WriteFailureMessages, WriteMessages, _WriteFailures, _WriteMessages
from tests.support.fakes import PATIENCE_SECS
from tests.support.pubsub.service import TOPIC, Gate, aborts, refuses_poison, service
from tests.support.servers import Pubsub

SPEC = OutputSpec("jsonl", pa.schema([("x", pa.string()), ("y", pa.int64())]))
TIME_US = 1_700_000_000_123_456
WINDOW, TIMESTAMP = GlobalWindow(), Timestamp(7)


def scored(
    x: Sequence[str | None],
    attributes: Sequence[dict[str, str]] = (),
    keys: Sequence[str] = (),
    version: int | None = 3,
) -> pa.RecordBatch:
    """Returns messages that were decoded and predicted; message `i` has the id `m<i>`."""
    count = len(x)
    times = TIME_US + np.arange(count)
    ids = [f"m{row}" for row in range(count)]
    payloads = [json.dumps({"x": each}).encode() for each in x]
    envelope = message_batch(
        "projects/p/subscriptions/s",
        payloads, ids, times, times, attributes or [{}] * count, keys or [""] * count, [1] * count,
    )  # fmt: skip
    rows = pa.record_batch(
        {
            "x": pa.array(x, pa.string()),
            "y": pa.array(range(count), pa.int64()),
            "_model": pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), ["gs://b/model"]),
            "_version": pa.array([version] * count, pa.int64()),
        }
    )
    return with_envelope(rows, envelope)


def opened(dofn: Any) -> Any:
    dofn.setup()
    dofn.start_bundle()
    return dofn


def writer(spec: OutputSpec = SPEC, **options: float) -> _WriteMessages:
    return opened(_WriteMessages(TOPIC, spec, PublishOptions(**options)))


def process(dofn: _WriteMessages, batch: pa.RecordBatch) -> list[Any]:
    return list(dofn.process(batch, WINDOW, TIMESTAMP))


def test_predictions_are_messages(pubsub: Pubsub) -> None:
    topic = pubsub.make_topic()
    subscription = pubsub.make_subscription(topic, enable_message_ordering=True)
    batch = scored(["a", "b\n"], [{"id": "1", "sluice_attempt": "2"}, {}], keys=["k", ""])
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        failures = pipeline | beam.Create([batch]) | WriteMessages(topic, SPEC)
        assert_that(failures, equal_to([]))
    received = sorted((each.message for each in pubsub.pull_all(subscription, 2)), key=lambda message: message.data)
    assert [message.data for message in received] == [b'{"x":"a","y":0}', b'{"x":"b\\n","y":1}']
    assert [message.ordering_key for message in received] == ["k", ""]
    ours = {"sluice_model": "gs://b/model", "sluice_version": "3"}
    assert [dict(message.attributes) for message in received] == [
        ours | {"id": "1", "sluice_message_id": "m0", "sluice_publish_time": "2023-11-14T22:13:20.123456Z"},
        ours | {"sluice_message_id": "m1", "sluice_publish_time": "2023-11-14T22:13:20.123457Z"},
    ]


def test_a_row_that_cannot_be_encoded_or_is_refused_fails_alone(pubsub: Pubsub) -> None:
    topic = pubsub.make_topic()
    subscription = pubsub.make_subscription(topic)
    spec = OutputSpec("jsonl", pa.schema([("x", pa.string(), False)]))
    batch = scored(["a", None, "c", "d"], [{}, {}, {}, {"n": "v" * 1025}])
    metrics.reset_tally()
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        failures = pipeline | beam.Create([batch]) | WriteMessages(topic, spec)
        told = failures | beam.Map(lambda each: (each.stage, each.error_type, each.payload, each.model, each.version))
        assert_that(
            told,
            equal_to(
                [
                    ("encode", "SluiceError", b'{"x": null}', "gs://b/model", 3),
                    ("write", "MessageTooLarge", b'{"x": "d"}', "gs://b/model", 3),
                ]
            ),
        )
    tally = metrics.tally()
    assert (tally["rows_failed"], tally["rows_failed/write/MessageTooLarge"]) == (2, 1)
    received = pubsub.pull_all(subscription, 2)
    assert sorted(each.message.data for each in received) == [b'{"x":"a"}', b'{"x":"c"}']
    assert pubsub.pull_all(subscription, 1, secs=1.0) == []


def test_a_bundle_ends_when_its_messages_are_published() -> None:
    gate = Gate()
    with service(gate) as server, ThreadPoolExecutor(1) as thread, gate:
        dofn = writer()
        assert process(dofn, scored(["a", "b"])) == []
        finished = thread.submit(lambda: list(dofn.finish_bundle()))
        assert server.entered.acquire(timeout=PATIENCE_SECS)
        assert not finished.done()
        gate.open()
        assert finished.result(PATIENCE_SECS) == []
        assert len(server.taken) == 2
        dofn.teardown()


def test_a_bundle_that_cannot_be_published_fails_and_leaves_nothing() -> None:
    with service(aborts("NOT_FOUND", times=1)) as server:
        dofn = writer()
        process(dofn, scored(["a"]))
        with pytest.raises(SluiceError, match="topics create"):
            list(dofn.finish_bundle())
        dofn.start_bundle()
        process(dofn, scored(["never finished"]))
        dofn.start_bundle()
        process(dofn, scored(["b"]))
        assert list(dofn.finish_bundle()) == []
        assert server.data == [b'{"x":"b","y":0}']
        dofn.teardown()


def test_an_outage_fails_the_job_and_not_the_rows() -> None:
    with service(aborts("UNAVAILABLE")), pytest.raises(SluiceError, match="UNAVAILABLE"):  # noqa: SIM117
        with beam.Pipeline(runner=FnApiRunner()) as pipeline:
            _ = pipeline | beam.Create([scored(["a"])]) | WriteMessages(TOPIC, SPEC, retry_secs=0.5)


def test_a_refused_message_is_a_failure_in_its_window_at_its_time() -> None:
    with service(refuses_poison) as server:
        dofn = writer()
        found = process(dofn, scored(["a", "poison", "b"], [{}, {"id": "7"}, {}]))
        found += list(dofn.finish_bundle())
        assert [(each.timestamp, each.windows) for each in found] == [(TIMESTAMP, (WINDOW,))]
        failure = found[0].value
        assert (failure.stage, failure.error_type) == ("write", "InvalidArgument")
        assert failure.error_message == f"{TOPIC} does not take the message: a message is bad"
        assert failure.origin == "projects/p/subscriptions/s#message_id=m1"
        assert (failure.payload, failure.attributes) == (b'{"x": "poison"}', (("id", "7"),))
        assert server.data == [b'{"x":"a","y":0}', b'{"x":"b","y":2}']
        dofn.teardown()


def test_a_refused_message_is_told_while_the_bundle_goes_on() -> None:
    with service(refuses_poison):
        dofn = writer()
        found = process(dofn, scored(["poison"] * 1000))
        end = time.monotonic() + PATIENCE_SECS
        while not found and time.monotonic() < end:
            found = process(dofn, scored(["a"]))
        assert found
        assert len(found) + len(list(dofn.finish_bundle())) == 1000
        dofn.teardown()


def test_teardown_without_setup_is_harmless() -> None:
    _WriteMessages(TOPIC, SPEC, PublishOptions()).teardown()


def test_rows_that_are_no_messages_are_published_too() -> None:
    with service() as server:
        dofn = writer(OutputSpec("jsonl", pa.schema([("x", pa.int64())])))
        process(dofn, pa.record_batch({"x": [1]}))
        list(dofn.finish_bundle())
        assert [(message.data, dict(message.attributes)) for message in server.taken] == [(b'{"x":1}', {})]
        dofn.teardown()


def test_raw_rows_are_their_source_with_members_added() -> None:
    with service() as server:
        dofn = writer(OutputSpec("jsonl", pa.schema([("y", pa.int64())]), raw=True))
        batch = scored(["a"])
        place = batch.schema.get_field_index(PAYLOAD)
        batch = batch.set_column(place, PAYLOAD, pa.array([b' {\n  "x": 1.50\n}\n'], pa.binary()))
        process(dofn, batch)
        list(dofn.finish_bundle())
        assert [each.strip() for each in server.data] == [b'{   "x": 1.50,"y":0}']
        dofn.teardown()


NAMES = st.sampled_from(["id", "é", "sluice_attempt", "sluice_model", "googclient_schemaencoding", "goog", "n" * 256])
LONG = st.sampled_from(["", "v", "é" * 512, "é" * 513, "v" * 1024, "v" * 1025])


@given(st.lists(st.dictionaries(NAMES, LONG, max_size=4), max_size=8), st.integers(0, 3), st.integers(0, 3))
def test_attributes_are_those_of_the_rows_one_by_one(rows: list[dict[str, str]], before: int, after: int) -> None:
    batch = scored(["x"] * len(rows), rows, version=None)
    batch = batch.slice(before, max(0, batch.num_rows - before - after))
    rows = rows[before : before + batch.num_rows]
    data = [b"{}"] * batch.num_rows
    messages, errors = messages_of(batch, data)
    for row, source in enumerate(rows):
        number = row + before
        time = datetime.datetime.fromtimestamp(0, datetime.UTC) + datetime.timedelta(microseconds=TIME_US + number)
        expected = {k: v for k, v in source.items() if k != "sluice_attempt" and not k.startswith("goog")} | {
            "sluice_model": "gs://b/model",
            "sluice_message_id": f"m{number}",
            "sluice_publish_time": time.isoformat().replace("+00:00", "Z"),
        }
        assert messages.attributes[row] == expected
        assert (row in errors) == any(len(value.encode()) > 1024 for value in expected.values())
        body = _serialized(data[row], messages.attributes[row])
        assert len(body) <= messages.sizes[row] <= len(body) + 5000
    assert len(messages.attributes) == len(rows)


def _serialized(data: bytes, attributes: dict[str, str]) -> bytes:
    from google.pubsub_v1.types import PublishRequest

    return PublishRequest.pb()(messages=[{"data": data, "attributes": attributes}]).SerializeToString()


@pytest.mark.parametrize(
    ("attributes", "data", "text"),
    [
        ({str(n): "" for n in range(96)}, b"{}", None),
        ({str(n): "" for n in range(97)}, b"{}", "has 101 attributes.*publish it with 96"),
        ({str(n): "" for n in range(96)} | {"sluice_version": "0"}, b"{}", None),
        ({"a" * 256: ""}, b"{}", None),
        ({"a" * 257: ""}, b"{}", "name of attribute 'aaaa.* is 257 bytes"),
        ({"a": "é" * 513}, b"{}", "value of attribute 'a' is 1,026 bytes"),
        ({}, b"x" * 9_990_000, None),
        ({}, b"x" * 10_000_000, r"message is some 10,00\d,\d{3} bytes.*--exclude_columns"),
    ],
)
def test_what_pubsub_would_not_take_is_known_before(attributes: dict[str, str], data: bytes, text: str | None) -> None:
    _, errors = messages_of(scored(["a", "x"], [{}, attributes]), [b"{}", data])
    assert list(errors) == ([] if text is None else [1])
    if text is not None:
        with pytest.raises(SluiceError, match=text):
            raise SluiceError(errors[1])


def test_a_column_of_attributes_may_have_nulls() -> None:
    batch = scored(["a", "b"])
    kind = pa.map_(pa.string(), pa.string())
    column = pa.array([[("id", "1")], None], kind)
    batch = batch.set_column(batch.schema.get_field_index(ATTRIBUTES), ATTRIBUTES, column)
    messages, errors = messages_of(batch, [b"{}"] * 2)
    assert errors == {}
    assert [of_row.get("id") for of_row in messages.attributes] == ["1", None]


def failure(**fields: Any) -> Failure:
    known = {"stage": "decode", "error_type": "InvalidRow", "error_message": "no", "origin": "o", "timestamp": 0.5}
    return Failure(**(known | fields))


def test_failures_are_messages(pubsub: Pubsub) -> None:
    topic = pubsub.make_topic()
    subscription = pubsub.make_subscription(topic)
    carried = (("id", "7"), ("googclient_schemaencoding", "JSON"), ("long", "é" * 600))
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        made = failure(payload=b"not json", attributes=carried, attempt=2)
        nothing = pipeline | beam.Create([made]) | WriteFailureMessages(topic, FULL)
        assert_that(nothing, equal_to([]))
    (received,) = pubsub.pull_all(subscription, 1)
    assert json.loads(received.message.data) == {
        "timestamp": "1970-01-01T00:00:00.500000Z",
        "stage": "decode",
        "error_type": "InvalidRow",
        "error_message": "no",
        "origin": "o",
        "payload": None,
        "payload_text": "not json",
        "attributes": dict(carried),
        "model": None,
        "version": None,
        "attempt": 2,
    }
    assert dict(received.message.attributes) == {
        "id": "7",
        "long": "é" * 512,
        "sluice_stage": "decode",
        "sluice_error_type": "InvalidRow",
        "sluice_attempt": "2",
    }


@pytest.mark.parametrize(
    "made",
    [
        failure(payload=b"\xff" * 8_000_000),
        failure(payload=b"\\" * 8_000_000),  # its escapes take twice as much
        failure(error_message="é" * 6_000_000),
        failure(payload=b"x", attributes=tuple((str(n), "é" * 2000) for n in range(150))),
        failure(
            error_type="E" * 2000, attributes=(("sluice_stage", "theirs"), ("n" * 300, ""), ("sluice_attempt", "9"))
        ),
    ],
)
def test_a_failure_always_fits_into_a_message(made: Failure) -> None:
    data, attributes, size = failure_message(made, FULL)
    assert len(_serialized(data, attributes)) <= size <= 10_000_000
    assert len(attributes) <= 100
    assert all(len(name.encode()) <= 256 and len(value.encode()) <= 1024 for name, value in attributes.items())
    assert (attributes["sluice_stage"], attributes["sluice_attempt"]) == ("decode", "1")
    shown = json.loads(data)
    assert shown["origin"] == "o"
    if len(made.payload) > 1:
        assert shown["payload"].startswith("sha256:")


def test_failures_that_are_not_taken_fail_the_bundle() -> None:
    with service(refuses_poison) as server:
        dofn = opened(_WriteFailures(TOPIC, FULL, PublishOptions(), ""))
        for text in ("fine", "poison"):
            assert list(dofn.process(failure(error_message=text))) == []
        with pytest.raises(SluiceError, match=r"1 failures cannot be written: .*a message is bad"):
            list(dofn.finish_bundle())
        assert len(server.taken) == 1
        dofn.teardown()
