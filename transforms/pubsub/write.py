"""Publishes predictions and failures to Pub/Sub topics; a bundle finishes when all of its messages are published.

Ordering keys are kept, but order is not promised: bundles run side by side, and so do the requests of one bundle. The
service also orders only the messages of a key that are published in one region; workers in several regions need an
endpoint REGION-pubsub.googleapis.com for that. https://cloud.google.com/pubsub/docs/ordering
"""

from collections.abc import Iterator
from typing import Generic, TypeAlias

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.transforms.window import BoundedWindow
from apache_beam.utils.timestamp import Timestamp
from apache_beam.utils.windowed_value import WindowedValue

from sluice.models.errors import SluiceError
from sluice.transforms.core.failures import FULL, WRITE, Failure
from sluice.transforms.encode.base import OutputSpec
from sluice.transforms.encode.rows import counted_failure, encode_rows, own_columns, scored_failure
from sluice.transforms.pubsub.message_attributes import failure_message, messages_of
from sluice.transforms.pubsub.publish import Messages, Publisher
from sluice.transforms.pubsub.publish_sender import PublishOptions, Refused, Tag


class WriteMessages(beam.PTransform):
    """Publishes each row of RecordBatches as a message; returns the `Failure`s of rows that cannot be published.

    A message's data is the row as a JSON object. It has the attributes and the ordering key of the message that the row
    came from, and the attributes `sluice_model`, `sluice_version`, `sluice_message_id` and `sluice_publish_time` (see
    `transforms.pubsub.message_attributes`).

    Args:
      topic: projects/P/topics/T.
      spec: what the objects hold; None: the columns of each batch, but those that begin with `_sluice_`, `_model` and
        `_version`.
      retry_secs: how long the service may be away before the bundle fails and its messages come again.
    """

    def __init__(
        self, topic: str, spec: OutputSpec | None = None, retry_secs: float = PublishOptions.retry_secs
    ) -> None:
        super().__init__()
        self._fn = _WriteMessages(topic, spec, PublishOptions(retry_secs))

    def expand(self, batches: beam.PCollection[pa.RecordBatch]) -> beam.PCollection[Failure]:
        return batches | "Publish" >> beam.ParDo(self._fn)


class WriteFailureMessages(beam.PTransform):
    """Publishes each failure as a JSON object; returns nothing.

    Its attributes are those of the message that failed, and `sluice_stage`, `sluice_error_type` and `sluice_attempt`.

    Args:
      topic: projects/P/topics/T.
      payload_mode: see transforms.core.failures.to_record.
      payload_dir: see transforms.pubsub.message_attributes.failure_message.
    """

    def __init__(
        self,
        topic: str,
        payload_mode: str = FULL,
        retry_secs: float = PublishOptions.retry_secs,
        payload_dir: str = "",
    ) -> None:
        super().__init__()
        self._fn = _WriteFailures(topic, payload_mode, PublishOptions(retry_secs), payload_dir)

    def expand(self, failures: beam.PCollection[Failure]) -> beam.PCollection[None]:
        return failures | "Publish" >> beam.ParDo(self._fn)


class _Publish(beam.DoFn, Generic[Tag]):
    """Publishes its elements; `finish_bundle` returns when all of them are published."""

    def __init__(self, topic: str, options: PublishOptions) -> None:
        self._topic = topic
        self._options = options

    def setup(self) -> None:
        self._publisher: Publisher[Tag] = Publisher(self._topic, self._options)

    def start_bundle(self) -> None:
        self._publisher.drop()

    def finish_bundle(self) -> Iterator[WindowedValue]:
        yield from self._refuse(self._publisher.flush())

    def teardown(self) -> None:
        if hasattr(self, "_publisher"):  # setup may have failed
            self._publisher.close()

    def _refuse(self, refused: list[Refused[Tag]]) -> Iterator[WindowedValue]:
        """Yields a failure for each message that the service rejects."""
        raise NotImplementedError


# A batch in its window, at its time, and the number of a row.
_Row: TypeAlias = tuple[WindowedValue, int]


@beam.typehints.with_output_types(Failure)
class _WriteMessages(_Publish[_Row]):
    """Counts: rows_failed."""

    def __init__(self, topic: str, spec: OutputSpec | None, options: PublishOptions) -> None:
        super().__init__(topic, options)
        self._spec = spec

    def process(
        self,
        batch: pa.RecordBatch,
        window: BoundedWindow = beam.DoFn.WindowParam,
        timestamp: Timestamp = beam.DoFn.TimestampParam,
    ) -> Iterator[WindowedValue]:
        data, numbers, failures = encode_rows(batch, self._spec or own_columns(batch.schema))
        kept = batch if numbers is None else batch.take(pa.array(numbers))
        messages, errors = messages_of(kept, data)
        failures += [scored_failure(kept, row, WRITE, "MessageTooLarge", text) for row, text in errors.items()]
        rows = [row for row in range(kept.num_rows) if row not in errors]
        source = WindowedValue(kept, timestamp, (window,))
        self._publisher.add(messages.at(rows) if errors else messages, [(source, row) for row in rows])
        for failure in failures:
            yield counted_failure(failure, source)
        yield from self._refuse(self._publisher.refused())

    def _refuse(self, refused: list[Refused[_Row]]) -> Iterator[WindowedValue]:
        for (source, row), text in refused:
            yield counted_failure(scored_failure(source.value, row, WRITE, "InvalidArgument", text), source)


class _WriteFailures(_Publish[None]):
    def __init__(self, topic: str, payload_mode: str, options: PublishOptions, payload_dir: str = "") -> None:
        super().__init__(topic, options)
        self._payload_mode, self._payload_dir = payload_mode, payload_dir

    def process(self, failure: Failure) -> Iterator[None]:
        data, attributes, size = failure_message(failure, self._payload_mode, self._payload_dir)
        self._publisher.add(Messages([data], [attributes], np.array([size])), [None])
        yield from ()

    def _refuse(self, refused: list[Refused[None]]) -> Iterator[WindowedValue]:
        if refused:  # there is nowhere else to put them
            raise SluiceError(f"{len(refused)} failures cannot be written: {refused[0].message}")
        yield from ()
