"""A model behind TF Serving's REST API: https://www.tensorflow.org/tfx/serving/api_rest

Its URLs and the meaning of its HTTP statuses: http_rest_api_util.cc and http_server.cc in
https://github.com/tensorflow/serving/blob/master/tensorflow_serving/model_servers
"""

import dataclasses
import gzip
import json
import re
import urllib.parse
from typing import Any

import orjson
from google.protobuf import json_format

from sluice.models.endpoints import not_found
from sluice.models.endpoints.base import ServedModel
from sluice.models.endpoints.certificates import ssl_context
from sluice.models.endpoints.credentials import Credentials
from sluice.models.endpoints.errors import before_sending, error_of, is_not_served, with_wait
from sluice.models.endpoints.http_calls import Answer, Headers, HttpCalls
from sluice.models.endpoints.json_tensor import decode_outputs, encode_columns, encode_rows
from sluice.models.error_table import http_status
from sluice.models.errors import CallError, MessageTooLarge, ModelNotFound, TimedOut
from sluice.models.interface import EndpointOptions, ModelOptions, Outputs
from sluice.models.protos import message_class
from sluice.models.saved_model.signature_reader import read_served_signatures
from sluice.models.signature import UNSERVED, Signature, has_column_form
from sluice.models.tensors.binding import Feeds
from sluice.models.uri import Endpoint, ModelSpec

# Types without a JSON form: TF Serving refuses them with UNIMPLEMENTED. tensorflow_serving/util/json_tensor.cc
_NOT_IN_JSON = ("uint16", "float16", "bfloat16")
# Higher levels cost more time than they save.
_GZIP_LEVEL = 1
# What TF Serving unpacks at most; it takes a larger body for an empty one. util/net_http/compression/gzip_zlib.h,
# kMaxUncompressedBytes
_MAX_UNPACKED = 100 << 20
_ESCAPED_ERROR = re.compile(rb'\{ "error": "((?:[^"\\]|\\.)*)" \}\s*', re.DOTALL)
# Where error messages cut the answer of a proxy or another server. TF Serving cuts its own texts at 1024 characters.
_MAX_TEXT = 200


def fetch_signatures(
    spec: ModelSpec, options: EndpointOptions, timeout_secs: float
) -> tuple[dict[str, Signature], int | None]:
    """Asks a server over REST; see models.endpoints.base.FetchSignatures."""
    client = _Client(spec, options)
    try:
        answer = client.get_metadata(timeout_secs)
    except TimedOut as error:
        raise not_found.wrong_address(client.endpoint, str(error)) from error
    except CallError as error:
        raise not_found.unreachable(client.endpoint, str(error)) from error
    finally:
        client.close()
    if answer.status != 200:
        raise _not_found(spec, client.endpoint, answer)
    try:
        return read_metadata(answer.data)
    except ValueError as error:
        odd = f"{client.endpoint.address} answers, but not with TF Serving's metadata: {cut_text(answer.data)}"
        raise not_found.wrong_address(client.endpoint, odd) from error


def read_metadata(data: bytes) -> tuple[dict[str, Signature], int | None]:
    """Returns the signatures and the version in an answer of /metadata.

    Raises:
      ValueError: it is not such an answer.
    """
    try:
        metadata = json.loads(data)
        definitions = message_class("tensorflow.serving.SignatureDefMap")()
        json_format.ParseDict(metadata["metadata"]["signature_def"], definitions, ignore_unknown_fields=True)
        version = metadata["model_spec"].get("version")
        return without_json(read_served_signatures(definitions)), None if version is None else int(version)
    except (KeyError, TypeError, AttributeError, json_format.ParseError) as error:
        raise ValueError(f"it lacks {error}") from error


class RestModel(ServedModel):
    """A client of a served model. Thread-safe: each call has a connection to itself while it lasts."""

    def __init__(self, spec: ModelSpec, options: ModelOptions, signature: Signature | None = None) -> None:
        super().__init__(spec, options, signature, fetch_signatures)
        self._encode = encode_rows if options.endpoint.rest_format == "rows" else encode_columns
        self._timeout_secs = options.endpoint.rpc_timeout_secs
        self._client = _Client(spec, options.endpoint)

    def call(self, feeds: Feeds) -> Outputs:
        """Returns the server's outputs for these tensors, with the version of the URI: answers do not name theirs.

        Raises:
          CallError: the server refused the call, failed, or cannot be reached; see models.endpoints.errors.
          BadOutput: the answer cannot be parsed, or lacks an output.
        """
        with before_sending():
            body = self._encode(feeds, self.signature)
        answer = self._client.predict(body, self._timeout_secs)
        if answer.status != 200:
            raise with_wait(_call_error(answer, self._client.endpoint.address), answer.headers)
        return Outputs(decode_outputs(answer.data, self.signature), self.version)

    def close(self) -> None:
        """Closes the connections; calls under way fail."""
        self._client.close()


