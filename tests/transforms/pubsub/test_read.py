"""`ReadMessages` on Beam's in-process runner, and the native variant's graph."""

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.io.gcp.pubsub import PubsubMessage
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms.window import FixedWindows, IntervalWindow, TimestampedValue
from apache_beam.utils.timestamp import Timestamp

from sluice.models.reserved import (
    ATTRIBUTES,
    DELIVERY_ATTEMPT,
    EVENT_TIME,
    MESSAGE_ID,
    ORDERING_KEY,
    PAYLOAD,
    PUBLISH_TIME,
)
from sluice.transforms.core.messages import MESSAGE_SCHEMA, parse_time, times_us
from sluice.transforms.pubsub.message_buffer import BundleOptions
from sluice.transforms.pubsub.message_source import MessageSource
from sluice.transforms.pubsub.read import ReadMessages, _Gather
from sluice.transforms.pubsub.read_local import close_source, open_source, to_batch
from sluice.transforms.pubsub.source_parts import SourceOptions
from sluice.transforms.pubsub.subscription import Received
from tests.support.fakes import PATIENCE_SECS
from tests.support.pubsub.memory_subscription import MemorySubscription

# What the DoFns of a test record here: they run in this process, but are pickled.
SEEN: dict[str, Any] = {}


@pytest.fixture
def subscription(request: pytest.FixtureRequest) -> MemorySubscription:
    return MemorySubscription(f"projects/p/subscriptions/{request.node.name}")


@pytest.fixture
def source(subscription: MemorySubscription) -> Iterator[MessageSource]:
    SEEN.clear()
    bundles = BundleOptions(max_messages=50, interval_secs=0.0, idle_secs=0.02)
    source = open_source(subscription, SourceOptions(bundles, pull_threads=1))
    yield source
    close_source(source)


def run_until(
    source: MessageSource,
    steps: Callable[[beam.PCollection[pa.RecordBatch]], Any],
    done: Callable[[], bool],
    timestamp_attribute: str = "",
) -> Exception | None:
    """Runs a pipeline behind the source, drains it once `done` holds, and returns what it raised."""
    errors: list[Exception] = []

    def run() -> None:
        try:
            pipeline: Any = beam.Pipeline(runner=FnApiRunner())
            steps(pipeline | "Read" >> ReadMessages(False, source.name, timestamp_attribute=timestamp_attribute))
            pipeline.run().wait_until_finish()
        except Exception as error:  # noqa: BLE001
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    pause = threading.Event()
    while thread.is_alive() and not done():
        pause.wait(0.01)
    source.drain()
    thread.join(PATIENCE_SECS)
    assert not thread.is_alive()
    return errors[0] if errors else None


class Sink(beam.DoFn):
    """Records payloads when their bundle ends; fails bundles that hold the payload SEEN["poison"]."""

    def start_bundle(self) -> None:
        self._waiting: list[bytes] = []

    def process(self, batch: pa.RecordBatch) -> None:
        self._waiting += batch.column(PAYLOAD).to_pylist()

    def finish_bundle(self) -> None:
        if SEEN.get("poison") in self._waiting:
            raise RuntimeError("the sink is broken")
        SEEN.setdefault("early", []).extend(
            payload for payload in self._waiting if payload.decode() in SEEN["subscription"].acknowledged
        )
        SEEN.setdefault("written", []).extend(self._waiting)


def test_messages_are_acknowledged_after_the_last_step_has_them(
    source: MessageSource, subscription: MemorySubscription
) -> None:
    SEEN["subscription"] = subscription
    payloads = [b"%d" % number for number in range(500)]
    subscription.publish(payloads)
    error = run_until(source, lambda read: read | beam.ParDo(Sink()), lambda: not subscription.outstanding)
    assert error is None
    assert sorted(SEEN["written"]) == sorted(payloads)
    assert SEEN["early"] == []
    assert len(subscription.acknowledged) == 500


def test_nothing_of_a_bundle_that_fails_is_acknowledged(
    source: MessageSource, subscription: MemorySubscription
) -> None:
    SEEN["subscription"], SEEN["poison"] = subscription, b"7"
    subscription.publish([b"%d" % number for number in range(20)])
    error = run_until(source, lambda read: read | beam.ParDo(Sink()), lambda: False)
    assert "the sink is broken" in str(error)
    assert not {b"%s" % id_.encode() for id_ in subscription.acknowledged} - {*SEEN.get("written", [])}
    assert "7" not in subscription.acknowledged
    source.release()
    assert "7" in subscription.returned


