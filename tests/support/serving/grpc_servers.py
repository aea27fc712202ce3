"""PredictionServices in this process, on loopback, whose answers a test of the client decides."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from sluice.models.endpoints.grpc import GrpcModel
from sluice.models.interface import EndpointOptions, ModelOptions, Outputs
from sluice.models.protos import message_class
from sluice.models.signature import Signature
from sluice.models.tensors.tensor_proto import from_tensor
from sluice.models.uri import parse_model_uri
from tests.support.fakes import PATIENCE_SECS, X_TO_Y, double, x_feeds
from tests.support.serving.messages import to_tensor

Answer = Callable[[Any, grpc.ServicerContext], Any]
_NUMBERS = {"int64": 9, "string": 7, "float32": 1}


class Server:
    """A PredictionService on 127.0.0.1 that answers by functions, and records requests and their headers.

    Args:
      predict, metadata: return the answer to a message, or its bytes; None: the method is not implemented.
      credentials: for TLS.
    """

    def __init__(
        self,
        predict: Answer | None = None,
        metadata: Answer | None = None,
        port: int = 0,
        credentials: grpc.ServerCredentials | None = None,
        max_bytes: int = -1,
    ) -> None:
        self.requests: list[Any] = []
        self.headers: list[dict[str, str]] = []
        self._answers = {"Predict": predict, "GetModelMetadata": metadata}
        options = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", max_bytes)]
        self._server = grpc.server(ThreadPoolExecutor(16), (_Service(self),), options=options)
        address = f"127.0.0.1:{port}"
        add = self._server.add_insecure_port
        self.port = self._server.add_secure_port(address, credentials) if credentials else add(address)
        self._server.start()

    def handler(self, details: grpc.HandlerCallDetails) -> Any:
        method = details.method.removeprefix("/tensorflow.serving.PredictionService/")
        answer = self._answers.get(method)
        if answer is None:
            return None
        self.headers.append(dict(details.invocation_metadata))

        def handle(request: Any, context: grpc.ServicerContext) -> bytes:
            self.requests.append(request)
            given = answer(request, context)
            return given if isinstance(given, bytes) else given.SerializeToString()

        return grpc.unary_unary_rpc_method_handler(
            handle, message_class(f"tensorflow.serving.{method}Request").FromString
        )

    def stop(self) -> None:
        self._server.stop(0).wait()

    def uri(self, path: str = "m", scheme: str = "grpc") -> str:
        return f"{scheme}://127.0.0.1:{self.port}/{path}"


class _Service(grpc.GenericRpcHandler):
    def __init__(self, server: Server) -> None:
        self._server = server

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        return self._server.handler(details)


def respond(outputs: Outputs) -> Any:
    """Returns a PredictResponse."""
    response = message_class("tensorflow.serving.PredictResponse")()
    for name, array in outputs.arrays.items():
        to_tensor(array, response.outputs[name])
    if outputs.version is not None:
        response.model_spec.version.value = outputs.version
    return response


def doubled(request: Any, context: Any = None) -> Any:
    """Answers as a model of X_TO_Y does."""
    return respond(double({name: from_tensor(tensor) for name, tensor in request.inputs.items()}))


def described(*signatures: Signature, version: int = 7) -> Answer:
    """Returns an answer to GetModelMetadata."""
    definitions = message_class("tensorflow.serving.SignatureDefMap")()
    for signature in signatures:
        definition = definitions.signature_def[signature.name]
        definition.method_name = signature.method
        for side, specs in ((definition.inputs, signature.inputs), (definition.outputs, signature.outputs)):
            for spec in specs:
                side[spec.name].name = spec.tensors[0]
                side[spec.name].dtype = _NUMBERS[spec.dtype]
                side[spec.name].tensor_shape.dim.add(size=-1)
    response = message_class("tensorflow.serving.GetModelMetadataResponse")()
    response.model_spec.version.value = version
    packed = response.metadata["signature_def"]
    packed.type_url = "type.googleapis.com/tensorflow.serving.SignatureDefMap"
    packed.value = definitions.SerializeToString()
    return lambda request, context: response


def aborting(code: str, text: str) -> Answer:
    """Returns an answer that aborts with a status."""
    return lambda request, context: context.abort(grpc.StatusCode[code], text)


def opened(uri: str, signature: Signature | None = X_TO_Y, options: Any = None, **endpoint: Any) -> GrpcModel:
    """Returns a client; `options` are those of the model, the other arguments those of the endpoint."""
    endpoint = {"rpc_timeout_secs": PATIENCE_SECS, **endpoint}
    return GrpcModel(
        parse_model_uri(uri), ModelOptions(endpoint=EndpointOptions(**endpoint), **options or {}), signature
    )


def assert_doubles(model: GrpcModel) -> None:
    """Calls the model once and checks the answer."""
    outputs = model.call(x_feeds(1, 2))
    assert outputs.arrays["y"].tolist() == [2, 4]
    assert outputs.arrays["text"].tolist() == [b"1", b"2"]
    assert outputs.version == 7


@contextlib.contextmanager
def serving() -> Iterator[Callable[..., Server]]:
    """Yields a function that starts a Server; all servers stop when the block ends."""
    with contextlib.ExitStack() as stack:

        def start(*args: Any, **options: Any) -> Server:
            server = Server(*args, **options)
            stack.callback(server.stop)
            return server

        yield start
