"""Parses `--model URI`."""

import dataclasses
import urllib.parse
from typing import Literal

from sluice.models.errors import UsageError

_SCHEMES = (
    "DIR, gs://BUCKET/DIR, grpc://HOST:8500/NAME or http://HOST:8501/v1/models/NAME "
    "(the last two may end with /versions/N or /labels/L, and begin with grpcs:// or https:// for TLS)"
)
_PROTOCOLS: dict[str, Literal["grpc", "rest"]] = {"grpc": "grpc", "grpcs": "grpc", "http": "rest", "https": "rest"}
# TF Serving's default for gRPC, the web's for the others. https://www.tensorflow.org/tfx/serving/docker
_PORTS = {"grpc": 8500, "grpcs": 443, "http": 80, "https": 443}
# An int64 in tensorflow_serving/apis/model.proto.
_MAX_VERSION = 2**63 - 1


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """A model behind TF Serving's API.

    Attributes:
      protocol: "grpc" or "rest".
      host, port: where it listens.
      name: the model's name at the server.
      tls: whether the connection is encrypted.
      label: of a version ("stable"); empty: none. A spec has a label or a version, or neither.
      path: for REST, the part of the URL before /v1/models, with a leading slash; may be empty.
    """

    protocol: Literal["grpc", "rest"]
    host: str
    port: int
    name: str
    tls: bool = False
    label: str = ""
    path: str = ""

    @property
    def address(self) -> str:
        """HOST:PORT, as gRPC and error messages write it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """A parsed --model URI.

    Attributes:
      uri: as the user wrote it, without a trailing slash.
      version: of a SavedModel: pinned by the launcher, so that late workers load the same one; None: the newest
        complete version. Of an endpoint: the one in the URI; None: the server chooses.
      endpoint: where the model is served; None: it is loaded here.
    """

    uri: str
    version: int | None = None
    endpoint: Endpoint | None = None


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
