"""One connection to BigQuery's AppendRows: requests go in, and their answers come out in the same order.

Google's writer (google.cloud.bigquery_storage_v1.writer.AppendRowsStream) is not used: its future answered after 504 ms
where 10 were needed, it sleeps 80 ms and more at every connection, and it sends what is behind a lost request over a
new connection, which only the bundle can decide.

A column that the table has and the schema lacks gets its default value; a null in a column of the schema stays null:
https://cloud.google.com/bigquery/docs/default-values#use_the_storage_write_api
"""

import queue
import threading
from collections.abc import Iterable, Iterator

import grpc
from google.api_core.exceptions import DeadlineExceeded, GoogleAPICallError, ServiceUnavailable, from_grpc_error
from google.cloud.bigquery_storage_v1.services.big_query_write import BigQueryWriteClient
from google.cloud.bigquery_storage_v1.types import AppendRowsRequest, AppendRowsResponse, StorageError
from google.protobuf.any_pb2 import Any as AnyMessage

_StorageError = StorageError.pb()
_CODES = {code.value[0]: code.name for code in grpc.StatusCode}


class Connection:
    """An open AppendRows call.

    Args:
      client: see transforms.bigquery.clients.write_client.
      stream: its full name.
      schema: of the rows, as Arrow's IPC message.
    """

    def __init__(self, client: BigQueryWriteClient, stream: str, schema: bytes) -> None:
        self._stream, self._schema = stream, schema
        self._is_new = True
        self._requests: queue.SimpleQueue[AppendRowsRequest | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[AppendRowsResponse | GoogleAPICallError] = queue.SimpleQueue()
        # The service finds the table's region by the name in this header.
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

    def receive(self, timeout_secs: float) -> AppendRowsResponse:
        """Returns the next answer, in protobuf's own form.

        Raises:
          GoogleAPICallError: the connection has ended, or no answer came in time. Answers that came before the end are
            returned first. The connection is of no use any more.
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
        """Whether the service has ended the connection."""
        return not self._call.is_active()

    def close(self) -> None:
        """Ends the connection; answers that have not come are lost."""
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


def storage_codes(details: Iterable[AnyMessage]) -> set[str]:
    """Returns the names of the StorageErrors among an error's details, e.g. "OFFSET_ALREADY_EXISTS"."""
    return {StorageError.StorageErrorCode(error.code).name for error in _storage_errors(details)}


def _storage_errors(details: Iterable[AnyMessage]) -> Iterator[StorageError]:
    for detail in details:
        error = _StorageError()
        if hasattr(detail, "Unpack") and detail.Unpack(error):
            yield error