def test_batches_have_the_schema_and_the_time_of_their_oldest_row() -> None:
    messages = [
        Received("a1", b"one", "1", 3_000_000, {"when": "2000"}, "k", 2),
        Received("a2", b"two", "2", 4_000_000, {"when": "1970-01-01T00:00:01.5Z", "b": "c"}),
        Received("a3", b"", "3", 5_000_000, {"when": "yesterday"}),
        Received("a4", b"\xff", "4", 6_000_000, {}),
    ]
    batch = to_batch("projects/p/subscriptions/s", messages, "when")
    assert batch.schema == MESSAGE_SCHEMA
    assert times_us(batch, EVENT_TIME).tolist() == [2_000_000, 1_500_000, 5_000_000, 6_000_000]
    assert times_us(batch, PUBLISH_TIME).tolist() == [3_000_000, 4_000_000, 5_000_000, 6_000_000]
    assert batch.column(PAYLOAD).to_pylist() == [b"one", b"two", b"", b"\xff"]
    assert batch.column(MESSAGE_ID).to_pylist() == ["1", "2", "3", "4"]
    assert batch.column(ORDERING_KEY).to_pylist() == ["k", "", "", ""]
    assert batch.column(DELIVERY_ATTEMPT).to_pylist() == [2, 0, 0, 0]
    assert [dict(pairs) for pairs in batch.column(ATTRIBUTES).to_pylist()] == [dict(m.attributes) for m in messages]
    assert times_us(to_batch("s", messages), EVENT_TIME).tolist() == times_us(batch, PUBLISH_TIME).tolist()


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("0", 0),
        ("1500", 1_500_000),
        ("2020-01-02T03:04:05Z", 1577934245_000_000),
        ("2020-01-02T03:04:05.123456Z", 1577934245_123456),
        ("2020-01-02T05:04:05+02:00", 1577934245_000_000),
        ("2020-01-02T03:04:05", 1577934245_000_000),
    ],
)
def test_time_attributes(text: str, micros: int) -> None:
    assert parse_time(text) == micros


@pytest.mark.parametrize(
    "text", ["", "x", "1700000000000000000", "-62135596800001", "253402300800000", "1e3", "9" * 400]
)
def test_what_is_no_time_is_that_of_publishing(text: str) -> None:
    with pytest.raises(ValueError):
        parse_time(text)
    batch = to_batch("s", [Received("a", b"x", "1", 5_000_000, {"when": text})], "when")
    assert times_us(batch, EVENT_TIME).tolist() == [5_000_000]


class Windows(beam.DoFn):
    """Records the window of each batch."""

    def process(self, batch: pa.RecordBatch, window: Any = beam.DoFn.WindowParam) -> None:
        SEEN.setdefault("windows", []).append((batch.column(PAYLOAD).to_pylist(), window.start.micros))


def test_a_window_behind_the_source_is_that_of_the_event_time(
    source: MessageSource, subscription: MemorySubscription
) -> None:
    subscription.publish([b"a"], {"when": "65000"})

    def steps(read: Any) -> Any:
        return read | beam.WindowInto(FixedWindows(60)) | beam.ParDo(Windows())

    error = run_until(source, steps, lambda: not subscription.outstanding, timestamp_attribute="when")
    assert error is None
    assert SEEN["windows"] == [([b"a"], 60_000_000)]


def test_the_native_source_is_beams() -> None:
    pipeline = beam.Pipeline(runner=FnApiRunner())
    pipeline | "Read" >> ReadMessages(
        True, topic="projects/my-project/topics/my-topic", id_label="id", timestamp_attribute="when"
    )
    labels = set[str]()

    class Labels(beam.pipeline.PipelineVisitor):
        def visit_transform(self, transform_node: Any) -> None:
            labels.add(transform_node.full_label)

    pipeline.visit(Labels())
    assert "Read/Pubsub/Read" in labels
    assert "Read/Gather" in labels
    proto = pipeline.to_runner_api()
    assert "Pull" not in str([transform.unique_name for transform in proto.components.transforms.values()])


def test_gathering_keeps_windows_and_times_apart() -> None:
    def to_message(number: int) -> Any:
        published = datetime.fromtimestamp(number, UTC)
        return TimestampedValue(PubsubMessage(b"%d" % number, {}, str(number), published, "key"), number)

    def to_rows(batch: pa.RecordBatch, window: Any = beam.DoFn.WindowParam, at: Any = beam.DoFn.TimestampParam) -> Any:
        assert batch.schema == MESSAGE_SCHEMA
        assert at.micros == times_us(batch, EVENT_TIME).min()
        for payload, published in zip(batch.column(PAYLOAD).to_pylist(), times_us(batch, PUBLISH_TIME), strict=True):
            yield payload, window.start.micros, int(published)

    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        rows = (
            pipeline
            | beam.Create(range(100))
            | beam.Map(to_message).with_output_types(PubsubMessage)
            | beam.WindowInto(FixedWindows(10))
            | beam.ParDo(_Gather("projects/my-project/topics/my-topic"))
            | beam.FlatMap(to_rows)
        )
        wanted = [
            (b"%d" % number, int(IntervalWindow(number // 10 * 10, 0).start.micros), number * 1_000_000)
            for number in range(100)
        ]
        assert_that(rows, equal_to(wanted))


def test_gathering_does_without_what_a_runner_does_not_tell() -> None:
    gather = _Gather("s")
    gather.start_bundle()
    message = PubsubMessage(b"x", {})
    assert list(gather.process(message, window="w", timestamp=Timestamp(5))) == []
    (value,) = gather.finish_bundle()
    assert value.windows == ("w",)
    assert value.timestamp == Timestamp(5)
    assert np.array_equal(times_us(value.value, PUBLISH_TIME), [5_000_000])
    assert list(gather.finish_bundle()) == []
