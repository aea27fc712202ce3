"""Scored rows to a BigQuery table by the Storage Write API, as Arrow.

A batch job writes to pending streams, one for each bundle. Nobody sees their rows until TableCommitter commits the
streams of the bundles that succeeded. A streaming job writes to the table's default stream; rows are visible at once.
https://cloud.google.com/bigquery/docs/write-api-batch and https://cloud.google.com/bigquery/docs/write-api-streaming
"""

import dataclasses
import datetime
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Generic, Literal, NamedTuple, TypeAlias

import apache_beam as beam
import pyarrow as pa
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue
from google.api_core.exceptions import NotFound, ResourceExhausted
from google.api_core.retry import Retry, if_exception_type
from google.cloud.bigquery_storage_v1.services.big_query_write import BigQueryWriteClient
from google.cloud.bigquery_storage_v1.types import WriteStream

from sluice.transforms.bigquery import append_pool, clients
from sluice.transforms.bigquery.append_requests import Source
from sluice.transforms.bigquery.append_rows import AppendOptions, AppendStream, Refused
from sluice.transforms.bigquery.sink import TableSink, WriteBatches
from sluice.transforms.bigquery.table import table_path
from sluice.transforms.bigquery.table_columns import append_columns
from sluice.transforms.core.failures import FAILURES, Failure
from sluice.transforms.core.transient import TRANSIENT_ERRORS

# BigQuery asks a project for fewer than 40 to 50 new streams a second, which its processes share; past that, an answer
# takes half a minute.
_STREAM_SECS = 0.1
# A project may make 10,000 streams an hour in each region; when it has, more become available within minutes.
# https://cloud.google.com/bigquery/quotas#write-api-limits
_QUOTA_SECS = 600.0
_FIRST_QUOTA_PAUSE_SECS, _LAST_QUOTA_PAUSE_SECS = 0.5, 60.0

_Failed: TypeAlias = beam.pvalue.TaggedOutput[Literal["failures"], Failure]


@dataclasses.dataclass(frozen=True)
class RowStream:
    """A stream that one bundle has finished, and that is not committed.

    Attributes:
      name: its full name.
      size: bytes.
    """

    name: str
    rows: int
    size: int


class WrittenRows(NamedTuple):
    """What writing batches returns: the `RowStream`s, and the `Failure`s of rows that the table cannot hold."""

    streams: beam.PCollection
    failures: beam.PCollection


