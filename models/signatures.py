"""Finds the signatures of a model before it is opened: in its files, or at its server.

The clients are imported where they are used: a SavedModel needs neither gRPC nor an HTTP client.
"""

import dataclasses

from sluice.models.files import ModelFiles
from sluice.models.interface import EndpointOptions
from sluice.models.saved_model.signature_reader import read_signatures
from sluice.models.saved_model.versions import Version, find_version, read_meta_graph
from sluice.models.signature import Signature
from sluice.models.uri import ModelSpec


@dataclasses.dataclass(frozen=True)
class FoundModel:
    """The model at a --model URI.

    Attributes:
      spec: as given; for a SavedModel with the version that was found, so that all workers load the same one; for a
        model of Vertex AI with what its service says.
      signatures: by name, unchecked.
      version: the number of the current version; None if it has none. A server may switch to another one later.
      on_disk: where a SavedModel was found; None for a served model.
    """

    spec: ModelSpec
    signatures: dict[str, Signature]
    version: int | None
    on_disk: Version | None


def find_model(spec: ModelSpec, files: ModelFiles, options: EndpointOptions, timeout_secs: float) -> FoundModel:
    """Returns the model at the URI, read without TensorFlow.

    Args:
      files: the file system of a SavedModel, or of an artifact of Vertex AI.
      options: how to call a server.
      timeout_secs: how long the server may take to answer.

    Raises:
      UsageError: there is no model, or its server does not answer; the text says where, and what to do.
    """
    if spec.is_here:
        found = find_version(spec.uri, files)
        signatures = read_signatures(read_meta_graph(found.directory, files))
        return FoundModel(dataclasses.replace(spec, version=found.number), signatures, found.number, found)
    if spec.endpoint is None or spec.endpoint.protocol == "vertex":
        from sluice.models.endpoints.vertex_signatures import find_endpoint, find_managed

        find = find_managed if spec.endpoint is None else find_endpoint
        on_vertex = find(spec, files, options, timeout_secs)
        return FoundModel(on_vertex.spec, on_vertex.signatures, on_vertex.version, None)
    if spec.endpoint.protocol == "grpc":
        from sluice.models.endpoints.grpc import fetch_signatures as fetch_over_grpc

        signatures, version = fetch_over_grpc(spec, options, timeout_secs)
    else:
        from sluice.models.endpoints.rest import fetch_signatures as fetch_over_rest

        signatures, version = fetch_over_rest(spec, options, timeout_secs)
    return FoundModel(spec, signatures, version, None)
