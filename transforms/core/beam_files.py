"""Files through Beam's FileSystems: local disks, gs://, and all else that Beam has a plug-in for."""

import contextlib
import fcntl
import glob
import gzip
import io
import os
import shutil
import time
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO, cast

from apache_beam.io.filesystem import BeamIOError, CompressionTypes, FileMetadata
from apache_beam.io.filesystems import FileSystems

from sluice.models.errors import InputChanged, UsageError
from sluice.models.files import copy_directory, is_in_use, open_lock, within
from sluice.transforms.core.made_files import CODECS, unpacked

_COPY_CHUNK_BYTES = 8 << 20
# A model is loaded as soon as its copy is made, and holds it then. What comes between takes less than this.
_KEEP_COPY_SECS = 3600.0

# The prefix of directories and files that hold unfinished output.
HIDDEN = ".sluice-"
# The attribute of errors of the storage.
_OF_STORAGE = "sluice_of_storage"
# Beam's file systems read these characters as a pattern, also when they delete.
_GLOB = "*?[]{}"


def check_name(path: str, shown: str) -> None:
    """Checks that an output path is no pattern.

    Args:
      shown: the path as the user wrote it.

    Raises:
      UsageError: the path is a pattern.
    """
    if any(character in path for character in _GLOB):
        raise UsageError(f"{shown}: an output path cannot hold any of {_GLOB}")


def _open_stored(path: str) -> Any:
    return FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED)


def open_binary(path: str, open_: Callable[[str], Any] = _open_stored) -> BinaryIO:
    """Opens a file to read its bytes as stored. What goes wrong with the storage is a storage error, see below.

    Args:
      open_: opens it.
    """
    return cast(BinaryIO, _StoredFile(path, open_))


def is_storage_error(error: Exception) -> bool:
    """Whether an error was raised by opening or reading a file's bytes, and not by what was made of them."""
    return getattr(error, _OF_STORAGE, False)


def is_file_error(error: Exception) -> bool:
    """Whether a file is at fault, by its contents or because we cannot open it, and not the way to it.

    Whatever a parser raises over the bytes that it got is damage: no list of errors would be complete. So the errors of
    reading the bytes themselves are told apart where they are raised, in `open_binary`.
    """
    if not is_storage_error(error):
        return True
    status = getattr(error, "code", None)  # of google.api_core's errors: an HTTP status
    refused = isinstance(status, int) and 400 <= status < 500 and status not in (408, 429)
    # Beam refuses objects that are gzipped twice as not implemented.
    return refused or isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError | NotImplementedError)


class _StoredFile:
    """A file of Beam's. Marks the errors of its storage, so that what parsers raise can be told from them."""

    def __init__(self, path: str, open_: Callable[[str], Any]) -> None:
        with _storage_errors():
            self._file = open_(path)

    def read(self, size: int | None = -1) -> bytes:
        with _storage_errors():
            data: bytes = self._file.read(-1 if size is None else size)
            return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> "_StoredFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


@contextlib.contextmanager
def _storage_errors() -> Iterator[None]:
    try:
        yield
    except (MemoryError, OverflowError, ValueError):  # of a size that no storage has: the caller asked for it
        raise
    except Exception as error:
        setattr(error, _OF_STORAGE, True)
        raise


def open_text(path: str) -> BinaryIO:
    """Opens a file to read, unpacked if its name says that it is packed.

    A truncated gzip stream raises EOFError, others OSError.
    """
    file = open_binary(path)
    if path.endswith(".gz"):
        return cast(BinaryIO, _GzipFile(file))
    codec = next((codec for ending, codec in CODECS.items() if path.endswith(ending)), "")
    return unpacked(file, codec) if codec else file


class _GzipFile(gzip.GzipFile):
    """Reads all bytes before the damage in a file, and raises at the next read.

    Beam's own reader of compressed files ends a truncated stream without an error: of half a file, it reads half the
    rows as if they were all. gzip.GzipFile raises, but loses the bytes that it has unpacked in the same call.
    """

    def __init__(self, stored: BinaryIO) -> None:
        super().__init__(fileobj=stored, mode="rb")
        self._stored = stored
        self._damage: Exception | None = None

    def read(self, size: int | None = -1) -> bytes:
        if self._damage:
            raise self._damage
        pieces, left = [], -1 if size is None else size
        try:
            while left and (piece := self.read1(left)):
                pieces.append(piece)
                left -= len(piece) if left > 0 else 0
        except (OSError, EOFError, zlib.error) as error:
            if not pieces:
                raise
            self._damage = error
        return b"".join(pieces)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._damage = None
        return super().seek(offset, whence)

    def close(self) -> None:
        super().close()
        self._stored.close()


