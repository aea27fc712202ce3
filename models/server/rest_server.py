"""TF Serving's REST API: https://www.tensorflow.org/tfx/serving/api_rest"""

import logging
import re
import threading
import urllib.parse
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message

from sluice.models.protos import message_class
from sluice.models.server.describe import SIGNATURE_DEF, metadata, model_status
from sluice.models.server.http_server import BAD_GZIP, HttpHandler, HttpServer
from sluice.models.server.predict import Call, Predictor, input_dtypes
from sluice.models.server.rest_request import parse_request
from sluice.models.server.rest_response import render, render_answer
from sluice.models.server.status import StatusError, invalid
from sluice.models.server.store import Spec

_LOG = logging.getLogger(__name__)

# The URLs, which ignore case: tensorflow_serving/model_servers/http_rest_api_util.cc. What they end with does not: the
# handler compares it (http_rest_api_handler.cc).
_VERSION = r"(?:/versions/(?P<version>[0-9]+)|/labels/(?P<label>[^/:]+))?"
_GET = re.compile(rf"/v1/models(?:/(?P<name>[^/:]+))?{_VERSION}(?:/(?P<what>metadata))?", re.IGNORECASE)
_POST = re.compile(rf"/v1/models/(?P<name>[^/:]+){_VERSION}:(?P<what>classify|regress|predict)", re.IGNORECASE)
_VERBS = ("classify", "regress", "predict")
_MAX_VERSION = 2**63 - 1


class RestServer(HttpServer):
    """The REST side of a server, on 127.0.0.1.

    Args:
      port: 0: a free one.

    Raises:
      UsageError: the port is in use.
    """

    def __init__(self, predictor: Predictor, port: int) -> None:
        self.predictor = predictor
        super().__init__(_Handler, port, "rest_port")


class _Handler(HttpHandler):
    server: RestServer

    def serve(self) -> None:
        try:
            body = self.read_body()
        except BAD_GZIP:
            body = b""  # as in TF Serving: util/net_http/server/internal/evhttp_request.cc
        if not self.path.lower().startswith("/v1/"):
            # util/net_http/server/internal/evhttp_server.cc: no handler, so libevent's own page
            self.send(404, b"<html><body><h1>Not Found</h1></body></html>", "text/html")
            return
        try:
            status, answer = 200, self._answer(body)
        except StatusError as error:
            status, answer = error.http_status, render({"error": error.message})
        except Exception as error:  # noqa: BLE001  a client must have an answer, whatever is wrong here
            _LOG.exception("%s %s", self.command, self.path)
            status, answer = 500, render({"error": f"{type(error).__name__}: {error}"})
        self.send(status, answer, "application/json")

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
                return predict_json(call, spec, body)
        if not spec.name:
            raise invalid("Missing model name in request.")
        if match["what"] == "metadata":
            return _metadata_json(metadata(predictor.store, spec, [SIGNATURE_DEF]))
        return _status_json(model_status(predictor.store, spec))


def _spec(match: re.Match[str]) -> Spec:
    version = match["version"]
    if version and int(version) > _MAX_VERSION:
        raise invalid(f"Failed to convert version: {version} to numeric.")
    label = urllib.parse.unquote(match["label"]) if match["label"] else None
    return Spec(urllib.parse.unquote(match["name"] or ""), int(version) if version else None, label)


def predict_json(call: Call, spec: Spec, body: bytes) -> bytes:
    """Returns the body of the answer to a predict request.

    Raises:
      StatusError: the one that TF Serving would return.
    """

    def dtypes_of(signature: str) -> dict[str, int]:
        with call.store.use(spec) as servable:
            return input_dtypes(servable, signature)

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
