"""Rows appended to a stream of a BigQuery table, as Arrow and with several requests under way.

https://cloud.google.com/bigquery/docs/write-api
https://cloud.google.com/bigquery/docs/write-api-best-practices
"""

import dataclasses
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Generic, NamedTuple

import numpy as np
import pyarrow as pa
from google.api_core.exceptions import GoogleAPICallError
from google.api_core.retry import exponential_sleep_generator
from google.cloud.bigquery_storage_v1.types import AppendRowsResponse

from sluice.models.errors import SluiceError
from sluice.transforms.bigquery.append_connection import code_name, storage_codes
from sluice.transforms.bigquery.append_lane import Lane
from sluice.transforms.bigquery.append_pool import AppendPool
from sluice.transforms.bigquery.append_requests import REQUEST_BYTES, Part, Request, RequestQueue, Source, cut_part
from sluice.transforms.bigquery.table import MAX_ROW_BYTES, NO_SUCH_FIELD, ROW_TOO_LARGE
from sluice.transforms.core.transient import TRANSIENT_CODES

_LOG = logging.getLogger(__name__)

APPEND_ERROR = "AppendError"

_MAX_UNDER_WAY = 4
# Requests more than one that finding the rows at fault may cost, where BigQuery does not name them.
_MAX_ISOLATION_CALLS = 256

_FIRST_BACKOFF_SECS, _LAST_BACKOFF_SECS = 0.1, 10.0
# What passes before that is not worth a line in the log.
_TRIES_BEFORE_WARNING = 6

# Besides what may pass with any of Google's services: NOT_FOUND, for a table that was made just now and that not all
# servers see; OUT_OF_RANGE, for an offset behind a request that was lost; UNAUTHENTICATED, for a connection whose token
# has run out; FAILED_PRECONDITION, which Google's own writer repeats too.
# https://github.com/googleapis/java-bigquerystorage, ConnectionWorker.isConnectionErrorRetriable
_TRANSIENT = TRANSIENT_CODES | {"FAILED_PRECONDITION", "NOT_FOUND", "OUT_OF_RANGE", "UNAUTHENTICATED"}
# May pass too: the table may have got the column just now.
_EXTRA_FIELDS = "SCHEMA_MISMATCH_EXTRA_FIELDS"
_REMEDIES = {
    "NOT_FOUND": "if the table is gone, start the job anew, which makes it",
    "PERMISSION_DENIED": "roles/bigquery.dataEditor allows it",
    "UNAUTHENTICATED": "the account that the job runs as needs valid credentials",
    "INVALID_ARGUMENT": "if the table's columns were changed, start the job anew, which checks them",
}


@dataclasses.dataclass(frozen=True)
class AppendOptions:
    """How long the service may be away.

    Attributes:
      retry_secs: how long a request is repeated; every request that succeeds begins the time anew.
      request_secs: a connection without an answer for so long is ended, and what it owes is sent over another.
      settle_secs: instead of `retry_secs`, where a table, or a column of it, may be so new that BigQuery does not see
        it yet; that takes some minutes.
    """

    retry_secs: float = 60.0
    request_secs: float = 60.0
    settle_secs: float = 600.0


class Refused(NamedTuple, Generic[Source]):
    """A row that BigQuery does not accept.

    Attributes:
      source: that it was appended with.
      row: its place in the batch.
    """

    source: Source
    row: int
    error_type: str
    message: str


def _backoff() -> Iterator[float]:
    return exponential_sleep_generator(_FIRST_BACKOFF_SECS, _LAST_BACKOFF_SECS)