def match_files(pattern: str) -> list[FileMetadata]:
    """Returns the files that match a glob, sorted by name, without those that Sluice is still writing.

    Raises:
      OSError: the file system does not answer. It is no error if no file matches.
    """
    relative = "://" not in pattern and not os.path.isabs(pattern)
    # Beam finds no bare name in the current directory.
    asked = os.path.join(os.curdir, pattern) if relative else pattern
    try:
        found = FileSystems.match([asked])[0].metadata_list
    except BeamIOError as error:
        reasons = list((error.exception_details or {}).values()) or [error]
        raise OSError(f"{pattern} cannot be listed: {type(reasons[0]).__name__}: {reasons[0]}") from error
    if relative:
        found = [FileMetadata(os.path.normpath(f.path), f.size_in_bytes, f.last_updated_in_seconds) for f in found]
    # The console of gs:// makes an object whose name ends in a slash for "create folder".
    real = (file for file in found if f"/{HIDDEN}" not in f"/{file.path}" and not file.path.endswith("/"))
    return sorted(real, key=lambda file: file.path)


def delete_files(paths: Iterable[str]) -> None:
    """Deletes the files that exist. The names must hold no glob characters."""
    for path in paths:
        if "://" in path:
            FileSystems.delete([path])
        elif os.path.exists(path):
            os.remove(path)


def check_unchanged(path: str, size: int, changed: float) -> None:
    """Checks that a file is what it was when a job found it.

    Args:
      size, changed: as it was found: bytes, and seconds since the epoch.

    Raises:
      InputChanged: it has changed, or is gone.
    """
    try:
        now = FileSystems.get_filesystem(path).metadata(path)
    except BeamIOError:
        if FileSystems.exists(path):
            raise
        found = "it is not there any more"
    else:
        if (now.size_in_bytes, now.last_updated_in_seconds) == (size, changed):
            return
        found = f"it had {size} bytes, and has {now.size_in_bytes} now"
        if now.size_in_bytes == size:
            found = f"it has {size} bytes as before, and was written anew"
    raise InputChanged(
        f"{path} changed while the job read it: {found}. Rows of it may be missing, or of two versions. Start the job "
        "again when nothing writes to its input"
    )


def delete_tree(directory: str) -> None:
    """Deletes a directory with all that is in it. The name must hold no glob characters."""
    FileSystems.delete([f"{directory}/" if "://" in directory else directory])


class BeamFiles:
    """The files of a model, wherever Beam can read; implements models.files.ModelFiles."""

    def __hash__(self) -> int:
        return hash(BeamFiles)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BeamFiles)

    def match(self, pattern: str) -> list[str]:
        return [file.path for file in match_files(pattern)]

    def read(self, path: str) -> bytes:
        with open_binary(path) as file:
            return file.read()

    def fingerprint(self, directory: str) -> str:
        return _stamp(match_files(f"{directory}/**"))

    def local_copy(self, directory: str) -> str:
        if "://" not in directory:
            return directory
        files = match_files(f"{directory}/**")
        target = copy_directory(directory, _stamp(files))
        with _locked(f"{target}.lock"):
            is_new = not os.path.isdir(target)
            if is_new:
                _copy_all(directory, files, target)
            os.utime(target)
        if is_new:
            remove_old_copies(target)
        return target


def _stamp(files: list[FileMetadata]) -> str:
    return ";".join(f"{file.path}:{file.size_in_bytes}:{file.last_updated_in_seconds}" for file in files)


def remove_old_copies(target: str) -> None:
    """Removes the copies of other versions of a model that no process has requested lately, or has loaded a model from.

    They would fill the disk of a job that follows versions.
    """
    family = os.path.basename(target).partition("-")[0]
    for path in glob.glob(os.path.join(os.path.dirname(target), f"{family}-*")):
        if path == target or "." in os.path.basename(path):  # a lock, or an unfinished copy
            continue
        with contextlib.suppress(OSError), _locked(f"{path}.lock"):  # another process may remove the same
            if time.time() - os.stat(path).st_mtime > _KEEP_COPY_SECS and not is_in_use(path):
                doomed = f"{path}.{uuid.uuid4().hex}"  # another process must not find half a copy
                os.rename(path, doomed)
                shutil.rmtree(doomed, ignore_errors=True)


@contextlib.contextmanager
def _locked(path: str) -> Iterator[None]:
    """Holds a lock among the processes of this machine: one of them copies, and the others wait."""
    lock = open_lock(path)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _copy_all(directory: str, files: list[FileMetadata], target: str) -> None:
    """Copies into a directory of another name and renames it: an interrupted copy is never found under `target`."""
    partial = f"{target}.{uuid.uuid4().hex}"
    try:
        for file in files:
            to = within(partial, file.path.removeprefix(directory).lstrip("/"))
            os.makedirs(os.path.dirname(to), exist_ok=True)
            with open_binary(file.path) as source, open(to, "wb") as sink:
                shutil.copyfileobj(source, sink, _COPY_CHUNK_BYTES)
        os.rename(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_text(path: str, text: str) -> None:
    """Writes a small file."""
    with FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        file.write(text.encode())
