"""Where failures go that are not sent: a local file, or objects."""

import datetime
import os
from collections.abc import Sequence
from typing import BinaryIO, Protocol

from sluice.models.errors import UsageError
from sluice.transforms.core.beam_files import delete_files
from sluice.transforms.files.write_stream import StreamTarget, check_stream_target, open_file, rename_finished
from sluice.transforms.pubsub.replay.stored_failure import StoredFailure

_SUFFIX = ".jsonl"


class FinalSink(Protocol):
    """Where failures go that are not sent."""

    @property
    def name(self) -> str:
        """The file's name, or a pattern of the objects' names."""

    def write(self, failures: Sequence[StoredFailure]) -> None:
        """Writes failures; returns when they would outlive a crash."""

    def close(self) -> None:
        """Completes the sink; leaves nothing of a sink that was not used."""


def open_final_sink(path: str, now: datetime.datetime) -> FinalSink:
    """Returns a sink that is known to be writable.

    Args:
      path: a local file, or an object's name; "": a file in the current directory, named after the time.

    Raises:
      UsageError: the file exists, or cannot be written.
    """
    if path.endswith(".gz"):
        raise UsageError(f"--final {path}: it is written uncompressed; give it a name without .gz")
    if "://" in path:
        return FinalObjects(path.removesuffix(_SUFFIX))
    return FinalFile(path or f"replay-final-{now:%Y%m%dT%H%M%SZ}{_SUFFIX}")


class FinalFile:
    """One local file that each chunk is appended to."""

    def __init__(self, path: str) -> None:
        self.name = path
        if os.path.lexists(path):
            raise UsageError(f"--final {path} exists; give it another name")
        try:
            os.makedirs(os.path.dirname(path) or os.curdir, exist_ok=True)
            self._file: BinaryIO = open(path, "xb")  # noqa: SIM115
        except OSError as error:
            raise UsageError(f"--final {path} cannot be written: {error.strerror}") from error

    def write(self, failures: Sequence[StoredFailure]) -> None:
        if failures:
            self._file.write(_lines(failures))
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        unused = not self._file.tell()
        self._file.close()
        if unused:
            delete_files([self.name])


class FinalObjects:
    """One object per chunk, named like those of a stream: an object cannot be appended to."""

    def __init__(self, prefix: str) -> None:
        check_stream_target(prefix, _SUFFIX)
        self._target = StreamTarget(prefix, _SUFFIX)
        self.name = f"{prefix}-*{_SUFFIX}"

    def write(self, failures: Sequence[StoredFailure]) -> None:
        if failures:
            file, name = open_file(self._target, _Plain())
            file.write(_lines(failures))
            file.close()
            rename_finished(file.path, name)

    def close(self) -> None:
        pass


class _Plain:
    """Writes bytes as they are. See `transforms.files.open_file.Format`."""

    def open(self, file: BinaryIO) -> "_Plain":
        self._file = file
        return self

    def write(self, data: bytes) -> int:
        self._file.write(data)
        return 1

    def close(self) -> None:
        pass


def _lines(failures: Sequence[StoredFailure]) -> bytes:
    return b"".join(failure.text + b"\n" for failure in failures)
