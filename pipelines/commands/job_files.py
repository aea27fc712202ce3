"""The storage of the local Vertex AI's batch prediction jobs: this machine's directories, and what Beam can reach."""

import io
from typing import BinaryIO, cast

from sluice.models.server.vertex.files import LocalJobFiles


class StoredJobFiles:
    """Files by their paths: gs:// and the like through Beam, all others on this machine."""

    def __init__(self) -> None:
        self._local = LocalJobFiles()

    def match(self, pattern: str) -> list[str]:
        if "://" not in pattern:
            return self._local.match(pattern)
        from sluice.transforms.core.beam_files import match_files  # imports Beam, which most users of it do not need

        return [file.path for file in match_files(pattern)]

    def open(self, path: str) -> BinaryIO:
        if "://" not in path:
            return self._local.open(path)
        from sluice.transforms.core.beam_files import open_binary

        with open_binary(path) as file:
            return io.BytesIO(file.read())  # Beam's own have no lines

    def create(self, path: str) -> BinaryIO:
        if "://" not in path:
            return self._local.create(path)
        from apache_beam.io.filesystem import CompressionTypes
        from apache_beam.io.filesystems import FileSystems

        return cast(BinaryIO, FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED))
