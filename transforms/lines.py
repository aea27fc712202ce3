"""Whole lines of a byte range of a file, block by block, with the offsets of each line."""

import dataclasses
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from models.errors import CorruptFile

BLOCK_BYTES = 1 << 20
# A line longer than this is taken for a file that is not text, or for a quote that never closes.
MAX_LINE_BYTES = 256 << 20


@dataclasses.dataclass(frozen=True)
class LineBlock:
    """Whole lines. The last may lack its newline at the end of a file.

    Attributes:
      offset: of data[0] in the (uncompressed) file.
      ends: int64 [lines]: where each line ends in `data`, behind its newline.
    """

    data: bytes
    offset: int
    ends: np.ndarray

    @property
    def starts(self) -> np.ndarray:
        """Returns int64 [lines]."""
        return np.append(0, self.ends[:-1]) if len(self.ends) else self.ends

    def __len__(self) -> int:
        return len(self.ends)

    def slice(self, start: int, stop: int) -> "LineBlock":
        """Returns lines [start, stop) as a block of their own."""
        begin = int(self.ends[start - 1]) if start else 0
        end = int(self.ends[stop - 1])
        return LineBlock(self.data[begin:end], self.offset + begin, self.ends[start:stop] - begin)

    def line(self, number: int) -> bytes:
        """Returns one line, without its line end."""
        begin = int(self.ends[number - 1]) if number else 0
        return self.data[begin : int(self.ends[number])].rstrip(b"\r\n")

    def texts(self) -> pa.Array:
        """Returns binary [lines], each with its line end, without a copy."""
        offsets = np.append(0, self.ends).astype(np.int32)
        return pa.Array.from_buffers(
            pa.binary(), len(self.ends), [None, pa.py_buffer(offsets), pa.py_buffer(self.data)]
        )

    def blank(self) -> np.ndarray:
        """Returns bool [lines]: which are empty but for their line end."""
        lengths = self.ends - self.starts
        blank = np.zeros(len(self), bool)
        for number in np.flatnonzero(lengths <= 2):
            blank[number] = not self.line(number)
        return blank


def line_block(data: bytes, offset: int, quote: bytes = b"") -> LineBlock:
    """Returns the block of these whole lines.

    Args:
      quote: a newline between two of these is part of its line; b"": every newline ends a line.
    """
    raw = np.frombuffer(data, np.uint8)
    newlines = np.flatnonzero(raw == 10)
    if quote and quote in data:
        quotes = np.flatnonzero(raw == quote[0])
        newlines = newlines[np.searchsorted(quotes, newlines) % 2 == 0]
    ends = newlines + 1
    if len(data) and (not len(ends) or ends[-1] != len(data)):
        ends = np.append(ends, len(data))
    return LineBlock(data, offset, ends)


def odd_quotes(block: LineBlock, quote: bytes) -> np.ndarray:
    """Returns int64: the lines that hold an odd number of quotes, so that one is open at the line's end."""
    if not quote or quote not in block.data:
        return np.empty(0, np.int64)
    quotes = np.flatnonzero(np.frombuffer(block.data, np.uint8) == quote[0])
    counts = np.bincount(np.searchsorted(block.ends, quotes, side="right"), minlength=len(block))
    return np.flatnonzero(counts % 2)


def read_blocks(
    file: BinaryIO, start: int = 0, stop: int | None = None, quote: bytes = b"", block_bytes: int = BLOCK_BYTES
) -> Iterator[LineBlock]:
    """Yields the lines that begin in [start, stop) of a file, in blocks of about `block_bytes`.

    Args:
      file: open for reading, and standing at byte 0; it must seek if `start` is not 0.
      stop: None: to the end of the file.
      quote: newlines between two of these do not end a line; then the range must be the whole file.

    Raises:
      CorruptFile: a line never ends.
    """
    position, carry = start, b""
    if start:  # the line that holds byte start - 1 belongs to the range before
        position, carry = _skip_line(file, start - 1, block_bytes)
    while stop is None or position < stop:
        chunk = file.read(block_bytes)
        data = carry + chunk if carry else chunk
        if not data:
            return
        cut = _cut(data, position, stop, quote, at_end=len(chunk) < 1)
        if cut == 0:
            if len(data) > MAX_LINE_BYTES:
                raise CorruptFile(f"the line at byte {position} is longer than {MAX_LINE_BYTES} bytes; {_hint(quote)}")
            carry = data
            continue
        yield line_block(data[:cut], position, quote)
        position, carry = position + cut, data[cut:]


def _hint(quote: bytes) -> str:
    return "a quote in it is never closed" if quote else "is this a text file?"


def _skip_line(file: BinaryIO, at: int, block_bytes: int) -> tuple[int, bytes]:
    """Reads on from byte `at` to behind the next newline; returns that position and what was read beyond it."""
    file.seek(at)
    while chunk := file.read(block_bytes):
        newline = chunk.find(b"\n")
        if newline >= 0:
            return at + newline + 1, chunk[newline + 1 :]
        at += len(chunk)
    return at, b""


def _cut(data: bytes, position: int, stop: int | None, quote: bytes, at_end: bool) -> int:
    """How much of `data`, which stands at `position`, is whole lines of the range; 0 if more must be read."""
    if stop is not None and position + len(data) >= stop:
        newline = data.find(b"\n", stop - position - 1)
        if newline >= 0:
            return newline + 1
        return len(data) if at_end else 0
    if at_end:
        return len(data)
    if not quote or quote not in data:
        return data.rfind(b"\n") + 1
    ends = line_block(data, 0, quote).ends
    whole = ends[ends < len(data)] if not _closed(data, quote) else ends
    return int(whole[-1]) if len(whole) else 0


def _closed(data: bytes, quote: bytes) -> bool:
    """Whether the data ends with a newline that ends a line."""
    return data.endswith(b"\n") and data.count(quote) % 2 == 0
