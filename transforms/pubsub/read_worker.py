"""The source of a runner whose workers are other processes, such as Flink: each worker process opens its own.

The bundles are acknowledged when the runner finalizes them. Flink does so after its next checkpoint, some seconds
later, and until then keeps the instance of the DoFn that had the bundle; so the source belongs to the process, and many
instances of the DoFn read it, several at a time. All of them are one segment, which ends only with the job.
"""

import collections
import contextlib
import dataclasses
import logging
import math
import threading
import time
import uuid
from collections.abc import Callable, Iterator

import apache_beam as beam
import pyarrow as pa
from apache_beam.io.watermark_estimators import ManualWatermarkEstimator
from apache_beam.runners.sdf_utils import RestrictionTrackerView
from apache_beam.utils.windowed_value import WindowedValue

from sluice.transforms.core import metrics
from sluice.transforms.pubsub.clients import subscriber
from sluice.transforms.pubsub.google_subscription import GoogleSubscription
from sluice.transforms.pubsub.message_source import MessageSource
from sluice.transforms.pubsub.read_local import (
    SLACK_SECS,
    TRACKER,
    WATERMARK,
    EventClock,
    Finalizer,
    PullMessages,
    advance,
    count_failed,
)
from sluice.transforms.pubsub.reader_files import ReaderFiles, Report
from sluice.transforms.pubsub.source_parts import Bundle, Segment, SourceOptions
from sluice.transforms.pubsub.subscription import Subscription, SubscriptionLost

_LOG = logging.getLogger(__name__)

# How often a process looks whether it is to drain, and how often it says what it has done.
_LOOK_SECS, _TELL_SECS = 1.0, 5.0
# A bundle takes no longer than this, be it that the model is away for a while, and that a checkpoint fails.
HOLD_SECS = 300.0
# In a drain, a bundle that has ended waits no longer than this for its acknowledgement: some ten checkpoints.
LOST_SECS = 30.0
# How long a reader that waits for acknowledgements lets a bundle take.
_WAIT_SECS = 0.2


def google_subscription(name: str) -> Subscription:
    """Opens a subscription of Google Cloud Pub/Sub with the credentials of this process."""
    return GoogleSubscription(subscriber(), name)


@dataclasses.dataclass(frozen=True)
class WorkerSource:
    """How a worker process opens the source of a job.

    Attributes:
      subscription: projects/P/subscriptions/S
      directory: see ReaderFiles. It names the job, too.
      readers: how many elements the source has. The runner spreads them over its workers.
      connect: opens a subscription by its name.
      hold_secs: messages of a bundle that takes longer come again: the runner may have lost it.
      lost_secs: in a drain, messages of a bundle that was written so long ago and is not acknowledged come again: the
        runner has started anew since, and lost it. This process lives on, and its DoFn too.
      look_secs: how often a process looks whether it is to drain.
    """

    subscription: str
    options: SourceOptions
    directory: str
    readers: int = 1
    connect: Callable[[str], Subscription] = google_subscription
    hold_secs: float = HOLD_SECS
    lost_secs: float = LOST_SECS
    look_secs: float = _LOOK_SECS

    @property
    def elements(self) -> list[str]:
        """The elements that are read: each reads the same subscription. The first one is named as a local job's."""
        return [self.subscription, *(f"{self.subscription}#{number}" for number in range(2, self.readers + 1))]


