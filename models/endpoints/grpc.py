"""A model behind TF Serving's gRPC API.

https://github.com/tensorflow/serving/blob/master/tensorflow_serving/apis/prediction_service.proto
"""

import os
import queue
import ssl

import grpc
from google.protobuf.message import DecodeError, Message

from sluice.models.endpoints import not_found
from sluice.models.endpoints.base import ServedModel
from sluice.models.endpoints.certificates import ssl_context
from sluice.models.endpoints.credentials import Credentials
from sluice.models.endpoints.errors import error_of, is_not_served
from sluice.models.errors import BadOutput, CallError, ModelNotFound, Unavailable
from sluice.models.interface import EndpointOptions, ModelOptions, Outputs
from sluice.models.protos import message_class, packed_class
from sluice.models.saved_model.signature_reader import read_served_signatures
from sluice.models.signature import Signature
from sluice.models.tensors.binding import Feeds
from sluice.models.tensors.tensor_proto import from_tensor, tensor_parts
from sluice.models.tensors.wire import Part, delimited, joined
from sluice.models.uri import Endpoint, ModelSpec

# Fields of PredictRequest, and of an entry of a map.
_INPUTS = 2
_KEY, _VALUE = 1, 2
_SERVICE = "/tensorflow.serving.PredictionService/"

