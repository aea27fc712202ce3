"""Scored rows and failures as Pub/Sub messages: their attributes, and whether they are too large.

https://cloud.google.com/pubsub/quotas#resource_limits
"""

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from sluice.models.reserved import ATTRIBUTES, MESSAGE_ID, ORDERING_KEY, PUBLISH_TIME
from sluice.models.wording import message
from sluice.transforms.core.batches import ATTEMPT_ATTRIBUTE
from sluice.transforms.core.failures import FULL, HASH, Failure, show_payload, to_record
from sluice.transforms.core.outputs import MODEL_COLUMN, VERSION_COLUMN
from sluice.transforms.core.payload_files import store_payload
from sluice.transforms.encode.text import column_text
from sluice.transforms.pubsub.publish import MAX_REQUEST_BYTES, Messages

MODEL_ATTRIBUTE, VERSION_ATTRIBUTE = "sluice_model", "sluice_version"
# The message that a prediction is for: by its id, a consumer drops duplicates.
ID_ATTRIBUTE, TIME_ATTRIBUTE = "sluice_message_id", "sluice_publish_time"

MAX_ATTRIBUTES, MAX_NAME_BYTES, MAX_VALUE_BYTES = 100, 256, 1024

_COLUMNS = {
    MODEL_ATTRIBUTE: MODEL_COLUMN,
    VERSION_ATTRIBUTE: VERSION_COLUMN,
    ID_ATTRIBUTE: MESSAGE_ID,
    TIME_ATTRIBUTE: PUBLISH_TIME,
}
# Names with this prefix belong to the service: it adds googclient_schemaencoding and others for the readers of a topic
# that has a schema, and a publisher must not use them.
_SERVICE_PREFIX = "goog"
# The most bytes that protocol buffers need around a message's data and key, around an attribute, around a request.
_MESSAGE_OVERHEAD, _ATTRIBUTE_OVERHEAD, _REQUEST_OVERHEAD = 24, 16, 512
_MAX_BYTES = MAX_REQUEST_BYTES - _REQUEST_OVERHEAD
# How much of an error's text is kept if a failure's message is too large.
_MAX_ERROR_CHARACTERS = 10_000
# The most bytes of our own attributes without the id: their names, a model's URI, a version, a time.
_OWN_BYTES = len(_COLUMNS) * _ATTRIBUTE_OVERHEAD + sum(map(len, _COLUMNS)) + MAX_VALUE_BYTES + 20 + 32
_NONE = pa.array([[]], pa.map_(pa.string(), pa.string()))


def messages_of(batch: pa.RecordBatch, data: list[bytes]) -> tuple[Messages, dict[int, str]]:
    """Returns one message per row, and by row why Pub/Sub would reject its message.

    The attributes are those of the message that the row came from (but not the service's own, nor how often it was
    tried), the model and its version, and that message's id and publish time, each where the batch has it.
    """
    own = _attributes_of_source(batch)
    attributes = [dict(pairs or ()) for pairs in own.to_pylist()]
    for name, column in _COLUMNS.items():
        for of_row, text in zip(attributes, _texts(batch, column), strict=False):
            if text is not None:
                of_row[name] = text
    keys = [key or "" for key in _texts(batch, ORDERING_KEY)]
    sizes, suspects = _measure(own, data, batch)
    errors = {row: text for row in suspects if (text := _why_not(attributes[row], int(sizes[row])))}
    return Messages(data, attributes, sizes, keys if any(keys) else None), errors


def failure_message(failure: Failure, payload_mode: str, payload_dir: str = "") -> tuple[bytes, dict[str, str], int]:
    """Returns the data and attributes of a failure's message, and about how many bytes it takes, never too few.

    Attributes that Pub/Sub would reject are cut; the data has them whole. A payload for which there is no room goes to
    a file, and its URI takes its place. Attributes have their values as `to_record` shows them.

    Args:
      payload_dir: for such files; "": the payload's hash takes its place.

    Raises:
      SluiceError: the file cannot be written.
    """
    own = {
        "sluice_stage": failure.stage,
        "sluice_error_type": failure.error_type,
        "sluice_attempt": str(failure.attempt),
    }
    record = to_record(failure, payload_mode)
    carried = [(name, value) for name, value in record["attributes"].items() if is_carried(name) and name not in own]
    attributes = {cut(name, MAX_NAME_BYTES): value for name, value in carried[: MAX_ATTRIBUTES - len(own)]} | own
    attributes = {name: cut(value) for name, value in attributes.items()}
    around = sum(len(name.encode()) + len(value.encode()) + _ATTRIBUTE_OVERHEAD for name, value in attributes.items())
    data = orjson.dumps(record)
    if len(data) + around > _MAX_BYTES:
        record["error_message"] = record["error_message"][:_MAX_ERROR_CHARACTERS]
        data = orjson.dumps(record)
    if len(data) + around > _MAX_BYTES and record["payload_text"]:  # its escapes may take more room than base64
        record |= {"payload": show_payload(failure.payload, FULL), "payload_text": None}
        data = orjson.dumps(record)
    if len(data) + around > _MAX_BYTES and payload_mode == FULL:  # else there is no payload in it
        uri = store_payload(payload_dir, failure.payload) if payload_dir else ""
        record |= {"payload": uri or show_payload(failure.payload, HASH), "payload_text": None}
        data = orjson.dumps(record)
    return data, attributes, len(data) + around + _MESSAGE_OVERHEAD


