"""What is in the files that rows name: it is read where rows are bound, and only the model sees it.

So a row stays small on its way: its path is shuffled, carried and written, and the bytes of its file are none of that.
Files are read side by side, ahead of the model, and the memory for it does not depend on their number or sizes.
"""

import contextlib
import dataclasses
import os
import stat
import threading
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
from apache_beam.io.filesystems import FileSystems

from sluice.models.reserved import FED, FILE
from sluice.models.wording import Message, message, text_of
from sluice.transforms.core.batches import failure_of
from sluice.transforms.core.beam_files import is_file_error, open_binary
from sluice.transforms.core.failures import READ, Failure
from sluice.transforms.core.file_paths import BadPath, PathRules, directory_of, resolve
from sluice.transforms.core.prefetch import prefetch_all

# A call of a model has so many rows of files, unless --max_batch_size says otherwise: their bytes may be few, but an
# image is unpacked to ten times as many, and 4,096 of them would be gigabytes.
CALL_ROWS = 64
# Rows come out in parts of so many, or of so many bytes.
_PART_ROWS, _PART_BYTES = CALL_ROWS, 8 << 20
# So many files are read at once, each up to so many pieces ahead. Most files are one piece.
_THREADS, _PIECES_AHEAD = 16, 2
_PIECE_BYTES = 512 << 10
# What is downloaded at once of a large object.
_DOWNLOAD_BYTES = 4 << 20
_GCS = "gs://"


class FileTooLarge(Exception):
    """A file has more bytes than a row may have."""


@dataclasses.dataclass(frozen=True)
class FileInputs:
    """The inputs of a model that get what is in files. Picklable.

    Attributes:
      columns: (input, column of paths or URIs).
      max_bytes: of one file; a larger one fails its row.
    """

    columns: tuple[tuple[str, str], ...]
    rules: PathRules
    max_bytes: int


class Loaded(NamedTuple):
    """Some rows of a batch.

    Attributes:
      rows: those whose files were read, with a column for each input after the others (models.reserved.FED); None:
        there are none.
      failures: of the others.
    """

    rows: pa.RecordBatch | None
    failures: list[Failure]


def load_files(batch: pa.RecordBatch, inputs: FileInputs) -> Iterator[Loaded]:
    """Yields the rows of a batch in order, a part at a time, each with what is in its files.

    A file that is missing, or that cannot be read, fails its row.

    Raises:
      Exception: of the network or the disk, as the storage raises it: the runner tries again.
    """
    paths = [batch.column(batch.schema.get_field_index(column)).to_pylist() for _, column in inputs.columns]
    directories, storage = _directories(batch), _Storage()
    files = (
        _pieces(column[row], directories[row], inputs, storage) for row in range(batch.num_rows) for column in paths
    )  # all files of a row, then those of the next
    part = _Part(batch, inputs)
    with contextlib.closing(prefetch_all(files, _THREADS, _PIECES_AHEAD)) as pieces:
        for row in range(batch.num_rows):
            part.add(row, [_whole(pieces) for _ in paths])
            if part.is_full:
                yield part.finish()
                part = _Part(batch, inputs)
    if part.count:
        yield part.finish()


def _directories(batch: pa.RecordBatch) -> Sequence[str]:
    """Returns the directory of each row's file; "" where it is in none."""
    place = batch.schema.get_field_index(FILE)
    if place < 0:
        return [""] * batch.num_rows
    files = batch.column(place)
    if not pa.types.is_dictionary(files.type):
        return [directory_of(file or "") for file in files.to_pylist()]
    known = [directory_of(file or "") for file in files.dictionary.to_pylist()]
    return [known[index] for index in files.indices.to_pylist()]


class _End(NamedTuple):
    """Comes after the pieces of a file.

    Attributes:
      error: why there are no more; None: that was all.
    """

    error: Exception | None


class _Whole(NamedTuple):
    """A file as it was read; what is in it does not count if there is an error."""

    data: bytes
    error: Exception | None


