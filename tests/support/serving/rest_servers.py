"""HTTP servers in this process, on loopback, whose answers a test of the REST client decides."""

from __future__ import annotations

import contextlib
import gzip
import http.server
import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sluice.models.endpoints.rest import RestModel
from sluice.models.interface import EndpointOptions, ModelOptions
from sluice.models.signature import Signature
from sluice.models.uri import parse_model_uri
from tests.support.fakes import PATIENCE_SECS, X_TO_Y, double, x_feeds

# How long a trickling server waits between bytes.
_TRICKLE_SECS = 0.01


@dataclass(frozen=True)
class Request:
    """A request that came.

    Attributes:
      headers: names in lower case.
      body: as sent.
      number: how many requests came before it on its connection.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    number: int

    @property
    def json(self) -> Any:
        """The body, decompressed."""
        return json.loads(gzip.decompress(self.body) if self.headers.get("content-encoding") == "gzip" else self.body)


@dataclass(frozen=True)
class Reply:
    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


# From a request to the reply, the JSON of a reply, or an action on the connection, which ends with it.
Answer = Callable[[Request], Any]


class Server(http.server.ThreadingHTTPServer):
    """Answers by a function, over connections that it keeps open.

    Attributes:
      requests: in order of arrival.
      connections: how many there were.
      stopping: set when the server stops, for answers that wait.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, answer: Answer, tls: ssl.SSLContext | None = None) -> None:
        self.answer = answer
        self.requests: list[Request] = []
        self.connections = 0
        self.stopping = threading.Event()
        self._tls = tls
        super().__init__(("127.0.0.1", 0), _Handler)
        threading.Thread(target=self.serve_forever, args=(0.005,), daemon=True).start()

    def uri(self, path: str = "/v1/models/m") -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.server_port}{path}"

    def finish_request(self, request: Any, client_address: Any) -> None:
        self.connections += 1
        if self._tls is not None:
            with (
                contextlib.suppress(OSError),  # a client that does not trust the certificate
                self._tls.wrap_socket(request, server_side=True) as wrapped,
            ):
                super().finish_request(wrapped, client_address)
        else:
            super().finish_request(request, client_address)

    def stop(self) -> None:
        self.stopping.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Logs nothing: clients go away on purpose."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def setup(self) -> None:
        super().setup()
        self.number = 0

    def handle_request(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length", 0)))
        request = Request(self.command, self.path, headers, body, self.number)
        self.number += 1
        self.server.requests.append(request)
        answer = self.server.answer(request)
        if callable(answer):
            answer(self.connection)
            self.close_connection = True
            return
        if not isinstance(answer, Reply):
            answer = Reply(body=json.dumps(answer).encode())
        self.send_response(answer.status)
        for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.body)

    do_GET = do_POST = handle_request

    def log_message(self, *args: Any) -> None:
        """Logs nothing."""


@contextlib.contextmanager
def serving() -> Iterator[Callable[..., Server]]:
    """Yields a function that starts servers; they stop when the block ends."""
    with contextlib.ExitStack() as stack:

        def start(answer: Answer, **options: Any) -> Server:
            server = Server(answer, **options)
            stack.callback(server.stop)
            return server

        yield start


def cut(connection: socket.socket) -> None:
    """Ends the connection without sending a byte."""


def sending(data: bytes) -> Callable[[socket.socket], None]:
    """Returns an action that sends this and ends the connection."""
    return lambda connection: connection.sendall(data)


def resetting(data: bytes = b"") -> Callable[[socket.socket], None]:
    """Returns an action that sends this and resets the connection."""

    def reset(connection: socket.socket) -> None:
        connection.sendall(data)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()

    return reset


def trickling(start: bytes, stopping: threading.Event) -> Callable[[socket.socket], None]:
    """Returns an action that sends this, and then a byte now and then while anybody listens."""

    def trickle(connection: socket.socket) -> None:
        connection.sendall(start)
        with contextlib.suppress(OSError):
            while not stopping.wait(_TRICKLE_SECS):
                connection.sendall(b"1")

    return trickle


class HeldReader:
    """A server that reads the start of a request, and the rest only when the test lets it.

    Args:
      tls: None: plain text.

    Attributes:
      begun: set once something has come.
      go_on: lets it read on.
    """

    def __init__(self, listening: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()
        self._listening, self._tls = listening, tls

    def count(self) -> int:
        """Returns the bytes of the first connection over which any come."""
        count = 0
        while not count:
            connection, _ = self._listening.accept()
            with contextlib.suppress(OSError), self._tls_of(connection) as reader:
                while data := reader.recv(50_000):
                    count += len(data)
                    self.begun.set()
                    self.go_on.wait(PATIENCE_SECS)
        return count

    def _tls_of(self, connection: socket.socket) -> socket.socket:
        return self._tls.wrap_socket(connection, server_side=True) if self._tls else connection


def doubled(request: Request) -> Any:
    """Answers as a model of X_TO_Y does, in the form of the request."""
    body = request.json
    rows = "instances" in body
    values = [row["x"] for row in body["instances"]] if rows else body["inputs"]["x"]
    columns = {name: array.tolist() for name, array in double(x_feeds(*values)).arrays.items()}
    columns["text"] = [text.decode() for text in columns["text"]]
    if rows:
        return {"predictions": [{name: column[row] for name, column in columns.items()} for row in range(len(values))]}
    return {"outputs": columns}


def described(*signatures: Signature, version: int = 7) -> Any:
    """Returns metadata as TF Serving writes it: 64-bit numbers are strings."""
    dtypes = {"int64": "DT_INT64", "string": "DT_STRING", "float32": "DT_FLOAT"}

    def infos(specs: Any) -> Any:
        return {
            spec.name: {
                "dtype": dtypes[spec.dtype],
                "tensor_shape": {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False},
                "name": spec.tensors[0],
            }
            for spec in specs
        }

    definitions = {
        each.name: {
            "inputs": infos(each.inputs), "outputs": infos(each.outputs), "method_name": each.method, "defaults": {},
        }
        for each in signatures
    }  # fmt: skip
    return {
        "model_spec": {"name": "m", "signature_name": "", "version": str(version)},
        "metadata": {"signature_def": {"signature_def": definitions}},
    }


def serving_model(request: Request) -> Any:
    """Answers as TF Serving does with X_TO_Y."""
    return described(X_TO_Y) if request.method == "GET" else doubled(request)


def opened(uri: str, signature: Signature | None = X_TO_Y, options: Any = None, **endpoint: Any) -> RestModel:
    """Returns a client of the model at the URI, with these options of the model and of the endpoint."""
    given = ModelOptions(**(options or {}), endpoint=EndpointOptions(**endpoint))
    return RestModel(parse_model_uri(uri), given, signature)


def assert_doubles(model: RestModel) -> None:
    outputs = model.call(x_feeds(1, 2))
    assert {name: array.tolist() for name, array in outputs.arrays.items()} == {"text": [b"1", b"2"], "y": [2, 4]}
