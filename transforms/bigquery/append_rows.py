"""Rows appended to a stream of a BigQuery table, as Arrow and with several requests under way.

https://cloud.google.com/bigquery/docs/write-api
https://cloud.google.com/bigquery/docs/write-api-best-practices
"""

import collections
import dataclasses
import itertools
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from google.api_core.exceptions import GoogleAPICallError

from sluice.models.errors import SluiceError
from sluice.transforms.bigquery.append_connection import Connection, code_name, storage_codes
from sluice.transforms.bigquery.append_requests import MAX_ROW_BYTES, REQUEST_BYTES, Part, Request, cut_part
from sluice.transforms.bigquery.write_inserts import ROW_TOO_LARGE

_LOG = logging.getLogger(__name__)

APPEND_ERROR = "AppendError"

_MAX_UNDER_WAY = 4
# Requests more than one that finding the rows at fault may cost, where BigQuery does not name them.
_MAX_ISOLATION_CALLS = 256

_FIRST_BACKOFF_SECS = 0.1
_LAST_BACKOFF_SECS = 10.0
# What has passed by then is not worth a line in the log.
_TRIES_BEFORE_WARNING = 6

# What may pass when it is tried again: what ends a connection (ABORTED one that was idle, UNAUTHENTICATED one whose
# token has run out); a table that was made just now and is not seen by all servers; an offset behind a request that was
# lost (OUT_OF_RANGE).
# https://github.com/googleapis/java-bigquerystorage, ConnectionWorker.isConnectionErrorRetriable
_TRANSIENT = {
    "ABORTED",
    "CANCELLED",
    "DEADLINE_EXCEEDED",
    "FAILED_PRECONDITION",
    "INTERNAL",
    "NOT_FOUND",
    "OUT_OF_RANGE",
    "RESOURCE_EXHAUSTED",
    "UNAUTHENTICATED",
    "UNAVAILABLE",
    "UNKNOWN",
}
# It may be that the table has got the column just now.
_EXTRA_FIELDS = "SCHEMA_MISMATCH_EXTRA_FIELDS"
# What a row error says of a column that the table lacks; then every row has it.
_NO_SUCH_FIELD = "no such field"
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
      retry_secs: what is not taken is tried again for so long; every request that is taken begins the time anew.
      request_secs: a request that is not answered for so long is sent again, over another connection.
      settle_secs: instead of `retry_secs`, where a table, or a column of it, may be so new that BigQuery does not see
        it yet, for which it takes some minutes.
    """

    retry_secs: float = 60.0
    request_secs: float = 60.0
    settle_secs: float = 600.0


class Refused(NamedTuple):
    """A row that is not taken.

    Attributes:
      source: that it was appended with.
      row: its place in the batch.
    """

    source: Any
    row: int
    error_type: str
    message: str


class AppendStream:
    """An open stream. Not thread-safe.

    With offsets, which a stream has that was made for one writer, every row is in it once; without them, in a table's
    default stream, one or more times.

    Args:
      client: see transforms.bigquery.clients.write_client.
      name: projects/P/datasets/D/tables/T/streams/S.
      schema: of all batches.
      clock: seconds, monotonic.
      pause: waits so many seconds.
      uniform: in [0, 1).

    Attributes:
      rows: that are in the stream.
      size: bytes of them.
    """

    def __init__(
        self,
        client: Any,
        name: str,
        schema: pa.Schema,
        options: AppendOptions,
        *,
        offsets: bool,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        self.rows = self.size = 0
        self._client, self._schema = client, schema.serialize().to_pybytes()
        self._name, self._options, self._offsets = name, options, offsets
        self._clock, self._pause, self._uniform = clock, pause, uniform
        self._connection: Connection | None = None
        self._under_way = self._stale = 0
        self.drop()

    def append(self, batch: pa.RecordBatch, source: Any) -> list[Refused]:
        """Sends the rows with those to come, or at once; returns rows, of this call or others before, that are refused.

        Args:
          source: comes back with each row that is refused.

        Raises:
          SluiceError: BigQuery takes no rows at all, or did not do so in time.
        """
        for part in cut_part(Part(batch, source, np.arange(batch.num_rows))):
            size = part.batch.nbytes
            if size > MAX_ROW_BYTES and part.batch.num_rows == 1:
                text = f"the row is {size:,} bytes; BigQuery takes {MAX_ROW_BYTES:,}"
                self._refused.append(Refused(source, int(part.rows[0]), ROW_TOO_LARGE, text))
                continue
            if self._gathered and self._gathered_bytes + size > REQUEST_BYTES:
                self._send()
            self._gathered.append(part)
            self._gathered_bytes += size
        return self._take_refused()

    def flush(self) -> list[Refused]:
        """Returns when every row is in the stream or refused, likewise."""
        if self._gathered:
            self._send()
        while self._waiting:
            self._receive()
        self._isolation_calls = _MAX_ISOLATION_CALLS
        return self._take_refused()

    def drop(self) -> None:
        """Forgets the rows that are not known to be in the stream."""
        if self._connection is not None and self._under_way:
            self.close()
        self._failing_since: float | None = None
        self._tries = 0
        self._gathered: list[Part] = []
        self._gathered_bytes = 0
        self._refused: list[Refused] = []
        # In the order of the stream; the first `_under_way` of them are sent. `_stale` answers are to come besides.
        self._waiting: collections.deque[Request] = collections.deque()
        self._isolation_calls = _MAX_ISOLATION_CALLS

    def close(self) -> None:
        """Ends the connection."""
        if self._connection is not None:
            self._connection.close()
        self._connection, self._under_way, self._stale = None, 0, 0

    def _take_refused(self) -> list[Refused]:
        refused, self._refused = self._refused, []
        return refused

    def _send(self) -> None:
        parts, self._gathered, self._gathered_bytes = self._gathered, [], 0
        self._waiting.append(Request.of(parts))
        self._push()
        while len(self._waiting) >= _MAX_UNDER_WAY:
            self._receive()

    def _push(self) -> None:
        """Sends what waits, as far as it may be under way."""
        idle = not self._under_way and not self._stale
        if self._connection is not None and idle and self._connection.has_ended:
            self.close()
        if self._connection is None:
            self._connection = Connection(self._client, self._name, self._schema)
        offset = self.rows + sum(request.rows for request in itertools.islice(self._waiting, self._under_way))
        for request in itertools.islice(self._waiting, self._under_way, _MAX_UNDER_WAY):
            self._connection.send(request.data, offset if self._offsets else None)
            offset += request.rows
            self._under_way += 1

    def _receive(self) -> None:
        """Waits for one answer, and does what it asks for."""
        self._push()
        assert self._connection is not None
        try:
            answer = self._connection.receive(self._options.request_secs)
        except GoogleAPICallError as error:
            self.close()
            code = error.grpc_status_code.name if error.grpc_status_code else type(error).__name__
            if code == "ALREADY_EXISTS" and self._offsets:
                self._accept()
                return
            self._wait(code, str(error.message), storage_codes(error.details))
            return
        if self._stale:
            self._stale -= 1
            return
        code = code_name(answer.error.code)
        if not answer.error.code or (code == "ALREADY_EXISTS" and self._offsets):
            self._accept()
            return
        self._refuse(answer, code, storage_codes(answer.error.details))

    def _accept(self) -> None:
        request = self._waiting.popleft()
        self._under_way = max(self._under_way - 1, 0)
        self.rows += request.rows
        self.size += len(request.data)
        self._failing_since, self._tries = None, 0

    def _refuse(self, answer: Any, code: str, storage: set[str]) -> None:
        request = self._waiting[0]
        errors = {error.index: error.message for error in answer.row_errors if 0 <= error.index < request.rows}
        if any(message.startswith(_NO_SUCH_FIELD) for message in errors.values()):
            self._wait("INVALID_ARGUMENT", next(iter(errors.values())), storage)
        elif errors:
            self._replace(self._without(request, errors))
        elif code == "INVALID_ARGUMENT" and not storage:
            self._replace(self._halves(request, str(answer.error.message)))
        else:
            self._replace([request])
            self._wait(code, str(answer.error.message), storage)

    def _replace(self, requests: Sequence[Request]) -> None:
        """Has these sent in the place of the first; with offsets, all behind it again, since they are refused too."""
        self._waiting.popleft()
        self._under_way -= 1
        if self._offsets:
            self._stale, self._under_way = self._stale + self._under_way, 0
            self._waiting.extendleft(reversed(requests))
        else:
            self._waiting.extend(requests)

    def _without(self, request: Request, errors: Mapping[int, str]) -> list[Request]:
        kept = []
        for part, places in request.places():
            bad = np.isin(places, list(errors))
            for place in np.flatnonzero(bad):
                message = errors[int(places[place])]
                self._refused.append(Refused(part.source, int(part.rows[place]), APPEND_ERROR, message))
            if not bad.all():
                kept.append(Part(part.batch.filter(pa.array(~bad)), part.source, part.rows[~bad]))
        return [Request.of(kept)] if kept else []

    def _halves(self, request: Request, message: str) -> list[Request]:
        """Returns the request's halves, or none if its rows are refused."""
        if request.rows == 1:
            return self._without(request, {0: message})
        if self._isolation_calls < 2:
            note = f"not isolated: one or more of {request.rows} rows sent together; {message}"
            return self._without(request, dict.fromkeys(range(request.rows), note))
        self._isolation_calls -= 2
        middle = request.rows // 2
        first, second = [], []
        for part, places in request.places():
            cut = int(np.searchsorted(places, middle))
            first += [part.slice(0, cut)] if cut else []
            second += [part.slice(cut, len(places))] if cut < len(places) else []
        return [Request.of(first), Request.of(second)]

    def _wait(self, code: str, message: str, storage: set[str]) -> None:
        """Waits before it is tried again.

        Raises:
          SluiceError: there is no use in it, or it has been tried for long enough.
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
        backoff_secs = min(_FIRST_BACKOFF_SECS * 2.0 ** min(self._tries - 1, 30), _LAST_BACKOFF_SECS)
        self._pause(min(self._uniform() * backoff_secs, left_secs))

    def _patience_secs(self, code: str, storage: set[str]) -> float:
        new_table = code == "NOT_FOUND" and not self.rows
        return self._options.settle_secs if new_table or _EXTRA_FIELDS in storage else self._options.retry_secs
