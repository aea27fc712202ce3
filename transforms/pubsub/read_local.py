"""The source of a local runner: a splittable DoFn over a `MessageSource`, which loses no message.

Beam's local Pub/Sub source acknowledges messages before they are processed. This one never splits and never ends: each
of its bundles holds the messages that have arrived, and acknowledges them in bundle finalization. The runner calls that
once every step behind the source has finished with the bundle, but only if all steps are one fused stage;
`transforms.pubsub.fused` checks it.
"""

import collections
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.io.restriction_trackers import OffsetRange, OffsetRestrictionTracker
from apache_beam.io.watermark_estimators import ManualWatermarkEstimator
from apache_beam.runners.sdf_utils import RestrictionTrackerView
from apache_beam.transforms.core import RestrictionProvider
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import Timestamp
from apache_beam.utils.windowed_value import WindowedValue

from sluice.models.reserved import EVENT_TIME
from sluice.transforms.core import metrics
from sluice.transforms.core.messages import message_batch, parse_time, times_us
from sluice.transforms.pubsub.message_source import MessageSource
from sluice.transforms.pubsub.source_parts import Segment, SourceOptions
from sluice.transforms.pubsub.subscription import Received, Subscription

# A bundle is cut into batches of this many rows, so that the model works on one while the next is decoded.
BATCH_ROWS = 1024
_FOREVER = 1 << 62
# How long after younger messages of a topic one may arrive without being late for a window.
SLACK_SECS = 10.0

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
    """Closes a source: messages that are not acknowledged are given back."""
    with _sources_lock:
        _SOURCES.pop(source.name, None)
    source.close()


class EventClock:
    """Estimates a watermark: messages older than this are not expected any more.

    The service delivers messages roughly, not strictly, in the order of their publishing, and does not report the age
    of the oldest one that waits. So the watermark is the event time of the oldest message of the last seconds; if none
    has come for that long, it follows the wall clock at that distance. It never goes back.

    Args:
      slack_secs: how long after younger ones a message may come without being late.
    """

    def __init__(self, slack_secs: float) -> None:
        self._slack_secs = slack_secs
        self._recent: collections.deque[tuple[float, float]] = collections.deque()  # (when seen, oldest), both rising
        self._observed = False
        self._watermark: float | None = None

    def observe(self, oldest: float, now: float) -> None:
        """Notes the oldest event time of some messages; both in seconds since the epoch."""
        while self._recent and self._recent[-1][1] >= oldest:
            self._recent.pop()
        self._recent.append((now, oldest))
        self._observed = True

    def watermark(self, now: float) -> float | None:
        """Returns the watermark in seconds since the epoch; None before the first message: old ones may wait."""
        if not self._observed:
            return None
        while self._recent and self._recent[0][0] < now - self._slack_secs:
            self._recent.popleft()
        found = self._recent[0][1] if self._recent else now - self._slack_secs
        self._watermark = found if self._watermark is None else max(self._watermark, found)
        return self._watermark


class _Whole(OffsetRestrictionTracker):
    """A restriction that can only be deferred, at fraction 0: after a split, two bundles would read one source."""

    def try_split(self, fraction: float) -> tuple[OffsetRange, OffsetRange] | None:
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


TRACKER = beam.DoFn.RestrictionParam(_Endless())
WATERMARK = beam.DoFn.WatermarkEstimatorParam(ManualWatermarkEstimator.default_provider())


class Finalizer(Protocol):
    """What Beam passes for `BundleFinalizerParam`."""

    def register(self, callback: Callable[[], None]) -> None:
        """Has `callback` called once the bundle's output is durable."""


@beam.typehints.with_output_types(pa.RecordBatch)
class PullMessages(beam.DoFn):
    """Reads the source of a name, as batches of MESSAGE_SCHEMA.

    Counts: bundles, lease_extensions_failed, acknowledgements_failed; sets oldest_unacknowledged_msec.
    """

    def __init__(self, source: str, timestamp_attribute: str) -> None:
        self._source = source
        self._timestamp_attribute = timestamp_attribute
        self._clock = EventClock(SLACK_SECS)
        self._gauged = -math.inf

    def setup(self) -> None:
        self._segment = Segment()

    # The finalizer stands before the tracker: behind it, Beam 2.77 passes the tracker twice.
    @beam.DoFn.unbounded_per_element()
    def process(
        self,
        element: str,
        finalizer: Finalizer = beam.DoFn.BundleFinalizerParam,
        tracker: RestrictionTrackerView = TRACKER,
        watermark: ManualWatermarkEstimator = WATERMARK,
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
            self._report(source)
            finalizer.register(bundle.acknowledge)
        yield from self._batches(source.name, bundle.messages)
        advance(watermark, self._clock.watermark(time.time()))
        tracker.defer_remainder()

    def _report(self, source: MessageSource) -> None:
        count_failed(source)
        if time.monotonic() - self._gauged >= metrics.GAUGE_SECS:
            self._gauged = time.monotonic()
            oldest = source.oldest_publish_time()
            metrics.gauge(
                metrics.OLDEST_UNACKNOWLEDGED_MSEC, 0 if oldest is None else 1000 * time.time() - oldest / 1000
            )

    def _batches(self, source: str, messages: Sequence[Received]) -> Iterator[WindowedValue]:
        """Yields messages as batches, each at the event time of its oldest row."""
        for start in range(0, len(messages), BATCH_ROWS):
            batch = to_batch(source, messages[start : start + BATCH_ROWS], self._timestamp_attribute)
            oldest = Timestamp(micros=int(times_us(batch, EVENT_TIME).min()))
            self._observe(oldest.micros / 1e6, time.time())
            yield WindowedValue(batch, oldest, (GlobalWindow(),))

    def _observe(self, oldest: float, now: float) -> None:
        self._clock.observe(oldest, now)


def count_failed(source: MessageSource) -> None:
    """Counts what the threads of a source could not count themselves: Beam would lose it."""
    failed = source.take_failed()
    metrics.count(metrics.LEASE_EXTENSIONS_FAILED, failed.extensions)
    metrics.count(metrics.ACKNOWLEDGEMENTS_FAILED, failed.acknowledgements)


def advance(watermark: ManualWatermarkEstimator, found: float | None) -> None:
    """Sets a watermark, in seconds since the epoch, unless it is not known, or the runner has a later one already.

    A runner that keeps several instances of a DoFn hands the restriction from one to another, with its watermark; a
    source that was opened anew has seen fewer messages. Beam raises where a watermark goes back.
    """
    now = watermark.current_watermark()
    if found is not None and (now is None or Timestamp(found) > now):
        watermark.set_watermark(Timestamp(found))


def to_batch(source: str, messages: Sequence[Received], timestamp_attribute: str = "") -> pa.RecordBatch:
    """Returns pulled messages as a batch of MESSAGE_SCHEMA."""
    _, payloads, ids, publish_times, attributes, keys, attempts = zip(*messages, strict=True)
    published = np.array(publish_times, np.int64)
    happened = _event_times(published, attributes, timestamp_attribute)
    return message_batch(source, payloads, ids, published, happened, attributes, keys, attempts)


def _event_times(published: np.ndarray, attributes: Sequence[Mapping[str, str]], name: str) -> np.ndarray:
    """Returns int64 [messages]: the time in the attribute, or the publish time where the attribute holds none."""
    if not name:
        return published
    return np.array([_event_time(each.get(name), when) for each, when in zip(attributes, published, strict=True)])


def _event_time(text: str | None, published: int) -> int:
    try:
        return published if text is None else parse_time(text)
    except ValueError:
        return published
