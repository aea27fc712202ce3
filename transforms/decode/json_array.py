"""JSON arrays of objects, value by value, each as a line of its own: so an array is read in blocks, whatever its size.

No library reads an array in parts and says where its values are: orjson and pyarrow take it as a whole.
"""

import itertools
import re
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import numpy as np

from sluice.models.errors import CorruptFile
from sluice.transforms.decode.lines import BLOCK_BYTES, BLOCK_LINES, BOM, MAX_LINE_BYTES, LineBlock

_SPACE = rb"[ \t\r\n]*+"
_STRING = rb'"(?:[^"\\]++|\\.)*+"'
_BARE = rb'[^ \t\r\n,\[\]{}"]++'
# Objects and lists within a value, to this depth, are found by one pattern; deeper ones by counting brackets.
_DEPTH = 4


def _nested() -> bytes:
    inside = rb'(?:[^"{}\[\]]++|%s)*+' % _STRING
    for _ in range(_DEPTH):
        inside = rb'(?:[^"{}\[\]]++|%s|[{\[]%s[}\]])*+' % (_STRING, inside)
    return rb"[{\[]%s[}\]]" % inside


_VALUE = re.compile(rb"%s(%s|%s|%s)%s([,\]])" % (_SPACE, _nested(), _STRING, _BARE, _SPACE), re.DOTALL)
_FLAT_VALUE = re.compile(rb"%s|%s" % (_STRING, _BARE), re.DOTALL)
# A quote that begins no whole string: the string ends after the data.
_MARKS = re.compile(rb'%s|["{}\[\]]' % _STRING, re.DOTALL)
_STEPS = {b"{": 1, b"[": 1, b"}": -1, b"]": -1}
_BEGIN = re.compile(rb"(?:%s)?%s\[%s(\]?)" % (BOM, _SPACE, _SPACE))
_SPACES = re.compile(_SPACE)


def begins_array(file: BinaryIO) -> bool:
    """Whether a file, which is at byte 0, holds a JSON array. Leaves it at byte 0."""
    begins = _BEGIN.match(file.read(1 << 12)) is not None
    file.seek(0)
    return begins


def read_array(file: BinaryIO, block_bytes: int = BLOCK_BYTES) -> Iterator[LineBlock]:
    """Yields the values of an array as the lines of blocks, with the positions that they have in the file.

    Newlines within a value are spaces in its line: JSON has none within strings.

    Args:
      file: at byte 0; see `begins_array`.

    Raises:
      CorruptFile: the array is not closed, or something else than a comma is between two values.
    """
    data, offset = file.read(block_bytes), 0
    begin = _BEGIN.match(data)
    at, closed = (begin.end(), bool(begin[1])) if begin else (0, False)
    while not closed:
        values: list[tuple[int, bytes]] = []
        problem: CorruptFile | None = None
        try:
            for value in itertools.islice(_values(data, at, offset), BLOCK_LINES):
                values.append((offset + value.start, data[value.start : value.end]))
                at, closed = value.after, value.last
        except CorruptFile as error:
            problem = error
        if values:
            yield _block(values)
        if problem:
            raise problem
        if not closed and len(values) < BLOCK_LINES:
            data, offset = _more(file, data, at, offset, block_bytes)
            at = 0
    _check_end(file, data, at, offset)


class _Value(NamedTuple):
    """A value in the data.

    Attributes:
      after: where the next one may begin.
      last: the array ends there.
    """

    start: int
    end: int
    after: int
    last: bool


def _values(data: bytes, at: int, offset: int) -> Iterator[_Value]:
    """Yields the values from `at` on whose ends are in the data."""
    while True:
        match = _VALUE.match(data, at)
        value = _Value(*match.span(1), match.end(), match[2] == b"]") if match else _find_value(data, at, offset)
        if value is None:
            return
        yield value
        if value.last:
            return
        at = value.after


def _find_value(data: bytes, at: int, offset: int) -> _Value | None:
    """Returns the value at a place where the pattern does not match; None if its end, or the comma, is not there yet.

    Raises:
      CorruptFile: there is no value, or no comma after it.
    """
    start = _skip_spaces(data, at)
    if start == len(data):
        return None
    if data[start : start + 1] in (b"{", b"["):
        end = _end_of_nested(data, start)
    else:
        flat = _FLAT_VALUE.match(data, start)
        if flat is None and data[start : start + 1] != b'"':
            found = data[start : start + 1]
            raise CorruptFile(f"a value is expected at byte {offset + start} of the array, which is {found!r}")
        end = flat.end() if flat else 0
    after = _skip_spaces(data, end)
    if not end or after == len(data):
        return None
    if data[after : after + 1] not in (b",", b"]"):
        raise CorruptFile(f"a comma is expected at byte {offset + after} of the array, after a value")
    return _Value(start, end, after + 1, data[after : after + 1] == b"]")


def _skip_spaces(data: bytes, at: int) -> int:
    match = _SPACES.match(data, at)
    return match.end() if match else at


def _end_of_nested(data: bytes, start: int) -> int:
    """Returns the end of an object or a list, whatever its depth; 0 if it is not in the data."""
    depth = 0
    for match in _MARKS.finditer(data, start):
        if match[0] == b'"':
            return 0
        depth += _STEPS.get(match[0], 0)
        if not depth:
            return match.end()
    return 0


def _more(file: BinaryIO, data: bytes, at: int, offset: int, block_bytes: int) -> tuple[bytes, int]:
    """Returns the data from `at` on with more after it, and its position in the file. The steps of a long value double.

    Raises:
      CorruptFile: there is no more, or the value is too long.
    """
    left = data[at:]
    if len(left) > MAX_LINE_BYTES:
        raise CorruptFile(f"the value at byte {offset + at} of the array is longer than {MAX_LINE_BYTES} bytes")
    chunk = file.read(max(block_bytes, len(left)))
    if not chunk:
        raise CorruptFile(f"the array is not closed: the file ends within it, after byte {offset + at}")
    return left + chunk, offset + at


def _check_end(file: BinaryIO, data: bytes, at: int, offset: int) -> None:
    rest, begin = data[at:], offset + at
    while rest:
        stop = _skip_spaces(rest, 0)
        if stop < len(rest):
            raise CorruptFile(f"the array ends before byte {begin + stop}, and more follows; give one array a file")
        begin += len(rest)
        rest = file.read(BLOCK_BYTES)


def _block(values: list[tuple[int, bytes]]) -> LineBlock:
    lines = [text.replace(b"\n", b" ").replace(b"\r", b" ") + b"\n" for _, text in values]
    ends = np.cumsum([len(line) for line in lines])
    starts = np.append(0, ends[:-1])
    return LineBlock(b"".join(lines), 0, ends, np.array([position for position, _ in values], np.int64) - starts)