def _pieces(path: str | None, directory: str, inputs: FileInputs, storage: "_Storage") -> Iterator[bytes | _End]:
    """Yields what is in a file, and an `_End`."""
    try:
        if path is None:
            raise BadPath(message("it is null"))
        size = 0
        with storage.open(resolve(path, inputs.rules, directory), inputs.max_bytes) as file:
            while data := file.read(_PIECE_BYTES):
                size += len(data)
                _check_size(size, inputs.max_bytes)
                yield data
    except Exception as error:
        if isinstance(error, MemoryError) or not is_file_error(error):
            raise
        yield _End(error)
    else:
        yield _End(None)


class _Storage:
    """Opens the files of a batch. Thread-safe.

    Those on gs:// share a client: by itself, Beam makes a client, and connects anew, for each file.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._client: Any = None  # Beam's GcsIO

    def open(self, path: str, max_bytes: int) -> BinaryIO:
        """Opens a file, unless its size shows at once that it is too large.

        Raises:
          BadPath: it is a directory; or a device or a pipe, which may never end.
        """
        if path.startswith(_GCS):
            return open_binary(path, self._open_object)
        if "://" not in path:
            found = os.stat(path)
            if not stat.S_ISREG(found.st_mode):
                raise BadPath(message("it is a directory" if stat.S_ISDIR(found.st_mode) else "it is no regular file"))
            _check_size(found.st_size, max_bytes)
        return open_binary(path)

    def _open_object(self, path: str) -> Any:
        with self._lock:
            if self._client is None:
                self._client = FileSystems.get_filesystem(path)._gcsIO()
        return self._client.open(path, "rb", read_buffer_size=_DOWNLOAD_BYTES)


def _check_size(size: int, max_bytes: int) -> None:
    if size > max_bytes:
        text = "the file has more than {most:,} bytes, the most of one row; --max_batch_bytes allows more"
        raise FileTooLarge(message(text, most=max_bytes))


def _whole(pieces: Iterator[bytes | _End]) -> _Whole:
    """Returns the next file."""
    found: list[bytes] = []
    for piece in pieces:
        if isinstance(piece, _End):
            return _Whole(found[0] if len(found) == 1 else b"".join(found), piece.error)
        found.append(piece)
    raise RuntimeError("a file ended without saying so")


class _Part:
    """Rows of a batch that come out together."""

    def __init__(self, batch: pa.RecordBatch, inputs: FileInputs) -> None:
        self._batch, self._inputs = batch, inputs
        self._rows: list[int] = []
        self._contents: list[list[bytes]] = [[] for _ in inputs.columns]
        self._failures: list[Failure] = []
        self._size = 0

    @property
    def count(self) -> int:
        return len(self._rows) + len(self._failures)

    @property
    def is_full(self) -> bool:
        return self.count >= _PART_ROWS or self._size >= _PART_BYTES

    def add(self, row: int, files: Sequence[_Whole]) -> None:
        """Adds a row with its files, one for each input."""
        for (_, column), file in zip(self._inputs.columns, files, strict=True):
            if file.error is not None:
                self._failures.append(_failure(self._batch, row, column, file.error))
                return
        self._rows.append(row)
        for contents, file in zip(self._contents, files, strict=True):
            contents.append(file.data)
            self._size += len(file.data)

    def finish(self) -> Loaded:
        if not self._rows:
            return Loaded(None, self._failures)
        first, count = self._rows[0], len(self._rows)
        in_a_row = self._rows[-1] - first + 1 == count
        rows = self._batch.slice(first, count) if in_a_row else self._batch.take(pa.array(np.array(self._rows)))
        for (name, _), contents in zip(self._inputs.columns, self._contents, strict=True):
            rows = rows.append_column(FED + name, pa.array(contents, pa.large_binary()))
        return Loaded(rows, self._failures)


def _failure(batch: pa.RecordBatch, row: int, column: str, error: Exception) -> Failure:
    path = batch.column(batch.schema.get_field_index(column))[row].as_py()
    text = "column '{column}' names {}, and it cannot be read: {reason}"
    words = message(text, repr(path), column=column, reason=_reason(error))
    return failure_of(batch, row, READ, type(error).__name__, words)


def _reason(error: Exception) -> Message:
    """Returns why a file cannot be read. The words of a library may hold its path."""
    if isinstance(error, BadPath | FileTooLarge):
        return message("{reason}", reason=text_of(error))
    if isinstance(error, OSError) and error.strerror:
        return message("{reason}", reason=error.strerror)
    return message("{}", text_of(error) or type(error).__name__)
