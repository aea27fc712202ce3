"""Every way to reach a model: here, or served over gRPC, REST or Vertex AI. One table of tests covers them all."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from sluice.models.cache import open_model
from sluice.models.interface import ModelOptions
from sluice.models.server.reference import ReferenceServer
from tests.support.saved_models.cases import ModelCase
from tests.support.serving.model_servers import HAS_TENSORFLOW_MODEL_SERVER, model_server, tensorflow_model_server

if TYPE_CHECKING:
    from sluice.models.server.vertex.server import VertexServer

SAVED_MODEL, GRPC, REST, VERTEX = "saved_model", "grpc", "rest", "vertex"
# TF Serving itself, if tensorflow_model_server is on PATH.
_REAL = ("tf_serving_grpc", "tf_serving_rest") if HAS_TENSORFLOW_MODEL_SERVER else ()
SERVED = (GRPC, REST, VERTEX, *_REAL)
BACKENDS = (SAVED_MODEL, *SERVED)

# From backend and name to the URI of a model.
Uris = Callable[[str, str], str]


class Server(Protocol):
    """Where a model server listens on 127.0.0.1."""

    grpc_port: int
    rest_port: int


def uri_at(server: Server, backend: str, name: str) -> str:
    """Returns the URI of a served model."""
    if backend.endswith(GRPC):
        return f"grpc://127.0.0.1:{server.grpc_port}/{name}"
    return f"http://127.0.0.1:{server.rest_port}/v1/models/{name}"


@contextlib.contextmanager
def uris_of(directory: Callable[[str], str], names: Sequence[str]) -> Iterator[Uris]:
    """Yields a function that returns URIs of models on disk; the first call starts a server of all of them."""
    with contextlib.ExitStack() as stack:
        servers: dict[bool, Server] = {}
        vertex: list[VertexServer] = []

        def uri(backend: str, name: str) -> str:
            if backend == SAVED_MODEL:
                return directory(name)
            real = backend in _REAL
            models = {each: directory(each) for each in names}
            if real not in servers:
                start = tensorflow_model_server if real else model_server
                servers[real] = stack.enter_context(start(models))
            if backend != VERTEX:
                return uri_at(servers[real], backend, name)
            if not vertex:
                vertex.append(stack.enter_context(vertex_beside(servers[False], models)))
            return vertex_uri(vertex[0], name)

        yield uri


def vertex_beside(server: Server, models: Mapping[str, str]) -> VertexServer:
    """Returns a local Vertex AI over the models that a reference server has loaded."""
    from sluice.models.server.vertex.server import (
        VertexServer,  # imports Google's protos, for which most tests have no use
    )

    assert isinstance(server, ReferenceServer)
    return VertexServer(server.predictor, models)


def vertex_uri(server: VertexServer, name: str) -> str:
    """Returns the URI of a model's endpoint: one without TLS, whose resources are at the same place."""
    return f"vertex+http://127.0.0.1:{server.port}/{server.resources.endpoint_name(name)}"


# Over REST, TF Serving returns every output, and has no form for half floats and uint16.
NOT_OVER_REST = ("dtypes", "ragged_output", "sparse_output")


def is_refused(case_name: str, backend: str) -> bool:
    """Whether the backend cannot serve the model at all."""
    return backend.endswith((REST, VERTEX)) and case_name in NOT_OVER_REST


def tells_features(backend: str) -> bool:
    """Whether it is known which features a model's tf.Example parser reads: from its graph, which no server shows."""
    return backend in (SAVED_MODEL, VERTEX)


def servable_outputs(case: ModelCase, backend: str, directory: str) -> tuple[str, ...]:
    """Returns the outputs to name in requests, because this backend refuses the others; () if it serves all.

    No backend has columns for a scalar, or for two ragged dimensions; TF Serving returns dense tensors only.
    """
    outputs = {"scalar_output": ("above",), "ragged_output": ("words", "spans", "count")}.get(case.name, ())
    if backend == SAVED_MODEL:
        return outputs
    model = open_model(directory, ModelOptions(signature=case.signature, outputs=outputs))
    model.close()
    dense = tuple(spec.name for spec in model.signature.outputs if spec.kind == "dense")
    return outputs if len(dense) == len(model.signature.outputs) else dense
