"""The lines of a byte range of a file, in blocks, with the offset of each line; and the effect of quotes on them."""

import dataclasses
import functools
import re
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sluice.models.errors import CorruptFile

BLOCK_BYTES = 1 << 20
# Of a block, at most: a line that is no good row takes some KB until its failure is written.
BLOCK_LINES = 8192
# A longer line means that the file is not text, or that a quote never closes.
MAX_LINE_BYTES = 100 << 20

_NEWLINE, _RETURN = 10, 13
BOM = b"\xef\xbb\xbf"


@dataclasses.dataclass(frozen=True)
class LineBlock:
    """Whole lines. The last line of a file may lack its newline.

    Attributes:
      offset: the position of data[0] in the (uncompressed) file.
      ends: int64 [lines]: the end of each line in `data`, after its newline.
      gaps: int64 [lines]: the bytes of the lines that `take` left out before each; None if there are none.
    """

    data: bytes
    offset: int
    ends: np.ndarray
    gaps: np.ndarray | None = None

    @property
    def starts(self) -> np.ndarray:
        """Returns int64 [lines]: the start of each line in `data`."""
        return np.append(0, self.ends[:-1]) if len(self.ends) else self.ends

    @property
    def positions(self) -> np.ndarray:
        """Returns int64 [lines]: the start of each line in the file."""
        return self.offset + self.starts + (0 if self.gaps is None else self.gaps)

    def __len__(self) -> int:
        return len(self.ends)

    def slice(self, start: int, stop: int) -> "LineBlock":
        """Returns lines [start, stop) as a block of their own."""
        begin = int(self.ends[start - 1]) if start else 0
        end = int(self.ends[stop - 1]) if stop else 0
        gaps = None if self.gaps is None else self.gaps[start:stop]
        return LineBlock(self.data[begin:end], self.offset + begin, self.ends[start:stop] - begin, gaps)

    def take(self, keep: np.ndarray) -> "LineBlock":
        """Returns the lines where the mask (bool [lines]) is true."""
        starts, ends = self.starts[keep], self.ends[keep]
        data = b"".join([self.data[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)])
        new_ends = np.cumsum(ends - starts)
        new_starts = new_ends - (ends - starts)
        return LineBlock(data, 0, new_ends, self.positions[keep] - new_starts)

    def line(self, number: int) -> bytes:
        """Returns one line, without its line end."""
        begin = int(self.ends[number - 1]) if number else 0
        return self.data[begin : int(self.ends[number])].rstrip(b"\r\n")

    def texts(self) -> pa.Array:
        """Returns binary [lines], each without its line end."""
        offsets = np.append(0, self.ends).astype(np.int32)
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(self.data)]
        whole = pa.Array.from_buffers(pa.string(), len(self.ends), buffers)
        return pc.ascii_rtrim(whole, "\r\n").view(pa.binary())

    def blank(self) -> np.ndarray:
        """Returns bool [lines]: which hold nothing but line ends."""
        if not len(self):
            return np.zeros(0, bool)
        raw = np.frombuffer(self.data, np.uint8)
        # Few lines begin with a line end; only those need a closer look.
        first = raw[self.starts]
        blank = (first == _NEWLINE) | (first == _RETURN)
        for number in np.flatnonzero(blank).tolist():
            blank[number] = not self.line(number)
        return blank


def line_block(data: bytes, offset: int, quote: bytes = b"", delimiter: bytes = b",") -> LineBlock:
    """Returns a block of whole lines.

    Args:
      quote: a newline between two quotes is part of its line; b"": every newline ends a line.
    """
    return LineBlock(data, offset, _with_tail(_line_ends(data, quote, delimiter), data))


