"""Rows to a BigQuery table by inserts: scored rows of a stream, and, for write_failures, failures.

tabledata.insertAll answers for every row by itself:
https://cloud.google.com/bigquery/docs/reference/rest/v2/tabledata/insertAll
Its limits (10 MB a request, 10 MB a row): https://cloud.google.com/bigquery/quotas#streaming_inserts
"""

import collections
import dataclasses
import datetime
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import apache_beam as beam
import orjson
import pyarrow as pa
from apache_beam.utils.windowed_value import WindowedValue
from google.api_core.exceptions import Forbidden, GoogleAPIError, NotFound, RetryError
from google.api_core.retry import Retry, if_exception_type

from sluice.models.errors import SluiceError
from sluice.models.reserved import MESSAGE_ID
from sluice.transforms.bigquery.clients import TRANSIENT_REASONS, call_options, open_client
from sluice.transforms.bigquery.sink import TableSink, WriteBatches
from sluice.transforms.bigquery.table import (
    MAX_ROW_BYTES,
    NO_SUCH_FIELD,
    PREDICTED_AT,
    ROW_TOO_LARGE,
    parse_table_id,
)
from sluice.transforms.core.failures import Failure
from sluice.transforms.encode.base import OutputSpec, in_micros, map_leaves, shown_type
from sluice.transforms.encode.json import JsonEncoder

INSERT_ERROR = "InsertError"

# Of a request. BigQuery recommends 500 rows. The client's JSON has a space after every comma, and so may be half as
# long again as what is counted here.
_MAX_ROWS = 500
_MAX_BYTES = 5_000_000
# A request without an answer for so long is sent again.
_REQUEST_SECS = 30.0
_FIRST_PAUSE_SECS = 0.2
# Those of rows besides. "stopped" is a row whose neighbour was at fault; a quota is there again after a minute.
_TRANSIENT_REASONS = TRANSIENT_REASONS | {"quotaExceeded", "stopped", "timeout"}
_ACCESS_DENIED = "accessDenied"
# Up to this size, a text's length is close enough to that of what the client makes of it, which has spaces too.
_SMALL_BYTES = 100_000
# Larger whole numbers are changed where JSON's numbers are read as float64; as text they are not.
_MAX_EXACT = 1 << 53

Source = TypeVar("Source")


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """A row on its way into a table.

    Attributes:
      values: as insertAll accepts them.
      size: bytes of the values as JSON.
      id: BigQuery drops rows whose id it has just seen; None: this one is never dropped.
    """

    values: dict[str, Any]
    size: int
    id: str | None


def coarse_schema(schema: pa.Schema) -> pa.Schema:
    """Returns the schema with microseconds for nanoseconds: BigQuery's times are no finer."""
    return pa.schema([field.with_type(map_leaves(shown_type(field.type), _coarse)) for field in schema])


def table_rows(batch: pa.RecordBatch, schema: pa.Schema, predicted_at: datetime.datetime) -> list[Row]:
    """Returns a batch's rows as insertAll accepts them, in order.

    Args:
      schema: which columns, with types from `coarse_schema`.
      predicted_at: in UTC.

    Raises:
      SluiceError: a column is missing, or has a value that its type or JSON cannot hold.
    """
    file = io.BytesIO()
    JsonEncoder(file, OutputSpec("jsonl", schema)).write(batch)
    when = predicted_at.isoformat(timespec="microseconds")
    return [
        _row(text, row_id, when)
        for text, row_id in zip(file.getvalue().split(b"\n")[:-1], _row_ids(batch), strict=True)
    ]


def _row(text: bytes, row_id: str | None, predicted_at: str) -> Row:
    try:
        values = insertable(orjson.loads(text)) | {PREDICTED_AT: predicted_at}
    except orjson.JSONDecodeError as error:
        raise SluiceError(f"the row holds text that is not UTF-8: {error}") from error
    is_small = len(text) <= _SMALL_BYTES and text.isascii()
    return Row(values, len(text) if is_small else len(json.dumps(values)), row_id)


def insertable(value: object) -> Any:
    """Returns a JSON value without fields that are null: insertAll refuses REPEATED ones that are."""
    if isinstance(value, dict):
        return {name: insertable(entry) for name, entry in value.items() if entry is not None}
    if isinstance(value, list):
        return [insertable(entry) for entry in value]
    if isinstance(value, int) and abs(value) > _MAX_EXACT:
        return str(value)
    return value


def _row_ids(batch: pa.RecordBatch) -> Sequence[str | None]:
    """Returns the ids of the rows' messages; None for rows that share one, or BigQuery would drop all but the first."""
    index = batch.schema.get_field_index(MESSAGE_ID)
    if index < 0:
        return [None] * batch.num_rows
    ids = batch.column(index).to_pylist()
    times = collections.Counter(ids)
    return [each if each and times[each] == 1 else None for each in ids]


def _coarse(kind: pa.DataType) -> pa.DataType:
    return in_micros(kind) if getattr(kind, "unit", "") == "ns" else kind


