"""One call of BigQuery's AppendRows: requests go in, and their answers come out in the same order.

Google's writer (google.cloud.bigquery_storage_v1.writer.AppendRowsStream) is not used: its future answered after 504 ms
where 10 were needed, it sleeps 80 ms and more at every connection, and it sends what is behind a lost request over a
new connection, which only the bundle can decide.

A column that the table has and the schema lacks gets its default value; a null in a column of the schema stays null:
https://cloud.google.com/bigquery/docs/default-values#use_the_storage_write_api
"""

import collections
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

import grpc
from google.api_core.exceptions import (
    Aborted,
    Cancelled,
    DeadlineExceeded,
    GoogleAPICallError,
    InvalidArgument,
    ServiceUnavailable,
    from_grpc_error,
)
from google.cloud.bigquery_storage_v1.services.big_query_write import BigQueryWriteClient
from google.cloud.bigquery_storage_v1.types import AppendRowsRequest, AppendRowsResponse, StorageError
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message

# Of a connection, under way. Google's writers allow 1,000 requests of 100 MB together; ours hold rows of up to 3 MB,
# and with less than this the service has always something to do.
MAX_REQUESTS = 64
MAX_BYTES = 24_000_000

_StorageError = StorageError.pb()
_CODES = {code.value[0]: code.name for code in grpc.StatusCode}
_HAS_ENDED = "the service has ended the connection"

# What a request gets in the end: the service's answer, in protobuf's own form, or the error that ended the connection.
Answer: TypeAlias = AppendRowsResponse | GoogleAPICallError


class Connection:
    """An open AppendRows call, which several writers may share. Thread-safe.

    At most MAX_REQUESTS and MAX_BYTES are under way; a larger request is alone.

    Args:
      client: see transforms.bigquery.clients.write_client.
      stream: its full name.
      schema: of the rows, as Arrow's IPC message.
      on_free: is called when no answer is owed any more, and when the connection has ended.
    """

    def __init__(
        self,
        client: BigQueryWriteClient,
        stream: str,
        schema: bytes,
        on_free: Callable[[], None] = lambda: None,
    ) -> None:
        self._stream, self._schema, self._on_free = stream, schema, on_free
        self._requests: queue.SimpleQueue[AppendRowsRequest | None] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._owed: collections.deque[tuple[int, Callable[[Answer], None]]] = collections.deque()
        self._bytes = self._sent = self._waiting = 0
        self.answered = 0  # requests
        self.error: GoogleAPICallError | None = None  # that it ended with
        # The service finds the table's region by the name in this header.
        routing = (("x-goog-request-params", f"write_stream={stream}"),)
        self._call = client.transport.append_rows(iter(self._requests.get, None), metadata=routing)
        threading.Thread(target=self._read, name="sluice-append", daemon=True).start()

    @property
    def has_ended(self) -> bool:
        return self.error is not None

    @property
    def load(self) -> float:
        """How much of what may be under way is; above 1, writers wait for room."""
        return max((len(self._owed) + self._waiting) / MAX_REQUESTS, self._bytes / MAX_BYTES)

    def send(self, request: Message, take: Callable[[Answer], None], timeout_secs: float) -> bool:
        """Sends a request as soon as there is room for it; sends nothing, and returns False, after the end.

        Args:
          request: an AppendRowsRequest without stream and schema.
          take: is called with the request's answer, or with the error that ends the connection; it must not wait.
          timeout_secs: a connection without room that answers nothing for so long is ended.
        """
        size = request.ByteSize()
        with self._changed:
            if self._sent and not self._call.is_active():
                self.end(ServiceUnavailable(_HAS_ENDED))
            self._wait_for_room(size, timeout_secs)
            if self.has_ended:
                return False
            if not self._sent:
                request.write_stream = self._stream
                request.arrow_rows.writer_schema.serialized_schema = self._schema
            self._sent += 1
            self._bytes += size
            self._owed.append((size, take))
            self._requests.put(AppendRowsRequest.wrap(request))
        return True

    def end(self, error: GoogleAPICallError) -> None:
        """Ends the connection; whom it owes an answer gets this error instead, or one that puts no blame on them."""
        with self._changed:
            if self.has_ended:
                return
            owed, self._owed, self._bytes = self._owed, collections.deque(), 0
            for place, (_, take) in enumerate(owed):
                take(_for_others(error) if place else error)
            # Not before: who sees the end without the lock may get an answer of another connection at once.
            self.error = error
            self._changed.notify_all()
        self._requests.put(None)
        self._call.cancel()
        self._on_free()

    def give_way(self) -> bool:
        """Ends the connection if it has been used and owes no answer; returns whether it has ended."""
        with self._changed:
            if self._sent and not self._owed:
                self.end(Cancelled("the connection has given way to another"))
            return self.has_ended

    def _wait_for_room(self, size: int, timeout_secs: float) -> None:
        self._waiting += 1
        while not self._has_room(size):
            seen = self.answered
            if not self._changed.wait_for(lambda: self.answered != seen or self.has_ended, timeout_secs):  # noqa: B023
                self.end(DeadlineExceeded(f"no answer within {timeout_secs:g} s"))
        self._waiting -= 1

    def _has_room(self, size: int) -> bool:
        fits = len(self._owed) < MAX_REQUESTS and self._bytes + size <= MAX_BYTES
        return fits or not self._owed or self.has_ended

    def _read(self) -> None:
        try:
            for answer in self._call:
                self._answer(AppendRowsResponse.pb(answer))
            self.end(ServiceUnavailable(_HAS_ENDED))
        except grpc.RpcError as error:
            self.end(from_grpc_error(error))

    def _answer(self, answer: AppendRowsResponse) -> None:
        with self._changed:
            if not self._owed:  # it has been ended meanwhile
                return
            size, take = self._owed.popleft()
            self._bytes -= size
            self.answered += 1
            take(answer)
            self._changed.notify_all()
            is_free = not self._owed
        if is_free:
            self._on_free()


def _for_others(error: GoogleAPICallError) -> GoogleAPICallError:
    """Returns what a connection that ends with an error owes to the requests behind the first that it owes.

    What a request holds can be the fault of that request only; all else concerns whoever writes to the table. The text
    of such a fault may tell values of its rows, so the others do not get it.
    """
    if isinstance(error, InvalidArgument) and not storage_codes(error.details):
        return Aborted("the connection has ended because of a request of another writer")
    return error


def code_name(code: int) -> str:
    """Returns the name of a gRPC status."""
    return _CODES.get(code, str(code))


def storage_codes(details: Iterable[AnyMessage]) -> set[str]:
    """Returns the names of the StorageErrors among an error's details, e.g. "OFFSET_ALREADY_EXISTS"."""
    return {StorageError.StorageErrorCode(error.code).name for error in _storage_errors(details)}


def _storage_errors(details: Iterable[AnyMessage]) -> Iterator[StorageError]:
    for detail in details:
        error = _StorageError()
        if hasattr(detail, "Unpack") and detail.Unpack(error):
            yield error
