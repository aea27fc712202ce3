"""Scored rows to a BigQuery table by the Storage Write API, as Arrow.

A batch job writes them to pending streams, one for each bundle, which nobody sees until TableCommitter commits those of
the bundles that succeeded. A streaming job writes them to the table's default stream, where they are seen at once.
https://cloud.google.com/bigquery/docs/write-api-batch and https://cloud.google.com/bigquery/docs/write-api-streaming
"""

import datetime
import time
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple, TypeAlias

import apache_beam as beam
import pyarrow as pa
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import Timestamp
from apache_beam.utils.windowed_value import WindowedValue

from sluice.transforms.bigquery import clients as bigquery_clients
from sluice.transforms.bigquery.append_rows import AppendOptions, AppendStream, Refused
from sluice.transforms.bigquery.table_columns import append_columns
from sluice.transforms.bigquery.write_streams import RowStream, make_stream, table_path
from sluice.transforms.core import metrics
from sluice.transforms.core.composite import Composite
from sluice.transforms.core.failures import WRITE, Failure
from sluice.transforms.core.messages import with_message_id
from sluice.transforms.encode.rows import scored_failure
from sluice.transforms.files.write import FAILURES, write_rows

_Failed: TypeAlias = beam.pvalue.TaggedOutput[Literal["failures"], Failure]


class WrittenRows(NamedTuple):
    """What writing batches gives: the `RowStream`s, and the rows that the table cannot hold."""

    streams: beam.PCollection
    failures: beam.PCollection


