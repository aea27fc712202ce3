"""HTTP requests to one server, each with a deadline that holds for the whole of it.

urllib3's timeouts are for each read of the socket, so that a server that sends a byte now and then is waited for
without end, in the headers too. Here the time that a request may still take is set before each read.
"""

import http.client
import io
import socket
import ssl
import time
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, DecodeError, HTTPError, NewConnectionError, ProtocolError
from urllib3.exceptions import TimeoutError as UrllibTimeout

from sluice.models.errors import BadOutput, CallError, TimedOut, Unavailable
from sluice.models.uri import Endpoint

# Connections that are kept between requests; further ones are opened at need and closed after use.
_MAX_IDLE_CONNECTIONS = 64
# What a connection may take, if the request has so long: an address from which nothing comes back is found out sooner
# than a server that is slow to answer.
_CONNECT_SECS = 10.0
# Sockets take a timeout of 0 for a wish not to block.
_LEAST_SECS = 1e-3


class HttpCalls:
    """Sends requests to an endpoint over connections that are kept open. Thread-safe.

    Args:
      ssl_context: for TLS; None: none.
      connect_secs: what connecting to one address of the server may take, without TLS; the request's time at most.
    """

    def __init__(
        self, endpoint: Endpoint, ssl_context: ssl.SSLContext | None, connect_secs: float = _CONNECT_SECS
    ) -> None:
        self._address = endpoint.address
        self._connect_secs = connect_secs
        self._pool = _pool(endpoint, ssl_context, connect_secs)

    def send(
        self, method: str, url: str, headers: urllib3.HTTPHeaderDict, body: bytes | None, timeout_secs: float
    ) -> urllib3.BaseHTTPResponse:
        """Returns the answer, read to its end and decompressed; whatever its status, redirects too.

        A server may close an idle connection while a request is on its way. That request is sent once more, so it must
        do no harm twice.

        Raises:
          TimedOut: the server has taken the connection, and the answer was not complete in time.
          Unavailable: the server cannot be reached, or breaks the connection.
          BadOutput: the answer cannot be decompressed.
        """
        deadline = time.monotonic() + timeout_secs
        try:
            try:
                return self._send(method, url, headers, body, timeout_secs)
            except ProtocolError as error:
                if not isinstance(_cause(error), _ClosedWhileIdle):
                    raise
            return self._send(method, url, headers, body, max(deadline - time.monotonic(), _LEAST_SECS))
        except HTTPError as error:
            raise self._call_error(error, timeout_secs) from error

    def close(self) -> None:
        """Closes the connections that no request uses."""
        self._pool.close()

    def _send(
        self, method: str, url: str, headers: urllib3.HTTPHeaderDict, body: bytes | None, timeout_secs: float
    ) -> urllib3.BaseHTTPResponse:
        timeout = urllib3.Timeout(total=timeout_secs)
        return self._pool.urlopen(method, url, body, headers, retries=False, redirect=False, timeout=timeout)

    def _call_error(self, error: HTTPError, timeout_secs: float) -> CallError:
        cause = _cause(error)
        if isinstance(error, NewConnectionError):  # which is a ConnectTimeoutError
            return Unavailable(f"{self._address} cannot be reached: {cause}")
        if isinstance(error, ConnectTimeoutError):  # which is a TimeoutError of urllib3's
            secs = min(self._connect_secs, timeout_secs)
            return Unavailable(f"{self._address} cannot be reached: no connection within {secs:g} s")
        if isinstance(error, UrllibTimeout) or isinstance(cause, TimeoutError):
            return TimedOut(f"{self._address} gave no answer within {timeout_secs:g} s")
        if isinstance(error, DecodeError):
            return BadOutput(f"{self._address}: the answer cannot be decompressed: {cause}")
        if isinstance(cause, http.client.BadStatusLine) and "\0" in str(cause):  # a frame of HTTP/2
            return Unavailable(
                f"{self._address} does not answer in HTTP/1.1; a gRPC port is given as grpc://HOST:PORT/NAME"
            )
        return Unavailable(f"{self._address}: the connection failed: {cause}")


