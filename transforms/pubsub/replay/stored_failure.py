"""A failure as it was written, and the contract of the sources that failures are read from."""

import base64
import binascii
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Protocol

import orjson

from sluice.models.errors import SluiceError
from sluice.transforms.core.failures import READ, TOO_MANY_DELIVERIES, is_hash
from sluice.transforms.core.payload_files import is_payload_uri


@dataclasses.dataclass(frozen=True)
class StoredFailure:
    """A failure that was written.

    Attributes:
      text: its JSON object, on one line.
      payload: None if it was not kept (--failure_payload), or if the failure is of a file and not of a row; b"" if it
        is in a file of its own, `payload_uri`.
      message_id: of the message that held the failure; "" from a file.
    """

    text: bytes
    stage: str
    error_type: str
    payload: bytes | None
    attributes: dict[str, str]
    attempt: int
    message_id: str = ""
    payload_uri: str = ""


class FailureSource(Protocol):
    """A place that failures are read from, chunk by chunk."""

    def chunks(self) -> Iterator[list[StoredFailure]]:
        """Yields failures, at most some MB of them at a time."""

    def settle(self, failures: Sequence[StoredFailure]) -> None:
        """Marks failures as done: they are published, or written elsewhere, and need not come again."""

    def close(self) -> None:
        """Gives back what is not settled."""


def parse_failure(text: bytes, message_id: str = "") -> StoredFailure:
    """Returns a failure as `transforms.core.failures.to_json` wrote it.

    Raises:
      SluiceError: the text is not a failure.
    """
    try:
        record = orjson.loads(text)
        payload = _payload(record["stage"], record.get("error_type"), record["payload"])
        attributes, attempt = dict(record.get("attributes") or {}), record.get("attempt", 1)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise SluiceError(f"{_shown(text)} is not a failure: {type(error).__name__}: {error}") from error
    uri = record["payload"] if payload is not None and is_payload_uri(record["payload"]) else ""
    names = (record["stage"], record.get("error_type", ""), *attributes, *attributes.values())
    if not all(isinstance(name, str) for name in names) or not isinstance(attempt, int):
        raise SluiceError(f"{_shown(text)} is not a failure: a field has another type than a failure's")
    stage, error_type = record["stage"], record.get("error_type", "")
    return StoredFailure(orjson.dumps(record), stage, error_type, payload, attributes, attempt, message_id, uri)


def _payload(stage: str, error_type: str | None, shown: str | None) -> bytes | None:
    is_row = stage != READ or error_type == TOO_MANY_DELIVERIES  # other failures of that stage are of files
    if shown is None or not is_row or is_hash(shown):
        return None
    if is_payload_uri(shown):
        return b""
    try:
        return base64.b64decode(shown, validate=True)
    except binascii.Error as error:
        raise ValueError(f"its payload is not base64: {error}") from error


def _shown(text: bytes) -> str:
    return repr(text[:40])[1:] + ("..." if len(text) > 40 else "")
