"""The file systems of models: local disk. transforms/core/beam_files.py has Beam's."""

import contextlib
import fcntl
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


def _private_path() -> str:
    return os.path.join(tempfile.gettempdir(), f"sluice-models-{os.geteuid()}")


def private_directory() -> str:
    """Returns this user's directory for copies of models, which nobody else can write to; makes it if need be.

    A model is a program: who can write to its copy, or put one in its place, runs code in the worker.

    Raises:
      PermissionError: something else has the name; the text says what to do.
    """
    path = _private_path()
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


class CopyInUse:
    """Keeps the local copy of a model from being removed until it is let go, or the process ends.

    A loaded model may be loaded anew, and its ops may read its assets. A directory that is no copy is left alone.
    """

    def __init__(self, directory: str) -> None:
        self._lock: int | None = None
        if os.path.dirname(directory) == _private_path():
            self._lock = open_lock(_use_lock(directory))
            fcntl.flock(self._lock, fcntl.LOCK_SH)

    def let_go(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    __del__ = let_go  # of a model that could not be loaded


def is_in_use(directory: str) -> bool:
    """Whether a model of some process of this machine was loaded from this copy, and is open."""
    try:
        lock = os.open(_use_lock(directory), os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def _use_lock(directory: str) -> str:
    return f"{directory}.used"


def open_lock(path: str) -> int:
    """Opens a file to be locked; makes it if need be."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