class InsertRows(beam.DoFn, Generic[Source]):
    """Inserts rows. When `finish_bundle` returns, each is in the table or refused.

    For the arguments see WriteTable.
    """

    def __init__(self, table_id: str, retry_secs: float, endpoint: str | None) -> None:
        parse_table_id(table_id)
        self._table_id = table_id
        self._retry_secs = retry_secs
        self._endpoint = endpoint
        self._waiting: list[tuple[Row, Source]] = []
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

    def _insert(self, row: Row, source: Source) -> Iterator[WindowedValue]:
        """Sends the row, at once or with those to come; yields what `_refuse` does.

        Args:
          source: what `_refuse` gets if BigQuery refuses the row.
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

    def _refuse(self, source: Source, why: str) -> Iterator[WindowedValue]:
        """Yields what becomes of a row that BigQuery refuses."""
        raise NotImplementedError


@beam.typehints.with_output_types(Failure)
class _WriteTable(WriteBatches[list[Row]], InsertRows[tuple[WindowedValue, int]]):
    """Counts: rows_failed."""

    def __init__(
        self, table_id: str, schema: pa.Schema, retry_secs: float, endpoint: str | None, clock: Callable[[], float]
    ) -> None:
        super().__init__(table_id, retry_secs, endpoint)
        self._schema = coarse_schema(schema)
        self._clock = clock

    def _convert(self, batch: pa.RecordBatch, predicted_at: datetime.datetime) -> list[Row]:
        return table_rows(batch, self._schema, predicted_at)

    def _write(self, rows: list[Row], source: WindowedValue) -> Iterator[WindowedValue]:
        for number, row in enumerate(rows):
            if row.size > MAX_ROW_BYTES:
                text = f"the row is {row.size:,} bytes of JSON; BigQuery accepts {MAX_ROW_BYTES:,} at most"
                yield self._refused(source, number, ROW_TOO_LARGE, text)
            else:
                yield from self._insert(row, (source, number))

    def _refuse(self, source: tuple[WindowedValue, int], why: str) -> Iterator[WindowedValue]:
        batch, number = source
        yield self._refused(batch, number, INSERT_ERROR, why)


class WriteTable(TableSink):
    """Inserts RecordBatches into a table; returns the `Failure`s of the rows that BigQuery refuses.

    Every row is written, or returned as a failure, before its bundle is finished. A bundle fails if BigQuery does not
    accept its rows in time. Rows are written at least once. Rows of messages have their message's id as row id, by
    which BigQuery drops most duplicates. `transforms.bigquery.write.WriteStreamTable` does not, at far less cost a row.

    Args:
      schema: the columns to write. `_predicted_at` is added to them.
      retry_secs: also for a table that does not exist: not all of BigQuery's servers may see one that was made just
        now.
      endpoint: see transforms.bigquery.clients.open_client.

    For the others see TableSink.
    """

    _fn_type = _WriteTable

    def expand(self, batches: beam.PCollection[pa.RecordBatch]) -> beam.PCollection[Failure]:
        return batches | "Insert" >> beam.ParDo(self._fn)


class _NotYet(Exception):
    """BigQuery did not accept some rows, and may the next time."""


class TableWriter:
    """An open table that rows are inserted into."""

    def __init__(self, table_id: str, retry_secs: float, endpoint: str | None = None) -> None:
        self._reference = parse_table_id(table_id)
        self._name = str(self._reference)
        self._client = open_client(self._reference.project, endpoint)
        self._retry_secs = retry_secs
        self._call_options = call_options(retry_secs, _REQUEST_SECS)
        self._retry_rows = Retry(
            if_exception_type(NotFound, _NotYet), initial=_FIRST_PAUSE_SECS, maximum=_REQUEST_SECS, timeout=retry_secs
        )

    def close(self) -> None:
        self._client.close()

    def insert(self, rows: Sequence[Row]) -> list[tuple[int, str]]:
        """Inserts rows; returns those that BigQuery refuses: the place in `rows`, and why.

        Raises:
          SluiceError: BigQuery does not accept the request in time; some of its rows may be in the table.
        """
        refused: dict[int, str] = {}
        left = list(range(len(rows)))

        def attempt() -> None:
            nonlocal left
            passing = {}
            for answer in self._call([rows[place] for place in left]):
                place, why = left[answer["index"]], _reasons(answer["errors"])
                if {error.get("reason") for error in answer["errors"]} <= _TRANSIENT_REASONS:
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
            **self._call_options,
        )
        for error in (error for answer in answers for error in answer["errors"]):
            if str(error.get("message", "")).startswith(NO_SUCH_FIELD):
                raise SluiceError(
                    f"table {self._name} lacks a column that the job writes: {_reasons([error])}; add it to the "
                    "table, or name one that does not exist yet"
                )
        return list(answers)

    def _checked(self, insert: Callable[[], None], rows: int) -> None:
        try:
            insert()
        except GoogleAPIError as error:
            cause = error.cause if isinstance(error, RetryError) and error.cause else error
            if isinstance(cause, NotFound):
                text = f"table {self._name} does not exist: {_text(cause)}; start the job anew, which makes it"
            elif isinstance(cause, Forbidden) and _ACCESS_DENIED in _codes(cause):
                text = f"table {self._name} may not be written to: {_text(cause)}; roles/bigquery.dataEditor allows it"
            elif isinstance(error, RetryError):
                text = (
                    f"table {self._name}: {rows} rows were not accepted within {self._retry_secs:g} s: {_text(cause)}"
                )
            else:
                text = f"table {self._name}: BigQuery refuses a request of {rows} rows: {_text(cause)}"
            raise SluiceError(text) from error


def _codes(error: Forbidden) -> set[str]:
    return {each.get("reason", "") for each in error.errors}


def _reasons(errors: Sequence[Mapping[str, Any]]) -> str:
    return "; ".join(_reason(error) for error in errors)


def _reason(error: Mapping[str, Any]) -> str:
    place = f"column '{error['location']}': " if error.get("location") else ""
    return f"{place}{error.get('message') or 'no reason is given'} ({error.get('reason') or 'no code'})"


def _text(error: BaseException) -> str:
    if isinstance(error, _NotYet):
        return str(error)
    return f"{type(error).__name__}: {getattr(error, 'message', None) or error}"
