"""The file systems of models: local disk. transforms/core/beam_files.py has Beam's."""

import contextlib
import glob
import hashlib
import os
import stat
import tempfile
from typing import Protocol


class ModelFiles(Protocol):
    """A file system, as far as finding and loading a SavedModel needs it. Instances can be pickled and hashed."""

    def __hash__(self) -> int: ...

    def match(self, pattern: str) -> list[str]:
        """Returns the files (not directories) that match a glob."""

    def read(self, path: str) -> bytes:
        """Returns the bytes of one file."""

    def fingerprint(self, directory: str) -> str:
        """Returns a text that changes when a file under this directory does, from names, sizes and times."""

    def local_copy(self, directory: str) -> str:
        """Returns a local directory with the same files as this one; it is copied at most once per machine."""


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

    def fingerprint(self, directory: str) -> str:
        found = []
        for path in (os.path.join(parent, name) for parent, _, names in os.walk(directory) for name in names):
            with contextlib.suppress(FileNotFoundError):  # removed since it was listed
                status = os.stat(path)
                found.append(f"{path}:{status.st_size}:{status.st_mtime_ns}")
        return ";".join(sorted(found))

    def local_copy(self, directory: str) -> str:
        return directory


def private_directory() -> str:
    """Returns this user's directory for copies of models, which nobody else can write to; makes it if need be.

    A model is a program: who can write to its copy, or put one in its place, runs code in the worker.

    Raises:
      PermissionError: something else has the name; the text says what to do.
    """
    path = os.path.join(tempfile.gettempdir(), f"sluice-models-{os.geteuid()}")
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise PermissionError(
            f"{path} is not a directory of this user alone, so copies of models cannot be trusted in it; remove it, or "
            "set TMPDIR to another directory"
        )
    return path


def within(directory: str, name: str) -> str:
    """Returns the path of a file in a directory.

    Raises:
      PermissionError: the name leads out of it.
    """
    if os.path.isabs(name) or ".." in name.split("/") or "\0" in name:
        raise PermissionError(f"the model has a file named {name!r}, which leads out of its directory; remove it")
    return os.path.join(directory, name)


def copy_directory(directory: str, fingerprint: str) -> str:
    """Returns the path for the local copy of a remote directory, the same for all processes of a user on a machine.

    The name is FAMILY-KEY; the versions of one model share the family.

    Args:
      fingerprint: changes with the content, so that a model overwritten in place is copied again.

    Raises:
      PermissionError: the directory for copies is not this user's alone.
    """
    base, _, name = directory.rpartition("/")
    family = _digest(base if name.isdecimal() else directory)[:12]
    key = _digest(f"{directory}\n{fingerprint}")[:24]
    return os.path.join(private_directory(), f"{family}-{key}")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
