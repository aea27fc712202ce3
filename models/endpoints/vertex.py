"""A model behind an online endpoint of Vertex AI.

By default it is called by rawPredict, whose bodies are the container's own: those of TF Serving's REST API, in the row
form, which all of Google's containers take, unless an output has no batch dimension.
https://cloud.google.com/vertex-ai/docs/predictions/get-online-predictions
"""

import dataclasses
import threading
import time
from collections.abc import Callable

from sluice.models.endpoints.base import ServedModel
from sluice.models.endpoints.certificates import ssl_context
from sluice.models.endpoints.credentials import Credentials
from sluice.models.endpoints.errors import before_sending
from sluice.models.endpoints.http_calls import Answer, HttpCalls
from sluice.models.endpoints.json_tensor import decode_outputs, encode_columns, encode_rows
from sluice.models.endpoints.secrets import refuse_secrets
from sluice.models.endpoints.vertex_errors import call_error
from sluice.models.endpoints.vertex_lookup import SHARED, look_up_versions, with_google_token
from sluice.models.endpoints.vertex_predict import decode_answer, encode_instances
from sluice.models.endpoints.vertex_signatures import describe_endpoint, find_endpoint, needs_columns
from sluice.models.errors import MessageTooLarge, UsageError
from sluice.models.files import ModelFiles
from sluice.models.interface import EndpointOptions, ModelOptions, Outputs
from sluice.models.saved_model.signature_reader import pick_signature
from sluice.models.signature import Signature
from sluice.models.tensors.binding import Feeds
from sluice.models.uri import PREDICT, Endpoint, ModelSpec, deployed_number, parse_base_url, vertex_host

# https://cloud.google.com/vertex-ai/docs/predictions/choose-endpoint-type: 1.5 MB and 10 MB, read as the smaller of
# what they may mean.
_SHARED_BYTES, _OTHER_BYTES = 1_500_000, 10_000_000
# A number of 8 bytes takes two characters at least, so a request has this many bytes of tensors for each of its own at
# most. A call with more is never tried.
_TENSOR_BYTES = 4
_DEPLOYED_MODEL = "x-vertex-ai-deployed-model-id"
# How long it may take to look up a deployed model that was not there at launch, and how often that is tried. A call
# that has its answer waits for it.
_LOOK_UP_SECS, _LOOK_UP_EVERY_SECS = 3.0, 60.0


class VertexModel(ServedModel):
    """A client of an endpoint. Thread-safe: each call has a connection to itself while it lasts.

    Args:
      files: the file system of the models' artifacts.

    Attributes:
      max_bytes: of a request, as it is sent.
    """

    def __init__(
        self, spec: ModelSpec, options: ModelOptions, files: ModelFiles, signature: Signature | None = None
    ) -> None:
        endpoint, secs = options.endpoint, options.endpoint.rpc_timeout_secs
        if signature is None:
            spec, signatures, _ = find_endpoint(spec, files, endpoint, secs)
            signature = pick_signature(signatures, options.signature, options.outputs)
        elif spec.deployed is None:
            spec = dataclasses.replace(spec, deployed=describe_endpoint(spec, endpoint, secs)[0])
        super().__init__(spec, options, signature)
        assert spec.endpoint is not None and spec.deployed is not None
        self._predicts = spec.endpoint.method == PREDICT
        columns = signature.name in spec.deployed.by_column or needs_columns(signature)
        self._encode = encode_instances if self._predicts else encode_columns if columns else encode_rows
        self._versions = _Versions(spec, endpoint)
        self._client = _Client(spec, endpoint)
        self._kind = spec.deployed.kind
        self.max_bytes = _SHARED_BYTES if self._kind == SHARED else _OTHER_BYTES
        self.max_tensor_bytes = _TENSOR_BYTES * self.max_bytes
        self.timeout_secs = spec.deployed.timeout_secs if endpoint.own_timeout else secs

    def call(self, feeds: Feeds) -> Outputs:
        """Returns the endpoint's outputs for these tensors, with the version of the deployed model that answered.

        Raises:
          CallError: the endpoint refused the call, failed, or cannot be reached; see models.endpoints.vertex_errors.
          MessageTooLarge: the request is larger than the endpoint takes; it is not sent.
          BadOutput: the answer cannot be parsed, or lacks an output.
        """
        with before_sending():
            body = self._encoded(feeds)
        answer = self._client.predict(body, self.timeout_secs)
        if answer.status != 200:
            raise call_error(answer, self._client.endpoint.address)
        if self._predicts:
            arrays, deployed = decode_answer(answer.data, self.signature)
        else:
            arrays = decode_outputs(answer.data, self.signature)
            deployed = answer.headers.get(_DEPLOYED_MODEL, "")
        return Outputs(arrays, self._versions.of(deployed))

    def close(self) -> None:
        """Closes the connections; calls under way fail."""
        self._client.close()

    def _encoded(self, feeds: Feeds) -> bytes:
        body = self._encode(feeds, self.signature)
        if len(body) > self.max_bytes:
            raise MessageTooLarge(
                f"{self._client.endpoint.address}: the request has {len(body)} bytes, and a {self._kind} endpoint of "
                f"Vertex AI takes {self.max_bytes}"
            )
        return body


