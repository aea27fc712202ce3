"""Scored rows of a stream to a BigQuery table by inserts; and the machinery for others, for write_failure_table.

By tabledata.insertAll, whose answer tells of every row by itself:
https://cloud.google.com/bigquery/docs/reference/rest/v2/tabledata/insertAll
Its limits (10 MB a request, 10 MB a row): https://cloud.google.com/bigquery/quotas#streaming_inserts
"""

import datetime
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import apache_beam as beam
import pyarrow as pa
from apache_beam.utils.timestamp import Timestamp
from apache_beam.utils.windowed_value import WindowedValue
from google.api_core.exceptions import Forbidden, GoogleAPIError, NotFound, RetryError
from google.api_core.retry import Retry, if_exception_type
from google.cloud import bigquery

from sluice.models.errors import SluiceError
from sluice.transforms.bigquery.table import open_client, parse_table_id
from sluice.transforms.bigquery.table_rows import MAX_ROW_BYTES, BatchRow, Row, coarse_schema, table_rows
from sluice.transforms.core import metrics
from sluice.transforms.core.batches import failure_of
from sluice.transforms.core.composite import Composite
from sluice.transforms.core.failures import WRITE, Failure
from sluice.transforms.core.messages import with_message_id
from sluice.transforms.files.write import write_rows

# Of a request. BigQuery recommends 500 rows; and the client's JSON, with a space after every comma, may be half as long
# again as what is counted here.
_MAX_ROWS = 500
_MAX_BYTES = 5_000_000
# A request that is not answered for so long is sent again.
_REQUEST_SECS = 30.0
_FIRST_PAUSE_SECS = 0.2

INSERT_ERROR = "InsertError"
ROW_TOO_LARGE = "RowTooLarge"
# Why a row is refused that may be taken the next time: "stopped" is a row whose neighbour was at fault.
_PASSING_REASONS = {"stopped", "timeout", "backendError", "internalError", "rateLimitExceeded", "quotaExceeded"}
_ACCESS_DENIED = "accessDenied"
# What BigQuery says of every row that has a column which the table lacks.
_NO_SUCH_FIELD = "no such field"


class WriteTable(Composite):
    """Inserts RecordBatches into a table; gives the `Failure`s of the rows that BigQuery refuses.

    Every row is written, or given as a failure, before its bundle is finished; a bundle fails whose rows BigQuery does
    not take in time. Rows are written at least once. Those of messages have their message's id as row id, by which
    BigQuery drops most doubles. `transforms.bigquery.write.WriteStreamTable` does without that, for far less a row.

    Args:
      table_id: PROJECT.DATASET.TABLE or PROJECT:DATASET.TABLE. It exists: see `transforms.bigquery.table.ensure_table`.
      schema: the columns to write. `_predicted_at`, the time at which a batch came here, is added to them.
      retry_secs: how long a request is repeated that BigQuery does not take. As long, too, if it has no such table:
        one that was made just now may not be seen by all of its servers.
      endpoint: see `transforms.bigquery.table.open_client`.
      clock: seconds since the epoch.
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
        self._fn = _WriteTable(table_id, schema, retry_secs, endpoint, clock)

    def expand(self, batches: beam.PCollection[pa.RecordBatch]) -> beam.PCollection[Failure]:
        return batches | "Insert" >> beam.ParDo(self._fn)


class InsertRows(beam.DoFn):
    """Inserts the rows that it is given, and returns from `finish_bundle` when each is in the table or refused."""

    def __init__(self, table_id: str, retry_secs: float, endpoint: str | None) -> None:
        parse_table_id(table_id)
        self._table_id = table_id
        self._retry_secs = retry_secs
        self._endpoint = endpoint
        self._waiting: list[tuple[Row, Any]] = []
        self._bytes = 0  # that wait

    def setup(self) -> None:
        self._table = TableWriter(self._table_id, self._retry_secs, self._endpoint)

    def start_bundle(self) -> None:
        self._waiting, self._bytes = [], 0  # drops what a bundle that failed has left behind

    def finish_bundle(self) -> Iterator[WindowedValue]:
        yield from self._send()

    def teardown(self) -> None:
        if hasattr(self, "_table"):  # setup may have failed
            self._table.close()

    def _insert(self, row: Row, source: Any) -> Iterator[WindowedValue]:
        """Sends the row with those to come, or at once; yields what `_refuse` does.

        Args:
          source: what `_refuse` gets if BigQuery does not take the row.
        """
        if self._bytes + row.size > _MAX_BYTES:
            yield from self._send()
        self._waiting.append((row, source))
        self._bytes += row.size
        if len(self._waiting) == _MAX_ROWS:
            yield from self._send()

    def _send(self) -> Iterator[WindowedValue]:
        waiting, self._waiting, self._bytes = self._waiting, [], 0
        for place, why in self._table.insert([row for row, _ in waiting]) if waiting else ():
            yield from self._refuse(waiting[place][1], why)

    def _refuse(self, source: Any, why: str) -> Iterator[WindowedValue]:
        """Yields what becomes of a row that BigQuery does not take."""
        raise NotImplementedError


class _Source(NamedTuple):
    row: BatchRow
    window: Any
    timestamp: Timestamp


@beam.typehints.with_output_types(Failure)
class _WriteTable(InsertRows):
    """Counts: rows_failed."""

    def __init__(
        self, table_id: str, schema: pa.Schema, retry_secs: float, endpoint: str | None, clock: Callable[[], float]
    ) -> None:
        super().__init__(table_id, retry_secs, endpoint)
        self._schema = coarse_schema(schema)
        self._clock = clock

    def process(
        self,
        batch: pa.RecordBatch,
        window: Any = beam.DoFn.WindowParam,
        timestamp: Timestamp = beam.DoFn.TimestampParam,
    ) -> Iterator[Failure]:
        rows: list[BatchRow] = []
        when = datetime.datetime.fromtimestamp(self._clock(), datetime.UTC)
        yield from write_rows(with_message_id(batch), lambda part: rows.extend(table_rows(part, self._schema, when)))
        for row in rows:
            if row.size > MAX_ROW_BYTES:
                text = f"the row is {row.size:,} bytes of JSON; BigQuery takes {MAX_ROW_BYTES:,}"
                yield _failed(row, ROW_TOO_LARGE, text)
            else:
                yield from self._insert(row, _Source(row, window, timestamp))

    def _refuse(self, source: _Source, why: str) -> Iterator[WindowedValue]:
        """Gives the row's failure, in the window and at the time of its batch."""
        yield WindowedValue(_failed(source.row, INSERT_ERROR, why), source.timestamp, (source.window,))


