"""Failures: rows that could not be scored, with the reason and the origin."""

import base64
import collections
import dataclasses
import datetime
import hashlib
import re
import time
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple, TypeAlias

import apache_beam as beam
import orjson

from sluice.models import errors
from sluice.models.wording import changed, public_text
from sluice.transforms.core import metrics
from sluice.transforms.core.render import clean_text

FULL, HASH, NONE = "full", "hash", "none"
PAYLOAD_MODES = (FULL, HASH, NONE)
_HASHED = "sha256:"
# Bytes that no text for people has: of a tf.Example, all of whose bytes may be UTF-8.
_NO_TEXT = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")

# The stages at which a row can fail, in the order in which a row passes them.
READ, DECODE, ENCODE, WRITE = "read", "decode", "encode", "write"
BIND, PREDICT = errors.BIND, errors.PREDICT
STAGES = (READ, DECODE, BIND, PREDICT, ENCODE, WRITE)

_TEXTS = ("stage", "error_type", "error_message", "origin", "model")
# A greater number of attempts counts as this one.
MAX_ATTEMPT = 2**31 - 1

# The error_type of a message that is no longer read, because it may have killed the workers that read it.
TOO_MANY_DELIVERIES = "TooManyDeliveries"


@dataclasses.dataclass(frozen=True, slots=True)
class Failure:
    """One failed row; at stage "read", one file that could not be read to its end.

    Attributes:
      timestamp: the time of the failure, seconds since the epoch.
      stage: "read", "decode", "bind", "predict", "encode" or "write".
      error_type: the class of the exception; "InvalidRow" if the row does not fit.
      origin: the file and the position in it, e.g. "data.csv#byte=1234"; for a message, its subscription and id.
      payload: the source text of the row.
      attributes: those of the message.
      model, version: of the model that the row met, or would have met; None: it is not known, or has no version.
      attempt: the number of this attempt at the row, from 1.
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

    def __post_init__(self) -> None:
        """Makes the failure one that every sink can hold: its texts are UTF-8, and its numbers have 64 bits."""
        for name in _TEXTS:
            text = getattr(self, name)
            if text and not text.isascii():
                object.__setattr__(self, name, changed(text, clean_text))
        if self.attributes:
            pairs = ((clean_text(name), clean_text(value or "")) for name, value in self.attributes)
            object.__setattr__(self, "attributes", tuple(pairs))
        object.__setattr__(self, "attempt", max(1, min(self.attempt, MAX_ATTEMPT)))


def named(failure: Failure, model: str, version: int | None) -> Failure:
    """Returns the failure of a row that was on its way to a model, with the model's name, unless it names one."""
    return failure if failure.model else dataclasses.replace(failure, model=model, version=version)


# The fields of a row of a failures file. tests/transforms/core/test_failures.py pins them.
FIELDS = (
    "timestamp",
    "stage",
    "error_type",
    "error_message",
    "origin",
    "payload",
    "payload_text",
    "attributes",
    "model",
    "version",
    "attempt",
)


# The tag of the output that failures go to, and its type.
FAILURES = "failures"
FailedOutput: TypeAlias = beam.pvalue.TaggedOutput[Literal["failures"], Failure]


class Result(NamedTuple):
    """The outputs of a transform that can fail."""

    rows: beam.PCollection
    failures: beam.PCollection


def to_record(failure: Failure, payload_mode: str = FULL) -> dict[str, Any]:
    """Returns the FIELDS of a failure as JSON values.

    Args:
      payload_mode: "full": payload_text is the payload, if it is text, and otherwise payload is base64 of it; "hash":
        payload is its SHA-256 as "sha256:HEX"; "none": neither. But for "full" the message has no values of the row
        either, and the values of the attributes are hashed or left out.
    """
    when = datetime.datetime.fromtimestamp(failure.timestamp, datetime.UTC)
    record = {name: getattr(failure, name, None) for name in FIELDS}
    record["timestamp"] = when.isoformat(timespec="microseconds").replace("+00:00", "Z")
    record |= payload_fields(failure.payload, payload_mode)
    record["attributes"] = shown_attributes(failure, payload_mode)
    if payload_mode != FULL:
        record["error_message"] = public_text(failure.error_message)
    return record


def shown_attributes(failure: Failure, payload_mode: str) -> dict[str, str]:
    """Returns the attributes of the message that failed, as a payload mode shows them; "none" shows no attribute."""
    if payload_mode == NONE:
        return {}
    show = _hash_text if payload_mode == HASH else str
    return {name: show(value) for name, value in failure.attributes}


def to_json(failure: Failure, payload_mode: str = FULL, payload_uri: str = "") -> bytes:
    """Returns the failure as one JSON object, without a line end.

    Args:
      payload_uri: takes the place of the payload; see transforms.core.payload_files.
    """
    if payload_uri:
        return orjson.dumps(
            to_record(dataclasses.replace(failure, payload=b""), payload_mode) | {"payload": payload_uri}
        )
    return orjson.dumps(to_record(failure, payload_mode))


def count_failures(failures: Iterable[Failure]) -> None:
    """Counts rows_failed, in all and by stage, type and reason. Must run on the bundle's thread, as `metrics.count`."""
    kinds: collections.Counter[tuple[str, str]] = collections.Counter()
    for failure in failures:
        kinds[failure.stage, failure.error_type] += 1
        metrics.count_reason(failure.stage, failure.error_type, failure.error_message, failure.origin)
    for (stage, error_type), number in kinds.items():
        metrics.count_failure(stage, error_type, number)


def payload_fields(payload: bytes, mode: str = FULL) -> dict[str, str | None]:
    """Returns the fields that hold a payload: payload_text if it is text, else payload. The other one is null."""
    text = payload_text(payload) if mode == FULL else None
    return {"payload": show_payload(payload, mode) if text is None else None, "payload_text": text}


def payload_text(payload: bytes) -> str | None:
    """Returns a payload that is text: UTF-8 without control characters but tabs and line ends. None: it is not."""
    if not payload or _NO_TEXT.search(payload):
        return None
    try:
        return payload.decode()
    except UnicodeDecodeError:
        return None


def show_payload(payload: bytes, mode: str) -> str | None:
    """Returns the bytes of a payload as a payload mode shows them."""
    if mode == NONE:
        return None
    if mode == HASH:
        return _hash(payload)
    return base64.b64encode(payload).decode()


def is_hash(shown: str) -> bool:
    """Whether what a failure shows as its payload is a hash: no base64 holds a colon."""
    return shown.startswith(_HASHED)


def _hash(value: bytes) -> str:
    return f"{_HASHED}{hashlib.sha256(value).hexdigest()}"


def _hash_text(value: str) -> str:
    return _hash(value.encode(errors="surrogatepass"))
