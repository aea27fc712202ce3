"""TF Serving's REST API: https://www.tensorflow.org/tfx/serving/api_rest"""

import contextlib
import gzip
import http.server
import io
import logging
import re
import socket
import socketserver
import sys
import threading
import urllib.parse
import zlib
from collections.abc import Iterator
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message

from sluice.models.errors import UsageError
from sluice.models.protos import message_class
from sluice.models.server.describe import SIGNATURE_DEF, metadata, model_status
from sluice.models.server.predict import Call, Predictor, input_infos
from sluice.models.server.rest_request import parse_request
from sluice.models.server.rest_response import render, render_answer
from sluice.models.server.status import StatusError, invalid
from sluice.models.server.store import Spec

_LOG = logging.getLogger(__name__)

# A connection as socketserver types it; over TCP it is a socket.
Connection = socket.socket | tuple[bytes, socket.socket]

# The URLs, which ignore case: tensorflow_serving/model_servers/http_rest_api_util.cc. What they end with does not: the
# handler compares it (http_rest_api_handler.cc).
_VERSION = r"(?:/versions/(?P<version>[0-9]+)|/labels/(?P<label>[^/:]+))?"
_GET = re.compile(rf"/v1/models(?:/(?P<name>[^/:]+))?{_VERSION}(?:/(?P<what>metadata))?", re.IGNORECASE)
_POST = re.compile(rf"/v1/models/(?P<name>[^/:]+){_VERSION}:(?P<what>classify|regress|predict)", re.IGNORECASE)
_VERBS = ("classify", "regress", "predict")
# util/net_http/compression/gzip_zlib.h, kMaxUncompressedBytes
_MAX_UNPACKED = 100 << 20
_MAX_VERSION = 2**63 - 1


class RestServer(http.server.ThreadingHTTPServer):
    """The REST side of a server, on 127.0.0.1: a thread for each connection.

    Args:
      port: 0: a free one.

    Raises:
      UsageError: the port is in use.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, predictor: Predictor, port: int) -> None:
        self.predictor = predictor
        self._connections: set[Connection] = set()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), name="rest", daemon=True)
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except OSError as error:
            raise UsageError(f"--rest_port {port}: {error.strerror}; give another port, or 0 for a free one") from error

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Frees the port and cuts every connection, idle ones included."""
        if self._thread.is_alive():
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
        """Logs errors, except for clients that have gone away."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(http.server.BaseHTTPRequestHandler):
    server: RestServer
    protocol_version = "HTTP/1.1"  # connections stay open
    disable_nagle_algorithm = True
    wbufsize = -1  # headers and body are sent together

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_PUT = do_DELETE = do_OPTIONS = do_PATCH = do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Logs nothing."""

    def _serve(self) -> None:
        body = self._read_body()
        if not self.path.lower().startswith("/v1/"):
            # util/net_http/server/internal/evhttp_server.cc: no handler, so libevent's own page
            self._send(404, b"<html><body><h1>Not Found</h1></body></html>", "text/html")
            return
        try:
            status, answer = 200, self._answer(body)
        except StatusError as error:
            status, answer = error.http_status, render({"error": error.message})
        except Exception as error:  # noqa: BLE001  a client must have an answer, whatever is wrong here
            _LOG.exception("%s %s", self.command, self.path)
            status, answer = 500, render({"error": f"{type(error).__name__}: {error}"})
        self._send(status, answer, "application/json")

    def _read_body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            body = b"".join(self._read_chunks())
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if "gzip" not in self.headers.get("Content-Encoding", ""):
            return body
        try:
            return _unpack(body)
        except (OSError, EOFError, zlib.error):
            return b""  # as in TF Serving: util/net_http/server/internal/evhttp_request.cc

    def _read_chunks(self) -> Iterator[bytes]:
        """Yields the parts of a chunked body: RFC 9112, section 7.1."""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():  # trailers
            pass

    def _send(self, status: int, body: bytes, content_type: str) -> None:
        self.send_response(status)
        if "gzip" in self.headers.get("Accept-Encoding", ""):
            # TF Serving itself sends no gzip; proxies in front of it do.
            body = gzip.compress(body, 1)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _answer(self, body: bytes) -> bytes:
        """Returns the body of the answer.

        Raises:
          StatusError: the request fails.
        """
        match = {"GET": _GET, "POST": _POST}.get(self.command, _GET).fullmatch(self.path)
        if match is None or self.command not in ("GET", "POST"):
            raise invalid(f"Malformed request: {self.command} {self.path}")
        spec = _spec(match)
        predictor = self.server.predictor
        if self.command == "POST":
            if match["what"] not in _VERBS:
                raise invalid(f"Malformed request: {self.command} {self.path}")
            if match["what"] != "predict":
                raise StatusError("UNIMPLEMENTED", f"the reference server of Sluice has no {match['what']}")
            with predictor.call(threading.Event()) as call:
                return _predict(call, spec, body)
        if not spec.name:
            raise invalid("Missing model name in request.")
        if match["what"] == "metadata":
            return _metadata_json(metadata(predictor.store, spec, [SIGNATURE_DEF]))
        return _status_json(model_status(predictor.store, spec))


def _unpack(body: bytes) -> bytes:
    with gzip.open(io.BytesIO(body)) as file:
        unpacked = file.read(_MAX_UNPACKED + 1)
    if len(unpacked) > _MAX_UNPACKED:
        raise OSError("the body is too large unpacked")
    return unpacked


def _spec(match: re.Match[str]) -> Spec:
    version = match["version"]
    if version and int(version) > _MAX_VERSION:
        raise invalid(f"Failed to convert version: {version} to numeric.")
    label = urllib.parse.unquote(match["label"]) if match["label"] else None
    return Spec(urllib.parse.unquote(match["name"] or ""), int(version) if version else None, label)


def _predict(call: Call, spec: Spec, body: bytes) -> bytes:
    def dtypes_of(signature: str) -> dict[str, int]:
        with call.store.use(spec) as servable:
            return {name: info.dtype for name, info in input_infos(servable, signature).items()}

    signature, inputs, form = parse_request(body, dtypes_of)
    answer = call.predict(spec, signature, inputs, lambda _, array: array)
    return render_answer(answer.outputs, form)


def _status_json(response: Message) -> bytes:
    """Returns the JSON of the status; the proto has a json_name where proto3's JSON would use another name."""
    return json_format.MessageToJson(response, always_print_fields_with_no_presence=True, indent=1).encode()


def _metadata_json(response: Message) -> bytes:
    """Returns the JSON of the metadata, its Any unpacked: model_servers/http_rest_api_util.cc, ToJsonString."""

    definitions = message_class("tensorflow.serving.SignatureDefMap")()
    response.metadata[SIGNATURE_DEF].Unpack(definitions)

    def plain(message: Message) -> dict[str, Any]:
        return json_format.MessageToDict(
            message, always_print_fields_with_no_presence=True, preserving_proto_field_name=True
        )

    return render({"model_spec": plain(response.model_spec), "metadata": {SIGNATURE_DEF: plain(definitions)}})
