"""An HTTP server that tells whether a streaming job is alive and ready, and its figures: for probes and Prometheus."""

import http.server
import json
import logging
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from sluice.models.errors import UsageError
from sluice.models.http_faults import log_fault
from sluice.pipelines.progress.stream_stats import StreamFigures

if TYPE_CHECKING:
    from sluice.pipelines.progress.prometheus import MetricsPage, Values

_LOG = logging.getLogger(__name__)

HOST = "127.0.0.1"
PATHS = ("/healthz", "/readyz", "/metrics", "/figures")

# A client that says nothing for so long is left: each holds a thread.
_IDLE_SECS = 30.0
# How often the server checks whether it has to stop: the end of the block takes at most so long.
_TICK_SECS = 0.1


class HealthServer:
    """Answers GET. A context manager. With port 0 it does nothing.

    /healthz, for a liveness probe: 503 if the job is stuck, so that a new process may help, else 200; /readyz, for a
    readiness probe: 503 if the job reads no messages, or gets on with none, else 200; /figures: 200. The body of these
    is the job's figures as JSON, with its state. /metrics: 200, for Prometheus.

    Args:
      values: see MetricsPage.

    Raises:
      UsageError: the port is in use, or the address is none of this machine.
    """

    def __init__(
        self, port: int, figures: Callable[[], StreamFigures], values: "Callable[[], Values]", address: str = HOST
    ) -> None:
        self._server: http.server.ThreadingHTTPServer | None = None
        if port:
            # Not at the top: a job without the port need not load the client library.
            from sluice.pipelines.progress.prometheus import MetricsPage

            handler = _handler(figures, MetricsPage(values))
            try:
                self._server = _server_class(address)((address, port), handler)
            except OSError as error:
                raise UsageError(
                    f"--health_port {port} cannot be opened at {address}: {error.strerror}; give a free port, and an "
                    "address of this machine"
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


class _Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        log_fault(_LOG, "The health port")


class _Server6(_Server):
    address_family = socket.AF_INET6


def _server_class(address: str) -> type[_Server]:
    return _Server6 if ":" in address else _Server


def _handler(figures: Callable[[], StreamFigures], page: "MetricsPage") -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        timeout = _IDLE_SECS

        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            if path == "/metrics":
                body, content_type = page.make(self.headers.get("Accept", ""))
                self._answer(200, content_type, body)
            elif path in PATHS:
                now = figures()
                is_well = {"/healthz": now.alive, "/readyz": now.ready}.get(path, True)
                self._answer_json(200 if is_well else 503, now.to_json())
            else:
                self._answer_json(404, {"paths": list(PATHS)})

        def _answer_json(self, status: int, value: dict[str, object]) -> None:
            self._answer(status, "application/json", json.dumps(value, indent=2).encode() + b"\n")

        def _answer(self, status: int, content_type: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Probes come every few seconds: they are not logged."""

    return Handler
