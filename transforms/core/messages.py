"""Messages as a RecordBatch: the payload and the metadata of each message, in reserved columns."""

import datetime
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from sluice.models.reserved import (
    ATTRIBUTES,
    DELIVERY_ATTEMPT,
    EVENT_TIME,
    FILE,
    MESSAGE_ID,
    ORDERING_KEY,
    PAYLOAD,
    PUBLISH_TIME,
)
from sluice.models.tensors.arrays import repeated

TIME = pa.timestamp("us", "UTC")

# The years 1 to 9999 in microseconds since the epoch: the range of BigQuery and of Python.
_FIRST_MICROS, _LAST_MICROS = -62_135_596_800_000_000, 253_402_300_800_000_000

# The column of tables by which a reader drops duplicates: rows whose message was delivered again.
MESSAGE_ID_COLUMN = "_message_id"

# The columns of the batches that ReadMessages returns. They stay beside each row until it is written.
MESSAGE_SCHEMA = pa.schema(
    [
        pa.field(FILE, pa.dictionary(pa.int32(), pa.string())),
        pa.field(MESSAGE_ID, pa.string()),
        pa.field(PUBLISH_TIME, TIME),
        pa.field(EVENT_TIME, TIME),
        pa.field(ATTRIBUTES, pa.map_(pa.string(), pa.string())),
        pa.field(ORDERING_KEY, pa.string()),
        pa.field(DELIVERY_ATTEMPT, pa.int32()),
        pa.field(PAYLOAD, pa.binary()),
    ]
)


def message_batch(
    source: str,
    payloads: Sequence[bytes],
    ids: Sequence[str],
    publish_times: np.ndarray,
    event_times: np.ndarray,
    attributes: Sequence[Mapping[str, str]],
    ordering_keys: Sequence[str],
    delivery_attempts: Sequence[int],
) -> pa.RecordBatch:
    """Returns messages as a batch of MESSAGE_SCHEMA.

    Args:
      source: the subscription or topic, for the origin of failures.
      publish_times, event_times: int64 [messages], microseconds since the epoch.
    """
    rows = len(payloads)
    kinds = {field.name: field.type for field in MESSAGE_SCHEMA}
    if any(attributes):
        pairs = pa.array([list(each.items()) for each in attributes], kinds[ATTRIBUTES])
    else:
        empty = pa.array([], pa.string())
        pairs = pa.MapArray.from_arrays(pa.array(np.zeros(rows + 1, np.int32)), empty, empty)
    arrays = [
        repeated(source, rows),
        pa.array(ids, pa.string()),
        pa.array(publish_times, pa.int64()).cast(TIME),
        pa.array(event_times, pa.int64()).cast(TIME),
        pairs,
        pa.array(ordering_keys, pa.string()),
        pa.array(delivery_attempts, pa.int32()),
        pa.array(payloads, pa.binary()),
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=MESSAGE_SCHEMA)


def with_envelope(rows: pa.RecordBatch, messages: pa.RecordBatch, numbers: np.ndarray | None = None) -> pa.RecordBatch:
    """Returns decoded rows with the reserved columns of their messages.

    Args:
      numbers: int [rows]: the message of each row; None: each row is of the message at its own position.
    """
    kept = messages if numbers is None else messages.take(pa.array(numbers))
    return pa.RecordBatch.from_arrays([*rows.columns, *kept.columns], names=[*rows.schema.names, *kept.schema.names])


def times_us(batch: pa.RecordBatch, name: str) -> np.ndarray:
    """Returns a time column as int64 [rows], microseconds since the epoch."""
    return batch.column(name).cast(pa.int64()).to_numpy(zero_copy_only=False)


def parse_time(text: str) -> int:
    """Returns a time attribute, milliseconds since the epoch or RFC 3339, in microseconds since the epoch.

    Beam's ReadFromPubSub accepts the same forms for `timestamp_attribute`.

    Raises:
      ValueError: the text has another form, or the time is not within the years 1 to 9999.
    """
    try:
        micros = int(text) * 1000
    except ValueError:
        when = datetime.datetime.fromisoformat(text)
        when = when if when.tzinfo else when.replace(tzinfo=datetime.UTC)
        return round(when.timestamp() * 1_000_000)
    if not _FIRST_MICROS <= micros < _LAST_MICROS:
        raise ValueError(f"{text} milliseconds are not within the years 1 to 9999; is the unit another one?")
    return micros


def with_message_id(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Returns the batch with the column `_message_id` of tables; a batch of files is returned as it is."""
    place = batch.schema.get_field_index(MESSAGE_ID)
    return batch if place < 0 else batch.append_column(MESSAGE_ID_COLUMN, batch.column(place))
