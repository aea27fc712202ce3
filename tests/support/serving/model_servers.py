"""Model servers on loopback for tests, and plain clients for them, without Sluice's own client code.

with model_server({"orders": directory}) as server: ...     in this process, with access to faults and figures
with served({"orders": directory}, "--versions", "all") as server: ...     `sluice serve`, to kill and start again
with tensorflow_model_server({"orders": directory}) as server: ...     the real server, where it is installed
"""

import contextlib
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import IO, Any

import grpc
import numpy as np
import urllib3

from sluice.models.protos import message_class
from sluice.models.server.faults import Faults
from sluice.models.server.reference import ReferenceServer, ServerOptions
from sluice.models.server.store import ModelConfig
from tests.support.fakes import PATIENCE_SECS
from tests.support.processes import Forked, sluice
from tests.support.servers import answers, free_port, running
from tests.support.serving.messages import plain_array, plain_tensor

HAS_TENSORFLOW_MODEL_SERVER = shutil.which("tensorflow_model_server") is not None


@contextlib.contextmanager
def model_server(
    models: Mapping[str, str | ModelConfig],
    versions: str | tuple[int, ...] = "latest",
    labels: Mapping[str, int] | None = None,
    faults: Faults | None = None,
    **options: Any,
) -> Iterator[ReferenceServer]:
    """Runs the reference server in this process. It looks for new versions only when `poll` is called.

    Args:
      options: fields of ServerOptions; ports are free ones by default.
    """
    with ReferenceServer(models, versions, labels, faults, ServerOptions(**options)) as server:
        yield server


class Served:
    """`sluice serve` in its own process. `start` after `kill` or `stop` uses the same ports again.

    Attributes:
      ready: the line that it printed when it was ready.
    """

    def __init__(self, models: Mapping[str, str], flags: Sequence[str]) -> None:
        self.grpc_port, self.rest_port = free_port(), free_port()
        named = [text for name, base in models.items() for text in ("--name", name, "--model", base)]
        ports = ["--grpc_port", str(self.grpc_port), "--rest_port", str(self.rest_port)]
        self._command = ["serve", *named, *ports, *flags]
        self._process: Forked | None = None
        self.ready = ""

    def start(self) -> None:
        """Starts the server and waits until it serves.

        Raises:
          RuntimeError: it ended instead; the text includes what it printed.
        """
        with tempfile.NamedTemporaryFile("w+") as log:
            process = sluice(*self._command, output="pipe", errors=log.name)
            assert process.stdout is not None
            late = threading.Timer(PATIENCE_SECS, process.kill)
            late.start()
            self.ready = process.stdout.readline()
            late.cancel()
            self._process = process
            if not self.ready:
                raise RuntimeError(f"{self._command!r} ended with code {process.wait()}: {log.read()[-2000:]}")

    @property
    def stdout(self) -> IO[str]:
        """What it prints after `ready`."""
        assert self._process is not None and self._process.stdout is not None
        return self._process.stdout

    def kill(self) -> None:
        """Kills the server, as a failing machine would."""
        self._end("kill")

    def stop(self) -> int:
        """Ends the server with SIGTERM; returns its exit code."""
        return self._end("terminate")

    def wait(self) -> int:
        """Waits until the server ends by itself; returns its exit code."""
        assert self._process is not None
        return self._process.wait(PATIENCE_SECS)

    def _end(self, how: str) -> int:
        assert self._process is not None and self._process.stdout is not None
        getattr(self._process, how)()
        try:
            return self._process.wait(PATIENCE_SECS)
        finally:
            self._process.kill()
            self._process.stdout.close()


@contextlib.contextmanager
def served(models: Mapping[str, str], *flags: str) -> Iterator[Served]:
    """Runs `sluice serve` with these flags while the block runs."""
    server = Served(models, flags)
    server.start()
    try:
        yield server
    finally:
        server.kill()


@dataclass(frozen=True)
class Ports:
    """Where a server listens on 127.0.0.1."""

    grpc_port: int
    rest_port: int


@contextlib.contextmanager
def tensorflow_model_server(models: Mapping[str, str], labels: Mapping[str, int] | None = None) -> Iterator[Ports]:
    """Runs TF Serving, which must be on PATH, with all versions of the models.

    Args:
      models: by name, a directory of versions, or one SavedModel, which is then version 1.
      labels: by model, the version of each label.
    """
    ports = Ports(free_port(), free_port())
    with tempfile.TemporaryDirectory() as scratch:
        config = os.path.join(scratch, "models.config")
        with open(config, "w", encoding="utf-8") as file:
            file.write(_config({name: _base(scratch, name, base) for name, base in models.items()}, labels or {}))
        command = [
            "tensorflow_model_server",
            f"--port={ports.grpc_port}",
            f"--rest_api_port={ports.rest_port}",
            f"--model_config_file={config}",
            "--allow_version_labels_for_unavailable_models",
            "--file_system_poll_wait_seconds=1",
        ]
        urls = [f"http://127.0.0.1:{ports.rest_port}/v1/models/{name}" for name in models]
        with running(command, lambda: all(map(answers, urls))):
            yield ports