class OpenSource:
    """The source of a job in this process, with a thread that looks whether it is to drain. Thread-safe.

    Attributes:
      segment: of all bundles.
    """

    def __init__(self, opening: WorkerSource) -> None:
        self.source = MessageSource(opening.connect(opening.subscription), opening.options)
        self.segment = Segment()
        self._files = ReaderFiles(opening.directory)
        self._look_secs = opening.look_secs
        self._name = uuid.uuid4().hex[:12]
        self._hold_secs, self._lost_secs = opening.hold_secs, opening.lost_secs
        self._closed, self._closing = threading.Event(), threading.Lock()
        self._beats = 0
        self._clock = EventClock(SLACK_SECS)
        self._clock_lock = threading.Lock()
        if self._files.is_asked():  # the job has ended, and the runner starts it once more
            self.source.drain()
        self._watch = threading.Thread(target=self._watch_files, name="sluice-reader", daemon=True)
        self._watch.start()

    def take(self, reader: str) -> Bundle | None:
        """Returns a bundle, an empty one if no message comes; None once the source is drained and all is acknowledged.

        A reader that ended before would end the job's part that finalizes bundles.

        Args:
          reader: the element that takes it: its bundle before has ended, or the runner has lost it.

        Raises:
          SubscriptionLost: the subscription raised it. The next call tries again.
        """
        try:
            bundle = self.source.take(self.segment, reader)
        except SubscriptionLost:
            self.source.try_again()
            raise
        if bundle is None and not self._closed.is_set():
            self._closed.wait(_WAIT_SECS)
            return Bundle((), 0.0, _nothing, _nothing)
        return bundle

    def observe(self, oldest: float, now: float) -> None:
        """See EventClock."""
        with self._clock_lock:
            self._clock.observe(oldest, now)

    def watermark(self, now: float) -> float | None:
        """See EventClock."""
        with self._clock_lock:
            return self._clock.watermark(now)

    def close(self) -> None:
        """Gives back what is not acknowledged, and tells it."""
        with self._closing:
            if self._closed.is_set():
                return
            self.source.close()
            self._closed.set()
            self._tell(drained=True)

    def _watch_files(self) -> None:
        told, idle = -math.inf, 0
        while not self._closed.is_set():
            if not self.source.draining and self._files.is_asked():
                self.source.drain()
            # Twice: a bundle that is being taken at the first look is in work at the second.
            idle = idle + 1 if self.source.draining and not self.source.in_work else 0
            if idle > 1:
                self.close()
            elif time.monotonic() - told >= _TELL_SECS:
                told = time.monotonic()
                self._tell(drained=False)
            self.source.give_back_overdue(self._hold_secs, self._lost_secs if self.source.draining else math.inf)
            self._closed.wait(self._look_secs)

    def _tell(self, drained: bool) -> None:
        self._beats += 1
        stats = self.source.stats
        self._files.tell(
            Report(
                self._name,
                self._beats,
                stats.pulled,
                stats.acknowledged,
                stats.returned,
                self.source.in_work,
                drained,
            )
        )


def _nothing(bundle: Bundle) -> None:
    """Acknowledges a bundle without messages."""


_OPEN: dict[str, OpenSource] = {}
_open_lock = threading.Lock()


def open_here(opening: WorkerSource) -> OpenSource:
    """Returns the source of a job in this process; opens it at the first call. It outlives the DoFns that read it."""
    with _open_lock:
        if opening.directory not in _OPEN:
            _OPEN[opening.directory] = OpenSource(opening)
            _LOG.info("Reads %s", opening.subscription)
        return _OPEN[opening.directory]


def close_here(directory: str) -> None:
    """Closes the source of a job, if one is open in this process."""
    with _open_lock:
        found = _OPEN.pop(directory, None)
    if found is not None:
        found.close()


@beam.typehints.with_output_types(pa.RecordBatch)
class PullInWorker(PullMessages):
    """Reads the source that its process opens, as batches of MESSAGE_SCHEMA. Counts what PullMessages does."""

    def __init__(self, opening: WorkerSource, timestamp_attribute: str) -> None:
        super().__init__(opening.subscription, timestamp_attribute)
        self._opening = opening
        self._held: collections.deque[Bundle] = collections.deque()  # that this instance has, and are not acknowledged

    def setup(self) -> None:
        self._open = open_here(self._opening)

    def teardown(self) -> None:
        """Gives back the messages of bundles that are not finalized: the runner has lost them, and reads on."""
        for bundle in list(self._held):  # meanwhile the runner may finalize one
            bundle.give_back()
        self._held.clear()

    @beam.DoFn.unbounded_per_element()
    def process(
        self,
        element: str,
        finalizer: Finalizer = beam.DoFn.BundleFinalizerParam,
        tracker: RestrictionTrackerView = TRACKER,
        watermark: ManualWatermarkEstimator = WATERMARK,
    ) -> Iterator[WindowedValue]:
        restriction = tracker.current_restriction()
        bundle = self._open.take(element)
        if bundle is None:
            tracker.try_claim(restriction.stop)
            return
        if not tracker.try_claim(restriction.start):
            bundle.give_back()
            return
        if bundle.messages:
            metrics.count(metrics.BUNDLES)
            count_failed(self._open.source)
            self._held.append(bundle)
            finalizer.register(lambda: self._acknowledge(bundle))
        yield from self._batches(self._opening.subscription, bundle.messages)
        advance(watermark, self._open.watermark(time.time()))
        tracker.defer_remainder()

    def _acknowledge(self, bundle: Bundle) -> None:
        with contextlib.suppress(ValueError):  # it was given back
            self._held.remove(bundle)
        bundle.acknowledge()

    def _observe(self, oldest: float, now: float) -> None:
        self._open.observe(oldest, now)
