"""Failures of a batch job to a BigQuery table, each there once, with the columns of write_failure_table."""

import base64
import datetime
from collections.abc import Iterator, Sequence

import apache_beam as beam
import pyarrow as pa
from apache_beam.utils.windowed_value import WindowedValue

from sluice.models.errors import SluiceError
from sluice.transforms.bigquery.append_rows import Refused
from sluice.transforms.bigquery.schema import bigquery_to_arrow_schema
from sluice.transforms.bigquery.table_target import TableTarget
from sluice.transforms.bigquery.write import PendingRows
from sluice.transforms.bigquery.write_failure_table import FIELDS, ensure_failure_table, failure_row
from sluice.transforms.bigquery.write_streams import RowStream
from sluice.transforms.core.failures import FULL, Failure

SCHEMA = bigquery_to_arrow_schema(FIELDS)

# So many failures, and so many bytes of their payloads and texts, are brought into columns at once.
_BATCH_ROWS = 500
_BATCH_BYTES = 3_000_000


def plan_failure_table(table_id: str, job: str, endpoint: str | None = None) -> TableTarget:
    """Makes the table unless it is there, and checks that it takes every failure.

    For the arguments see transforms.bigquery.table_target.plan_table.

    Raises:
      UsageError: see transforms.bigquery.table.ensure_fields.
    """
    ensure_failure_table(table_id, endpoint)
    return TableTarget.appended(table_id, SCHEMA, job, endpoint)


class WriteFailureRows(beam.PTransform):
    """Writes failures to pending streams of a table; gives the `RowStream`s, which `TableCommitter` commits.

    Args:
      target: `plan_failure_table` gives it.
      payload_mode: see transforms.bigquery.write_failure_table.failure_row.
      retry_secs, endpoint: see transforms.bigquery.write.WriteTableRows.
    """

    def __init__(
        self, target: TableTarget, payload_mode: str = FULL, retry_secs: float = 60.0, endpoint: str | None = None
    ) -> None:
        super().__init__()
        self._fn = _WriteFailures(target, payload_mode, retry_secs, endpoint)

    def expand(self, failures: beam.PCollection[Failure]) -> beam.PCollection[RowStream]:
        return failures | "Append" >> beam.ParDo(self._fn)


@beam.typehints.with_output_types(RowStream)
class _WriteFailures(PendingRows):
    def __init__(self, target: TableTarget, payload_mode: str, retry_secs: float, endpoint: str | None) -> None:
        super().__init__(target.rows_table, target.schema, retry_secs, endpoint)
        self._payload_mode = payload_mode
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
        rows = failure_columns(failures, self._payload_mode)
        list(self._refuse(self._open().append(rows, failures)))

    def _refuse(self, refused: list[Refused]) -> Iterator[WindowedValue]:
        """There is nowhere else to put it."""
        for failures, row, _, message in refused:
            origin = failures[row].origin or "a row"
            raise SluiceError(f"{self._table} does not take the failure of {origin}: {message}")
        yield from ()


def failure_columns(failures: Sequence[Failure], payload_mode: str = FULL) -> pa.RecordBatch:
    """Returns failures as rows of the table, in SCHEMA; see failure_row for the rest."""
    rows = [failure_row(failure, payload_mode) for failure in failures]
    for row, failure in zip(rows, failures, strict=True):
        row["timestamp"] = datetime.datetime.fromtimestamp(failure.timestamp, datetime.UTC)
        if "payloadBytes" in row:
            row["payloadBytes"] = base64.b64decode(row["payloadBytes"])
    return pa.RecordBatch.from_pylist(rows, schema=SCHEMA)