class WriteTableRows(Composite):
    """Writes RecordBatches to pending streams of a table; gives the `RowStream`s, which `TableCommitter` commits.

    Every row is in its bundle's stream once, or given as a failure, before the bundle is finished. The stream of a
    bundle that fails is never committed, and BigQuery drops it: see transforms.bigquery.write_streams.

    Args:
      table_id: PROJECT.DATASET.TABLE or PROJECT:DATASET.TABLE. It exists.
      schema: the columns to append: see transforms.bigquery.table_columns.append_schema.
      retry_secs: how long it is tried again what BigQuery does not take.
      endpoint: see transforms.bigquery.clients.write_client.
      clock: seconds since the epoch, for `_predicted_at`: the time at which a batch came here.
    """

    def __init__(
        self,
        table_id: str,
        schema: pa.Schema,
        retry_secs: float = 60.0,
        endpoint: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__()
        self._fn = _WritePending(table_id, schema, retry_secs, endpoint, clock)

    def expand(self, batches: beam.PCollection[pa.RecordBatch]) -> WrittenRows:
        written = batches | "Append" >> beam.ParDo(self._fn).with_outputs(FAILURES, main="streams")
        return WrittenRows(written.streams, written[FAILURES])


class WriteStreamTable(Composite):
    """Writes RecordBatches to a table's default stream; gives the `Failure`s of the rows that BigQuery refuses.

    Every row is in the table, or given as a failure, before its bundle is finished; a bundle fails whose rows BigQuery
    does not take in time. Rows are written at least once.

    For the arguments see WriteTableRows.
    """

    def __init__(
        self,
        table_id: str,
        schema: pa.Schema,
        retry_secs: float = 60.0,
        endpoint: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__()
        self._fn = _WriteDefault(table_id, schema, retry_secs, endpoint, clock)

    def expand(self, batches: beam.PCollection[pa.RecordBatch]) -> beam.PCollection[Failure]:
        return batches | "Append" >> beam.ParDo(self._fn)


class _Source(NamedTuple):
    batch: pa.RecordBatch
    window: Any
    timestamp: Timestamp


class AppendRows(beam.DoFn):
    """Appends rows to a stream that it opens when there are some. Counts: rows_failed.

    For the arguments see WriteTableRows.
    """

    def __init__(self, table_id: str, schema: pa.Schema, retry_secs: float, endpoint: str | None) -> None:
        self._table = table_path(table_id)
        self._schema = schema
        self._retry_secs = retry_secs
        self._endpoint = endpoint
        self._stream: AppendStream | None = None

    def setup(self) -> None:
        self._client = bigquery_clients.write_client(self._endpoint)

    def teardown(self) -> None:
        if self._stream is not None:
            self._stream.close()
        if hasattr(self, "_client"):  # setup may have failed
            bigquery_clients.close(self._client)

    def _open(self) -> AppendStream:
        """Returns the stream that rows go to."""
        if self._stream is None:
            name, offsets = self._make_stream()
            options = AppendOptions(self._retry_secs)
            self._stream = AppendStream(self._client, name, self._schema, options, offsets=offsets)
        return self._stream

    def _make_stream(self) -> tuple[str, bool]:
        """Returns a stream's name, and whether its rows have offsets."""
        raise NotImplementedError

    def _refuse(self, refused: list[Refused]) -> Iterator[Any]:
        """Yields what becomes of rows that BigQuery does not take."""
        raise NotImplementedError


class PendingRows(AppendRows):
    """Makes a stream for each bundle, on its first row; gives its `RowStream` at the bundle's end."""

    def _make_stream(self) -> tuple[str, bool]:
        self._name = make_stream(self._client, self._table, self._retry_secs)
        return self._name, True

    def start_bundle(self) -> None:
        if self._stream is not None:
            self._stream.close()
        self._stream = None

    def finish_bundle(self) -> Iterator[Any]:
        stream = self._stream
        if stream is None:
            return
        yield from self._refuse(stream.flush())
        stream.close()
        self._stream = None
        if stream.rows:
            record = RowStream(self._name, stream.rows, stream.size)
            yield WindowedValue(record, GlobalWindow().max_timestamp(), [GlobalWindow()])


class _WriteBatches(AppendRows):
    """Rows that the table cannot hold, and rows that BigQuery refuses, are failures."""

    def __init__(
        self, table_id: str, schema: pa.Schema, retry_secs: float, endpoint: str | None, clock: Callable[[], float]
    ) -> None:
        super().__init__(table_id, schema, retry_secs, endpoint)
        self._clock = clock

    def process(
        self,
        batch: pa.RecordBatch,
        window: Any = beam.DoFn.WindowParam,
        timestamp: Timestamp = beam.DoFn.TimestampParam,
    ) -> Iterator[Any]:
        when = datetime.datetime.fromtimestamp(self._clock(), datetime.UTC)
        parts: list[tuple[pa.RecordBatch, pa.RecordBatch]] = []

        def convert(part: pa.RecordBatch) -> None:
            parts.append((part, append_columns(part, self._schema, when)))

        for failure in write_rows(with_message_id(batch), convert) if batch.num_rows else ():
            yield self._failed(WindowedValue(failure, timestamp, (window,)))
        for part, rows in parts:
            yield from self._refuse(self._open().append(rows, _Source(part, window, timestamp)))

    def _failed(self, failure: WindowedValue) -> Any:
        """Returns the failure as it is given out."""
        raise NotImplementedError

    def _refuse(self, refused: list[Refused]) -> Iterator[Any]:
        """Yields the rows' failures, in the window and at the time of their batch."""
        for source, row, error_type, message in refused:
            metrics.count_failure(WRITE, error_type)
            failure = scored_failure(source.batch, row, WRITE, error_type, message)
            yield self._failed(WindowedValue(failure, source.timestamp, (source.window,)))


@beam.typehints.with_output_types(Failure)
class _WriteDefault(_WriteBatches):
    """Its connection outlives bundles, as BigQuery asks for."""

    def _make_stream(self) -> tuple[str, bool]:
        return f"{self._table}/streams/_default", False

    def _failed(self, failure: WindowedValue) -> WindowedValue:
        return failure

    def start_bundle(self) -> None:
        if self._stream is not None:
            self._stream.drop()  # what a bundle that failed has left behind

    def finish_bundle(self) -> Iterator[WindowedValue]:
        if self._stream is not None:
            yield from self._refuse(self._stream.flush())


class _WritePending(_WriteBatches, PendingRows):
    def _failed(self, failure: WindowedValue) -> _Failed:
        return beam.pvalue.TaggedOutput(FAILURES, failure)
