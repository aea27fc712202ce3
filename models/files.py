"""Where a model's files come from. Local disk here; Beam's FileSystems in transforms/beam_files.py."""

import glob
import hashlib
import os
import tempfile
from typing import Protocol


class ModelFiles(Protocol):
    """The little that finding and loading a SavedModel asks of a file system. Instances must pickle and hash."""

    def __hash__(self) -> int: ...

    def match(self, pattern: str) -> list[str]:
        """Returns the files (not directories) that match a glob; [] if none."""

    def read(self, path: str) -> bytes:
        """Returns the bytes of one file."""

    def local_copy(self, directory: str) -> str:
        """Returns a local directory holding all that stands under this one, made at most once per machine."""


class LocalFiles:
    """Files on this machine's disk."""

    def __hash__(self) -> int:
        return hash(LocalFiles)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LocalFiles)

    def match(self, pattern: str) -> list[str]:
        return sorted(path for path in glob.glob(pattern) if os.path.isfile(path))

    def read(self, path: str) -> bytes:
        with open(path, "rb") as file:
            return file.read()

    def local_copy(self, directory: str) -> str:
        return directory


def copy_directory(directory: str, fingerprint: str) -> str:
    """Returns the local directory that a copy of a remote one belongs in, the same for all processes of a machine.

    Args:
      fingerprint: changes with the content, so that a model overwritten in place is copied anew.
    """
    key = hashlib.sha256(f"{directory}\n{fingerprint}".encode()).hexdigest()[:24]
    return os.path.join(tempfile.gettempdir(), "sluice-models", key)
