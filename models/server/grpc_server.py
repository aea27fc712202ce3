"""TF Serving's gRPC API: PredictionService and ModelService (tensorflow_serving/apis/*.proto)."""

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import grpc
from google.protobuf.message import Message

from sluice.models.errors import UsageError
from sluice.models.server.describe import metadata, model_status
from sluice.models.server.predict import Predictor
from sluice.models.server.status import StatusError, invalid
from sluice.models.server.store import Spec
from sluice.models.server.tensors import read_tensor, write_tensor

# Imported by the functions that need them: tensorflow_serving.apis brings in TensorFlow.
if TYPE_CHECKING:
    from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataRequest, GetModelMetadataResponse
    from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest, GetModelStatusResponse
    from tensorflow_serving.apis.model_service_pb2_grpc import ModelServiceServicer
    from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse
    from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceServicer

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
        from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

        self._threads = ThreadPoolExecutor(_THREADS, "grpc")
        options = (
            ("grpc.so_reuseport", 0),  # else a second server could listen on the same port
            ("grpc.max_receive_message_length", max_message_bytes or -1),
            ("grpc.max_send_message_length", -1),
        )
        self._server = grpc.server(self._threads, options=options)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
            _prediction_service(predictor, as_content), self._server
        )
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(_model_service(predictor), self._server)
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


def _prediction_service(predictor: Predictor, as_content: bool) -> "PredictionServiceServicer":
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request: "PredictRequest", context: grpc.ServicerContext) -> "PredictResponse":
            gone = threading.Event()
            if not context.add_callback(gone.set):
                gone.set()
            with _status(context), predictor.call(gone) as call:
                spec = _spec(request)
                signature = request.model_spec.signature_name
                answer = call.predict(spec, signature, request.inputs, read_tensor, list(request.output_filter))
                response = predict_pb2.PredictResponse()
                response.model_spec.name = spec.name
                response.model_spec.version.value = answer.version
                response.model_spec.signature_name = answer.signature
                for name, array in answer.outputs.items():
                    write_tensor(array, response.outputs[name], as_content)
                return response

        def GetModelMetadata(
            self, request: "GetModelMetadataRequest", context: grpc.ServicerContext
        ) -> "GetModelMetadataResponse":
            with _status(context):
                return metadata(predictor.store, _spec(request), list(request.metadata_field))

        def Classify(self, request: Message, context: grpc.ServicerContext) -> None:
            _unimplemented(context, "Classify")

        def Regress(self, request: Message, context: grpc.ServicerContext) -> None:
            _unimplemented(context, "Regress")

        def MultiInference(self, request: Message, context: grpc.ServicerContext) -> None:
            _unimplemented(context, "MultiInference")

    return PredictionService()


def _model_service(predictor: Predictor) -> "ModelServiceServicer":
    from tensorflow_serving.apis import model_service_pb2_grpc

    class ModelService(model_service_pb2_grpc.ModelServiceServicer):
        def GetModelStatus(
            self, request: "GetModelStatusRequest", context: grpc.ServicerContext
        ) -> "GetModelStatusResponse":
            with _status(context):
                return model_status(predictor.store, _spec(request))

        def HandleReloadConfigRequest(self, request: Message, context: grpc.ServicerContext) -> None:
            _unimplemented(context, "HandleReloadConfigRequest")

    return ModelService()


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


def _unimplemented(context: grpc.ServicerContext, method: str) -> None:
    context.abort(grpc.StatusCode.UNIMPLEMENTED, f"the reference server of Sluice has no {method}; TF Serving has")
