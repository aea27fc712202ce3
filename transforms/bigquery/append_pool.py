"""The connections to BigQuery's AppendRows of a process: how many there are, and who uses which.

A project may have 1,000 at the same time in a small region, and a process with an endpoint runs 32 bundles at once.
https://cloud.google.com/bigquery/quotas#write-api-limits
https://cloud.google.com/bigquery/docs/write-api-best-practices#connection_pool_management
"""

import functools
import os
import threading

from google.api_core.exceptions import Cancelled, DeadlineExceeded
from google.cloud.bigquery_storage_v1.services.big_query_write import BigQueryWriteClient

from sluice.transforms.bigquery import clients
from sluice.transforms.bigquery.append_connection import Connection
from sluice.transforms.bigquery.append_lane import Lane

# To a default stream. One carries some 10 MB a second, which is more than most processes write.
MAX_SHARED = 4
# So much of what one may have under way makes another worth it.
_BUSY = 0.5
# To streams that were made for one writer each.
MAX_OWN = 8


class AppendPool:
    """A process's connections to one endpoint. Thread-safe.

    Writers to a default stream share connections, at most MAX_SHARED for a table and a schema. One connection does
    for them as long as it is not busy.

    A stream that was made for one writer may have one connection, which is its own. At most MAX_OWN are open at the
    same time: one that owes no answer gives way to another writer's, and its writer gets a new one with its next
    request. So no writer waits for what another does besides.

    One connection could carry the default streams of several tables. It does not: a job has one such table, and what
    ends a connection because of one table would end the requests of others.
    """

    def __init__(self, client: BigQueryWriteClient) -> None:
        self.client = client
        self.users = 0
        self._lock = threading.Lock()
        self._shared: dict[tuple[str, bytes], list[Connection]] = {}
        self._own: list[Connection] = []
        self._freed = threading.Condition()  # within it, no other lock is taken
        self._times_freed = 0

    def lane(self, stream: str, schema: bytes, request_secs: float, *, is_own: bool) -> Lane:
        """Returns a way to a stream for one writer.

        Args:
          stream: its full name.
          schema: of the rows, as Arrow's IPC message.
          request_secs: a connection that answers nothing for so long is ended.
          is_own: the stream was made for this writer.
        """
        if is_own:
            choose = functools.partial(self._choose_own, stream, schema, request_secs)
        else:
            choose = functools.partial(self._choose_shared, stream, schema)
        return Lane(choose, request_secs, is_own=is_own)

    def close(self) -> None:
        """Ends all connections; calls under way fail."""
        with self._lock:
            left = [*self._own, *(each for shared in self._shared.values() for each in shared)]
            self._own, self._shared = [], {}
        for connection in left:
            connection.end(Cancelled("the connections are closed"))
        clients.close(self.client)

    def _choose_shared(self, stream: str, schema: bytes, _: Connection | None) -> Connection:
        with self._lock:
            open_ = [each for each in self._shared.get((stream, schema), ()) if not each.has_ended]
            best = min(open_, key=lambda each: each.load, default=None)
            if best is None or (best.load >= _BUSY and len(open_) < MAX_SHARED):
                best = Connection(self.client, stream, schema)
                open_.append(best)
            self._shared[stream, schema] = open_
            return best

    def _choose_own(self, stream: str, schema: bytes, request_secs: float, before: Connection | None) -> Connection:
        """Returns the connection before, or a new one as soon as there may be one.

        Raises:
          DeadlineExceeded: none of those that are open has owed nothing, or answered anything, for so long.
        """
        if before is not None and not before.has_ended:
            return before
        while True:
            with self._freed:
                seen = self._times_freed
            with self._lock:
                if self._has_place():
                    self._own.append(Connection(self.client, stream, schema, self._free))
                    return self._own[-1]
                answered = self._answered()
            with self._freed:
                is_freed = self._freed.wait_for(lambda: self._times_freed != seen, request_secs)  # noqa: B023
            with self._lock:
                if not is_freed and self._answered() == answered:
                    raise DeadlineExceeded(f"none of {MAX_OWN} connections is free after {request_secs:g} s")

    def _answered(self) -> list[int]:
        """Returns how many requests each connection has answered. They are busy, and not stuck, if that changes."""
        return [each.answered for each in self._own]

    def _has_place(self) -> bool:
        """Whether one more connection may be opened, if need be since the longest open one gives way."""
        self._own = [each for each in self._own if not each.has_ended]
        return len(self._own) < MAX_OWN or any(each.give_way() for each in self._own)

    def _free(self) -> None:
        with self._freed:
            self._times_freed += 1
            self._freed.notify_all()


_LOCK = threading.Lock()
# By process, since a connection does not outlive a fork, and by endpoint.
_POOLS: dict[tuple[int, str | None], AppendPool] = {}


def join(endpoint: str | None) -> AppendPool:
    """Returns this process's pool for an endpoint; `leave` it in the end.

    Raises:
      UsageError: there are no credentials.
    """
    key = os.getpid(), clients.storage_endpoint(endpoint)
    with _LOCK:
        pool = _POOLS.get(key) or _POOLS.setdefault(key, AppendPool(clients.write_client(endpoint)))
        pool.users += 1
        return pool


def leave(pool: AppendPool) -> None:
    """Closes the pool if nobody else has joined it."""
    with _LOCK:
        pool.users -= 1
        is_last = not pool.users
        if is_last:
            for key in [key for key, each in _POOLS.items() if each is pool]:
                del _POOLS[key]
    if is_last:
        pool.close()