class Pace:
    """Lets something happen only so often. Thread-safe."""

    def __init__(
        self,
        interval_secs: float,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._interval_secs, self._clock, self._pause = interval_secs, clock, pause
        self._lock = threading.Lock()
        self._next = -float("inf")

    def wait(self) -> None:
        """Returns when it may happen."""
        with self._lock:
            now = self._clock()
            turn = max(now, self._next)
            self._next = turn + self._interval_secs
        if turn > now:
            self._pause(turn - now)


_STREAMS_PACE = Pace(_STREAM_SECS)


def make_stream(client: BigQueryWriteClient, table: str, retry_secs: float, pace: Pace = _STREAMS_PACE) -> str:
    """Makes a pending stream; returns its full name.

    Args:
      table: projects/P/datasets/D/tables/T.
      retry_secs: how long the call is repeated; for ten minutes where the quota is used up.

    Raises:
      SluiceError: BigQuery makes none.
    """

    def make() -> str:
        pace.wait()
        stream = WriteStream(type_=WriteStream.Type.PENDING)
        options = {"retry": None, "timeout": clients.STORAGE_CALL_SECS}
        return str(client.create_write_stream(parent=table, write_stream=stream, **options).name)

    patient = Retry(
        if_exception_type(ResourceExhausted),
        initial=_FIRST_QUOTA_PAUSE_SECS,
        maximum=_LAST_QUOTA_PAUSE_SECS,
        timeout=_QUOTA_SECS,
    )
    with clients.storage_errors(f"a stream of {table} cannot be made"):
        return str(patient(clients.storage_retry(retry_secs, _may_pass)(make))())


def _may_pass(error: Exception) -> bool:
    """Whether to repeat the call: NOT_FOUND since not all servers see a new table; a used-up quota has its own time."""
    return isinstance(error, (*TRANSIENT_ERRORS, NotFound)) and not isinstance(error, ResourceExhausted)


class AppendRows(beam.DoFn, Generic[Source]):
    """Appends rows to a stream, which it opens when there are some.

    For the arguments see WriteTableRows.
    """

    def __init__(self, table_id: str, schema: pa.Schema, retry_secs: float, endpoint: str | None) -> None:
        self._table = table_path(table_id)
        self._schema = schema
        self._retry_secs = retry_secs
        self._endpoint = endpoint
        self._stream: AppendStream[Source] | None = None

    def setup(self) -> None:
        self._pool = append_pool.join(self._endpoint)

    def teardown(self) -> None:
        if self._stream is not None:
            self._stream.close()
        if hasattr(self, "_pool"):  # setup may have failed
            append_pool.leave(self._pool)
            del self._pool

    def _open(self) -> AppendStream[Source]:
        """Returns the stream that rows go to."""
        if self._stream is None:
            name, offsets = self._make_stream()
            options = AppendOptions(self._retry_secs)
            self._stream = AppendStream(self._pool, name, self._schema, options, offsets=offsets)
        return self._stream

    def _make_stream(self) -> tuple[str, bool]:
        """Returns a stream's name, and whether its rows have offsets."""
        raise NotImplementedError

    def _refuse(self, refused: list[Refused[Source]]) -> Iterator[Any]:
        """Yields what becomes of rows that BigQuery refuses."""
        raise NotImplementedError


class PendingRows(AppendRows[Source]):
    """Makes a stream for each bundle, on its first row; yields its `RowStream` at the bundle's end."""

    def _make_stream(self) -> tuple[str, bool]:
        self._name = make_stream(self._pool.client, self._table, self._retry_secs)
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


class _AppendBatches(WriteBatches[pa.RecordBatch], AppendRows[WindowedValue]):
    """Counts: rows_failed."""

    def __init__(
        self, table_id: str, schema: pa.Schema, retry_secs: float, endpoint: str | None, clock: Callable[[], float]
    ) -> None:
        super().__init__(table_id, schema, retry_secs, endpoint)
        self._clock = clock

    def _convert(self, batch: pa.RecordBatch, predicted_at: datetime.datetime) -> pa.RecordBatch:
        return append_columns(batch, self._schema, predicted_at)

    def _write(self, rows: pa.RecordBatch, source: WindowedValue) -> Iterator[Any]:
        yield from self._refuse(self._open().append(rows, source))

    def _refuse(self, refused: list[Refused[WindowedValue]]) -> Iterator[Any]:
        for source, row, error_type, message in refused:
            yield self._refused(source, row, error_type, message)


class _WritePending(_AppendBatches, PendingRows[WindowedValue]):
    def _failed(self, failure: WindowedValue) -> _Failed:
        return beam.pvalue.TaggedOutput(FAILURES, failure)


@beam.typehints.with_output_types(Failure)
class _WriteDefault(_AppendBatches):
    """Its connection outlives bundles, as BigQuery asks for, and is that of other threads too."""

    def _make_stream(self) -> tuple[str, bool]:
        return f"{self._table}/streams/_default", False

    def start_bundle(self) -> None:
        if self._stream is not None:
            self._stream.drop()  # what a bundle that failed has left behind

    def finish_bundle(self) -> Iterator[WindowedValue]:
        if self._stream is not None:
            yield from self._refuse(self._stream.flush())


class WriteTableRows(TableSink):
    """Writes RecordBatches to pending streams of a table; returns the `RowStream`s, which `TableCommitter` commits.

    Every row is in its bundle's stream once, or returned as a failure, before the bundle is finished. The stream of a
    bundle that fails is never committed, and BigQuery drops it: see transforms.bigquery.commit.

    Args:
      schema: see transforms.bigquery.table_columns.append_schema.
      endpoint: see transforms.bigquery.clients.write_client.

    For the others see TableSink.
    """

    _fn_type = _WritePending

    def expand(self, batches: beam.PCollection[pa.RecordBatch]) -> WrittenRows:
        written = batches | "Append" >> beam.ParDo(self._fn).with_outputs(FAILURES, main="streams")
        return WrittenRows(written.streams, written[FAILURES])


class WriteStreamTable(TableSink):
    """Writes RecordBatches to a table's default stream; returns the `Failure`s of the rows that BigQuery refuses.

    Every row is in the table, or returned as a failure, before its bundle is finished. A bundle fails if BigQuery does
    not accept its rows in time. Rows are written at least once.

    For the arguments see WriteTableRows.
    """

    _fn_type = _WriteDefault

    def expand(self, batches: beam.PCollection[pa.RecordBatch]) -> beam.PCollection[Failure]:
        return batches | "Append" >> beam.ParDo(self._fn)