def _failed(row: BatchRow, error_type: str, message: str) -> Failure:
    metrics.count_failure(WRITE, error_type)
    return failure_of(row.batch, row.number, WRITE, error_type, message)


class _NotYet(Exception):
    """BigQuery did not take some rows, and may the next time."""


class TableWriter:
    """An open table that rows are inserted into."""

    def __init__(self, table_id: str, retry_secs: float, endpoint: str | None = None) -> None:
        self._reference = parse_table_id(table_id)
        self._name = str(self._reference)
        self._client = open_client(self._reference.project, endpoint)
        self._retry_secs = retry_secs
        self._retry_call = bigquery.DEFAULT_RETRY.with_timeout(retry_secs)
        self._retry_rows = Retry(
            if_exception_type(NotFound, _NotYet), initial=_FIRST_PAUSE_SECS, maximum=_REQUEST_SECS, timeout=retry_secs
        )

    def close(self) -> None:
        self._client.close()

    def insert(self, rows: Sequence[Row]) -> list[tuple[int, str]]:
        """Inserts rows; returns those that BigQuery refuses: the place in `rows`, and why.

        Raises:
          SluiceError: it does not take them, within the time that it has; some of them may be in the table.
        """
        refused: dict[int, str] = {}
        left = list(range(len(rows)))

        def attempt() -> None:
            nonlocal left
            passing = {}
            for answer in self._call([rows[place] for place in left]):
                place, why = left[answer["index"]], _reasons(answer["errors"])
                if {error.get("reason") for error in answer["errors"]} <= _PASSING_REASONS:
                    passing[place] = why
                else:
                    refused[place] = why
            left = sorted(passing)
            if left:
                raise _NotYet(passing[left[0]])

        self._checked(self._retry_rows(attempt), len(rows))
        return sorted(refused.items())

    def _call(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        answers = self._client.insert_rows_json(
            self._reference,
            [row.values for row in rows],
            row_ids=[row.id for row in rows],
            skip_invalid_rows=True,
            retry=self._retry_call,
            timeout=_REQUEST_SECS,
        )
        for error in (error for answer in answers for error in answer["errors"]):
            if str(error.get("message", "")).startswith(_NO_SUCH_FIELD):
                raise SluiceError(
                    f"table {self._name} lacks a column that the job writes: {_reasons([error])}; add it to the "
                    "table, or name one that is not there yet"
                )
        return list(answers)

    def _checked(self, insert: Callable[[], None], rows: int) -> None:
        try:
            insert()
        except GoogleAPIError as error:
            cause = error.cause if isinstance(error, RetryError) and error.cause else error
            if isinstance(cause, NotFound):
                text = f"table {self._name} is not there: {_text(cause)}; start the job anew, which makes it"
            elif isinstance(cause, Forbidden) and _ACCESS_DENIED in _codes(cause):
                text = f"table {self._name} may not be written to: {_text(cause)}; roles/bigquery.dataEditor allows it"
            elif isinstance(error, RetryError):
                text = f"table {self._name}: {rows} rows were not taken within {self._retry_secs:g} s: {_text(cause)}"
            else:
                text = f"table {self._name}: BigQuery refuses a request of {rows} rows: {_text(cause)}"
            raise SluiceError(text) from error


def _codes(error: Forbidden) -> set[str]:
    return {each.get("reason", "") for each in error.errors}


def _reasons(errors: Sequence[dict[str, Any]]) -> str:
    return "; ".join(_reason(error) for error in errors)


def _reason(error: dict[str, Any]) -> str:
    place = f"column '{error['location']}': " if error.get("location") else ""
    return f"{place}{error.get('message') or 'no reason is given'} ({error.get('reason') or 'no code'})"


def _text(error: BaseException) -> str:
    if isinstance(error, _NotYet):
        return str(error)
    return f"{type(error).__name__}: {getattr(error, 'message', None) or error}"
