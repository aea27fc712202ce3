"""Failures to a BigQuery table, with the columns of the dead-letter tables of Google's Dataflow templates.

A batch job appends them to pending streams, so that each is in the table once. A streaming job inserts them: by their
row ids BigQuery drops most duplicates, which its default streams cannot do.

https://github.com/GoogleCloudPlatform/DataflowTemplates, pubsubmessage_deadletter_table_schema.json in v2/common. There
the payload is REQUIRED; here it is not, since it may be private, or not be text.
"""

import base64
import dataclasses
import datetime
import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.utils.windowed_value import WindowedValue

from sluice.models.errors import SluiceError
from sluice.transforms.bigquery.append_rows import Refused
from sluice.transforms.bigquery.schema import Field, bigquery_to_arrow_schema
from sluice.transforms.bigquery.table import MAX_ROW_BYTES, TableOptions, ensure_fields
from sluice.transforms.bigquery.table_target import TableTarget
from sluice.transforms.bigquery.write import PendingRows, RowStream
from sluice.transforms.bigquery.write_inserts import InsertRows, Row, insertable
from sluice.transforms.core.failures import FULL, HASH, Failure, show_payload, to_record
from sluice.transforms.core.payload_files import store_payload


def _field(name: str, type_: str = "STRING", mode: str = "NULLABLE", **more: object) -> Field:
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
SCHEMA = bigquery_to_arrow_schema(FIELDS)

# Of an error's text, in a row that would be too large.
_MAX_ERROR_CHARACTERS = 10_000
# What the note on a payload that is cut takes, at most.
_NOTE_BYTES = 300
# What the origins of messages contain, see transforms.core.batches.origin_of.
_MESSAGE_ORIGIN = "#message_id="
# So many failures, and so many bytes of their payloads and texts, become columns at once.
_BATCH_ROWS = 500
_BATCH_BYTES = 3_000_000


def ensure_failure_table(
    table_id: str, endpoint: str | None = None, retry_secs: float = 30.0, dry: bool = False
) -> None:
    """Makes the table unless it exists; else checks that it accepts every failure.

    For the arguments, and for what is raised, see transforms.bigquery.table.ensure_fields and TableOptions.
    """
    ensure_fields(table_id, FIELDS, endpoint, retry_secs, TableOptions(exact=True, dry=dry))


def plan_failure_table(table_id: str, job: str, endpoint: str | None = None, dry: bool = False) -> TableTarget:
    """Returns the target of a batch job's failures, after `ensure_failure_table`.

    For the arguments see transforms.bigquery.table_target.plan_table.

    Raises:
      UsageError: see transforms.bigquery.table.ensure_fields.
    """
    ensure_failure_table(table_id, endpoint, dry=dry)
    return TableTarget.appended(table_id, SCHEMA, job, endpoint)


def failure_row(failure: Failure, payload_mode: str = FULL, payload_dir: str = "") -> dict[str, Any]:
    """Returns a failure under the names of FIELDS, as insertAll accepts it: fields that are null are left out.

    stacktrace is always null: failures have none.

    A row that would be too large for BigQuery has no payloadString, which payloadBytes repeats. If it is still too
    large, the error's text is cut, and the payload goes to a file, whose URI is in payloadString.

    Args:
      payload_mode: "full": the payload in payloadBytes, and in payloadString if it is UTF-8; "hash": its SHA-256 as
        "sha256:HEX" in payloadString; "none": neither.
      payload_dir: for files of payloads; "": the payload is cut, and the error's text says by how much.

    Raises:
      SluiceError: the file cannot be written.
    """
    row = _row(failure, payload_mode)
    if _size(row) > MAX_ROW_BYTES:
        _shorten(row, failure, payload_dir)
    return row


def failure_columns(failures: Sequence[Failure], payload_mode: str = FULL, payload_dir: str = "") -> pa.RecordBatch:
    """Returns failures as a batch of SCHEMA, row by row what `failure_row` returns."""
    rows = [failure_row(failure, payload_mode, payload_dir) for failure in failures]
    for row, failure in zip(rows, failures, strict=True):
        row["timestamp"] = datetime.datetime.fromtimestamp(failure.timestamp, datetime.UTC)
        if "payloadBytes" in row:
            row["payloadBytes"] = base64.b64decode(row["payloadBytes"])
    return pa.RecordBatch.from_pylist(rows, schema=SCHEMA)


def _row(failure: Failure, payload_mode: str) -> dict[str, Any]:
    record, shown = to_record(failure, payload_mode), show_payload(failure.payload, payload_mode)
    row = {
        "timestamp": record["timestamp"],
        "payloadString": _text(failure.payload) if payload_mode == FULL else shown,
        "payloadBytes": shown if payload_mode == FULL else None,
        "attributes": [{"key": key, "value": value} for key, value in record["attributes"].items()],
        "errorMessage": record["error_message"],
        "stage": failure.stage,
        "errorType": failure.error_type,
        "origin": failure.origin,
        "model": failure.model,
        "version": failure.version,
        "attempt": failure.attempt,
    }
    return insertable(row)


