"""The ways to serve a model that are compared."""

import dataclasses
from collections.abc import Sequence

from sluice.models.errors import UsageError
from sluice.models.uri import parse_model_uri

WORKER, GRPC, REST, VERTEX, VERTEX_JOB = "worker", "grpc", "rest", "vertex", "vertex_job"
NAMES = (WORKER, GRPC, REST, VERTEX, VERTEX_JOB)

_TITLES = {
    WORKER: "in the worker",
    GRPC: "endpoint over gRPC",
    REST: "endpoint over REST",
    VERTEX: "Vertex AI online",
    VERTEX_JOB: "Vertex AI batch job",
}
_BY_PROTOCOL = {"grpc": GRPC, "rest": REST, "vertex": VERTEX}
_FORMS = {GRPC: "grpc://HOST:8500/NAME", REST: "http://HOST:8501/v1/models/NAME"}


@dataclasses.dataclass(frozen=True)
class Way:
    """A way to call the model.

    Attributes:
      kind: one of NAMES.
      model: the URI for --model; "": that of the reference server, which is started for it.
      number: among given endpoints of one kind, from 1 on.
    """

    kind: str
    model: str
    number: int = 1

    @property
    def name(self) -> str:
        return self.kind if self.number == 1 else f"{self.kind}-{self.number}"

    @property
    def title(self) -> str:
        return _TITLES[self.kind] if self.number == 1 else f"{_TITLES[self.kind]} ({self.number})"

    @property
    def place(self) -> str:
        if self.is_managed_job:
            return f"in a {self.title}"
        return f"behind the {self.title}" if self.remote else self.title

    @property
    def remote(self) -> bool:
        return self.kind != WORKER

    @property
    def is_managed_job(self) -> bool:
        """Whether a service runs the model in a job of its own: it takes minutes to start, and money."""
        return self.kind == VERTEX_JOB

    @property
    def uri(self) -> str:
        """The URI for --model; for the reference server the form of a server's, to be filled in."""
        return self.model or _FORMS[self.kind]

    @property
    def is_reference(self) -> bool:
        """Whether the reference server stands behind it."""
        return not self.model


def find_ways(model: str, endpoints: Sequence[str], only: str = "", managed: bool = False) -> list[Way]:
    """Returns the ways to compare, the model in the worker first, managed jobs last.

    Without endpoints of servers these are the reference server's.

    Args:
      model: --model, a SavedModel.
      only: a kind; "": all.
      managed: what costs money at Vertex AI may be run.

    Raises:
      UsageError: the model is none that the worker can load, an endpoint is none, something of Vertex AI is given and
        may not be run, or no way is left.
    """
    kinds = {uri: _kind_of(uri) for uri in endpoints}
    _check_managed([uri for uri, kind in kinds.items() if kind in (VERTEX, VERTEX_JOB)], managed)
    if parse_model_uri(model).endpoint is not None or parse_model_uri(model).managed is not None:
        raise UsageError(f"--model {model}: give the SavedModel, and its servers by --endpoint")
    found = [Way(WORKER, model)]
    for uri in endpoints:
        found.append(Way(kinds[uri], uri, 1 + sum(way.kind == kinds[uri] for way in found)))
    if all(way.kind in (WORKER, VERTEX_JOB) for way in found):
        found += [Way(GRPC, ""), Way(REST, "")]
    found.sort(key=lambda way: way.is_managed_job)
    kept = [way for way in found if only in ("", way.kind)]
    if not kept:
        raise UsageError(f"--only {only}: give an --endpoint of this kind")
    return kept


def _check_managed(given: Sequence[str], wanted: bool) -> None:
    if given and not wanted:
        raise UsageError(f"--endpoint {given[0]}: calls and jobs of Vertex AI cost money; --measure_managed runs them")
    if wanted and not given:
        raise UsageError(
            "--measure_managed: name what is to be measured by --endpoint vertex://projects/P/locations/L/endpoints/E, "
            "or .../models/M for a batch prediction job"
        )


def _kind_of(uri: str) -> str:
    if parse_model_uri(uri).managed is not None:
        return VERTEX_JOB
    endpoint = parse_model_uri(uri).endpoint
    if endpoint is None:
        raise UsageError(f"--endpoint {uri}: it is no server's; give grpc://, http://, https:// or vertex://")
    return _BY_PROTOCOL[endpoint.protocol]