def is_carried(name: str) -> bool:
    """Whether an attribute of this name is copied to the message that is published for its message."""
    return name != ATTEMPT_ATTRIBUTE and not name.startswith(_SERVICE_PREFIX)


def cut(text: str, max_bytes: int = MAX_VALUE_BYTES) -> str:
    """Returns as much of a text as fits into `max_bytes` of UTF-8."""
    return text.encode()[:max_bytes].decode(errors="ignore") if len(text) > max_bytes // 4 else text


def _attributes_of_source(batch: pa.RecordBatch) -> pa.MapArray:
    """Returns map [rows] of those attributes that are carried."""
    place = batch.schema.get_field_index(ATTRIBUTES)
    if place < 0:
        return pa.repeat(_NONE[0], batch.num_rows)
    column = batch.column(place)
    offsets = column.offsets.to_numpy()
    first, count = int(offsets[0]), int(offsets[-1] - offsets[0])
    names, values = column.keys.slice(first, count), column.items.slice(first, count)
    offsets = offsets - first
    unique = names.dictionary_encode()
    carried = [is_carried(name) for name in unique.dictionary.to_pylist()]
    if not all(carried):
        mask = pa.array(carried).take(unique.indices)
        names, values = names.filter(mask), values.filter(mask)
        offsets = np.append(0, np.cumsum(mask.to_numpy(zero_copy_only=False)))[offsets]
    return pa.MapArray.from_arrays(pa.array(offsets, pa.int32()), names, values)


def _texts(batch: pa.RecordBatch, name: str) -> list[str | None]:
    """Returns a column as texts, times as RFC 3339; [] if the batch does not have it."""
    place = batch.schema.get_field_index(name)
    if place < 0:
        return []
    column = batch.column(place)
    if pa.types.is_timestamp(column.type):
        return column_text(column, ("", "", "")).to_pylist()
    texts = column.cast(pa.string()).to_pylist()
    return [text and cut(text) for text in texts] if name == MODEL_COLUMN else texts


def _measure(attributes: pa.MapArray, data: list[bytes], batch: pa.RecordBatch) -> tuple[np.ndarray, list[int]]:
    """Returns int64 [rows], about each message's bytes, never too few; and the rows that may be too large."""
    offsets = attributes.offsets.to_numpy()
    names, values = (pc.binary_length(side).to_numpy() for side in (attributes.keys, attributes.items))
    sizes = np.fromiter(map(len, data), np.int64, len(data)) + _MESSAGE_OVERHEAD + _OWN_BYTES
    sizes += _sums(names + values + _ATTRIBUTE_OVERHEAD, offsets)
    for name in (MESSAGE_ID, ORDERING_KEY):
        if (place := batch.schema.get_field_index(name)) >= 0:
            sizes += pc.binary_length(batch.column(place)).fill_null(0).to_numpy()
    too_long = _sums((names > MAX_NAME_BYTES) | (values > MAX_VALUE_BYTES), offsets) > 0
    too_many = np.diff(offsets) > MAX_ATTRIBUTES - len(_COLUMNS)
    too_large = sizes > _MAX_BYTES
    return sizes, np.flatnonzero(too_long | too_many | too_large).tolist()


def _sums(values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Returns int64 [rows]: the sum of each row's values."""
    return np.diff(np.append(0, np.cumsum(values, dtype=np.int64))[offsets])


def _why_not(attributes: dict[str, str], size: int) -> str | None:
    """Returns why Pub/Sub would reject a message, and what to do; None if it would not."""
    if size > _MAX_BYTES:
        return message(
            "the message is some {size:,} bytes with its attributes, and Pub/Sub takes {limit:,} bytes; write fewer "
            "columns (--columns, --exclude_columns), or to files or a table",
            size=size,
            limit=MAX_REQUEST_BYTES,
        )
    if len(attributes) > MAX_ATTRIBUTES:
        return message(
            "the message has {count} attributes with those that Sluice adds, and Pub/Sub takes {limit}; publish it "
            "with {most} at most",
            count=len(attributes),
            limit=MAX_ATTRIBUTES,
            most=MAX_ATTRIBUTES - len(_COLUMNS),
        )
    for name, value in attributes.items():
        for text, limit, what in ((name, MAX_NAME_BYTES, "name"), (value, MAX_VALUE_BYTES, "value")):
            if (length := len(text.encode())) > limit:
                return message(
                    "the {what} of attribute '{}' is {length:,} bytes, and Pub/Sub takes {limit:,}; publish it with "
                    "shorter ones",
                    cut(name, 60),
                    what=what,
                    length=length,
                    limit=limit,
                )
    return None
