"""BigQuery to RecordBatches: one session of the Storage Read API, in Arrow, its streams spread over the workers."""

import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any

import apache_beam as beam
import pyarrow as pa
from google.api_core.exceptions import GoogleAPICallError, RetryError
from google.api_core.retry import exponential_sleep_generator
from google.cloud.bigquery_storage_v1 import types
from google.cloud.bigquery_storage_v1.services.big_query_read import BigQueryReadClient

from sluice.models.errors import SluiceError, UsageError
from sluice.transforms.bigquery.clients import close, read_client
from sluice.transforms.bigquery.read_session import TableInput, open_session, refusal, session_schema
from sluice.transforms.core.composite import Composite
from sluice.transforms.core.failures import FAILURES
from sluice.transforms.core.transient import TRANSIENT_ERRORS
from sluice.transforms.decode.conform import conform
from sluice.transforms.decode.ranges import SAMPLE_ROWS
from sluice.transforms.decode.spec import Decoded, InputSpec
from sluice.transforms.files.read import TALLY, Read, emit_decoded

_FIRST_PAUSE_SECS, _LAST_PAUSE_SECS = 0.1, 10.0


class ReadSession(Composite):
    """Reads a table, or a query's results, into RecordBatches of the columns in `spec`, with their origin beside them.

    The job's first step opens the session: each run of a job has its own, which lives for six hours, and whose rows are
    those of one moment. One worker reads each stream of the session; it goes on where a lost connection broke off. The
    origin of a row is TABLE#stream=N&row=N, its place in the session. That tells rows apart, but BigQuery rows have no
    row number by which to find them again; so a failure's payload is the row itself.

    Args:
      table: see transforms.bigquery.find_table.
      spec: the columns to read; `pipelines.plan` derives it.
      retry_secs: how long a stream that sends nothing is asked again.
    """

    def __init__(self, table: TableInput, spec: InputSpec, retry_secs: float = 300.0) -> None:
        super().__init__()
        self._table = table
        self._spec = spec
        self._retry_secs = retry_secs

    def expand(self, pbegin: beam.pvalue.PBegin) -> Read:
        streams = (
            pbegin
            | "Table" >> beam.Create([self._table])
            | "Session" >> beam.ParDo(_OpenSession(self._spec, self._retry_secs))
            | "Spread" >> beam.Reshuffle()
        )
        decode = beam.ParDo(_ReadStream(self._table, self._spec, self._retry_secs))
        read = streams | "Decode" >> decode.with_outputs(FAILURES, TALLY, main="rows")
        return Read(read.rows, read[FAILURES], read[TALLY])


@dataclasses.dataclass(frozen=True)
class Stream:
    """A part of a session.

    Attributes:
      name: BigQuery's.
      number: within its session.
      schema: Arrow's, serialized.
    """

    name: str
    number: int
    schema: bytes


def read_sample(table: TableInput, spec: InputSpec, retry_secs: float = 30.0) -> Decoded:
    """Returns the first rows of a table, as the job will read them; none of a query, which would have to run.

    Raises:
      UsageError: they cannot be read.
    """
    if not table.stored:
        return Decoded()
    client = read_client(table.storage_endpoint)
    try:
        streams = open_streams(client, table, spec, retry_secs, max_streams=1)
        parts = (part for stream in streams for part, _ in read_stream(client, stream, table, spec, retry_secs))
        first = next(parts, Decoded())
        parts.close()
    except SluiceError as error:
        raise UsageError(str(error)) from error
    finally:
        close(client)
    return Decoded([batch.slice(0, SAMPLE_ROWS) for batch in first.batches], first.failures[:SAMPLE_ROWS])