def _base(scratch: str, name: str, base: str) -> str:
    if not os.path.exists(os.path.join(base, "saved_model.pb")):
        return base
    numbered = os.path.join(scratch, name)
    os.mkdir(numbered)
    os.symlink(os.path.abspath(base), os.path.join(numbered, "1"))
    return numbered


def _config(bases: Mapping[str, str], labels: Mapping[str, int]) -> str:
    """A ModelServerConfig as text: https://www.tensorflow.org/tfx/serving/serving_config"""
    named = " ".join(f"version_labels {{ key: {json.dumps(label)} value: {n} }}" for label, n in labels.items())
    configs = (
        f"config {{ name: {json.dumps(name)} base_path: {json.dumps(base)} model_platform: 'tensorflow' "
        f"model_version_policy {{ all {{}} }} {named} }}"
        for name, base in bases.items()
    )
    return f"model_config_list {{ {' '.join(configs)} }}"


# Methods of TF Serving's services: the messages that they take and give. Without: they are not in our descriptors.
_PREDICTION_SERVICE = {
    "Predict": ("PredictRequest", "PredictResponse"),
    "GetModelMetadata": ("GetModelMetadataRequest", "GetModelMetadataResponse"),
    "Classify": ("ClassificationRequest", "ClassificationResponse"),
    "Regress": ("RegressionRequest", "RegressionResponse"),
    "MultiInference": ("MultiInferenceRequest", "MultiInferenceResponse"),
}
_MODEL_SERVICE = {
    "GetModelStatus": ("GetModelStatusRequest", "GetModelStatusResponse"),
    "HandleReloadConfigRequest": None,
}


def _stub(channel: grpc.Channel, service: str, methods: Mapping[str, tuple[str, str] | None]) -> SimpleNamespace:
    """Returns the service's methods; one without messages takes and gives bytes."""
    stub = SimpleNamespace()
    for name, messages in methods.items():
        form = {}
        if messages:
            request, response = (message_class(f"tensorflow.serving.{each}") for each in messages)
            form = {"request_serializer": request.SerializeToString, "response_deserializer": response.FromString}
        setattr(stub, name, channel.unary_unary(f"/tensorflow.serving.{service}/{name}", **form))
    return stub


class GrpcClient:
    """TF Serving's services on a channel of its own, without a limit on message size.

    The messages are those of tensorflow-serving-api, by their descriptors: its own modules import TensorFlow.
    """

    def __init__(self, port: int) -> None:
        unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}", unlimited)
        self.predictions = _stub(self.channel, "PredictionService", _PREDICTION_SERVICE)
        self.models = _stub(self.channel, "ModelService", _MODEL_SERVICE)

    def predict(self, name: str, inputs: Mapping[str, Any], timeout: float = PATIENCE_SECS, **fields: Any) -> Any:
        """Returns the PredictResponse to arrays or TensorProtos; `fields` are those of `predict_request`."""
        return self.predictions.Predict(predict_request(name, inputs, **fields), timeout=timeout)

    def close(self) -> None:
        self.channel.close()


def predict_request(
    name: str,
    inputs: Mapping[str, Any],
    signature: str = "",
    version: int | None = None,
    label: str | None = None,
    outputs: Sequence[str] = (),
) -> Any:
    """Returns a PredictRequest."""
    request = message_class("tensorflow.serving.PredictRequest")(output_filter=outputs)
    request.model_spec.name = name
    request.model_spec.signature_name = signature
    if version is not None:
        request.model_spec.version.value = version
    if label is not None:
        request.model_spec.version_label = label
    for key, value in inputs.items():
        request.inputs[key].CopyFrom(plain_tensor(value) if isinstance(value, np.ndarray) else value)
    return request


def arrays(response: Any) -> dict[str, np.ndarray]:
    """Returns the outputs of a PredictResponse."""
    return {name: plain_array(tensor) for name, tensor in response.outputs.items()}


class RestClient:
    """urllib3 on one connection that stays open."""

    def __init__(self, port: int) -> None:
        self._pool = urllib3.HTTPConnectionPool("127.0.0.1", port, maxsize=1, timeout=PATIENCE_SECS, retries=False)

    def request(self, method: str, path: str, body: Any = None, **headers: str) -> urllib3.BaseHTTPResponse:
        """Sends bytes unchanged, any other body as JSON; `headers` have _ for -."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self._pool.request(method, path, body=data, headers=named)

    def get(self, path: str) -> tuple[int, Any]:
        """Returns the HTTP status and the JSON of /v1/models/PATH."""
        response = self.request("GET", f"/v1/models/{path}")
        return response.status, json.loads(response.data)

    def predict(self, path: str, body: Any) -> tuple[int, Any]:
        """Returns the HTTP status and the JSON of /v1/models/PATH:predict."""
        response = self.request("POST", f"/v1/models/{path}:predict", body)
        return response.status, json.loads(response.data)

    def close(self) -> None:
        self._pool.close()