def read_blocks(
    file: BinaryIO,
    start: int = 0,
    stop: int | None = None,
    quote: bytes = b"",
    delimiter: bytes = b",",
    block_bytes: int = BLOCK_BYTES,
    max_line_bytes: int = 0,
) -> Iterator[LineBlock]:
    """Yields the lines that begin in [start, stop) of a file, in blocks of about `block_bytes`.

    A byte order mark at the beginning of the file is left out.

    Args:
      file: open for reading, at byte 0.
      stop: None: the end of the file.
      quote: a newline between two quotes does not end a line. Then a row must begin at `start`.
      max_line_bytes: 0: MAX_LINE_BYTES.

    Raises:
      CorruptFile: a line never ends.
    """
    longest = max_line_bytes or MAX_LINE_BYTES
    position, carry, ahead = start, b"", b""
    if start:  # the line that holds byte start - 1 belongs to the range before
        position, ahead = _skip_line(file, start - 1, stop, block_bytes)
    elif file.read(len(BOM)) == BOM:  # the first line is of this range, however short the range is
        position, stop = len(BOM), stop and max(stop, len(BOM) + 1)
    else:
        file.seek(0)
    while stop is None or position < stop:
        # The bytes read ahead come first, because the next read may fail. The steps of a long line double.
        step = max(block_bytes, min(len(carry), longest + 1 - len(carry)))
        chunk, ahead = ahead or file.read(step), b""
        data = carry + chunk if carry else chunk
        if not data:
            return
        ends = _line_ends(data, quote, delimiter)
        if not chunk:
            ends = _with_tail(ends, data)
        if stop is not None:
            ends = ends[: 1 + np.searchsorted(ends, stop - position)]
        cut = int(ends[-1]) if len(ends) else 0
        if cut:
            yield from _pieces(LineBlock(data[:cut], position, ends))
        elif len(data) > longest:
            raise CorruptFile(f"the line at byte {position} is longer than {longest} bytes; {_hint(quote)}")
        position, carry = position + cut, data[cut:]


def _pieces(block: LineBlock) -> Iterator[LineBlock]:
    if len(block) <= BLOCK_LINES:
        yield block
        return
    for start in range(0, len(block), BLOCK_LINES):
        yield block.slice(start, min(start + BLOCK_LINES, len(block)))


def is_utf8(data: bytes) -> bool:
    """Whether bytes are UTF-8. Python's decoder would make a text of them, and keep Python's lock meanwhile."""
    offsets = pa.py_buffer(np.array([0, len(data)], np.int64))
    try:
        pa.Array.from_buffers(pa.large_string(), 1, [None, offsets, pa.py_buffer(data)]).validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def open_quotes(block: LineBlock, quote: bytes, delimiter: bytes) -> np.ndarray:
    """Returns bool [lines]: the lines that end within a quoted field, if each begins outside of one.

    A quote opens a field only where the field begins, as for pyarrow and Python's csv.
    """
    return _open_and_odd(block, quote, delimiter)[0]


def unpaired_quotes(block: LineBlock, quote: bytes, delimiter: bytes) -> np.ndarray:
    """Returns bool [lines]: the lines that end within a quoted field, or may end one that began before them."""
    opened, odd = _open_and_odd(block, quote, delimiter)
    return opened | odd


def stray_returns(block: LineBlock, quote: bytes, delimiter: bytes) -> np.ndarray:
    """Returns bool [lines]: the lines with a carriage return that is neither quoted nor at the end; it ends a row.

    No line of the block may leave a quote open.
    """
    found = np.zeros(len(block), bool)
    if b"\r" not in block.data:
        return found
    raw = np.frombuffer(block.data, np.uint8)
    places = _places(block.data, b"\r")
    stray = places[raw[np.minimum(places + 1, len(raw) - 1)] != _NEWLINE]
    row = _row_pattern(quote, delimiter, b"\n\r")
    for line in np.unique(np.searchsorted(block.ends, stray, side="right")).tolist():
        found[line] = row.fullmatch(block.line(line) + b"\n") is None
    return found


