"""A row that could not be scored, and what is known of it."""

import base64
import dataclasses
import datetime
import hashlib
import time
from typing import Any, NamedTuple

import apache_beam as beam
import orjson

FULL, HASH, NONE = "full", "hash", "none"
PAYLOAD_MODES = (FULL, HASH, NONE)

# The stages at which a row can fail, in a row's order.
READ, DECODE, BIND, PREDICT, ENCODE, WRITE = "read", "decode", "bind", "predict", "encode", "write"

# The error_type of a message that is not read, because it may have killed the workers that have read it.
TOO_MANY_DELIVERIES = "TooManyDeliveries"


@dataclasses.dataclass(frozen=True)
class Failure:
    """One failed row (or, at stage "read", one file that could not be read on).

    Attributes:
      timestamp: when it failed, seconds since the epoch.
      stage: "read", "decode", "bind", "predict", "encode" or "write".
      error_type: the exception's class, or "InvalidRow" for a row that does not fit.
      origin: the file and the place in it, e.g. "data.csv#byte=1234"; of a message, its subscription and id.
      payload: the row as it stood in the source.
      attributes: of the message.
      version: of the model; None if it has none, or if the row did not get to it.
      attempt: how often the row has been tried, from 1.
    """

    stage: str
    error_type: str
    error_message: str
    origin: str
    payload: bytes = b""
    attributes: tuple[tuple[str, str], ...] = ()
    model: str | None = None
    version: int | None = None
    attempt: int = 1
    timestamp: float = dataclasses.field(default_factory=time.time)


# What a row of a failures file holds; tests/transforms/core/test_failures.py pins it.
FIELDS = (
    "timestamp",
    "stage",
    "error_type",
    "error_message",
    "origin",
    "payload",
    "attributes",
    "model",
    "version",
    "attempt",
)


class Result(NamedTuple):
    """What a transform that can fail returns."""

    rows: beam.PCollection
    failures: beam.PCollection


def to_record(failure: Failure, payload_mode: str = FULL) -> dict[str, Any]:
    """Returns the failure under FIELDS, as plain JSON values.

    Args:
      payload_mode: "full": base64 of the payload; "hash": its SHA-256 as "sha256:HEX"; "none": null.
    """
    when = datetime.datetime.fromtimestamp(failure.timestamp, datetime.UTC)
    record = {name: getattr(failure, name) for name in FIELDS}
    record["timestamp"] = when.isoformat(timespec="microseconds").replace("+00:00", "Z")
    record["payload"] = _show_payload(failure.payload, payload_mode)
    record["attributes"] = dict(failure.attributes)
    return record


def to_json(failure: Failure, payload_mode: str = FULL) -> bytes:
    """Returns the failure as one JSON object, without a line end."""
    return orjson.dumps(to_record(failure, payload_mode))


def _show_payload(payload: bytes, mode: str) -> str | None:
    if mode == NONE:
        return None
    if mode == HASH:
        return f"sha256:{hashlib.sha256(payload).hexdigest()}"
    return base64.b64encode(payload).decode()
