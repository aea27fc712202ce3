"""An HTTP server on 127.0.0.1 that reports whether a streaming job is alive and ready, and its figures."""

import http.server
import json
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from sluice.models.errors import UsageError
from sluice.pipelines.progress.stream_stats import StreamFigures

HOST = "127.0.0.1"

# How often the server checks whether it has to stop: the end of the block takes at most so long.
_TICK_SECS = 0.1


class HealthServer:
    """Answers GET /healthz and /readyz with 200 or 503, and /metrics with 200, each with the job's figures as JSON.

    A context manager. With port 0 it does nothing.

    Raises:
      UsageError: the port is in use.
    """

    def __init__(self, port: int, figures: Callable[[], StreamFigures]) -> None:
        self._server: http.server.ThreadingHTTPServer | None = None
        if port:
            try:
                self._server = http.server.ThreadingHTTPServer((HOST, port), _handler(figures))
            except OSError as error:
                raise UsageError(
                    f"--health_port {port} cannot be opened: {error.strerror}; give a free port"
                ) from error

    def __enter__(self) -> Self:
        if self._server is not None:
            serve = self._server.serve_forever
            threading.Thread(target=serve, args=(_TICK_SECS,), name="sluice-health", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()


def _handler(figures: Callable[[], StreamFigures]) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            now = figures()
            answers = {"/healthz": now.alive, "/readyz": now.ready, "/metrics": True}
            path = self.path.split("?")[0]
            body = json.dumps(now.to_json() if path in answers else {"paths": list(answers)}, indent=2).encode() + b"\n"
            self.send_response(404 if path not in answers else 200 if answers[path] else 503)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Probes come every few seconds: they are not logged."""

    return Handler