def _shorten(row: dict[str, Any], failure: Failure, payload_dir: str) -> None:
    """Makes a row fit into BigQuery's limit."""
    has_payload = "payloadBytes" in row
    if has_payload:
        row.pop("payloadString", None)
    if _size(row) > MAX_ROW_BYTES:
        row["errorMessage"] = row["errorMessage"][:_MAX_ERROR_CHARACTERS]
    if _size(row) > MAX_ROW_BYTES and has_payload and payload_dir:
        del row["payloadBytes"]
        row["payloadString"] = store_payload(payload_dir, failure.payload)
    elif _size(row) > MAX_ROW_BYTES and has_payload:
        room = MAX_ROW_BYTES - _size(row | {"payloadBytes": ""}) - _NOTE_BYTES
        kept = failure.payload[: max(room, 0) // 4 * 3]  # as much as there is room for in base64
        row["payloadBytes"] = base64.b64encode(kept).decode()
        row["errorMessage"] += (
            f" [the payload, {len(failure.payload):,} bytes, is cut to {len(kept):,}: BigQuery accepts rows of "
            f"{MAX_ROW_BYTES:,} bytes at most; {show_payload(failure.payload, HASH)} is the hash of the whole payload]"
        )


def _text(payload: bytes) -> str | None:
    try:
        return payload.decode()
    except UnicodeDecodeError:
        return None


def _size(values: dict[str, Any]) -> int:
    return len(json.dumps(values))


@beam.typehints.with_output_types(RowStream)
class _AppendFailures(PendingRows[list[Failure]]):
    def __init__(
        self, target: TableTarget, payload_mode: str, retry_secs: float, endpoint: str | None, payload_dir: str = ""
    ) -> None:
        super().__init__(target.rows_table, target.schema, retry_secs, endpoint)
        self._payload_mode, self._payload_dir = payload_mode, payload_dir
        self._failures: list[Failure] = []
        self._bytes = 0  # of them

    def start_bundle(self) -> None:
        super().start_bundle()
        self._failures, self._bytes = [], 0

    def process(self, failure: Failure) -> Iterator[RowStream]:
        self._failures.append(failure)
        self._bytes += len(failure.payload) + len(failure.error_message)
        if len(self._failures) >= _BATCH_ROWS or self._bytes >= _BATCH_BYTES:
            self._append()
        yield from ()

    def finish_bundle(self) -> Iterator[WindowedValue]:
        if self._failures:
            self._append()
        yield from super().finish_bundle()

    def _append(self) -> None:
        failures, self._failures, self._bytes = self._failures, [], 0
        rows = failure_columns(failures, self._payload_mode, self._payload_dir)
        list(self._refuse(self._open().append(rows, failures)))

    def _refuse(self, refused: list[Refused[list[Failure]]]) -> Iterator[WindowedValue]:
        for failures, row, _, why in refused:
            raise _lost(self._table, failures[row], why)
        yield from ()


class WriteFailureRows(beam.PTransform):
    """Writes a batch job's failures to pending streams of a table; returns the `RowStream`s for `TableCommitter`.

    Args:
      target: see `plan_failure_table`.
      payload_mode, payload_dir: see `failure_row`.
      retry_secs, endpoint: see transforms.bigquery.write.WriteTableRows.
    """

    def __init__(
        self,
        target: TableTarget,
        payload_mode: str = FULL,
        retry_secs: float = 60.0,
        endpoint: str | None = None,
        payload_dir: str = "",
    ) -> None:
        super().__init__()
        self._fn = _AppendFailures(target, payload_mode, retry_secs, endpoint, payload_dir)

    def expand(self, failures: beam.PCollection[Failure]) -> beam.PCollection[RowStream]:
        return failures | "Append" >> beam.ParDo(self._fn)


class _InsertFailures(InsertRows[Failure]):
    def __init__(
        self, table_id: str, payload_mode: str, retry_secs: float, endpoint: str | None, payload_dir: str = ""
    ) -> None:
        super().__init__(table_id, retry_secs, endpoint)
        self._payload_mode, self._payload_dir = payload_mode, payload_dir

    def process(self, failure: Failure) -> Iterator[None]:
        values = failure_row(failure, self._payload_mode, self._payload_dir)
        yield from self._insert(Row(values, _size(values), _row_id(failure)), failure)

    def _refuse(self, source: Failure, why: str) -> Iterator[None]:
        raise _lost(self._table_id, source, why)


class WriteFailureTable(beam.PTransform):
    """Inserts a streaming job's failures into a table; returns nothing.

    Every failure is in the table before its bundle is finished. A bundle fails if BigQuery refuses its failures, or
    does not accept them in time. Failures are written at least once. Those of messages have row ids, by which BigQuery
    drops most duplicates: failures that are equal but for their time.

    Args:
      table_id: PROJECT.DATASET.TABLE or PROJECT:DATASET.TABLE. It exists: see `ensure_failure_table`.
      payload_mode, payload_dir: see `failure_row`.
      retry_secs, endpoint: see transforms.bigquery.write_inserts.WriteTable.
    """

    def __init__(
        self,
        table_id: str,
        payload_mode: str = FULL,
        retry_secs: float = 60.0,
        endpoint: str | None = None,
        payload_dir: str = "",
    ) -> None:
        super().__init__()
        self._fn = _InsertFailures(table_id, payload_mode, retry_secs, endpoint, payload_dir)

    def expand(self, failures: beam.PCollection[Failure]) -> beam.PCollection[None]:
        return failures | "Insert" >> beam.ParDo(self._fn)


def _row_id(failure: Failure) -> str | None:
    """Returns an id that is the same if a message comes again and fails alike; None for failures of other rows.

    A message is one row or one failure, so only duplicates have the same.
    """
    if _MESSAGE_ORIGIN not in failure.origin:
        return None
    return hashlib.sha256(repr(dataclasses.replace(failure, timestamp=0.0)).encode()).hexdigest()


def _lost(table: str, failure: Failure, why: str) -> SluiceError:
    """Returns the error of a failure that its table refuses: there is nowhere else to put it."""
    return SluiceError(f"table {table} refuses the failure of {failure.origin or 'a row'}: {why}")
