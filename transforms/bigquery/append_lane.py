"""What one writer has under way, on connections that other writers may use as well."""

import queue
from collections.abc import Callable

from google.api_core.exceptions import Cancelled, DeadlineExceeded, GoogleAPICallError, ServiceUnavailable
from google.cloud.bigquery_storage_v1.types import AppendRowsRequest, AppendRowsResponse

from sluice.transforms.bigquery.append_connection import Answer, Connection

# Connections that may turn out to have ended before a request is given up.
_TRIES = 3


class Lane:
    """Requests of one writer, and their answers in the same order. For one thread.

    A connection that ends without owing this writer an answer is replaced silently.

    Args:
      choose: returns the connection for the next request; it gets the one before, and may raise GoogleAPICallError.
      request_secs: a connection that answers nothing for so long is ended.
      is_own: nobody else uses the connections, which `close` ends.
    """

    def __init__(self, choose: Callable[[Connection | None], Connection], request_secs: float, *, is_own: bool) -> None:
        self._choose, self._request_secs, self._is_own = choose, request_secs, is_own
        self._answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self._connection: Connection | None = None
        self._unread = 0
        self._error: GoogleAPICallError | None = None

    def send(self, rows: bytes, offset: int | None) -> None:
        """Sends rows, when the connection has room for them. That it cannot is an answer as well.

        Args:
          rows: a record batch as Arrow's IPC message.
          offset: of the first of them in the stream.
        """
        request = AppendRowsRequest.pb()()
        request.arrow_rows.rows.serialized_record_batch = rows
        if offset is not None:
            request.offset.value = offset
        try:
            is_sent = any(self._try(request) for _ in range(_TRIES))
        except GoogleAPICallError as error:
            self._take(error)
        else:
            if not is_sent:
                self._take(ServiceUnavailable("each connection has ended at once"))
        self._unread += 1

    def receive(self) -> AppendRowsResponse:
        """Returns the next answer, in protobuf's own form.

        Raises:
          GoogleAPICallError: the connection has ended, or answers nothing. Answers that came before the end are
            returned first. The lane is of no use any more.
        """
        answer = self._next_answer()
        self._unread -= 1
        if isinstance(answer, GoogleAPICallError):
            raise answer
        return answer

    def close(self) -> None:
        """Leaves the connection; answers that have not come are lost."""
        if self._is_own and self._connection is not None:
            self._connection.end(Cancelled("its writer has closed the connection"))

    def _try(self, request: AppendRowsRequest) -> bool:
        """Returns whether the request needs no other connection: it is sent, or `receive` raises before its turn."""
        # Asked before the error is looked at: a connection that has ended has told whom it owed an answer.
        is_over = self._connection is None or self._connection.has_ended
        if self._error is not None:
            return True
        # While answers are on their way, those of another connection might come before them.
        if is_over or not self._unread:
            self._connection = self._choose(self._connection)
        assert self._connection is not None
        return self._connection.send(request, self._take, self._request_secs)

    def _next_answer(self) -> Answer:
        while True:
            seen = self._connection.answered if self._connection else 0
            try:
                return self._answers.get(timeout=self._request_secs)
            except queue.Empty:
                if self._connection is not None and self._connection.answered == seen:
                    self._connection.end(DeadlineExceeded(f"no answer within {self._request_secs:g} s"))

    def _take(self, answer: Answer) -> None:
        if isinstance(answer, GoogleAPICallError):
            self._error = answer
        self._answers.put(answer)
