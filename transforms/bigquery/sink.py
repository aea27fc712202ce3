"""What the sinks of scored rows share: their arguments, and the way of a batch through them."""

import datetime
import time
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

import apache_beam as beam
import pyarrow as pa
from apache_beam.transforms.window import BoundedWindow
from apache_beam.utils.timestamp import Timestamp
from apache_beam.utils.windowed_value import WindowedValue

from sluice.transforms.core.composite import Composite
from sluice.transforms.core.failures import WRITE
from sluice.transforms.core.messages import with_message_id
from sluice.transforms.encode.rows import counted_failure, scored_failure
from sluice.transforms.files.open_file import write_rows

Rows = TypeVar("Rows")


class TableSink(Composite):
    """Writes RecordBatches to a table.

    Args:
      table_id: PROJECT.DATASET.TABLE or PROJECT:DATASET.TABLE. It exists: see transforms.bigquery.table.ensure_table.
      schema: the columns to write; each sink says which.
      retry_secs: how long a request that BigQuery rejects is repeated.
      endpoint: another server than Google's; each sink says of which API.
      clock: seconds since the epoch, for `_predicted_at`: the time at which a batch came here.
    """

    # The DoFn that writes; its arguments are the same.
    _fn_type: "type[WriteBatches[Any]]"

    def __init__(
        self,
        table_id: str,
        schema: pa.Schema,
        retry_secs: float = 60.0,
        endpoint: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__()
        self._fn = self._fn_type(table_id, schema, retry_secs, endpoint, clock)


class WriteBatches(beam.DoFn, Generic[Rows]):
    """Converts the rows of batches, and writes them. Counts: rows_failed.

    A row that cannot be converted is a failure of stage "encode", and one that BigQuery refuses of stage "write"; both
    are in the window and at the time of their batch.
    """

    _clock: Callable[[], float]

    def process(
        self,
        batch: pa.RecordBatch,
        window: BoundedWindow = beam.DoFn.WindowParam,
        timestamp: Timestamp = beam.DoFn.TimestampParam,
    ) -> Iterator[Any]:
        when = datetime.datetime.fromtimestamp(self._clock(), datetime.UTC)
        converted: list[tuple[pa.RecordBatch, Rows]] = []

        def convert(part: pa.RecordBatch) -> None:
            converted.append((part, self._convert(part, when)))

        source = WindowedValue(batch, timestamp, (window,))
        for failure in write_rows(with_message_id(batch), convert):
            yield self._failed(source.with_value(failure))
        for part, rows in converted:
            yield from self._write(rows, source.with_value(part))

    def _convert(self, batch: pa.RecordBatch, predicted_at: datetime.datetime) -> Rows:
        """Returns the rows as they are sent.

        Raises:
          SluiceError: the table cannot hold one of them.
        """
        raise NotImplementedError

    def _write(self, rows: Rows, source: WindowedValue) -> Iterator[Any]:
        """Sends rows, at once or with those to come; yields failures of rows that BigQuery has refused so far.

        Args:
          source: the batch that they are of.
        """
        raise NotImplementedError

    def _refused(self, source: WindowedValue, row: int, error_type: str, message: str) -> Any:
        """Returns the failure of a row that BigQuery refuses, as it is yielded."""
        failure = scored_failure(source.value, row, WRITE, error_type, message)
        return self._failed(counted_failure(failure, source))

    def _failed(self, failure: WindowedValue) -> Any:
        """Returns the failure as it is yielded."""
        return failure
