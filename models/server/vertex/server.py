"""The whole service: HTTP, faults, online calls and jobs."""

import logging
import ssl
import urllib.parse
from collections.abc import Collection, Mapping

from sluice.models.server.http_server import BAD_GZIP, HttpHandler, HttpServer
from sluice.models.server.predict import Predictor
from sluice.models.server.status import StatusError, invalid
from sluice.models.server.vertex.calls import Call, Calls
from sluice.models.server.vertex.faults import FaultGate, VertexFaults, retry_after
from sluice.models.server.vertex.files import JobFiles, JobTables, LocalJobFiles
from sluice.models.server.vertex.jobs import Jobs
from sluice.models.server.vertex.online import Online
from sluice.models.server.vertex.resources import Resources
from sluice.models.server.vertex.routes import answer_route, find_route, routes
from sluice.models.server.vertex.wire import JSON, Reply, Request, render_error

_LOG = logging.getLogger(__name__)


class VertexServer:
    """The service on 127.0.0.1, ready once constructed. See the package for what it covers.

    Args:
      predictor: of the models that it serves.
      bases: the directory of each model.
      project, location: the only ones that it knows.
      port: 0: a free one.
      files, tables: where jobs read and write; without files: directories of this machine; without tables: no BigQuery.
      dedicated: the names of the models whose endpoints are dedicated.
      tls: None: plain HTTP.

    Attributes:
      calls: what was asked.
      resources: its endpoints and models.
      jobs: its batch prediction jobs.

    Raises:
      UsageError: the port is in use.
    """

    def __init__(
        self,
        predictor: Predictor,
        bases: Mapping[str, str],
        project: str = "local",
        location: str = "us-central1",
        port: int = 0,
        files: JobFiles | None = None,
        tables: JobTables | None = None,
        faults: VertexFaults | None = None,
        dedicated: Collection[str] = (),
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.calls = Calls()
        self.gate = FaultGate(faults or VertexFaults())
        self.resources = Resources(predictor.store, bases, project, location, dedicated)
        self.jobs = Jobs(self.resources, predictor, self.gate, files or LocalJobFiles(), tables)
        self._routes = routes(self.resources, Online(predictor, self.resources, self.gate), self.jobs)
        self._tls = tls
        self._http = _VertexHttp(self, port, tls)
        self.port = self._http.port
        self._http.start()

    @property
    def url(self) -> str:
        """Its base URL: the value of --vertex_endpoint."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def faults(self) -> VertexFaults:
        """What goes wrong on purpose; may be changed while the service runs."""
        return self.gate.faults

    def stop(self) -> None:
        """Is gone until `start`: refuses connections and cuts those that there are. Jobs go on."""
        self._http.close()

    def start(self) -> None:
        """Is back after `stop`, on the same port."""
        self._http = _VertexHttp(self, self.port, self._tls)
        self._http.start()

    def close(self) -> None:
        """Ends all calls and jobs, and frees the port."""
        self.gate.close()
        self._http.close()
        self.jobs.close()

    def __enter__(self) -> "VertexServer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def answer(self, request: Request, raw_path: str) -> Reply | None:
        """Answers one request; None: the answer is to be lost."""
        name = ""
        try:
            route, match = find_route(self._routes, request)
            name = route.name
            self.gate.enter(name, request.headers)
            reply = answer_route(route, match, request, self.resources)
        except StatusError as error:
            reply = render_error(error, self.faults.errors_as_array, retry_after(error, self.faults))
        except Exception as error:  # noqa: BLE001  a client must have an answer, whatever is wrong here
            _LOG.exception("%s %s", request.method, raw_path)
            internal = StatusError("INTERNAL", f"{type(error).__name__}: {error}")
            reply = render_error(internal, self.faults.errors_as_array, {})
        token = request.headers.get("authorization", "")
        self.calls.add(Call(name, raw_path, reply.status, len(request.body), len(reply.body), token))
        return None if self.gate.loses_answer(name) else reply


class _VertexHttp(HttpServer):
    def __init__(self, service: VertexServer, port: int, tls: ssl.SSLContext | None) -> None:
        self.service = service
        super().__init__(_Handler, port, "vertex_port", tls)


class _Handler(HttpHandler):
    server: _VertexHttp

    def serve(self) -> None:
        service = self.server.service
        try:
            body = self.read_body()
        except BAD_GZIP:
            error = invalid("The body is not what its Content-Encoding says.")
            self.send(400, render_error(error, False, {}).body, JSON)
            return
        reply = service.answer(self._request(body), self.path)
        if reply is None:
            self.close_connection = True  # the client sees the connection end
            return
        self.send(reply.status, reply.body, JSON, reply.headers)

    def _request(self, body: bytes) -> Request:
        path, _, query = self.path.partition("?")
        fields = urllib.parse.parse_qsl(query, keep_blank_values=True)
        headers = {name.lower(): value for name, value in self.headers.items()}
        return Request(self.command, urllib.parse.unquote(path), dict(fields), headers, body)
