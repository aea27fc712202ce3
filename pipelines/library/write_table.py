"""`WriteTable` and `WriteFailureTable`: rows and failures in tables of BigQuery."""

from typing import Literal

import apache_beam as beam
import pyarrow as pa

from sluice.models.errors import UsageError
from sluice.pipelines.library.parts import in_one_window, job_name
from sluice.pipelines.plan.model import launch_errors
from sluice.transforms.bigquery import write_failures
from sluice.transforms.bigquery.clients import check_endpoints
from sluice.transforms.bigquery.commit import TableCommitter
from sluice.transforms.bigquery.table import ensure_table, parse_table_id
from sluice.transforms.bigquery.table_columns import append_schema
from sluice.transforms.bigquery.table_target import APPEND, DISPOSITIONS, plan_table
from sluice.transforms.bigquery.write import WriteStreamTable, WriteTableRows
from sluice.transforms.core.composite import Composite
from sluice.transforms.core.failures import FULL, PAYLOAD_MODES, Failure
from sluice.transforms.files.publish import Publish


class WriteTable(Composite):
    """Writes RecordBatches to a table, by the Storage Write API in Arrow; returns the `Failure`s of rows.

    The rows of a bounded collection appear all at once, and once, when all of them are written; if the pipeline fails,
    none does. Those of a stream appear as they come, at least once. The table is looked at when the pipeline is built,
    and made unless it exists. It gets a further column, `_predicted_at`: when a row was written.

    Args:
      table: PROJECT.DATASET.TABLE.
      schema: the columns to write, with their types; others are left out.
      disposition: of a bounded collection: "append"; "truncate": the rows that are there are replaced; "empty": there
        must be none.
      endpoint, storage_endpoint: HOST:PORT of an emulator; None: Google's.

    Raises:
      UsageError: the table cannot be made, or does not fit.
    """

    def __init__(
        self,
        table: str,
        schema: pa.Schema,
        *,
        disposition: Literal["append", "truncate", "empty"] = "append",
        endpoint: str | None = None,
        storage_endpoint: str | None = None,
    ) -> None:
        super().__init__()
        if disposition not in DISPOSITIONS:
            raise UsageError(f"disposition is {disposition!r}; give one of {', '.join(DISPOSITIONS)}")
        with launch_errors():
            check_endpoints(endpoint, storage_endpoint)
            parse_table_id(table)
        self._table, self._schema, self._disposition = table, schema, disposition
        self._endpoint, self._storage_endpoint = endpoint, storage_endpoint

    def expand(self, batches: beam.PCollection[pa.RecordBatch]) -> beam.PCollection[Failure]:
        return self._write_all(batches) if batches.is_bounded else self._write_each(batches)

    def _write_all(self, batches: beam.PCollection[pa.RecordBatch]) -> beam.PCollection[Failure]:
        with launch_errors():
            target = plan_table(self._table, self._schema, job_name(), self._disposition, endpoint=self._endpoint)
        write = WriteTableRows(target.rows_table, target.schema, endpoint=self._storage_endpoint)
        streams, failures = in_one_window(batches, "Unwindow") | "Write" >> write
        (streams,) | "Publish" >> Publish(TableCommitter(target, endpoint=self._storage_endpoint), target.table)
        return failures

    def _write_each(self, batches: beam.PCollection[pa.RecordBatch]) -> beam.PCollection[Failure]:
        if self._disposition != APPEND:
            raise UsageError(f"disposition {self._disposition!r}: a stream does not end; its rows are appended")
        with launch_errors():
            fields = ensure_table(self._table, self._schema, self._endpoint)
        schema = append_schema(self._schema, fields)
        return batches | "Write" >> WriteStreamTable(self._table, schema, endpoint=self._storage_endpoint)


class WriteFailureTable(write_failures.WriteFailureTable):
    """Inserts `Failure`s into a table with the columns of the dead-letter tables of Google's templates; at least once.

    The table is made unless it exists.

    Args:
      table: PROJECT.DATASET.TABLE.
      payload: what a failure keeps of its row: "full": the whole row, "hash": its SHA-256, or "none".
      endpoint: HOST:PORT of an emulator; None: Google's.

    Raises:
      UsageError: the table cannot be made, or does not fit.
    """

    def __init__(self, table: str, *, payload: str = FULL, endpoint: str | None = None) -> None:
        if payload not in PAYLOAD_MODES:
            raise UsageError(f"payload is {payload!r}; give one of {', '.join(PAYLOAD_MODES)}")
        with launch_errors():
            write_failures.ensure_failure_table(table, endpoint)
        super().__init__(table, payload, endpoint=endpoint)
