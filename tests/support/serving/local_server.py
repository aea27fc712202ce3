"""An HTTP server in this process, on loopback, with a handler from the test."""

from __future__ import annotations

import http.server
import threading
from typing import Any


class LocalServer:
    """Serves from its construction until it is closed.

    Attributes:
      url: http://127.0.0.1:PORT.
    """

    def __init__(self, handler: type[Handler]) -> None:
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        """Stops the server; new connections are refused. A second call does nothing."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers in JSON, and logs nothing."""

    def send_json(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass
