"""Finds the signatures of models of Vertex AI, which no call tells: they are read from the models' artifacts.

The artifact of a deployed model is the SavedModel that its container has loaded. Where it cannot be read,
--signature_from names another place.
"""

import dataclasses
import logging
from collections.abc import Sequence
from typing import NamedTuple

from google.protobuf.message import Error

from sluice.models.endpoints import not_found
from sluice.models.endpoints.rest import read_metadata, without_json
from sluice.models.endpoints.vertex_lookup import (
    DEDICATED,
    PEERING,
    SHARED,
    DeployedModel,
    Forbidden,
    NoSuchResource,
    base_of,
    default_deployed,
    get_resource,
    read_endpoint,
)
from sluice.models.endpoints.vertex_predict import refusal
from sluice.models.errors import ModelNotFound, SignatureError, UsageError
from sluice.models.files import ModelFiles
from sluice.models.interface import EndpointOptions
from sluice.models.saved_model.signature_fit import check_fit
from sluice.models.saved_model.signature_reader import read_signatures
from sluice.models.saved_model.versions import find_version, read_meta_graph
from sluice.models.signature import UNSERVED, Signature
from sluice.models.uri import PREDICT, Deployed, ModelSpec, vertex_host

_LOG = logging.getLogger(__name__)

_REMEDY = "give --signature_from DIR|FILE"
_SAVED_MODEL = "/saved_model.pb"

Signatures = dict[str, Signature]


class Found(NamedTuple):
    """A model of Vertex AI.

    Attributes:
      spec: with what the service says of it.
      signatures: by name, unchecked.
      version: of all its rows; None if several models answer.
    """

    spec: ModelSpec
    signatures: Signatures
    version: int | None


def find_endpoint(spec: ModelSpec, files: ModelFiles, options: EndpointOptions, timeout_secs: float) -> Found:
    """Returns what an endpoint serves.

    Args:
      files: the file system of the artifacts.

    Raises:
      UsageError: there is no such endpoint, or its signatures cannot be found; the text says what to do.
    """
    assert spec.endpoint is not None, "a spec of an endpoint"
    deployed, models = describe_endpoint(spec, options, timeout_secs)
    if options.signature_from:
        signatures = _read_from(options.signature_from, files)
    elif not spec.endpoint.method:
        raise UsageError(f"--model {spec.uri}: nobody tells what a peering endpoint takes; {_REMEDY}")
    else:
        signatures = _read_deployed(models, files, options, timeout_secs, spec)
    if spec.endpoint.method == PREDICT:
        signatures = {name: _or_refused(each, refusal(each)) for name, each in signatures.items()}
    version = dict(deployed.versions).get(models[0].id) if len(models) == 1 else spec.version
    by_column = tuple(name for name, each in signatures.items() if needs_columns(each))
    deployed = dataclasses.replace(deployed, by_column=by_column)
    return Found(dataclasses.replace(spec, deployed=deployed), signatures, version)


def needs_columns(signature: Signature) -> bool:
    """Whether some output has no batch dimension: TF Serving cannot write it row by row."""
    return any(output.shape == () for output in signature.outputs)


def describe_endpoint(
    spec: ModelSpec, options: EndpointOptions, timeout_secs: float
) -> tuple[Deployed, list[DeployedModel]]:
    """Returns what an endpoint is, and its models that get traffic; none if the caller may not know.

    Raises:
      ModelNotFound: there is no such endpoint; or the caller may not look, and has not said what the signature is.
    """
    endpoint = spec.endpoint
    assert endpoint is not None, "a spec of an endpoint"
    if not endpoint.method:
        return default_deployed(PEERING), []
    try:
        return read_endpoint(get_resource(endpoint.name, options, timeout_secs, endpoint))
    except NoSuchResource as error:
        raise not_found.not_served(spec, base_of(endpoint.name, options, endpoint), str(error)) from error
    except Forbidden as error:
        if not options.signature_from:
            raise
        kind = SHARED if endpoint.host == vertex_host(endpoint.name.split("/")[3]) else DEDICATED
        _LOG.warning("%s; it is taken for a %s endpoint, and rows have ids of deployed models as versions", error, kind)
        return default_deployed(kind), []


def find_managed(spec: ModelSpec, files: ModelFiles, options: EndpointOptions, timeout_secs: float) -> Found:
    """Returns the model of a managed job, with the version that its name means now.

    Raises:
      UsageError: there is no such model, or its signatures cannot be found.
    """
    assert spec.managed is not None, "a spec of a managed model"
    resource = get_resource(spec.managed.name, options, timeout_secs)
    version = str(resource.get("versionId") or "")
    managed = dataclasses.replace(spec.managed, version=version or spec.managed.version)
    if options.signature_from:
        signatures = _read_from(options.signature_from, files)
    else:
        signatures = _read_artifact(managed.name, str(resource.get("artifactUri") or ""), files)
    number = int(version) if version.isascii() and version.isdecimal() else None
    return Found(dataclasses.replace(spec, managed=managed), signatures, number)


def _read_deployed(
    models: Sequence[DeployedModel], files: ModelFiles, options: EndpointOptions, timeout_secs: float, spec: ModelSpec
) -> Signatures:
    """Returns the signatures of all models that get traffic. One that differs between them is refused."""
    found: dict[str, Signatures] = {}
    for name in dict.fromkeys(each.name for each in models):
        if name.count("/") != 5:  # projects/P/locations/L/models/M
            raise ModelNotFound(f"a deployed model of {spec.uri} names no model: {name!r}; {_REMEDY}")
        resource = get_resource(name, options, timeout_secs, spec.endpoint)
        found[name] = _read_artifact(name, str(resource.get("artifactUri") or ""), files)
    (first, signatures), *others = found.items()
    for name, other in others:
        signatures = {key: _or_refused(each, _differs(each, first, other, name)) for key, each in signatures.items()}
    return signatures


def _differs(signature: Signature, first: str, other: Signatures, name: str) -> str:
    if signature.name not in other:
        return f"{name}, which is deployed beside {first}, has no such signature"
    try:
        check_fit(other[signature.name], signature)
    except SignatureError as error:
        return f"{name} is deployed beside {first}: {error}"
    return ""


def _or_refused(signature: Signature, why: str) -> Signature:
    return dataclasses.replace(signature, refusal=why) if why and not signature.refusal else signature


def _read_artifact(name: str, uri: str, files: ModelFiles) -> Signatures:
    if not uri:
        raise ModelNotFound(f"{name} names no artifact, so nobody tells what it takes; {_REMEDY}")
    try:
        return _read_directory(uri.rstrip("/"), files)
    except (ModelNotFound, OSError) as error:
        raise ModelNotFound(f"the artifact of {name}, {uri}, cannot be read: {error}; {_REMEDY}") from error


def _read_from(path: str, files: ModelFiles) -> Signatures:
    try:
        if path.endswith(".json"):
            return read_metadata(files.read(path))[0]
        return _read_directory(path.removesuffix(_SAVED_MODEL).rstrip("/"), files)
    except (ModelNotFound, OSError, ValueError, Error) as error:
        raise UsageError(
            f"--signature_from {path} cannot be read: {error}; give the directory of a SavedModel, its saved_model.pb, "
            "or a .json file with what TF Serving answers to /v1/models/NAME/metadata"
        ) from error


def _read_directory(directory: str, files: ModelFiles) -> Signatures:
    meta_graph = read_meta_graph(find_version(directory, files).directory, files)
    return without_json({name: _served(each) for name, each in read_signatures(meta_graph).items()})


def _served(signature: Signature) -> Signature:
    """Returns a signature as TF Serving serves it: it fetches one tensor for each output."""
    outputs = tuple(
        spec if spec.kind == "dense" else dataclasses.replace(spec, kind=UNSERVED) for spec in signature.outputs
    )
    return dataclasses.replace(signature, outputs=outputs)
