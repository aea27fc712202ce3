"""Every way to reach a model: loaded here, or served over gRPC or REST. One table of tests covers all of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from sluice.models.cache import open_model
from sluice.models.interface import ModelOptions
from tests.support.saved_models.cases import ModelCase
from tests.support.serving.model_servers import HAS_TENSORFLOW_MODEL_SERVER, model_server, tensorflow_model_server

SAVED_MODEL, GRPC, REST = "saved_model", "grpc", "rest"
# TF Serving itself, if tensorflow_model_server is on PATH.
_REAL = ("tf_serving_grpc", "tf_serving_rest") if HAS_TENSORFLOW_MODEL_SERVER else ()
SERVED = (GRPC, REST, *_REAL)
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

        def uri(backend: str, name: str) -> str:
            if backend == SAVED_MODEL:
                return directory(name)
            real = backend in _REAL
            if real not in servers:
                models = {each: directory(each) for each in names}
                start = tensorflow_model_server if real else model_server
                servers[real] = stack.enter_context(start(models))
            return uri_at(servers[real], backend, name)

        yield uri


# Over REST, TF Serving returns every output, and has no form for half floats and uint16.
NOT_OVER_REST = ("dtypes", "ragged_output", "sparse_output")


def is_refused(case_name: str, backend: str) -> bool:
    """Whether the backend cannot serve the model at all."""
    return backend.endswith(REST) and case_name in NOT_OVER_REST


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