class AppendStream(Generic[Source]):
    """An open stream. Not thread-safe.

    With offsets, which a stream has that was made for one writer, every row is in the stream once. Without them, in a
    table's default stream, it is there one or more times.

    Args:
      pool: whose connections it uses.
      name: projects/P/datasets/D/tables/T/streams/S.
      schema: of all batches.
      clock: seconds, monotonic.
      pause: waits so many seconds.
      backoff: returns an iterator over pauses, in seconds.

    Attributes:
      rows: how many are in the stream.
      size: their bytes.
    """

    def __init__(
        self,
        pool: AppendPool,
        name: str,
        schema: pa.Schema,
        options: AppendOptions,
        *,
        offsets: bool,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
        backoff: Callable[[], Iterator[float]] = _backoff,
    ) -> None:
        self.rows = self.size = 0
        self._pool, self._schema = pool, schema.serialize().to_pybytes()
        self._name, self._options, self._offsets = name, options, offsets
        self._clock, self._pause, self._backoff = clock, pause, backoff
        self._lane: Lane | None = None
        self._queue: RequestQueue[Source] = RequestQueue()
        self.drop()

    def append(self, batch: pa.RecordBatch, source: Source) -> list[Refused[Source]]:
        """Sends the rows, at once or with those to come; returns refused rows, of this call or of earlier ones.

        Args:
          source: comes back with each row that is refused.

        Raises:
          SluiceError: BigQuery accepts no rows at all, or did not do so in time.
        """
        for part in cut_part(Part(batch, source, np.arange(batch.num_rows))):
            size = part.batch.nbytes
            if size > MAX_ROW_BYTES and part.batch.num_rows == 1:
                text = f"the row is {size:,} bytes; BigQuery accepts {MAX_ROW_BYTES:,} at most"
                self._refused.append(Refused(source, int(part.rows[0]), ROW_TOO_LARGE, text))
                continue
            if self._gathered and self._gathered_bytes + size > REQUEST_BYTES:
                self._send()
            self._gathered.append(part)
            self._gathered_bytes += size
        return self._take_refused()

    def flush(self) -> list[Refused[Source]]:
        """Returns when every row is in the stream or refused; returns and raises as `append` does."""
        if self._gathered:
            self._send()
        while self._queue:
            self._receive()
        self._isolation_calls = _MAX_ISOLATION_CALLS
        return self._take_refused()

    def drop(self) -> None:
        """Forgets the rows that are not known to be in the stream."""
        if not self._queue.is_idle:
            self.close()
        self._queue.clear()
        self._gathered: list[Part[Source]] = []
        self._gathered_bytes = 0
        self._refused: list[Refused[Source]] = []
        self._isolation_calls = _MAX_ISOLATION_CALLS
        self._recovered()

    def close(self) -> None:
        """Leaves the connection, and ends one that is of this stream alone."""
        if self._lane is not None:
            self._lane.close()
        self._lane = None
        self._queue.take_back()

    def _take_refused(self) -> list[Refused[Source]]:
        refused, self._refused = self._refused, []
        return refused

    def _send(self) -> None:
        parts, self._gathered, self._gathered_bytes = self._gathered, [], 0
        self._queue.add(Request.of(parts))
        self._push()
        while len(self._queue) >= _MAX_UNDER_WAY:
            self._receive()

    def _push(self) -> Lane:
        """Sends what waits, as far as it may be under way; returns where the answers come from."""
        if self._lane is None:
            secs = self._options.request_secs
            self._lane = self._pool.lane(self._name, self._schema, secs, is_own=self._offsets)
        for request, ahead in self._queue.send(_MAX_UNDER_WAY):
            self._lane.send(request.data, self.rows + ahead if self._offsets else None)
        return self._lane

    def _receive(self) -> None:
        """Waits for one answer, and does what it asks for."""
        lane = self._push()
        try:
            answer = lane.receive()
        except GoogleAPICallError as error:
            self.close()
            code = error.grpc_status_code.name if error.grpc_status_code else type(error).__name__
            if not self._is_in(code):
                self._wait(code, str(error.message), storage_codes(error.details))
                return
        else:
            if self._queue.skip_superseded():
                return
            code = code_name(answer.error.code)
            if answer.error.code and not self._is_in(code):
                self._refuse(answer, code)
                return
        self._accept()

    def _is_in(self, code: str) -> bool:
        """Whether an error says that the first request's rows are in the stream already."""
        return code == "ALREADY_EXISTS" and self._offsets

    def _accept(self) -> None:
        request = self._queue.accept()
        self.rows += request.rows
        self.size += len(request.data)
        self._recovered()

    def _recovered(self) -> None:
        """Begins the time for retries anew."""
        self._failing_since: float | None = None
        self._tries = 0
        self._pauses = self._backoff()

    def _refuse(self, answer: AppendRowsResponse, code: str) -> None:
        """Has the first request's good rows sent again, all of it if no row is at fault."""
        request, storage = self._queue.first, storage_codes(answer.error.details)
        message = str(answer.error.message)
        errors = {error.index: error.message for error in answer.row_errors if 0 <= error.index < request.rows}
        if any(each.startswith(NO_SUCH_FIELD) for each in errors.values()):  # every row has that error
            self._replace([request])
            self._wait("INVALID_ARGUMENT", next(iter(errors.values())), storage)
        elif errors:
            self._replace(self._without(request, errors))
        elif code == "INVALID_ARGUMENT" and not storage:
            self._replace(self._halves(request, message))
        else:
            self._replace([request])
            self._wait(code, message, storage)

    def _replace(self, requests: Sequence[Request[Source]]) -> None:
        self._queue.replace(requests, in_place=self._offsets)

    def _without(self, request: Request[Source], errors: Mapping[int, str]) -> list[Request[Source]]:
        for place, source, row in request.find(errors):
            self._refused.append(Refused(source, row, APPEND_ERROR, errors[place]))
        return request.without(errors)

    def _halves(self, request: Request[Source], message: str) -> list[Request[Source]]:
        """Returns the request's halves, or none if its rows are refused.

        models.isolate would wait for each part's answer; these go out with the other requests under way.
        """
        if request.rows == 1:
            return self._without(request, {0: message})
        if self._isolation_calls < 2:
            note = f"not isolated: one or more of {request.rows} rows sent together; {message}"
            return self._without(request, dict.fromkeys(range(request.rows), note))
        self._isolation_calls -= 2
        return request.halves()

    def _wait(self, code: str, message: str, storage: set[str]) -> None:
        """Waits before the next try.

        Raises:
          SluiceError: the error does not pass, or has not for long enough.
        """
        said = f"rows cannot be appended to {self._name}: {code}: {message}"
        remedy = f"; {_REMEDIES[code]}" if code in _REMEDIES else ""
        now = self._clock()
        self._failing_since = now if self._failing_since is None else self._failing_since
        patience_secs = self._patience_secs(code, storage)
        left_secs = patience_secs - (now - self._failing_since)
        if code not in _TRANSIENT and _EXTRA_FIELDS not in storage:
            raise SluiceError(f"{said}{remedy}")
        if left_secs <= 0:
            raise SluiceError(f"{said} (tried {self._tries + 1} times, for {patience_secs:g} s){remedy}")
        self._tries += 1
        _LOG.log(logging.WARNING if self._tries == _TRIES_BEFORE_WARNING else logging.DEBUG, "%s; trying again", said)
        self._pause(min(next(self._pauses), left_secs))

    def _patience_secs(self, code: str, storage: set[str]) -> float:
        new_table = code == "NOT_FOUND" and not self.rows
        return self._options.settle_secs if new_table or _EXTRA_FIELDS in storage else self._options.retry_secs
