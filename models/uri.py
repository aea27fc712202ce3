"""Parses `--model URI`."""

import dataclasses
import re
import urllib.parse
from typing import Literal

from sluice.models.errors import UsageError

_SCHEMES = (
    "DIR, gs://BUCKET/DIR, grpc://HOST:8500/NAME, http://HOST:8501/v1/models/NAME (these two may end with /versions/N "
    "or /labels/L, and begin with grpcs:// or https:// for TLS) or vertex://projects/P/locations/L/endpoints/E"
)
_PROTOCOLS: dict[str, Literal["grpc", "rest"]] = {"grpc": "grpc", "grpcs": "grpc", "http": "rest", "https": "rest"}
# TF Serving's default for gRPC, the web's for the others. https://www.tensorflow.org/tfx/serving/docker
_PORTS = {"grpc": 8500, "grpcs": 443, "http": 80, "https": 443, "vertex": 443, "vertex+http": 80}
# An int64 in tensorflow_serving/apis/model.proto.
_MAX_VERSION = 2**63 - 1

# Resources of Vertex AI. A location is part of a host's name, so it has the letters of one.
# https://cloud.google.com/vertex-ai/docs/reference/rest
_RESOURCE = re.compile(
    r"projects/(?P<project>[\w.:-]+)/locations/(?P<location>[a-z][a-z0-9-]*)/(?P<kind>endpoints|models)/(?P<id>[\w-]+)"
    r"(?:@(?P<version>[\w-]+))?",
    re.ASCII,
)
# A peering endpoint: https://cloud.google.com/vertex-ai/docs/predictions/using-private-endpoints
_PEERED = re.compile(r"v1/models/(?P<id>[\w-]+)(?::predict)?", re.ASCII)
RAW_PREDICT, PREDICT = "rawPredict", "predict"
_METHODS = {"": RAW_PREDICT, "method=rawPredict": RAW_PREDICT, "method=predict": PREDICT}
_VERTEX_FORM = (
    "vertex://projects/P/locations/L/endpoints/E (?method=predict may follow), vertex://HOST/projects/... for a "
    "dedicated or Private Service Connect endpoint, vertex+http://HOST/v1/models/ID:predict for a peering endpoint, or "
    "vertex://projects/P/locations/L/models/M[@VERSION] for a managed job of `sluice batch`"
)


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """A model behind TF Serving's API, or an endpoint of Vertex AI.

    Attributes:
      protocol: "grpc", "rest" or "vertex".
      host, port: where it listens.
      name: the model's name at the server; of Vertex AI projects/P/locations/L/endpoints/E, or a deployed model's id.
      tls: whether the connection is encrypted.
      label: of a version ("stable"); empty: none. A spec has a label or a version, or neither.
      path: for REST, the part of the URL before /v1/models, with a leading slash; may be empty.
      method: of Vertex AI, "rawPredict" or "predict"; empty: another protocol, or a peering endpoint.
    """

    protocol: Literal["grpc", "rest", "vertex"]
    host: str
    port: int
    name: str
    tls: bool = False
    label: str = ""
    path: str = ""
    method: str = ""

    @property
    def address(self) -> str:
        """HOST:PORT, as gRPC and error messages write it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclasses.dataclass(frozen=True)
class Deployed:
    """What Vertex AI says of an endpoint. The launcher asks once, so that workers need not.

    Attributes:
      kind: "shared", "dedicated", "private" (Private Service Connect) or "peering".
      host: a dedicated endpoint's own; empty: none.
      timeout_secs: how long the endpoint lets a call take.
      versions: (id of a deployed model, version of the rows that it answers).
      by_column: names of signatures that TF Serving answers in its column form only.
    """

    kind: str
    host: str
    timeout_secs: float
    versions: tuple[tuple[str, int], ...] = ()
    by_column: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class ManagedModel:
    """A model that Vertex AI runs in a batch prediction job.

    Attributes:
      version: a number or an alias; empty: the default one.
    """

    project: str
    location: str
    model: str
    version: str = ""

    @property
    def name(self) -> str:
        """The resource: projects/P/locations/L/models/M, with @VERSION if there is one."""
        version = f"@{self.version}" if self.version else ""
        return f"projects/{self.project}/locations/{self.location}/models/{self.model}{version}"


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """A parsed --model URI. At most one of `endpoint` and `managed` is there.

    Attributes:
      uri: as the user wrote it, without a trailing slash.
      version: of a SavedModel: pinned by the launcher, so that late workers load the same one; None: the newest
        complete version. Of an endpoint: the one in the URI; None: the server chooses.
      endpoint: where the model is served; None: it is not.
      managed: the model of a managed job; None: another model.
      deployed: of an endpoint of Vertex AI, what was found at launch; None: nothing yet.
    """

    uri: str
    version: int | None = None
    endpoint: Endpoint | None = None
    managed: ManagedModel | None = None
    deployed: Deployed | None = None

    @property
    def is_here(self) -> bool:
        """Whether the model is loaded into the process that calls it."""
        return self.endpoint is None and self.managed is None


def parse_model_uri(uri: str) -> ModelSpec:
    """Returns the spec of a --model URI.

    Raises:
      UsageError: the URI is empty or incomplete, or no backend has its scheme.
    """
    uri = uri.strip()
    if not uri:
        raise UsageError(f"--model is empty; give {_SCHEMES}")
    scheme = uri.split("://", 1)[0].lower() if "://" in uri else ""
    if scheme in _PROTOCOLS:
        return _parse_endpoint(uri.rstrip("/"), scheme)
    if scheme in ("vertex", "vertex+http"):
        return _parse_vertex(uri.rstrip("/"), scheme)
    if scheme not in ("", "gs", "file"):
        raise UsageError(f"--model {uri}: '{scheme}://' is not a scheme that Sluice can call; give {_SCHEMES}")
    if scheme == "gs" and not uri.removeprefix("gs://").strip("/"):
        raise UsageError(f"--model {uri} names no bucket; give gs://BUCKET/DIR")
    return ModelSpec(uri.removeprefix("file://").rstrip("/") or "/")


def _parse_endpoint(uri: str, scheme: str) -> ModelSpec:
    protocol = _PROTOCOLS[scheme]
    form = f"{scheme}://HOST:PORT/" + ("NAME" if protocol == "grpc" else "v1/models/NAME")
    try:
        parts = urllib.parse.urlsplit(uri)
        port = _PORTS[scheme] if parts.port is None else parts.port
    except ValueError as error:
        raise UsageError(f"--model {uri}: {error}; give {form}") from error
    path, root, model = parts.path.rpartition("/v1/models/") if protocol == "rest" else ("", "/", parts.path.strip("/"))
    words = [urllib.parse.unquote(word) for word in model.removesuffix(":predict").split("/")]
    odd = parts.query or parts.fragment or parts.username is not None
    if not parts.hostname or odd or not root or len(words) not in (1, 3) or not all(words):
        raise UsageError(f"--model {uri} is not of the form {form}; /versions/N or /labels/L may follow")
    version, label = _parse_version(uri, words[1:])
    endpoint = Endpoint(protocol, parts.hostname, port, words[0], scheme in ("grpcs", "https"), label, path)
    return ModelSpec(uri, version, endpoint)


def _parse_version(uri: str, words: list[str]) -> tuple[int | None, str]:
    if not words:
        return None, ""
    kind, value = words
    if kind == "labels":
        return None, value
    if kind == "versions" and value.isascii() and value.isdecimal() and int(value) <= _MAX_VERSION:
        return int(value), ""
    raise UsageError(f"--model {uri}: '{kind}/{value}' is neither /versions/NUMBER nor /labels/LABEL")


def _parse_vertex(uri: str, scheme: str) -> ModelSpec:
    rest, _, query = uri.partition("://")[2].partition("?")
    host, path = ("", rest) if _RESOURCE.fullmatch(rest) else rest.partition("/")[::2]
    resource, peered = _RESOURCE.fullmatch(path), _PEERED.fullmatch(path)
    plain = scheme == "vertex+http"
    if resource and resource["kind"] == "models" and not (host or plain or query):
        managed = ManagedModel(resource["project"], resource["location"], resource["id"], resource["version"] or "")
        return ModelSpec(uri, managed=managed)
    is_endpoint = resource is not None and resource["kind"] == "endpoints" and not resource["version"]
    if resource and is_endpoint and query in _METHODS and (host or not plain):
        name, port = _host_and_port(uri, host or vertex_host(resource["location"]), scheme)
        return ModelSpec(uri, None, Endpoint("vertex", name, port, path, not plain, method=_METHODS[query]))
    if peered and plain and host and not query:
        name, port = _host_and_port(uri, host, scheme)
        return ModelSpec(uri, deployed_number(peered["id"]), Endpoint("vertex", name, port, peered["id"]))
    raise _no_vertex(uri)


def deployed_number(name: str) -> int | None:
    """Returns the id of a deployed model as a version; None if it is no number."""
    return int(name) if name.isascii() and name.isdecimal() and int(name) <= _MAX_VERSION else None


def _host_and_port(uri: str, text: str, scheme: str) -> tuple[str, int]:
    try:
        parts = urllib.parse.urlsplit(f"//{text}")
        port = _PORTS[scheme] if parts.port is None else parts.port
    except ValueError as error:
        raise UsageError(f"--model {uri}: {error}; give {_VERTEX_FORM}") from error
    if not parts.hostname or parts.netloc != text or parts.username is not None:
        raise _no_vertex(uri)
    return parts.hostname, port


def _no_vertex(uri: str) -> UsageError:
    return UsageError(f"--model {uri} is not of a form of Vertex AI; give {_VERTEX_FORM}")


def vertex_host(location: str) -> str:
    """Returns the host of Vertex AI's API in a location."""
    return "aiplatform.googleapis.com" if location == "global" else f"{location}-aiplatform.googleapis.com"


def parse_base_url(url: str, flag: str) -> Endpoint:
    """Returns where a base URL of Vertex AI's API points, as an endpoint without a name.

    Raises:
      UsageError: it is not http(s)://HOST[:PORT].
    """
    try:
        parts = urllib.parse.urlsplit(url)
        odd = parts.path.strip("/") or parts.query or parts.fragment or parts.username is not None
        if parts.scheme in ("http", "https") and parts.hostname and not odd:
            port = _PORTS[parts.scheme] if parts.port is None else parts.port
            return Endpoint("vertex", parts.hostname, port, "", parts.scheme == "https")
    except ValueError as error:
        raise UsageError(f"{flag} {url}: {error}; give http://HOST:PORT or https://HOST:PORT") from error
    raise UsageError(f"{flag} {url} is no base URL; give http://HOST:PORT or https://HOST:PORT")
