"""Pub/Sub messages to RecordBatches: Beam's own source on Dataflow, and on a local runner one that loses nothing.

Beam's local Pub/Sub source acknowledges messages before they are processed. Ours is a splittable DoFn that never splits
and never ends: each of its bundles holds the messages that have arrived, and acknowledges them in bundle finalization,
which the runner calls once everything behind the source has finished them. That holds only as long as everything is one
fused stage; `transforms.pubsub.fused` checks it.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.io.gcp.pubsub import PubsubMessage
from apache_beam.io.restriction_trackers import OffsetRange, OffsetRestrictionTracker
from apache_beam.io.watermark_estimators import ManualWatermarkEstimator
from apache_beam.transforms.core import RestrictionProvider
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import Timestamp
from apache_beam.utils.windowed_value import WindowedValue

from sluice.models.reserved import EVENT_TIME
from sluice.transforms.core import metrics
from sluice.transforms.core.messages import message_batch, parse_time, times_us
from sluice.transforms.pubsub.event_clock import EventClock
from sluice.transforms.pubsub.message_source import MessageSource, Segment, SourceOptions
from sluice.transforms.pubsub.subscription import Received, Subscription

# A bundle is cut into batches of so many rows, so that the model works on one while the next is decoded.
_BATCH_ROWS = 1024
_FOREVER = 1 << 62
# Messages of a topic may arrive so much later than younger ones, without being late for a window.
_SLACK_SECS = 10.0


class ReadMessages(beam.PTransform):
    """Reads messages as RecordBatches of `transforms.core.messages.MESSAGE_SCHEMA`, the event time of each beside it.

    Args:
      native: read with Beam's ReadFromPubSub, as on Dataflow, where its runner acknowledges what it has made durable.
      subscription, topic: projects/P/subscriptions/S or projects/P/topics/T; one of them. Locally, a subscription that
        is open in this process: see `open_source`.
      id_label: native only: the attribute that tells messages apart; the runner drops doubles.
      timestamp_attribute: that holds the event time, in milliseconds since the epoch or as RFC 3339; without it, or
        where it holds neither, it is the publish time.
    """

    def __init__(
        self,
        native: bool,
        subscription: str = "",
        topic: str = "",
        id_label: str = "",
        timestamp_attribute: str = "",
    ) -> None:
        super().__init__()
        self._native = native
        self._subscription = subscription
        self._topic = topic
        self._id_label = id_label
        self._timestamp_attribute = timestamp_attribute

    def expand(self, pbegin: beam.pvalue.PBegin) -> beam.PCollection[pa.RecordBatch]:
        if not self._native:
            pull = _Pull(self._subscription, self._timestamp_attribute)
            return pbegin | "Source" >> beam.Create([self._subscription]) | "Pull" >> beam.ParDo(pull)
        messages = pbegin | "Pubsub" >> beam.io.ReadFromPubSub(
            topic=self._topic or None,
            subscription=self._subscription or None,
            id_label=self._id_label or None,
            with_attributes=True,
            timestamp_attribute=self._timestamp_attribute or None,
        )
        return messages | "Gather" >> beam.ParDo(_Gather(self._subscription or self._topic))


_SOURCES: dict[str, MessageSource] = {}
_sources_lock = threading.Lock()


def open_source(
    subscription: Subscription,
    options: SourceOptions,
    on_done: Callable[[Sequence[Received]], None] = lambda messages: None,
) -> MessageSource:
    """Opens a source in this process; `ReadMessages` finds it by its name. It outlives the pipelines that read it."""
    source = MessageSource(subscription, options, on_done)
    with _sources_lock:
        _SOURCES[source.name] = source
    return source


def open_sources() -> list[MessageSource]:
    """Returns the sources that are open in this process."""
    with _sources_lock:
        return list(_SOURCES.values())


def close_source(source: MessageSource) -> None:
    """Ends a source: what is not acknowledged is given back."""
    with _sources_lock:
        _SOURCES.pop(source.name, None)
    source.close()


class _Whole(OffsetRestrictionTracker):
    """A restriction that only lets itself be deferred, at fraction 0: a split would let two bundles read one source."""

    def try_split(self, fraction: float) -> Any:
        return super().try_split(0) if fraction == 0 else None

    def is_bounded(self) -> bool:
        return False


class _Endless(RestrictionProvider):
    """Positions are bundles, counted from 0."""

    def initial_restriction(self, element: str) -> OffsetRange:
        return OffsetRange(0, _FOREVER)

    def create_tracker(self, restriction: OffsetRange) -> _Whole:
        return _Whole(restriction)

    def restriction_size(self, element: str, restriction: OffsetRange) -> int:
        return 1

    def truncate(self, element: str, restriction: OffsetRange) -> None:
        """Nothing is left to do for a pipeline that drains."""


_TRACKER = beam.DoFn.RestrictionParam(_Endless())
_WATERMARK = beam.DoFn.WatermarkEstimatorParam(ManualWatermarkEstimator.default_provider())


@beam.typehints.with_output_types(pa.RecordBatch)
class _Pull(beam.DoFn):
    """Counts: bundles."""

    def __init__(self, source: str, timestamp_attribute: str) -> None:
        self._source = source
        self._timestamp_attribute = timestamp_attribute
        self._clock = EventClock(_SLACK_SECS)

    def setup(self) -> None:
        self._segment = Segment()

    # The finalizer stands before the tracker: behind it, Beam 2.77 passes the tracker twice.
    @beam.DoFn.unbounded_per_element()
    def process(
        self,
        element: str,
        finalizer: Any = beam.DoFn.BundleFinalizerParam,
        tracker: Any = _TRACKER,
        watermark: Any = _WATERMARK,
    ) -> Iterator[WindowedValue]:
        source = _SOURCES[self._source]
        restriction = tracker.current_restriction()
        bundle = source.take(self._segment)
        if bundle is None:
            tracker.try_claim(restriction.stop)
            return
        if not tracker.try_claim(restriction.start):
            return
        if bundle.messages:
            metrics.count(metrics.BUNDLES)
            finalizer.register(bundle.acknowledge)
        for start in range(0, len(bundle.messages), _BATCH_ROWS):
            batch = to_batch(source.name, bundle.messages[start : start + _BATCH_ROWS], self._timestamp_attribute)
            oldest = earliest(batch)
            self._clock.observe(oldest.micros / 1e6, time.time())
            yield WindowedValue(batch, oldest, (GlobalWindow(),))
        found = self._clock.watermark(time.time())
        if found is not None:
            watermark.set_watermark(Timestamp(found))
        tracker.defer_remainder()


def to_batch(source: str, messages: Sequence[Received], timestamp_attribute: str = "") -> pa.RecordBatch:
    """Returns pulled messages as a batch of MESSAGE_SCHEMA."""
    _, payloads, ids, publish_times, attributes, keys, attempts = zip(*messages, strict=True)
    published = np.array(publish_times, np.int64)
    happened = _event_times(published, attributes, timestamp_attribute)
    return message_batch(source, payloads, ids, published, happened, attributes, keys, attempts)


def _event_times(published: np.ndarray, attributes: Sequence[Mapping[str, str]], name: str) -> np.ndarray:
    """Returns int64 [messages]: the times that the attribute holds; where it holds none, those of publishing."""
    if not name:
        return published
    return np.array([_event_time(each.get(name), when) for each, when in zip(attributes, published, strict=True)])


def _event_time(text: str | None, published: int) -> int:
    try:
        return published if text is None else parse_time(text)
    except ValueError:
        return published


def earliest(batch: pa.RecordBatch) -> Timestamp:
    """Returns the event time of a batch as a whole: that of its oldest row."""
    return Timestamp(micros=int(times_us(batch, EVENT_TIME).min()))


@beam.typehints.with_output_types(pa.RecordBatch)
class _Gather(beam.DoFn):
    """Gathers the messages of a bundle, those of one window together."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._waiting: dict[Any, list[tuple[PubsubMessage, int]]] = {}

    def start_bundle(self) -> None:
        self._waiting.clear()

    def process(
        self,
        message: PubsubMessage,
        window: Any = beam.DoFn.WindowParam,
        timestamp: Any = beam.DoFn.TimestampParam,
    ) -> Iterator[WindowedValue]:
        gathered = self._waiting.setdefault(window, [])
        gathered.append((message, timestamp.micros))
        if len(gathered) >= _BATCH_ROWS:
            yield self._emit(window)

    def finish_bundle(self) -> Iterator[WindowedValue]:
        for window in list(self._waiting):
            yield self._emit(window)

    def _emit(self, window: Any) -> WindowedValue:
        messages, times = zip(*self._waiting.pop(window), strict=True)
        happened = np.array(times, np.int64)
        batch = message_batch(
            self._source,
            [message.data or b"" for message in messages],
            [message.message_id or "" for message in messages],
            np.array([_publish_time(*pair) for pair in zip(messages, times, strict=True)], np.int64),
            happened,
            [message.attributes or {} for message in messages],
            [message.ordering_key or "" for message in messages],
            [0] * len(messages),
        )
        return WindowedValue(batch, Timestamp(micros=int(happened.min())), (window,))


def _publish_time(message: PubsubMessage, event_time: int) -> int:
    """Returns microseconds since the epoch; a runner that does not tell is taken to have put it on the element."""
    if message.publish_time is None:
        return event_time
    return round(message.publish_time.timestamp() * 1_000_000)