def _open_and_odd(block: LineBlock, quote: bytes, delimiter: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Returns two bool [lines]: the lines that leave a quote open, and those with an odd number of quotes."""
    if not quote or quote not in block.data:
        return np.zeros(len(block), bool), np.zeros(len(block), bool)
    places = _places(block.data, quote)
    counts = np.diff(np.searchsorted(places, block.ends), prepend=0)
    odd = counts % 2 == 1
    opening = places[::2]
    if odd.any():
        ranks = np.arange(len(places)) - np.repeat(np.cumsum(counts) - counts, counts)
        opening = places[ranks % 2 == 0]
    opened = odd.copy()
    row = _row_pattern(quote, delimiter)
    misplaced = _misplaced(block.data, opening, quote, delimiter)
    for line in np.unique(np.searchsorted(block.ends, misplaced, side="right")).tolist():
        opened[line] = row.fullmatch(block.line(line) + b"\n") is None
    return opened, odd


def _hint(quote: bytes) -> str:
    return "a quote in it is never closed" if quote else "is this a text file?"


def _skip_line(file: BinaryIO, at: int, stop: int | None, block_bytes: int) -> tuple[int, bytes]:
    """Reads from byte `at` past the next newline; returns the position after it and the bytes read beyond it.

    It reads no further than `stop`, where no line of the range can begin: else all ranges of one endless line would
    read to the end of the file.
    """
    file.seek(at)
    while (stop is None or at < stop) and (chunk := file.read(block_bytes)):
        newline = chunk.find(b"\n")
        if newline >= 0:
            return at + newline + 1, chunk[newline + 1 :]
        at += len(chunk)
    return at, b""


def _with_tail(ends: np.ndarray, data: bytes) -> np.ndarray:
    """Returns the line ends, with the end of a last line that has no newline."""
    return ends if not data or (len(ends) and ends[-1] == len(data)) else np.append(ends, len(data))


def _line_ends(data: bytes, quote: bytes, delimiter: bytes) -> np.ndarray:
    """Returns int64 [lines]: the positions after the newlines that end a line. A line must begin at data[0]."""
    newlines = _places(data, b"\n")
    if not quote or quote not in data:
        return newlines + 1
    places = _places(data, quote)
    if not len(_misplaced(data, places[::2], quote, delimiter)):
        return newlines[np.searchsorted(places, newlines) % 2 == 0] + 1
    pattern, ends, end = _row_pattern(quote, delimiter), [], 0
    while row := pattern.match(data, end):
        end = row.end()
        ends.append(end)
    return np.array(ends, np.int64)


def _places(data: bytes, byte: bytes) -> np.ndarray:
    return np.flatnonzero(np.frombuffer(data, np.uint8) == byte[0])


def _misplaced(data: bytes, opening: np.ndarray, quote: bytes, delimiter: bytes) -> np.ndarray:
    """Returns the opening quotes that stand neither where a field begins nor after a quote, as in \"\"."""
    before = np.frombuffer(data, np.uint8)[opening - 1]
    placed = (before == delimiter[0]) | (before == _NEWLINE) | (before == quote[0])
    return opening[~placed & (opening > 0)]


@functools.cache
def _row_pattern(quote: bytes, delimiter: bytes, line_end: bytes = b"\n") -> re.Pattern[bytes]:
    """Returns the pattern of a row with its newline.

    Args:
      quote: b"": quotes have no meaning.
      line_end: the bytes that a bare field cannot hold, beside the delimiter.
    """
    q, d, end = (re.escape(text.decode("latin-1")) for text in (quote, delimiter, line_end))
    bare = f"[^{d}{end}]*+"
    # Inside quotes a doubled quote is a character. What follows the closing quote is bare.
    quoted = f"{q} (?: [^{q}]++ | {q}{q} )*+ {q} {bare}"
    field = f"(?: {quoted} | (?!{q}) {bare} )" if quote else bare
    row = rf"(?: {field} {d} )*+ {field} \n"
    return re.compile(row.encode("latin-1"), re.VERBOSE)