class _ClosedWhileIdle(http.client.RemoteDisconnected):
    """A connection that had served requests before was closed without a byte of an answer to this one."""


class _DeadlineReader(io.RawIOBase):
    """Reads a socket until as long from now as its timeout is, however slowly bytes come.

    Attributes:
      has_read: whether any byte has come.
    """

    def __init__(self, sock: socket.socket, stream: io.RawIOBase) -> None:
        self._sock = sock
        self._stream = stream
        self._deadline = time.monotonic() + (sock.gettimeout() or 0.0)
        self.has_read = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._sock.settimeout(left)
        count = self._stream.readinto(buffer)
        self.has_read = self.has_read or bool(count)
        return count

    def close(self) -> None:
        self._stream.close()
        super().close()


class _Answer(http.client.HTTPResponse):
    """An answer that must be there, body and all, within the timeout that its socket has at the beginning."""

    def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self._reader = _DeadlineReader(sock, self.fp.detach())
        self.fp = io.BufferedReader(self._reader)

    def begin(self) -> None:
        try:
            super().begin()
        except ConnectionError as error:  # a reset may come before the first byte as well as after it
            if self._reader.has_read:
                raise
            raise http.client.RemoteDisconnected(str(error)) from error


class _Connection(HTTPConnection):
    """A connection whose timeout is for all that follows: connecting, sending, and the whole answer.

    urllib3 gives the socket what `timeout` says before it sends and before it reads; `sendall` keeps to that in all.

    Args:
      connect_secs: what connecting may take of it.
    """

    response_class = _Answer
    _deadline: float | None = None
    _answers = 0

    def __init__(self, *args: Any, connect_secs: float, **options: Any) -> None:
        super().__init__(*args, **options)
        self._connect_secs = connect_secs

    @property
    def timeout(self) -> float | None:
        """What is left of it, in seconds."""
        return None if self._deadline is None else max(self._deadline - time.monotonic(), _LEAST_SECS)

    @timeout.setter
    def timeout(self, secs: float | None) -> None:
        self._deadline = None if secs is None else time.monotonic() + secs

    def connect(self) -> None:
        super().connect()
        self._answers = 0
        self.sock.settimeout(self.timeout)

    def _new_conn(self) -> socket.socket:  # which urllib3 calls for the socket alone, before TLS
        deadline, left = self._deadline, self.timeout
        self.timeout = self._connect_secs if left is None else min(left, self._connect_secs)
        try:
            sock = super()._new_conn()
        finally:
            self._deadline = deadline
        sock.settimeout(self.timeout)
        return sock

    def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]  # as in urllib3
        try:
            response = super().getresponse()
        except http.client.RemoteDisconnected as error:
            if not self._answers:
                raise
            raise _ClosedWhileIdle(str(error)) from error
        self._answers += 1
        return response


class _TlsConnection(_Connection, HTTPSConnection):
    """The same over TLS."""


def _pool(endpoint: Endpoint, ssl_context: ssl.SSLContext | None, connect_secs: float) -> urllib3.HTTPConnectionPool:
    pool: urllib3.HTTPConnectionPool
    options: dict[str, Any] = {"maxsize": _MAX_IDLE_CONNECTIONS, "connect_secs": connect_secs}
    if ssl_context is None:
        pool = urllib3.HTTPConnectionPool(endpoint.host, endpoint.port, **options)
        pool.ConnectionCls = _Connection
    else:
        pool = urllib3.HTTPSConnectionPool(endpoint.host, endpoint.port, ssl_context=ssl_context, **options)
        pool.ConnectionCls = _TlsConnection
    return pool


def _cause(error: HTTPError) -> BaseException:
    """What urllib3 wrapped."""
    wrapped = error.args[-1] if error.args else None
    if isinstance(wrapped, BaseException):
        return wrapped
    return error.__cause__ or error
