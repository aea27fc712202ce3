"""Which signatures a model has, before it is opened: from its files, or from its server."""

import dataclasses

from sluice.models.files import ModelFiles
from sluice.models.interface import EndpointOptions
from sluice.models.saved_model.signature_reader import read_signatures
from sluice.models.saved_model.versions import Version, find_version, read_meta_graph
from sluice.models.signature import Signature
from sluice.models.uri import ModelSpec


@dataclasses.dataclass(frozen=True)
class FoundModel:
    """What stands at a --model URI.

    Attributes:
      spec: as given; of a SavedModel with the version that was found, so that all workers load the same one.
      signatures: by name, unchecked.
      version: its number now; None if it has none. A server may go on to another one.
      on_disk: where a SavedModel was found; None for a served model.
    """

    spec: ModelSpec
    signatures: dict[str, Signature]
    version: int | None
    on_disk: Version | None


def find_model(spec: ModelSpec, files: ModelFiles, options: EndpointOptions, timeout_secs: float) -> FoundModel:
    """Returns what stands at the URI, without TensorFlow.

    Args:
      files: where a SavedModel is read from.
      options, timeout_secs: how a server is asked, and how long it may take to answer.

    Raises:
      UsageError: there is no model, or its server does not answer; the text says where, and what to do.
    """
    if spec.endpoint is None:
        found = find_version(spec.uri, files)
        signatures = read_signatures(read_meta_graph(found.directory, files))
        return FoundModel(dataclasses.replace(spec, version=found.number), signatures, found.number, found)
    if spec.endpoint.protocol == "grpc":
        from sluice.models.endpoints.grpc import fetch_signatures as fetch_over_grpc

        signatures, version = fetch_over_grpc(spec, options, timeout_secs)
    else:
        from sluice.models.endpoints.rest import fetch_signatures as fetch_over_rest

        signatures, version = fetch_over_rest(spec, options, timeout_secs)
    return FoundModel(spec, signatures, version, None)