def open_streams(
    client: BigQueryReadClient, table: TableInput, spec: InputSpec, retry_secs: float, max_streams: int = 0
) -> list[Stream]:
    """Returns the streams of a new session of the columns in `spec`.

    Raises:
      SluiceError: BigQuery refuses to open one, or a column is missing.
    """
    columns = [name for name, _ in spec.columns] or [table.any_column]
    try:
        session = open_session(client, table, columns, retry_secs, max_streams)
    except (GoogleAPICallError, RetryError) as error:
        raise SluiceError(refusal(table, error)) from error
    missing = [name for name in columns if name not in session_schema(session).names]
    if missing:
        raise SluiceError(f"{table.label}: column '{missing[0]}' existed when the job was launched, and does no more")
    schema = session.arrow_schema.serialized_schema
    return [Stream(stream.name, number, schema) for number, stream in enumerate(session.streams)]


def read_stream(
    client: BigQueryReadClient,
    stream: Stream,
    table: TableInput,
    spec: InputSpec,
    retry_secs: float,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> Iterator[tuple[Decoded, int]]:
    """Yields (rows, bytes read) of a stream, every row once and in order.

    Args:
      clock: seconds, monotonic.
      pause: waits so many seconds.

    Raises:
      SluiceError: BigQuery refuses to go on, or sends nothing for `retry_secs`.
    """
    schema = pa.ipc.read_schema(pa.py_buffer(stream.schema))
    origin = f"{table.origin}#stream={stream.number}&row="
    position = 0
    for answer in _answers(client, stream, table, retry_secs, clock, pause):
        data = answer.arrow_record_batch.serialized_record_batch
        yield conform(pa.ipc.read_record_batch(pa.py_buffer(data), schema), spec, origin, position), len(data)
        position += answer.row_count


def _answers(
    client: BigQueryReadClient,
    stream: Stream,
    table: TableInput,
    retry_secs: float,
    clock: Callable[[], float],
    pause: Callable[[float], None],
) -> Iterator[types.ReadRowsResponse]:
    """Yields answers; when the connection breaks, calls again from the last answer.

    Google's ReadRowsStream does so too, but for ever, without a pause, and not for every transient error.
    """
    offset, failing_since = 0, None
    while True:
        call: Any = None
        try:
            call = client.read_rows(request={"read_stream": stream.name, "offset": offset}, retry=None, timeout=None)
            for answer in call:
                offset, failing_since = offset + answer.row_count, None
                yield answer
            return
        except TRANSIENT_ERRORS as error:
            if failing_since is None:
                failing_since, pauses = clock(), exponential_sleep_generator(_FIRST_PAUSE_SECS, _LAST_PAUSE_SECS)
            if (secs := clock() - failing_since) >= retry_secs:
                text = f"{table.label}: BigQuery has sent no rows for {secs:.0f} s: {error.message}"
                raise SluiceError(text) from error
            pause(next(pauses))
        except GoogleAPICallError as error:
            raise SluiceError(
                f"{table.label}: BigQuery stopped at row {offset} of stream {stream.name}: {error.message}. "
                "A session ends six hours after the job has begun to read: were there too few workers?"
            ) from error
        finally:
            if call is not None:
                call.cancel()


class _OpenSession(beam.DoFn):
    def __init__(self, spec: InputSpec, retry_secs: float) -> None:
        self._spec = spec
        self._retry_secs = retry_secs

    def process(self, table: TableInput) -> Iterator[Stream]:
        client = read_client(table.storage_endpoint)
        try:
            yield from open_streams(client, table, self._spec, self._retry_secs)
        finally:
            close(client)


class _ReadStream(beam.DoFn):
    """Counts: rows_read, bytes_read, rows_failed."""

    def __init__(self, table: TableInput, spec: InputSpec, retry_secs: float) -> None:
        self._table = table
        self._spec = spec
        self._retry_secs = retry_secs

    def setup(self) -> None:
        self._client = read_client(self._table.storage_endpoint)

    def process(self, stream: Stream) -> Iterator[Any]:
        return emit_decoded(read_stream(self._client, stream, self._table, self._spec, self._retry_secs))

    def teardown(self) -> None:
        if hasattr(self, "_client"):  # setup may have failed
            close(self._client)