# How long to wait for a channel's state, which comes within some 1 ms.
_STATE_SECS = 1.0
# https://github.com/grpc/grpc/blob/master/include/grpc/impl/channel_arg_names.h
_CHANNEL_OPTIONS = (
    # gRPC's default limit is 4 MB, TF Serving's 2 GB; the scheduler bounds the bytes of a call.
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # Two things find a connection that has died silently (a NAT, a machine that is gone): pings during calls, and TCP's
    # timeout for data that is not acknowledged. Servers treat pings less than 300 s apart as an attack.
    # https://github.com/grpc/grpc/blob/master/doc/keepalive.md
    ("grpc.keepalive_time_ms", 330_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # Finds a server that is back soon: the default back-off is 1 s to 120 s. min_reconnect_backoff_ms stays as it is:
    # it bounds one attempt to connect, at 20 s.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # Pods that are replaced have new addresses; by default gRPC looks them up twice a minute.
    ("grpc.dns_min_time_between_resolutions_ms", 2_000),
    # The scheduler repeats calls, and counts the repeats.
    ("grpc.enable_retries", 0),
    # A headless service has an address for each pod; the default policy sends all calls to one of them.
    ("grpc.lb_policy_name", "round_robin"),
    # By default channels to one address share connections, and so the back-off after a failure of another channel.
    ("grpc.use_local_subchannel_pool", 1),
)


def fetch_signatures(
    spec: ModelSpec, options: EndpointOptions, timeout_secs: float
) -> tuple[dict[str, Signature], int | None]:
    """Asks a server over gRPC; see models.endpoints.base.FetchSignatures."""
    client = _Client(spec, options)
    try:
        data = client.get_model_metadata(_metadata_request(spec), timeout_secs)
    except grpc.RpcError as error:
        raise _not_found(client.endpoint, spec, timeout_secs, error) from error
    except CallError as error:
        raise ModelNotFound(str(error)) from error
    finally:
        client.close()
    try:
        response = message_class("tensorflow.serving.GetModelMetadataResponse").FromString(data)
        packed = response.metadata["signature_def"].value  # google.protobuf.Any
        definitions = message_class("tensorflow.serving.SignatureDefMap").FromString(packed)
    except DecodeError as error:
        odd = f"{client.endpoint.address} answers, but not with TF Serving's metadata: {error}"
        raise not_found.wrong_address(client.endpoint, odd) from error
    return read_served_signatures(definitions), _version(response)


class GrpcModel(ServedModel):
    """A client of a served model. Thread-safe: all threads share one connection to each server."""

    def __init__(self, spec: ModelSpec, options: ModelOptions, signature: Signature | None = None) -> None:
        super().__init__(spec, options, signature, fetch_signatures)
        self._timeout_secs = options.endpoint.rpc_timeout_secs
        self._client = _Client(spec, options.endpoint)
        self._address = self._client.endpoint.address
        self._response_class = packed_class("tensorflow.serving.PredictResponse")
        request = message_class("tensorflow.serving.PredictRequest")(
            output_filter=[output.name for output in self.signature.outputs]
        )
        _fill_model_spec(request.model_spec, spec)
        request.model_spec.signature_name = self.signature.name
        self._request_without_inputs = request.SerializeToString()
        self._keys = {spec.name: joined(delimited(_KEY, [spec.name.encode()])) for spec in self.signature.inputs}

    def call(self, feeds: Feeds) -> Outputs:
        """Returns the server's outputs for these tensors.

        Raises:
          CallError: the server refused the call, failed, or cannot be reached; see models.endpoints.errors.
          BadOutput: the answer cannot be parsed, or lacks an output.
        """
        try:
            data = self._client.predict(self._request(feeds), self._timeout_secs)
        except grpc.RpcError as error:
            raise self._call_error(error) from error
        return self._outputs(data)

    def _request(self, feeds: Feeds) -> bytes:
        """Returns a PredictRequest, into which the tensors are copied once."""
        parts: list[Part] = [self._request_without_inputs]
        for key, tensor in zip(self._keys.values(), tensor_parts([feeds[name] for name in self._keys]), strict=True):
            parts += delimited(_INPUTS, [key, *delimited(_VALUE, tensor)])
        return joined(parts)

    def close(self) -> None:
        """Closes the connection; calls under way fail."""
        self._client.close()

    def _call_error(self, error: grpc.RpcError) -> CallError:
        code, said = _status(error)
        if code == "DEADLINE_EXCEEDED" and not self._client.is_connected():
            return Unavailable(f"{self._address} cannot be reached: no connection within {self._timeout_secs:g} s")
        return error_of(code, said, self._address)

    def _outputs(self, data: bytes) -> Outputs:
        try:
            response = self._response_class.FromString(data)
        except DecodeError as error:
            raise BadOutput(f"{self._address} answered, but not with a PredictResponse: {error}") from error
        arrays = {}
        for spec in self.signature.outputs:
            if spec.name not in response.outputs:
                raise BadOutput(f"the answer lacks output '{spec.name}'; it has {sorted(response.outputs)}")
            try:
                arrays[spec.name] = from_tensor(response.outputs[spec.name])
            except BadOutput as error:
                raise BadOutput(f"output '{spec.name}': {error}") from error
        return Outputs(arrays, _version(response))


class _Client:
    """A channel that connects at the first call, and the headers of its calls. Messages are bytes."""

    def __init__(self, spec: ModelSpec, options: EndpointOptions) -> None:
        assert spec.endpoint is not None, "a spec of a served model"
        self.endpoint = spec.endpoint
        self._credentials = Credentials(options, spec.endpoint)
        self._channel = _open_channel(spec.endpoint, options.ca_certificates)
        self._predict = self._channel.unary_unary(f"{_SERVICE}Predict")
        self._get_model_metadata = self._channel.unary_unary(f"{_SERVICE}GetModelMetadata")

    def predict(self, request: bytes, timeout_secs: float) -> bytes:
        """Returns the response; raises grpc.RpcError, or Unavailable if there is no token."""
        response: bytes = self._predict(request, timeout=timeout_secs, metadata=self._credentials.headers())
        return response

    def get_model_metadata(self, request: bytes, timeout_secs: float) -> bytes:
        """Returns the response; raises as `predict`."""
        headers = self._credentials.headers()
        response: bytes = self._get_model_metadata(request, timeout=timeout_secs, metadata=headers)
        return response

    def is_connected(self) -> bool:
        """Whether the channel has a connection now; True if gRPC does not report it.

        gRPC's error of a deadline does not tell whether the call waited for a connection. A gRPC thread reports the
        state of the channel. It ends 0.2 s after this method (grpc/_channel.py, _poll_connectivity).
        """
        states: queue.SimpleQueue[grpc.ChannelConnectivity] = queue.SimpleQueue()
        report = states.put  # one object, by which the channel finds it again
        self._channel.subscribe(report)
        try:
            return states.get(timeout=_STATE_SECS) is grpc.ChannelConnectivity.READY
        except queue.Empty:  # the channel has been closed meanwhile
            return True
        finally:
            self._channel.unsubscribe(report)

    def close(self) -> None:
        self._channel.close()


def _open_channel(endpoint: Endpoint, ca_certificates: str) -> grpc.Channel:
    target = f"dns:///{endpoint.address}"  # so that a host with the name of a gRPC scheme, e.g. xds, is a host
    if not endpoint.tls:
        return grpc.insecure_channel(target, _CHANNEL_OPTIONS)
    if ca_certificates:
        ssl_context(ca_certificates)  # raises for bad certificates; gRPC would only say that it cannot connect
    roots = ca_certificates.encode() or _machine_roots()
    return grpc.secure_channel(target, grpc.ssl_channel_credentials(roots), _CHANNEL_OPTIONS)


def _machine_roots() -> bytes | None:
    """Returns the certificates that this machine trusts, as PEM; None: gRPC uses its own list.

    gRPC's default is the list of Mozilla that its package brings, without a company's certificates that are installed
    here.
    """
    if "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH" in os.environ:
        return None
    paths = ssl.get_default_verify_paths()
    for path in (paths.cafile, os.path.join(paths.capath or "", "ca-certificates.crt")):  # the latter: Debian's
        if path and os.path.isfile(path):
            with open(path, "rb") as file:
                return file.read()
    return None


def _metadata_request(spec: ModelSpec) -> bytes:
    request = message_class("tensorflow.serving.GetModelMetadataRequest")(metadata_field=["signature_def"])
    _fill_model_spec(request.model_spec, spec)
    data: bytes = request.SerializeToString()
    return data


def _fill_model_spec(message: Message, spec: ModelSpec) -> None:
    assert spec.endpoint is not None, "a spec of a served model"
    message.name = spec.endpoint.name
    if spec.version is not None:
        message.version.value = spec.version
    elif spec.endpoint.label:
        message.version_label = spec.endpoint.label


def _version(response: Message) -> int | None:
    model_spec = response.model_spec
    return int(model_spec.version.value) if model_spec.HasField("version") else None


def _status(error: grpc.RpcError) -> tuple[str, str]:
    return error.code().name, error.details() or ""


def _not_found(endpoint: Endpoint, spec: ModelSpec, timeout_secs: float, error: grpc.RpcError) -> ModelNotFound:
    code, said = _status(error)
    if is_not_served(said) or code == "NOT_FOUND":
        return not_found.not_served(spec, endpoint, said)
    if code == "UNAVAILABLE":
        return not_found.unreachable(endpoint, f"{endpoint.address} cannot be reached: {said}")
    if code == "DEADLINE_EXCEEDED":
        late = f"{endpoint.address} does not answer within {timeout_secs:g} s ({said})"
        return not_found.wrong_address(endpoint, late)
    if code == "UNIMPLEMENTED":
        return not_found.no_tf_serving(endpoint, said)
    if code in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
        return not_found.refused(endpoint, f"{code}: {said}")
    return not_found.not_told(endpoint, f"{code}: {said}")
