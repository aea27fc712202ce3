"""The source that worker processes open: on Beam's in-process runner, and step by step."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pytest
from apache_beam.io.restriction_trackers import OffsetRange
from apache_beam.io.watermark_estimators import ManualWatermarkEstimator
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.utils.timestamp import Timestamp

from sluice.models.reserved import PAYLOAD
from sluice.transforms.pubsub import message_source
from sluice.transforms.pubsub.message_buffer import BundleOptions
from sluice.transforms.pubsub.read import ReadMessages
from sluice.transforms.pubsub.read_local import advance
from sluice.transforms.pubsub.read_worker import PullInWorker, WorkerSource, close_here, open_here
from sluice.transforms.pubsub.reader_files import ReaderFiles
from sluice.transforms.pubsub.source_parts import SourceOptions
from sluice.transforms.pubsub.subscription import SubscriptionLost
from tests.support.fakes import PATIENCE_SECS
from tests.support.pubsub.memory_subscription import MemorySubscription
from tests.support.pubsub.streams import wait_until

# The subscriptions of this process: a DoFn is pickled, and connects by name.
SUBSCRIPTIONS: dict[str, MemorySubscription] = {}
WRITTEN: list[bytes] = []
BUNDLES = BundleOptions(max_messages=50, interval_secs=0.0, idle_secs=0.02)


def connect(name: str) -> MemorySubscription:
    return SUBSCRIPTIONS[name]


@pytest.fixture(autouse=True)
def quick_drains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(message_source, "_LATE_SECS", 0.01)  # a pull of an empty subscription waits to be broken off


@pytest.fixture
def subscription(request: pytest.FixtureRequest) -> MemorySubscription:
    found = MemorySubscription(f"projects/p/subscriptions/{request.node.name}")
    SUBSCRIPTIONS[found.name] = found
    WRITTEN.clear()
    return found


@pytest.fixture
def opening(subscription: MemorySubscription, tmp_path: Path) -> Iterator[WorkerSource]:
    options = SourceOptions(BUNDLES, pull_threads=1)
    opening = WorkerSource(subscription.name, options, f"{tmp_path}/job", 2, connect=connect, look_secs=0.01)
    yield opening
    close_here(opening.directory)


class Tracker:
    """What Beam passes for the restriction."""

    def __init__(self) -> None:
        self.claimed: list[int] = []
        self.deferred = False

    def current_restriction(self) -> OffsetRange:
        return OffsetRange(3, 100)

    def try_claim(self, position: int) -> bool:
        self.claimed.append(position)
        return position < 100

    def defer_remainder(self) -> None:
        self.deferred = True


class Finalizer:
    """What Beam passes for the finalizer."""

    def __init__(self) -> None:
        self.callbacks: list[Any] = []

    def register(self, callback: Any) -> None:
        self.callbacks.append(callback)


class Reading:
    """An instance of the DoFn, in the hands of a runner."""

    def __init__(self, opening: WorkerSource) -> None:
        self.fn = PullInWorker(opening, "")
        self.fn.setup()
        self.finalizer = Finalizer()

    def read(self, element: str = "x") -> tuple[list[bytes], Tracker]:
        """Processes once; returns the payloads."""
        tracker: Any = Tracker()
        watermark = ManualWatermarkEstimator(None)
        values = list(self.fn.process(element, self.finalizer, tracker, watermark))
        return [payload for each in values for payload in each.value.column(PAYLOAD).to_pylist()], tracker

    def read_some(self) -> list[bytes]:
        """Processes until messages come."""
        while True:
            payloads, tracker = self.read()
            assert tracker.deferred, "the source goes on"
            if payloads:
                return payloads


class Sink(beam.DoFn):
    def process(self, batch: pa.RecordBatch) -> None:
        WRITTEN.extend(batch.column(PAYLOAD).to_pylist())


def test_a_pipeline_reads_until_a_file_asks_it_to_drain(
    opening: WorkerSource, subscription: MemorySubscription
) -> None:
    payloads = [b"%d" % number for number in range(500)]
    subscription.publish(payloads)
    errors: list[Exception] = []

    def run() -> None:
        try:
            pipeline: Any = beam.Pipeline(runner=FnApiRunner())
            pipeline | "Read" >> ReadMessages(False, subscription.name, worker=opening) | beam.ParDo(Sink())
            pipeline.run().wait_until_finish()
        except Exception as error:  # noqa: BLE001
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    files = ReaderFiles(opening.directory)
    wait_until(lambda: len(subscription.acknowledged) == 500, "the acknowledgements")
    files.ask_to_drain()
    thread.join(PATIENCE_SECS)
    assert not thread.is_alive()
    assert errors == []
    assert sorted(WRITTEN) == sorted(payloads)
    (report,) = files.reports()
    assert (report.pulled, report.acknowledged, report.returned, report.in_work) == (500, 500, 0, 0)
    assert report.drained


def test_all_instances_of_a_process_read_one_source(opening: WorkerSource, subscription: MemorySubscription) -> None:
    subscription.publish([b"a"])
    one, two = Reading(opening), Reading(opening)
    assert one.read_some() == [b"a"]
    subscription.publish([b"b"])
    assert two.read_some() == [b"b"]
    assert open_here(opening).source.in_work == 2
    assert opening.elements == [subscription.name, f"{subscription.name}#2"]
    for reading in (one, two):
        for callback in reading.finalizer.callbacks:
            callback()
    wait_until(lambda: sorted(subscription.acknowledged) == ["0", "1"], "the acknowledgements")
    one.fn.teardown()
    assert subscription.returned == []


def test_a_drain_waits_for_what_is_in_work(opening: WorkerSource, subscription: MemorySubscription) -> None:
    subscription.publish([b"a"])
    reading = Reading(opening)
    assert reading.read_some() == [b"a"]
    ReaderFiles(opening.directory).ask_to_drain()
    source = open_here(opening).source
    wait_until(lambda: source.draining, "the drain")
    subscription.publish([b"late"])
    payloads, tracker = reading.read()
    assert (payloads, tracker.claimed, tracker.deferred) == ([], [3], True)  # it goes on, without a message
    reading.finalizer.callbacks[0]()

    def ended() -> bool:
        return reading.read()[1].claimed == [100]

    wait_until(ended, "the end of the restriction")
    (report,) = ReaderFiles(opening.directory).reports()
    assert (report.acknowledged, report.drained) == (1, True)
    assert subscription.closed


def test_a_drain_does_not_wait_for_what_the_runner_has_lost(
    opening: WorkerSource, subscription: MemorySubscription
) -> None:
    """Flink starts its tasks anew, and this process lives on: nobody finalizes the bundle, and nobody tears down."""
    opening = dataclasses.replace(opening, lost_secs=0.0)
    subscription.publish([b"a"])
    lost = Reading(opening)
    assert lost.read_some() == [b"a"]
    again = Reading(opening)
    assert again.read()[0] == []
    assert open_here(opening).source.in_work == 1, "the runner may still finalize it"
    ReaderFiles(opening.directory).ask_to_drain()
    wait_until(lambda: again.read()[1].claimed == [100], "the end of the restriction")
    assert set(subscription.returned) == {"0"}, "once, or again by a pull that was under way"
    (report,) = ReaderFiles(opening.directory).reports()
    assert (report.returned, report.in_work, report.drained) == (len(subscription.returned), 0, True)


def test_a_process_that_begins_after_the_drain_reads_nothing(
    opening: WorkerSource, subscription: MemorySubscription
) -> None:
    subscription.publish([b"a"])
    ReaderFiles(opening.directory).ask_to_drain()
    reading = Reading(opening)
    wait_until(lambda: reading.read()[1].claimed == [100], "the end of the restriction")
    assert subscription.acknowledged == subscription.returned == []


def test_what_the_runner_has_lost_comes_again(opening: WorkerSource, subscription: MemorySubscription) -> None:
    subscription.publish([b"a"])
    reading = Reading(opening)
    assert reading.read_some() == [b"a"]
    reading.fn.teardown()
    assert subscription.returned == ["0"]
    again = Reading(opening)
    assert again.read_some() == [b"a"]
    reading.finalizer.callbacks[0]()  # too late: another instance has the message
    assert open_here(opening).source.in_work == 1


def test_a_subscription_that_was_lost_is_tried_again(opening: WorkerSource, subscription: MemorySubscription) -> None:
    subscription.publish([b"a"])
    reading = Reading(opening)
    subscription.lose()
    with pytest.raises(SubscriptionLost):
        while True:
            assert reading.read()[1].deferred
    subscription.failing = None
    wait_until(lambda: _read_or_lost(reading) == [b"a"], "the message")


def _read_or_lost(reading: Reading) -> list[bytes]:
    try:
        return reading.read()[0]
    except SubscriptionLost:
        return []


def test_a_watermark_never_goes_back() -> None:
    watermark = ManualWatermarkEstimator(None)
    advance(watermark, None)
    assert watermark.current_watermark() is None
    advance(watermark, 5.0)
    advance(watermark, 4.0)  # Beam would raise
    assert watermark.current_watermark() == Timestamp(5)
    advance(watermark, 6.0)
    assert watermark.current_watermark() == Timestamp(6)


def test_a_bundle_that_is_finalized_during_a_teardown_keeps_none_of_the_others(
    opening: WorkerSource, subscription: MemorySubscription, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = Reading(opening)
    for payload in (b"a", b"b", b"c"):
        subscription.publish([payload])
        assert reading.read_some() == [payload]
    give_back = subscription.extend

    def extend(ack_ids: list[str], secs: int) -> None:
        give_back(ack_ids, secs)
        if ack_ids == ["ack-0-1"]:
            reading.finalizer.callbacks[1]()

    monkeypatch.setattr(subscription, "extend", extend)
    reading.fn.teardown()
    assert subscription.returned == ["0", "2"]
    wait_until(lambda: subscription.acknowledged == ["1"], "the acknowledgement")
