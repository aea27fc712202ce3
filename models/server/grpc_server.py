"""TF Serving's gRPC API: PredictionService and ModelService (tensorflow_serving/apis/*.proto)."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
from google.protobuf.message import Message

from sluice.models.errors import UsageError
from sluice.models.protos import packed_class
from sluice.models.server.describe import metadata, model_status
from sluice.models.server.predict import Predictor
from sluice.models.server.status import StatusError, invalid
from sluice.models.server.store import Spec
from sluice.models.server.tensors import read_tensor, write_tensor

# Enough for clients with many calls under way, some of which hang: each call occupies a thread until its end.
_THREADS = 96
_STOP_SECS = 0.2
# tensorflow_serving/model_servers/grpc_status_util.cc
_MAX_TEXT = 1024


class GrpcServer:
    """The gRPC side of a server, on 127.0.0.1.

    Args:
      port: 0: a free one.
      max_message_bytes: limit for a request; 0: none, as in TF Serving (model_servers/server.cc).
      as_content: see `write_tensor`.

    Raises:
      UsageError: the port is in use.
    """

    def __init__(self, predictor: Predictor, port: int, max_message_bytes: int = 0, as_content: bool = False) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, "grpc")
        options = (
            ("grpc.so_reuseport", 0),  # else a second server could listen on the same port
            ("grpc.max_receive_message_length", max_message_bytes or -1),
            ("grpc.max_send_message_length", -1),
        )
        self._server = grpc.server(self._threads, options=options)
        self._server.add_generic_rpc_handlers((_prediction_service(predictor, as_content), _model_service(predictor)))
        try:
            self.port: int = self._server.add_insecure_port(f"127.0.0.1:{port}")
        except RuntimeError as error:
            raise UsageError(f"--grpc_port {port}: the port is in use; give another, or 0 for a free one") from error

    def start(self) -> None:
        self._server.start()

    def close(self) -> None:
        """Ends the calls under way and frees the port. Close the gate before: a call that waits there does not end."""
        self._server.stop(_STOP_SECS).wait()
        self._threads.shutdown()


def _prediction_service(predictor: Predictor, as_content: bool) -> grpc.GenericRpcHandler:
    def predict(request: Message, context: grpc.ServicerContext) -> Message:
        gone = threading.Event()
        if not context.add_callback(gone.set):
            gone.set()
        with _status(context), predictor.call(gone) as call:
            spec = _spec(request)
            signature = request.model_spec.signature_name
            answer = call.predict(spec, signature, request.inputs, read_tensor, list(request.output_filter))
            response = packed_class("tensorflow.serving.PredictResponse")()
            response.model_spec.name = spec.name
            response.model_spec.version.value = answer.version
            response.model_spec.signature_name = answer.signature
            for name, array in answer.outputs.items():
                write_tensor(array, response.outputs[name], as_content)
            return response

    def get_model_metadata(request: Message, context: grpc.ServicerContext) -> Message:
        with _status(context):
            return metadata(predictor.store, _spec(request), list(request.metadata_field))

    return grpc.method_handlers_generic_handler(
        "tensorflow.serving.PredictionService",
        {
            "Predict": _handler(predict, "PredictRequest"),
            "GetModelMetadata": _handler(get_model_metadata, "GetModelMetadataRequest"),
            **{name: _unimplemented(name) for name in ("Classify", "Regress", "MultiInference")},
        },
    )


def _model_service(predictor: Predictor) -> grpc.GenericRpcHandler:
    def get_model_status(request: Message, context: grpc.ServicerContext) -> Message:
        with _status(context):
            return model_status(predictor.store, _spec(request))

    return grpc.method_handlers_generic_handler(
        "tensorflow.serving.ModelService",
        {
            "GetModelStatus": _handler(get_model_status, "GetModelStatusRequest"),
            "HandleReloadConfigRequest": _unimplemented("HandleReloadConfigRequest"),
        },
    )


def _handler(answer: Callable[[Message, grpc.ServicerContext], Message], request: str) -> grpc.RpcMethodHandler:
    """Returns the handler of a method that takes this message of TF Serving's."""
    return grpc.unary_unary_rpc_method_handler(
        answer,
        packed_class(f"tensorflow.serving.{request}").FromString,
        lambda response: response.SerializeToString(),
    )


def _spec(request: Message) -> Spec:
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")
    spec = request.model_spec
    choice = spec.WhichOneof("version_choice")
    return Spec(
        spec.name,
        spec.version.value if choice == "version" else None,
        spec.version_label if choice == "version_label" else None,
    )


@contextlib.contextmanager
def _status(context: grpc.ServicerContext) -> Iterator[None]:
    """Ends the call with the status of a StatusError."""
    try:
        yield
    except StatusError as error:
        text = error.message if len(error.message) <= _MAX_TEXT else error.message[:_MAX_TEXT] + "...TRUNCATED"
        context.abort(getattr(grpc.StatusCode, error.code), text)


def _unimplemented(method: str) -> grpc.RpcMethodHandler:
    def refuse(request: bytes, context: grpc.ServicerContext) -> None:
        context.abort(grpc.StatusCode.UNIMPLEMENTED, f"the reference server of Sluice has no {method}; TF Serving has")

    return grpc.unary_unary_rpc_method_handler(refuse)
