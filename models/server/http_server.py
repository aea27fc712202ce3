"""HTTP on loopback for the servers here: connections, bodies and answers, without what they mean."""

import contextlib
import gzip
import http.server
import io
import logging
import socket
import socketserver
import ssl
import threading
import zlib
from collections.abc import Iterator, Mapping

from sluice.models.errors import UsageError
from sluice.models.http_faults import log_fault

_LOG = logging.getLogger(__name__)

# A connection as socketserver types it; over TCP it is a socket.
Connection = socket.socket | tuple[bytes, socket.socket]

# util/net_http/compression/gzip_zlib.h of TF Serving, kMaxUncompressedBytes
_MAX_UNPACKED = 100 << 20
# How often a server looks whether it is to end, where nothing wakes it.
_LOOK_SECS = 0.05
# What a broken gzip stream raises.
BAD_GZIP = (OSError, EOFError, zlib.error)


class HttpServer(http.server.ThreadingHTTPServer):
    """A server on 127.0.0.1: a thread for each connection.

    Args:
      handler: reads and answers requests.
      port: 0: a free one.
      flag: the one that sets the port, for the error.
      tls: None: plain HTTP.

    Raises:
      UsageError: the port is in use.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, handler: "type[HttpHandler]", port: int, flag: str, tls: ssl.SSLContext | None = None) -> None:
        self._connections: set[Connection] = set()
        self._thread = threading.Thread(target=self.serve_forever, args=(_LOOK_SECS,), name=flag, daemon=True)
        try:
            super().__init__(("127.0.0.1", port), handler)
        except OSError as error:
            raise UsageError(f"--{flag} {port}: {error.strerror}; give another port, or 0 for a free one") from error
        if tls:  # the handshake is left to the connection's own thread
            self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Frees the port and cuts every connection, idle ones included."""
        if self._thread.is_alive():
            with contextlib.suppress(OSError):  # other systems than Linux do not shut down a socket that listens
                self.socket.shutdown(socket.SHUT_RDWR)  # wakes the thread, which would end at its next look
            self.shutdown()
        self.server_close()
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                assert isinstance(connection, socket.socket), "a connection over TCP"
                connection.shutdown(socket.SHUT_RDWR)

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)  # HTTPServer's own looks up the host's name, which may take seconds

    def process_request(self, request: Connection, client_address: object) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Connection) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Connection, client_address: object) -> None:
        log_fault(_LOG, "The server")


class HttpHandler(http.server.BaseHTTPRequestHandler):
    """Reads the requests of one connection; a subclass answers them in `serve`."""

    protocol_version = "HTTP/1.1"  # connections stay open
    disable_nagle_algorithm = True
    wbufsize = -1  # headers and body are sent together

    def do_GET(self) -> None:
        self.serve()

    do_POST = do_PUT = do_DELETE = do_OPTIONS = do_PATCH = do_HEAD = do_GET

    def serve(self) -> None:
        """Answers one request."""
        raise NotImplementedError

    def log_message(self, format: str, *args: object) -> None:
        """Logs nothing."""

    def read_body(self) -> bytes:
        """Returns the body of the request, unpacked.

        Raises:
          OSError, EOFError, zlib.error: it is no gzip stream although a header says so (BAD_GZIP).
        """
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            body = b"".join(self._read_chunks())
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return _unpack(body) if "gzip" in self.headers.get("Content-Encoding", "") else body

    def _read_chunks(self) -> Iterator[bytes]:
        """Yields the parts of a chunked body: RFC 9112, section 7.1."""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():  # trailers
            pass

    def send(self, status: int, body: bytes, content_type: str, headers: Mapping[str, str] | None = None) -> None:
        """Sends an answer, packed if the client takes gzip."""
        self.send_response(status)
        if "gzip" in self.headers.get("Accept-Encoding", ""):
            # TF Serving itself sends no gzip; proxies in front of it do, and Google's.
            body = gzip.compress(body, 1)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _unpack(body: bytes) -> bytes:
    with gzip.open(io.BytesIO(body)) as file:
        unpacked = file.read(_MAX_UNPACKED + 1)
    if len(unpacked) > _MAX_UNPACKED:
        raise OSError("the body is too large unpacked")
    return unpacked