class _Client:
    """The URL of an endpoint, and the headers of requests to it.

    Attributes:
      endpoint: where the requests go.
    """

    def __init__(self, spec: ModelSpec, options: EndpointOptions) -> None:
        if options.rest_gzip:
            raise UsageError("--rest_gzip: Vertex AI does not say that it unpacks requests; leave it out")
        self.endpoint = endpoint = _target(spec, options)
        if endpoint.method:
            options = with_google_token(options, endpoint)
            self._path = f"/v1/{endpoint.name}:{endpoint.method}"
        else:
            refuse_secrets(options, endpoint)
            self._path = f"/v1/models/{endpoint.name}:predict"
        self._credentials = Credentials(options, endpoint)
        self._calls = HttpCalls(endpoint, ssl_context(options.ca_certificates) if endpoint.tls else None)

    def predict(self, body: bytes, timeout_secs: float) -> Answer:
        """Returns the answer, whatever its status; a token that is refused is renewed once.

        Raises:
          Unavailable, TimedOut, BadOutput: there is no answer.
        """
        sent = self._credentials.headers()
        answer = self._send(sent, body, timeout_secs)
        if answer.status == 401 and self._credentials.reject(sent):
            answer = self._send(self._credentials.headers(), body, timeout_secs)
        return answer

    def close(self) -> None:
        self._calls.close()

    def _send(self, credentials: list[tuple[str, str]], body: bytes, timeout_secs: float) -> Answer:
        headers = [*credentials, ("accept-encoding", "gzip"), ("content-type", "application/json")]
        return self._calls.send("POST", self._path, headers, body, timeout_secs)


def _target(spec: ModelSpec, options: EndpointOptions) -> Endpoint:
    """Returns where calls go: to the host of the URI, to --vertex_endpoint, or to a dedicated endpoint's own host."""
    endpoint, deployed = spec.endpoint, spec.deployed
    assert endpoint is not None and deployed is not None
    if not endpoint.method or endpoint.host != vertex_host(endpoint.name.split("/")[3]):
        return endpoint
    if options.vertex_endpoint:
        base = parse_base_url(options.vertex_endpoint, "--vertex_endpoint")
        return dataclasses.replace(endpoint, host=base.host, port=base.port, tls=base.tls)
    if not deployed.host:
        return endpoint
    host, _, port = deployed.host.partition(":")
    return dataclasses.replace(endpoint, host=host, port=int(port) if port else endpoint.port)


class _Versions:
    """The versions of rows by the deployed models that answered them. Thread-safe.

    Args:
      clock: seconds, monotonic.
    """

    def __init__(self, spec: ModelSpec, options: EndpointOptions, clock: Callable[[], float] = time.monotonic) -> None:
        assert spec.endpoint is not None and spec.deployed is not None
        self._endpoint, self._options, self._clock = spec.endpoint, options, clock
        self._version = spec.version
        self._lock = threading.Lock()
        self._known = dict(spec.deployed.versions)
        self._next_look = clock()

    def of(self, deployed: str) -> int | None:
        """Returns the version of the rows that a deployed model answered.

        Args:
          deployed: its id; empty: the answer does not say. Then it is known if there is only one.
        """
        if not deployed:
            return next(iter(self._known.values())) if len(self._known) == 1 else self._version
        if deployed not in self._known:
            self._look_up(deployed)
        return self._known.get(deployed, deployed_number(deployed))

    def _look_up(self, deployed: str) -> None:
        """Asks for the deployed models of now: this one was not there at launch.

        One call asks. Others go on meanwhile, with the deployed model's id.
        """
        if not self._lock.acquire(blocking=False):
            return
        try:
            if deployed in self._known or self._clock() < self._next_look or not self._endpoint.method:
                return
            name, options = self._endpoint.name, self._options
            self._known = look_up_versions(name, options, _LOOK_UP_SECS, self._endpoint, self._known)
            self._next_look = self._clock() + _LOOK_UP_EVERY_SECS
        finally:
            self._lock.release()
