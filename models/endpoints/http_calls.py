"""HTTP requests to one server, each with one deadline: look-up, connection, TLS, request, headers and body.

aiohttp sends them, on an event loop that has a thread of its own; callers are ordinary threads. Of the blocking clients
none keeps such a deadline: their timeouts are for each read of the socket, and the look-up of a name has none at all.
"""

import asyncio
import gzip
import math
import os
import ssl
import threading
import weakref
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from types import SimpleNamespace
from typing import NamedTuple

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from sluice.models.errors import BadOutput, TimedOut, Unavailable
from sluice.models.uri import Endpoint

# How long a connection may take, if the request has so long: an address that does not react is found out sooner than a
# server that is slow to answer.
_CONNECT_SECS = 10.0
# NAT gateways forget connections that are idle for longer: 350 s on AWS, 600 s on Google Cloud.
_KEEP_IDLE_SECS = 300.0
# Pods that are replaced have new addresses; as for gRPC.
_KEEP_ADDRESSES_SECS = 2
# The longest header line that an answer may have; aiohttp would refuse 8 KB, which a gateway's cookies may exceed.
_MAX_HEADER_BYTES = 65536
# Larger bodies are sent in parts of this size.
_PART_BYTES = 131072
_CLOSED = "this client is closed"

Headers = Sequence[tuple[str, str]]


class Answer(NamedTuple):
    """An HTTP response, read to its end.

    Attributes:
      headers: by name, in any case.
    """

    status: int
    headers: Mapping[str, str]
    data: bytes


class HttpCalls:
    """Sends requests to an endpoint over connections that are kept open. Thread-safe.

    It uses no proxy, follows no redirect and keeps no cookie. In a forked process it opens connections of its own.

    Args:
      ssl_context: for TLS; None: plain text.
      connect_secs: how long a connection may take: look-up, TCP and TLS; the request's time at most.
      resolver: looks up names; None: the system's.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        ssl_context: ssl.SSLContext | None,
        connect_secs: float = _CONNECT_SECS,
        resolver: AbstractResolver | None = None,
    ) -> None:
        self._address = endpoint.address
        self._origin = f"{'http' if ssl_context is None else 'https'}://{endpoint.address}"
        self._connect_secs = connect_secs
        self._open_session = lambda: _session(ssl_context, resolver)
        self._lock = threading.Lock()
        self._loop: _Loop | None = None
        self._closed = False

    def send(self, method: str, path: str, headers: Headers, body: bytes | None, timeout_secs: float) -> Answer:
        """Returns the answer, decompressed, whatever its status.

        A server may close an idle connection while a request is on its way. A request on a reused connection that ends
        before the headers of an answer is sent once more, so it must do no harm twice.

        Args:
          path: with its escapes.

        Raises:
          TimedOut: there was a connection, and the answer was not complete in time.
          Unavailable: the server cannot be reached, or breaks the connection, or this client is closed.
          BadOutput: the answer cannot be decompressed.
        """
        call = _Call(method, URL(self._origin + path, encoded=True), headers, body)
        connect_secs = min(self._connect_secs, timeout_secs)
        future = self._start(call, connect_secs, timeout_secs)
        try:
            return self._decompressed(future.result())
        except TimeoutError as error:  # aiohttp's, too
            if isinstance(error, aiohttp.ServerTimeoutError) or not call.connected:
                late = f"{self._address} cannot be reached: no connection within {connect_secs:g} s"
                raise Unavailable(late) from error
            raise TimedOut(f"{self._address} gave no answer within {timeout_secs:g} s") from error
        except aiohttp.ClientError as error:
            raise self._unavailable(error) from error
        except CancelledError as error:
            raise Unavailable(f"{self._address}: {_CLOSED}") from error
        finally:
            future.cancel()  # does nothing unless this thread was interrupted

    def close(self) -> None:
        """Closes all connections; calls under way fail."""
        with self._lock:
            self._closed = True
        if self._loop is not None:
            self._loop.close()

    def _start(self, call: "_Call", connect_secs: float, timeout_secs: float) -> "Future[Answer]":
        with self._lock:  # a loop that is ending would never run the call
            if self._closed:
                raise Unavailable(f"{self._address}: {_CLOSED}")
            if self._loop is None or not self._loop.is_alive():
                self._loop = _Loop(self._open_session)
                weakref.finalize(self, self._loop.close)
            return self._loop.start(lambda session: call.run(session, connect_secs, timeout_secs))

    def _unavailable(self, error: aiohttp.ClientError) -> Unavailable:
        if isinstance(error, aiohttp.ClientConnectorError) and not isinstance(error, aiohttp.ClientSSLError):
            return Unavailable(f"{self._address} cannot be reached: {_reason(error.os_error)}")
        if isinstance(error, aiohttp.ClientResponseError) and "\\x00" in error.message:  # a frame of HTTP/2
            return Unavailable(
                f"{self._address} does not answer in HTTP/1.1; a gRPC port is given as grpc://HOST:PORT/NAME"
            )
        return Unavailable(f"{self._address}: the connection failed: {error}")

    def _decompressed(self, answer: Answer) -> Answer:
        """Decompresses on the caller's thread: on the loop it would hold up all other calls."""
        if answer.headers.get("content-encoding", "").lower() != "gzip":
            return answer
        try:
            return answer._replace(data=gzip.decompress(answer.data))
        except (OSError, EOFError, zlib.error) as error:
            raise BadOutput(f"{self._address}: the answer cannot be decompressed: {error}") from error


