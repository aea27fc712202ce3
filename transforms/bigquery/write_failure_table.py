"""Failures of a stream to a BigQuery table, with the columns of the dead-letter tables of Google's Dataflow templates.

https://github.com/GoogleCloudPlatform/DataflowTemplates, pubsubmessage_deadletter_table_schema.json in v2/common. There
the payload is REQUIRED; here it is not, since it may be private, or no text.
"""

import base64
import dataclasses
import hashlib
import json
from collections.abc import Iterator
from typing import Any

import apache_beam as beam

from sluice.models.errors import SluiceError
from sluice.transforms.bigquery.table import TableOptions, ensure_fields
from sluice.transforms.bigquery.table_rows import MAX_ROW_BYTES, Row, insertable
from sluice.transforms.bigquery.write_inserts import InsertRows
from sluice.transforms.core.failures import FULL, HASH, Failure, to_record


def _field(name: str, type_: str = "STRING", mode: str = "NULLABLE", **more: Any) -> dict[str, Any]:
    return {"name": name, "type": type_, "mode": mode, **more}


# Of the table, in the form of BigQuery's JSON schemas: Google's, and then ours.
FIELDS = (
    _field("timestamp", "TIMESTAMP", "REQUIRED"),
    _field("payloadString"),
    _field("payloadBytes", "BYTES"),
    _field("attributes", "RECORD", "REPEATED", fields=[_field("key"), _field("value")]),
    _field("errorMessage"),
    _field("stacktrace"),
    _field("stage"),
    _field("errorType"),
    _field("origin"),
    _field("model"),
    _field("version", "INTEGER"),
    _field("attempt", "INTEGER"),
)

# Of an error's text, in a row that would be too large.
_MAX_ERROR_CHARACTERS = 10_000
# What the note on a payload that is cut takes, at most.
_NOTE_BYTES = 300
# What the origins of messages have, see transforms.core.batches.origin_of.
_MESSAGE_ORIGIN = "#message_id="


class WriteFailureTable(beam.PTransform):
    """Writes failures into a table; gives nothing.

    Every failure is in the table before its bundle is finished; a bundle fails whose failures BigQuery refuses, or does
    not take in time. They are written at least once. Those of messages have row ids, by which BigQuery drops most
    doubles: what is the same but for its time.

    Args:
      table_id: PROJECT.DATASET.TABLE or PROJECT:DATASET.TABLE. It exists: see ensure_failure_table.
      payload_mode: see failure_row.
      retry_secs, endpoint: see transforms.bigquery.write_inserts.WriteTable.
    """

    def __init__(
        self, table_id: str, payload_mode: str = FULL, retry_secs: float = 60.0, endpoint: str | None = None
    ) -> None:
        super().__init__()
        self._fn = _WriteFailures(table_id, payload_mode, retry_secs, endpoint)

    def expand(self, failures: beam.PCollection[Failure]) -> beam.PCollection[None]:
        return failures | "Insert" >> beam.ParDo(self._fn)


def ensure_failure_table(table_id: str, endpoint: str | None = None, retry_secs: float = 30.0) -> None:
    """Makes the table if it is not there; else checks that it takes every failure.

    For the arguments, and for what is raised, see transforms.bigquery.table.ensure_fields.
    """
    ensure_fields(table_id, FIELDS, endpoint, retry_secs, TableOptions(exact=True))


class _WriteFailures(InsertRows):
    def __init__(self, table_id: str, payload_mode: str, retry_secs: float, endpoint: str | None) -> None:
        super().__init__(table_id, retry_secs, endpoint)
        self._payload_mode = payload_mode

    def process(self, failure: Failure) -> Iterator[None]:
        values = failure_row(failure, self._payload_mode)
        yield from self._insert(Row(values, _size(values), _row_id(failure)), failure)

    def _refuse(self, source: Failure, why: str) -> Iterator[None]:
        """There is nowhere else to put it."""
        raise SluiceError(f"table {self._table_id} does not take the failure of {source.origin or 'a row'}: {why}")


def failure_row(failure: Failure, payload_mode: str = FULL) -> dict[str, Any]:
    """Returns a failure under the names of FIELDS, as insertAll takes it: what is null is left out.

    stacktrace is always null: failures have none.

    A row that would be too large for BigQuery goes without payloadString, which payloadBytes tells too. If that does
    not do, the error's text and the payload are cut, and the text says of the payload by how much.

    Args:
      payload_mode: "full": the payload in payloadBytes, and in payloadString if it is UTF-8; "hash": its SHA-256 as
        "sha256:HEX" in payloadString; "none": neither.
    """
    row = _row(failure, payload_mode)
    if _size(row) > MAX_ROW_BYTES:
        _shorten(row, failure)
    return row


def _row(failure: Failure, payload_mode: str) -> dict[str, Any]:
    record = to_record(failure, payload_mode)
    row = {
        "timestamp": record["timestamp"],
        "payloadString": _text(failure.payload) if payload_mode == FULL else record["payload"],
        "payloadBytes": record["payload"] if payload_mode == FULL else None,
        "attributes": [{"key": key, "value": value} for key, value in failure.attributes],
        "errorMessage": _encodable(failure.error_message),
        "stage": failure.stage,
        "errorType": failure.error_type,
        "origin": _encodable(failure.origin),
        "model": failure.model and _encodable(failure.model),
        "version": failure.version,
        "attempt": failure.attempt,
    }
    return insertable(row)


def _shorten(row: dict[str, Any], failure: Failure) -> None:
    """Makes a row fit into BigQuery's limit."""
    has_payload = "payloadBytes" in row
    if has_payload:
        row.pop("payloadString", None)
    if _size(row) > MAX_ROW_BYTES:
        row["errorMessage"] = row["errorMessage"][:_MAX_ERROR_CHARACTERS]
    if _size(row) > MAX_ROW_BYTES and has_payload:
        room = MAX_ROW_BYTES - _size(row | {"payloadBytes": ""}) - _NOTE_BYTES
        kept = failure.payload[: max(room, 0) // 4 * 3]  # as much as there is room for in base64
        row["payloadBytes"] = base64.b64encode(kept).decode()
        row["errorMessage"] += (
            f" [the payload, {len(failure.payload):,} bytes, is cut to {len(kept):,}, as BigQuery takes rows of "
            f"{MAX_ROW_BYTES:,}; {to_record(failure, HASH)['payload']} is the whole one's]"
        )


def _text(payload: bytes) -> str | None:
    try:
        return payload.decode()
    except UnicodeDecodeError:
        return None


def _encodable(text: str) -> str:
    """Returns a text that UTF-8 can hold: names of files, and what tells of them, may be of other bytes."""
    return text.encode(errors="backslashreplace").decode()


def _size(values: dict[str, Any]) -> int:
    return len(json.dumps(values))


def _row_id(failure: Failure) -> str | None:
    """Returns what the failure of a message has again if the message comes again and fails alike; else None.

    A message is one row or one failure, so that none but doubles have the same.
    """
    if _MESSAGE_ORIGIN not in failure.origin:
        return None
    return hashlib.sha256(repr(dataclasses.replace(failure, timestamp=0.0)).encode()).hexdigest()
