"""The file system of a model, chosen by its URI."""

from sluice.models.files import LocalFiles, ModelFiles
from sluice.models.uri import ModelSpec


def files_of(spec: ModelSpec) -> ModelFiles:
    """Returns the files of a model, or of its artifact; Beam's only where the model is neither here nor served."""
    served = spec.endpoint is not None and spec.endpoint.protocol != "vertex"  # Vertex AI names artifacts in storage
    if served or "://" not in spec.uri:
        return LocalFiles()
    from sluice.transforms.core.beam_files import BeamFiles  # imports Beam, which takes seconds

    return BeamFiles()
