"""One connection to BigQuery's AppendRows: requests go in, and their answers come out in the same order.

A column of the table that the schema lacks has its default, if it has one; one that the schema has is null where a row
is: https://cloud.google.com/bigquery/docs/default-values#use_the_storage_write_api

Google's writer (google.cloud.bigquery_storage_v1.writer.AppendRowsStream) is not used: it sleeps 80 ms and more over
every connection, its futures poll once a second, and it sends what is behind a request that was lost over a new
connection, which the bundle has to decide.
"""

import queue
import threading
from collections.abc import Iterator
from typing import Any

import grpc
from google.api_core.exceptions import DeadlineExceeded, GoogleAPICallError, ServiceUnavailable, from_grpc_error
from google.cloud.bigquery_storage_v1.types import AppendRowsRequest, AppendRowsResponse, StorageError

_StorageError = StorageError.pb()
_CODES = {code.value[0]: code.name for code in grpc.StatusCode}


class Connection:
    """Raises what the service ends it with from `receive`, after the answers that came before.

    Args:
      client: see transforms.bigquery.clients.write_client.
      stream: its full name.
      schema: of the rows: Arrow's IPC message.
    """

    def __init__(self, client: Any, stream: str, schema: bytes) -> None:
        self._stream, self._schema = stream, schema
        self._is_new = True
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        # By the name in this header the service finds the table's region.
        routing = (("x-goog-request-params", f"write_stream={stream}"),)
        self._call = client.transport.append_rows(iter(self._requests.get, None), metadata=routing)
        threading.Thread(target=self._read, name="sluice-append", daemon=True).start()

    def send(self, rows: bytes, offset: int | None) -> None:
        """Sends rows, and returns at once.

        Args:
          rows: a record batch as Arrow's IPC message.
          offset: of the first of them in the stream.
        """
        request = AppendRowsRequest.pb()()
        request.arrow_rows.rows.serialized_record_batch = rows
        if offset is not None:
            request.offset.value = offset
        if self._is_new:
            request.write_stream = self._stream
            request.arrow_rows.writer_schema.serialized_schema = self._schema
            self._is_new = False
        self._requests.put(AppendRowsRequest.wrap(request))

    def receive(self, timeout_secs: float) -> Any:
        """Returns the next answer, an AppendRowsResponse as protobuf has it.

        Raises:
          GoogleAPICallError: the connection has ended, or there was no answer in time; it is of no use any more.
        """
        try:
            answer = self._answers.get(timeout=timeout_secs)
        except queue.Empty:
            raise DeadlineExceeded(f"no answer within {timeout_secs:g} s") from None
        if isinstance(answer, GoogleAPICallError):
            raise answer
        return answer

    @property
    def has_ended(self) -> bool:
        """Whether the service has ended it."""
        return not self._call.is_active()

    def close(self) -> None:
        self._requests.put(None)
        self._call.cancel()

    def _read(self) -> None:
        try:
            for answer in self._call:
                self._answers.put(AppendRowsResponse.pb(answer))
            self._answers.put(ServiceUnavailable("the service has ended the connection"))
        except grpc.RpcError as error:
            self._answers.put(from_grpc_error(error))


def code_name(code: int) -> str:
    """Returns the name of a gRPC status."""
    return _CODES.get(code, str(code))


def storage_codes(details: Any) -> set[str]:
    """Returns the names of the StorageErrors among an error's details, e.g. "OFFSET_ALREADY_EXISTS"."""
    return {StorageError.StorageErrorCode(error.code).name for error in _storage_errors(details)}


def _storage_errors(details: Any) -> Iterator[Any]:
    for detail in details:
        error = _StorageError()
        if hasattr(detail, "Unpack") and detail.Unpack(error):
            yield error
