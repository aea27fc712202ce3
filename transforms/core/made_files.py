"""Files that are made as they are read: unpacked, or turned into UTF-8. They are read from their beginning only."""

import codecs
import io
from collections.abc import Callable, Iterator
from typing import BinaryIO, cast

import pyarrow as pa

from sluice.models.errors import CorruptFile

_PIECE_BYTES = 1 << 16
# Arrow's codecs, by the endings of the files.
CODECS = {".bz2": "bz2", ".zst": "zstd"}


# The error handler by which the line of a wrong byte fails, and no other line.
_AS_IT_IS = "sluice.as_it_is"


def _as_it_is(error: UnicodeError) -> tuple[str, int]:
    """Stands for a byte that is not of the encoding, as Python's "surrogateescape" does; it knows none below 128."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    wrong = error.object[error.start]
    return chr(0xDC00 + (wrong if wrong >= 0x80 else 0xFF)), error.end


codecs.register_error(_AS_IT_IS, _as_it_is)


class MadeFile:
    """The bytes that a function makes of a stored file. To go back, it begins anew.

    It reads all bytes before the damage in a file, and raises at the next read.

    Args:
      make: yields pieces of bytes, none of them empty.
    """

    def __init__(self, stored: BinaryIO, make: Callable[[BinaryIO], Iterator[bytes]]) -> None:
        self._stored, self._make = stored, make
        self._pieces = make(stored)
        self._rest, self._at = b"", 0
        self._damage: Exception | None = None

    def read(self, size: int | None = -1) -> bytes:
        if self._damage:
            raise self._damage
        wanted = -1 if size is None else size
        pieces, length = [self._rest], len(self._rest)
        try:
            while (wanted < 0 or length < wanted) and (piece := next(self._pieces, b"")):
                pieces.append(piece)
                length += len(piece)
        except Exception as error:
            self._damage = error
            if not length:
                raise
        data = b"".join(pieces)
        found, self._rest = (data, b"") if wanted < 0 else (data[:wanted], data[wanted:])
        self._at += len(found)
        return found

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence != io.SEEK_SET:
            raise io.UnsupportedOperation("its size is not known")
        if offset < self._at:
            self._stored.seek(0)
            self._pieces, self._rest, self._at, self._damage = self._make(self._stored), b"", 0, None
        while self._at < offset and self.read(min(offset - self._at, 1 << 20)):
            pass
        return self._at

    def tell(self) -> int:
        return self._at

    def close(self) -> None:
        self._stored.close()

    def __enter__(self) -> "MadeFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def unpacked(stored: BinaryIO, codec: str) -> BinaryIO:
    """Returns a file unpacked by one of Arrow's codecs. A truncated one raises OSError."""

    def make(file: BinaryIO) -> Iterator[bytes]:
        stream = pa.CompressedInputStream(pa.PythonFile(_NotClosed(file), "r"), codec)
        while piece := stream.read(_PIECE_BYTES):
            yield piece

    return cast(BinaryIO, MadeFile(stored, make))


class _NotClosed:
    """A file that Arrow reads and does not close."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.closed = False

    def read(self, size: int | None = -1) -> bytes:
        return self._file.read(-1 if size is None else size)

    def close(self) -> None:
        pass


def in_utf8(stored: BinaryIO, encoding: str) -> BinaryIO:
    """Returns a text file in UTF-8. Where its bytes are not of the encoding, what is returned is not UTF-8 either.

    Args:
      encoding: that of the stored file, by a name of Python's.
    """

    def make(file: BinaryIO) -> Iterator[bytes]:
        decoder = codecs.getincrementaldecoder(encoding)(_AS_IT_IS)
        done = False
        while not done:
            chunk = file.read(_PIECE_BYTES)
            done = not chunk
            try:
                text = decoder.decode(chunk, done)
            except UnicodeError as error:  # for example: UTF-16 that does not say its byte order
                raise CorruptFile(f"the text is not {encoding}: {error}; give another --csv_encoding") from error
            if text:
                yield text.encode(errors="surrogateescape")

    return cast(BinaryIO, MadeFile(stored, make))


class CrFile:
    """A text file whose lines end with a carriage return, which reads as a newline. Its bytes stay where they are."""

    def __init__(self, stored: BinaryIO) -> None:
        self._stored = stored

    def read(self, size: int | None = -1) -> bytes:
        return self._stored.read(-1 if size is None else size).replace(b"\r", b"\n")

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._stored.seek(offset, whence)

    def tell(self) -> int:
        return self._stored.tell()

    def close(self) -> None:
        self._stored.close()

    def __enter__(self) -> "CrFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
