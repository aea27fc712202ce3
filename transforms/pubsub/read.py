"""Pub/Sub messages to RecordBatches: by Beam's own source on Dataflow, by ours on a local runner and on Flink."""

from collections.abc import Iterator

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.io.gcp.pubsub import PubsubMessage
from apache_beam.transforms.window import BoundedWindow
from apache_beam.utils.timestamp import Timestamp
from apache_beam.utils.windowed_value import WindowedValue

from sluice.transforms.core.messages import message_batch
from sluice.transforms.pubsub.read_local import BATCH_ROWS, PullMessages
from sluice.transforms.pubsub.read_worker import PullInWorker, WorkerSource


class ReadMessages(beam.PTransform):
    """Reads messages as RecordBatches of `transforms.core.messages.MESSAGE_SCHEMA`, each row with its event time.

    Args:
      native: read with Beam's ReadFromPubSub, as on Dataflow, whose runner acknowledges what it has made durable.
      subscription, topic: projects/P/subscriptions/S or projects/P/topics/T; one of them. Locally, a subscription that
        is open in this process: see `transforms.pubsub.read_local.open_source`.
      id_label: native only: the attribute that identifies a message; the runner drops duplicates.
      timestamp_attribute: the attribute with the event time, in milliseconds since the epoch or as RFC 3339. Without
        it, or where it holds neither, the event time is the publish time.
      worker: how other processes open the subscription; None: it is open in this one.
    """

    def __init__(
        self,
        native: bool,
        subscription: str = "",
        topic: str = "",
        id_label: str = "",
        timestamp_attribute: str = "",
        worker: WorkerSource | None = None,
    ) -> None:
        super().__init__()
        self._native = native
        self._subscription = subscription
        self._topic = topic
        self._id_label = id_label
        self._timestamp_attribute = timestamp_attribute
        self._worker = worker

    def expand(self, pbegin: beam.pvalue.PBegin) -> beam.PCollection[pa.RecordBatch]:
        if self._worker is not None:
            elements = beam.Create(self._worker.elements, reshuffle=False)  # a shuffle would be a stage of its own
            pull_there = PullInWorker(self._worker, self._timestamp_attribute)
            return pbegin | "Source" >> elements | "Pull" >> beam.ParDo(pull_there)
        if not self._native:
            pull = PullMessages(self._subscription, self._timestamp_attribute)
            return pbegin | "Source" >> beam.Create([self._subscription]) | "Pull" >> beam.ParDo(pull)
        messages = pbegin | "Pubsub" >> beam.io.ReadFromPubSub(
            topic=self._topic or None,
            subscription=self._subscription or None,
            id_label=self._id_label or None,
            with_attributes=True,
            timestamp_attribute=self._timestamp_attribute or None,
        )
        return messages | "Gather" >> beam.ParDo(_Gather(self._subscription or self._topic))


@beam.typehints.with_output_types(pa.RecordBatch)
class _Gather(beam.DoFn):
    """Gathers the messages of a bundle into batches, one window at a time."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._waiting: dict[BoundedWindow, list[tuple[PubsubMessage, int]]] = {}

    def start_bundle(self) -> None:
        self._waiting.clear()

    def process(
        self,
        message: PubsubMessage,
        window: BoundedWindow = beam.DoFn.WindowParam,
        timestamp: Timestamp = beam.DoFn.TimestampParam,
    ) -> Iterator[WindowedValue]:
        gathered = self._waiting.setdefault(window, [])
        gathered.append((message, timestamp.micros))
        if len(gathered) >= BATCH_ROWS:
            yield self._emit(window)

    def finish_bundle(self) -> Iterator[WindowedValue]:
        for window in list(self._waiting):
            yield self._emit(window)

    def _emit(self, window: BoundedWindow) -> WindowedValue:
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
    """Returns microseconds since the epoch; the event time where the runner reports no publish time."""
    if message.publish_time is None:
        return event_time
    return round(message.publish_time.timestamp() * 1_000_000)
