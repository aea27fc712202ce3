"""A failure as it was written, and the contract of the sources that failures are read from."""

import base64
import binascii
import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import orjson

from sluice.models.errors import SluiceError
from sluice.transforms.core.failures import READ, TOO_MANY_DELIVERIES, is_hash, payload_fields, payload_text
from sluice.transforms.core.json_members import is_object, take_member
from sluice.transforms.core.payload_files import is_payload_uri

# The payload of a failure that was exported to be edited: its text, if it is a JSON object, is part of the line.
PAYLOAD_JSON = "payload_json"
# Outside of strings, which hold none, they are white space.
_LINE_ENDS = re.compile(r"[\r\n]+")


@dataclasses.dataclass(frozen=True)
class StoredFailure:
    """A failure that was written.

    Attributes:
      text: its JSON object, on one line.
      payload: None if it was not kept (--failure_payload), or if the failure is of a file and not of a row; b"" if it
        is in a file of its own, `payload_uri`.
      message_id: of the message that held the failure; "" from a file.
      model, version: as it names them; "": it does not.
    """

    text: bytes
    stage: str
    error_type: str
    payload: bytes | None
    attributes: dict[str, str]
    attempt: int
    message_id: str = ""
    payload_uri: str = ""
    error_message: str = dataclasses.field(default="", compare=False)
    origin: str = dataclasses.field(default="", compare=False)
    model: str = dataclasses.field(default="", compare=False)
    version: str = dataclasses.field(default="", compare=False)


class FailureSource(Protocol):
    """A place that failures are read from, chunk by chunk."""

    def chunks(self) -> Iterator[list[StoredFailure]]:
        """Yields failures, at most some MB of them at a time."""

    def settle(self, failures: Sequence[StoredFailure]) -> None:
        """Marks failures as done: they are published, or written elsewhere, and need not come again."""

    def close(self) -> None:
        """Gives back what is not settled."""


def parse_failure(text: bytes, message_id: str = "") -> StoredFailure:
    """Returns a failure as `transforms.core.failures.to_json` wrote it, or a person has edited it.

    The payload is that of payload_json, else of payload_text, else of payload, in which alone older files have it.

    Raises:
      SluiceError: the text is not a failure.
    """
    try:
        record = _record(text)
        payload = _payload(record)
        attributes, attempt = dict(record.get("attributes") or {}), record.get("attempt", 1)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise SluiceError(f"{_shown(text)} is not a failure: {type(error).__name__}: {error}") from error
    uri = record["payload"] if payload is not None and _is_in_file(record) else ""
    told = [record.get(name) or "" for name in ("error_type", "error_message", "origin")]
    names = (record["stage"], *told, *attributes, *attributes.values())
    if not all(isinstance(name, str) for name in names) or not isinstance(attempt, int):
        raise SluiceError(f"{_shown(text)} is not a failure: a field has another type than a failure's")
    error_type, error_message, origin = told
    return StoredFailure(
        orjson.dumps(record),
        record["stage"],
        error_type,
        payload,
        attributes,
        attempt,
        message_id,
        uri,
        error_message,
        origin,
        *("" if value is None else str(value) for value in (record.get("model"), record.get("version"))),
    )


def editable_line(failure: StoredFailure) -> bytes:
    """Returns a failure as one line for people to edit, which `parse_failure` reads: a JSON object is part of it."""
    if failure.payload is None or failure.payload_uri:
        return failure.text
    record = orjson.loads(failure.text)
    text = payload_text(failure.payload)
    if text is None or not is_object(text):
        return orjson.dumps(record | payload_fields(failure.payload))
    line = orjson.dumps(record | {"payload": None, "payload_text": None})
    return b'%s,"%s":%s}' % (line[:-1], PAYLOAD_JSON.encode(), _LINE_ENDS.sub(" ", text).encode())


def row_line(failure: StoredFailure) -> str:
    """Returns the row of a failure, a JSON object on one line; "" if it is no text, or was not kept."""
    text = payload_text((failure.payload or b"").rstrip(b"\r\n")) or ""
    return _LINE_ENDS.sub(" ", text) if "\n" in text and is_object(text) else text


def _record(text: bytes) -> dict[str, Any]:
    """Returns the JSON object of a failure, with the payload in payload_text if it is a part of the line."""
    edited = ""
    if PAYLOAD_JSON.encode() in text:
        line, edited = take_member(text.decode(), PAYLOAD_JSON)
        text = line.encode()
    record: dict[str, Any] = orjson.loads(text)
    return record | {"payload": None, "payload_text": edited} if edited else record


def _payload(record: Mapping[str, Any]) -> bytes | None:
    stage, error_type, text = record["stage"], record.get("error_type"), record.get("payload_text")
    is_row = stage != READ or error_type == TOO_MANY_DELIVERIES  # other failures of that stage are of files
    if text is not None:
        return text.encode() if is_row else None
    shown = record["payload"]
    if shown is None or not is_row or is_hash(shown):
        return None
    if is_payload_uri(shown):
        return b""
    try:
        return base64.b64decode(shown, validate=True)
    except binascii.Error as error:
        raise ValueError(f"its payload is not base64: {error}") from error


def _is_in_file(record: Mapping[str, Any]) -> bool:
    return record.get("payload_text") is None and is_payload_uri(record["payload"])


def _shown(text: bytes) -> str:
    return repr(text[:40])[1:] + ("..." if len(text) > 40 else "")