class _Call:
    """One request, and how far it has come.

    Attributes:
      connected: whether it has had a connection.
      reused: whether that connection had served others.
    """

    def __init__(self, method: str, url: URL, headers: Headers, body: bytes | None) -> None:
        self.connected = self.reused = False
        self._method, self._url, self._body = method, url, body
        self._headers = headers if body is None else [*headers, ("content-length", str(len(body)))]

    async def run(self, session: aiohttp.ClientSession, connect_secs: float, timeout_secs: float) -> Answer:
        """Returns the answer as it came; raises TimeoutError or aiohttp.ClientError."""
        timeout = aiohttp.ClientTimeout(connect=connect_secs, ceil_threshold=math.inf)  # not rounded to whole seconds
        async with asyncio.timeout(timeout_secs):
            try:
                response = await self._send(session, timeout)
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                if not self.reused:
                    raise
                response = await self._send(session, timeout)
            try:
                return Answer(response.status, response.headers, await response.content.read())
            finally:
                response.close()  # of a call that is complete, the connection is back in the pool by now

    async def _send(self, session: aiohttp.ClientSession, timeout: aiohttp.ClientTimeout) -> aiohttp.ClientResponse:
        """Sends the request; returns when the headers of the answer are there."""
        self.connected = self.reused = False
        large = self._body is not None and len(self._body) > _PART_BYTES
        return await session.request(
            self._method,
            self._url,
            headers=self._headers,
            data=_parts(self._body) if self._body is not None and large else self._body,
            timeout=timeout,
            allow_redirects=False,
            trace_request_ctx=self,
        )


async def _parts(body: bytes) -> AsyncIterator[memoryview]:
    """Yields the body in parts, which wait for each other. As one it would all be queued, and be sent on."""
    view = memoryview(body)
    for start in range(0, len(view), _PART_BYTES):
        yield view[start : start + _PART_BYTES]


class _Response(aiohttp.ClientResponse):
    """A response that drops what is left to send when it is closed; else TLS would go on sending for up to 30 s."""

    def close(self) -> None:
        connection = self.connection
        if connection is not None and connection.transport is not None:
            connection.transport.abort()
        super().close()


def _session(ssl_context: ssl.SSLContext | None, resolver: AbstractResolver | None) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(
        ssl=ssl_context or True,
        resolver=resolver,
        ttl_dns_cache=_KEEP_ADDRESSES_SECS,
        keepalive_timeout=_KEEP_IDLE_SECS,
        limit=0,  # callers bound their calls
    )
    trace = aiohttp.TraceConfig()
    trace.on_connection_create_end.append(_on_connection(reused=False))
    trace.on_connection_reuseconn.append(_on_connection(reused=True))
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        max_line_size=_MAX_HEADER_BYTES,
        max_field_size=_MAX_HEADER_BYTES,
        response_class=_Response,
        trace_configs=[trace],
    )


def _on_connection(reused: bool) -> Callable[[aiohttp.ClientSession, SimpleNamespace, object], Awaitable[None]]:
    async def mark(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: object) -> None:
        call: _Call = context.trace_request_ctx
        call.connected, call.reused = True, reused

    return mark


class _Loop:
    """An event loop on a thread of its own, with a session."""

    def __init__(self, open_session: Callable[[], aiohttp.ClientSession]) -> None:
        async def opened() -> aiohttp.ClientSession:
            return open_session()

        self._loop = asyncio.new_event_loop()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="sluice-http", daemon=True)
        self._thread.start()
        self._session = asyncio.run_coroutine_threadsafe(opened(), self._loop).result()

    def is_alive(self) -> bool:
        """Whether the thread runs. After a fork it does not."""
        return self._thread.is_alive()

    def start(self, call: Callable[[aiohttp.ClientSession], Coroutine[None, None, Answer]]) -> "Future[Answer]":
        return asyncio.run_coroutine_threadsafe(call(self._session), self._loop)

    def close(self) -> None:
        """Closes the session, cancels the calls under way and ends the thread."""
        if self._closed:
            return
        if not self.is_alive():
            _FORKED.append(self)
            return
        self._closed = True
        asyncio.run_coroutine_threadsafe(self._end(), self._loop)
        if threading.current_thread() is not self._thread:  # a garbage collection may run there
            self._thread.join()

    def _run(self) -> None:
        self._loop.run_forever()
        self._loop.close()  # does not wait for look-ups, which have threads of their own

    async def _end(self) -> None:
        await self._session.close()
        calls = asyncio.all_tasks() - {asyncio.current_task()}
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        self._loop.stop()


# Loops of the process that was forked. They share their epoll with it: to collect them would cut its connections.
_FORKED: list[_Loop] = []


def _reason(error: OSError) -> str:
    """Returns the system's text: asyncio replaces it by "Connect call failed". A gaierror has a number below 0."""
    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