class _Client:
    """The URLs of a model, and the headers of requests to them."""

    def __init__(self, spec: ModelSpec, options: EndpointOptions) -> None:
        assert spec.endpoint is not None, "a spec of a served model"
        self.endpoint = spec.endpoint
        self._path = _path(spec.endpoint, spec.version)
        self._gzip = options.rest_gzip
        self._credentials = Credentials(options, spec.endpoint)
        self._calls = HttpCalls(spec.endpoint, ssl_context(options.ca_certificates) if spec.endpoint.tls else None)

    def get_metadata(self, timeout_secs: float) -> Answer:
        """Returns the answer, whatever its status; raises Unavailable, TimedOut or BadOutput if there is none."""
        return self._send("GET", "/metadata", [], None, timeout_secs)

    def predict(self, body: bytes, timeout_secs: float) -> Answer:
        """Returns the answer, whatever its status.

        Raises:
          MessageTooLarge: the server would not unpack the body.
          Unavailable, TimedOut, BadOutput: there is no answer.
        """
        headers = [("content-type", "application/json")]
        if self._gzip:
            headers.append(("content-encoding", "gzip"))
            with before_sending():
                body = self._packed(body)
        return self._send("POST", ":predict", headers, body, timeout_secs)

    def close(self) -> None:
        self._calls.close()

    def _packed(self, body: bytes) -> bytes:
        if len(body) > _MAX_UNPACKED:
            raise MessageTooLarge(
                f"{self.endpoint.address}: the request has {len(body)} bytes of JSON, and TF Serving unpacks at most "
                f"{_MAX_UNPACKED} of a request that --rest_gzip has compressed"
            )
        return gzip.compress(body, _GZIP_LEVEL, mtime=0)

    def _send(self, method: str, what: str, headers: Headers, body: bytes | None, timeout_secs: float) -> Answer:
        headers = [*self._credentials.headers(), ("accept-encoding", "gzip"), *headers]
        return self._calls.send(method, self._path + what, headers, body, timeout_secs)


def _path(endpoint: Endpoint, version: int | None) -> str:
    path = f"{endpoint.path}/v1/models/{urllib.parse.quote(endpoint.name, safe='')}"
    if version is not None:
        return f"{path}/versions/{version}"
    return f"{path}/labels/{urllib.parse.quote(endpoint.label, safe='')}" if endpoint.label else path


def without_json(signatures: dict[str, Signature]) -> dict[str, Signature]:
    """Returns the signatures, and marks those that TF Serving's JSON cannot serve: its answers have every output."""
    return {name: dataclasses.replace(each, refusal=_refusal(each)) for name, each in signatures.items()}


def _refusal(signature: Signature) -> str:
    for role, specs in (("input", signature.inputs), ("output", signature.outputs)):
        for spec in specs:
            if spec.dtype in _NOT_IN_JSON:
                return f"{role} '{spec.name}' is {spec.dtype}, for which TF Serving's REST API has no JSON form; use grpc://"
            if spec.kind == UNSERVED:
                return (
                    f"output '{spec.name}' is ragged or sparse, which TF Serving cannot return, and REST returns every "
                    "output; use grpc://, where it can be left out with --exclude_columns"
                )
            if not has_column_form(spec.dtype) and role == "output":
                return (
                    f"output '{spec.name}' is {spec.dtype}, for which TF Serving's REST API has no JSON form, and REST "
                    "returns every output; use grpc://"
                )
    return ""


def _call_error(answer: Answer, address: str) -> CallError:
    text = serving_text(answer.data)
    if answer.status == 413:
        return MessageTooLarge(f"{address}: HTTP 413: {text or cut_text(answer.data)}")
    code = http_status(answer.status).code
    if answer.status == 404 and text is None:  # TF Serving names what it has not found
        code = "UNIMPLEMENTED"
    return error_of(code, text if text is not None else _other_text(answer), address)


def serving_text(body: bytes) -> str | None:
    """Returns the text of a TF Serving error; None if another server answered.

    TF Serving writes bytes of a text that is not UTF-8 as they are (json_tensor.cc, MakeJsonFromStatus). Before 2.3 it
    escaped the text as for C, with \\' and octal bytes, which are not JSON. An error with further fields comes from a
    gateway.
    """
    try:
        answer: Any = orjson.loads(body.decode(errors="replace"))
    except orjson.JSONDecodeError:
        return _c_unescaped(found[1]) if (found := _ESCAPED_ERROR.fullmatch(body)) else None
    text = answer["error"] if isinstance(answer, dict) and answer.keys() == {"error"} else None
    return text if isinstance(text, str) else None


def _c_unescaped(escaped: bytes) -> str | None:
    try:
        return escaped.decode("unicode_escape").encode("latin-1").decode(errors="replace")
    except UnicodeError:
        return None


def _other_text(answer: Answer) -> str:
    location = answer.headers.get("location")
    return f"HTTP {answer.status}{f' to {location}' if location else ''}: {cut_text(answer.data)}"


def cut_text(body: bytes) -> str:
    """Returns the start of a body, for error messages."""
    text = " ".join(body.decode(errors="replace").split())
    return text if len(text) <= _MAX_TEXT else text[:_MAX_TEXT] + "..."


def _not_found(spec: ModelSpec, endpoint: Endpoint, answer: Answer) -> ModelNotFound:
    text = serving_text(answer.data)
    if answer.status in (401, 403):
        return not_found.refused(endpoint, f"HTTP {answer.status}: {text or cut_text(answer.data)}")
    if text is not None and (answer.status == 404 or is_not_served(text)):
        return not_found.not_served(spec, endpoint, text)
    if answer.status < 500 and text is None:
        return not_found.no_tf_serving(endpoint, _other_text(answer))
    return not_found.not_told(endpoint, _other_text(answer) if text is None else f"HTTP {answer.status}: {text}")
