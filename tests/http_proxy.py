"""An HTTP server before another one, which answers some requests itself, as the test wants."""

from __future__ import annotations

import contextlib
import http.server
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator

import orjson

_TIMEOUT_SECS = 30


class Proxy:
    """Passes requests on, but for those that it has answers for. No connection outlives its request.

    Args:
      target: http://HOST:PORT of the other server.

    Attributes:
      url: http://127.0.0.1:PORT of this one.
      answers: for the next POST requests, in order: a status, and the JSON that goes with it.
      posted: the JSON of every POST request, those it answered itself among them.
    """

    def __init__(self, target: str) -> None:
        self.answers: list[tuple[int, object]] = []
        self.posted: list[dict] = []
        self._target = target
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._send(*proxy._pass_on(self.path, None))

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                proxy.posted.append(orjson.loads(body))
                if proxy.answers:
                    status, answer = proxy.answers.pop(0)
                    self._send(status, orjson.dumps(answer))
                else:
                    self._send(*proxy._pass_on(self.path, body))

            def _send(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        """Ends it: who connects now is refused. A second time is none."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _pass_on(self, path: str, body: bytes | None) -> tuple[int, bytes]:
        request = urllib.request.Request(self._target + path, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_SECS) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()


@contextlib.contextmanager
def proxy_of(target: str) -> Iterator[Proxy]:
    """Runs a Proxy while the block runs."""
    proxy = Proxy(target)
    try:
        yield proxy
    finally:
        proxy.close()
