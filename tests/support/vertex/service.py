"""The local Vertex AI in this process: endpoints, models and batch prediction jobs, with faults as a test asks.

with vertex_service({"orders": directory}) as service:
    ... --vertex_endpoint service.url --model service.endpoint_uri("orders")   # online
    ... --vertex_endpoint service.url --model service.model_uri("orders")      # a batch prediction job
    service.faults.next_errors += ["UNAVAILABLE"]
    assert service.calls.count("rawPredict", status=503) == 1
    assert list(service.jobs.states().values()) == ["JOB_STATE_SUCCEEDED"]
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from sluice.models.server.faults import Faults, Gate
from sluice.models.server.predict import Predictor
from sluice.models.server.store import ModelConfig, Store
from sluice.models.server.vertex.faults import VertexFaults
from sluice.models.server.vertex.server import VertexServer
from sluice.pipelines.commands.job_files import StoredJobFiles
from sluice.pipelines.commands.job_tables import BigQueryTables
from tests.support.servers import free_port

PROJECT, LOCATION = "p", "l"


class VertexService:
    """A running service. What `faults` and `calls` are: sluice.models.server.vertex.

    Attributes:
      server: the whole of it.
      gate: counts what the models answer, jobs included.
    """

    def __init__(self, server: VertexServer, gate: Gate) -> None:
        self.server, self.gate = server, gate
        self.calls, self.jobs, self.resources = server.calls, server.jobs, server.resources

    @property
    def url(self) -> str:
        """http://127.0.0.1:PORT, for --vertex_endpoint."""
        return self.server.url

    @property
    def faults(self) -> VertexFaults:
        """What goes wrong; a test may change it at any time."""
        return self.server.faults

    @property
    def parent(self) -> str:
        """The resource name of the location."""
        return f"projects/{PROJECT}/locations/{LOCATION}"

    def endpoint_uri(self, name: str, query: str = "") -> str:
        """Returns vertex://projects/p/locations/l/endpoints/ID, for --model; `query` such as "?method=predict"."""
        return f"vertex://{self.resources.endpoint_name(name)}{query}"

    def host_uri(self, name: str) -> str:
        """Returns the same with the service's host and port, as dedicated endpoints have it."""
        return f"vertex://127.0.0.1:{self.server.port}/{self.resources.endpoint_name(name)}"

    def peering_uri(self, name: str) -> str:
        """Returns vertex+http://..., the form of an endpoint in a peered network; it has one deployed model."""
        (deployed,) = self.resources.deployed(name)
        return f"vertex+http://127.0.0.1:{self.server.port}/v1/models/{deployed.id}:predict"

    def model_uri(self, name: str, version: str = "") -> str:
        """Returns vertex://projects/p/locations/l/models/ID[@VERSION], for --model."""
        return f"vertex://{self.resources.model_name(name)}{'@' if version else ''}{version}"

    @contextlib.contextmanager
    def gone(self) -> Iterator[None]:
        """Refuses connections while the block runs, and cuts those that there are."""
        self.server.stop()
        try:
            yield
        finally:
            self.server.start()


@contextlib.contextmanager
def vertex_service(
    models: Mapping[str, str],
    versions: str = "all",
    dedicated: Collection[str] = (),
    tls: ssl.SSLContext | None = None,
    **faults: Any,
) -> Iterator[VertexService]:
    """Runs the service while the block runs.

    Args:
      models: by name, a directory of versions, or one SavedModel. Each has an endpoint of its name, whose one deployed
        model is the newest version; `service.resources.split` deploys others.
      versions: which versions of the models there are: "all" or "latest".
      dedicated: the names whose endpoints are dedicated: 10 MB instead of 1.5.
      tls: of the server, as `Certificate.server_context` makes it.
      faults: fields of VertexFaults.
    """
    gate = Gate(Faults(), seed=0)
    store = Store({name: ModelConfig(base, versions) for name, base in models.items()})
    with contextlib.ExitStack() as stack:
        stack.callback(store.close)
        store.load()
        predictor = Predictor(store, gate)
        server = VertexServer(
            predictor,
            models,
            project=PROJECT,
            location=LOCATION,
            port=free_port(),
            files=StoredJobFiles(),
            tables=BigQueryTables(),
            faults=VertexFaults(**faults),
            dedicated=dedicated,
            tls=tls,
        )
        stack.callback(gate.close)
        stack.enter_context(server)
        yield VertexService(server, gate)
