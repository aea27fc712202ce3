"""JSON files, of lines or of one array: their first rows, their ranges, and the rows of a range."""

from collections.abc import Iterable, Iterator
from typing import BinaryIO

import orjson

from sluice.models.errors import CorruptFile
from sluice.models.wording import message
from sluice.transforms.core.beam_files import open_text
from sluice.transforms.decode.json import decode_json
from sluice.transforms.decode.json_array import begins_array, read_array
from sluice.transforms.decode.json_values import Json
from sluice.transforms.decode.lines import LineBlock, read_blocks
from sluice.transforms.decode.ranges import SAMPLE_ROWS, FileRange, Look, Read, opened, split_evenly, unsplit
from sluice.transforms.decode.spec import CsvOptions, InputSpec

# A row is twice as long as in CSV, and a batch holds Python's lock for a time that does not depend on its rows.
_BLOCK_BYTES = 2 << 20


def look_json(path: str, _: CsvOptions) -> Look:
    """Returns the first rows of a file and their keys; a line, or value of an array, that is no object is left out.

    Raises:
      CorruptFile: none of the first is a JSON object.
    """
    block = first_block(path)
    lines = [block.line(number) for number in range(min(len(block), SAMPLE_ROWS))] if block else []
    lines = [line for line in lines if line.strip()]
    rows = tuple(row for row in map(_json_object, lines) if row is not None)
    if lines and not rows:
        text = "none of its first {count} lines is a JSON object; the first begins {!r}"
        raise CorruptFile(message(text, lines[0][:40], count=len(lines)))
    return Look(tuple(dict.fromkeys(name for row in rows for name in row)), {}, rows)


def first_block(path: str) -> LineBlock | None:
    """Returns the first lines of a file, or the first values of an array; None if there are none."""
    with open_text(path) as file:
        return next(read_array(file) if begins_array(file) else read_blocks(file), None)


def is_array(path: str) -> bool:
    """Whether a file holds a JSON array."""
    with open_text(path) as file:
        return begins_array(file)


def split_json(path: str, size: int, spec: InputSpec, range_bytes: int) -> list[FileRange]:
    """Returns the ranges of a file; a single one if it may be an array."""
    return unsplit(path, size) if spec.arrays else split_evenly(path, size, spec, range_bytes)


def _json_object(line: bytes) -> dict[str, Json] | None:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return row if isinstance(row, dict) else None


def read_json_range(part: FileRange, spec: InputSpec) -> Read:
    """Yields the rows of a range. Of an array the first range reads all: others begin anywhere in a value."""
    with opened(part.path, open_text) as file:
        if part.start:
            yield from _unless_array(part.path, _read_rows(_blocks(file, part), part.path, spec))
        elif begins_array(file):
            for block in read_array(file):  # whose lines are not those of the file
                end = int(block.positions[-1]) + len(block.line(len(block) - 1))
                yield decode_json(block, spec, f"{part.path}#byte="), len(block.data), end
        else:
            yield from _read_rows(_blocks(file, part), part.path, spec)


def _blocks(file: BinaryIO, part: FileRange) -> Iterator[LineBlock]:
    return read_blocks(file, part.start, part.stop, block_bytes=_BLOCK_BYTES)


def _read_rows(blocks: Iterable[LineBlock], path: str, spec: InputSpec) -> Read:
    for block in blocks:
        yield decode_json(block, spec, f"{path}#byte="), len(block.data), block.offset + len(block.data)


def _unless_array(path: str, reads: Read) -> Read:
    """Yields the rows of a range that does not begin its file, unless the file is an array.

    Two rows show it: in an array a comma is between them, which makes a line that is no object. So the beginning of the
    file, which is slow to fetch from a bucket, is looked at only where a row fails.
    """
    held, rows, failed = [], 0, False
    try:
        while rows < 2 and not failed and (read := next(reads, None)):
            held.append(read)
            rows += read[0].rows
            failed = bool(read[0].failures)
    except Exception:
        yield from held
        raise
    if rows and (rows < 2 or failed) and is_array(path):
        return
    yield from held
    yield from reads


def read_lines(path: str) -> Iterator[bytes]:
    """Yields the rows of a file as they are written: its lines, or the values of its array.

    Raises:
      CorruptFile, EOFError, OSError: it cannot be read further.
    """
    with open_text(path) as file:
        for block in read_array(file) if begins_array(file) else read_blocks(file):
            lines = (block.line(number) for number in range(len(block)))
            yield from (line for line in lines if line.strip())
