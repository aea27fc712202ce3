"""CSV files: their header, their ranges, and the rows of a range.

The ranges are cut here because no library cuts CSV: pyarrow reads one stream from its beginning and reports no
positions, and a text source that splits at newlines reads the lines of a quoted value as rows.
"""

import csv
import io
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from sluice.models.errors import CorruptFile
from sluice.transforms.core.beam_files import open_text
from sluice.transforms.decode.csv import check_header, decode_csv, find_open_quote, open_quote_failures
from sluice.transforms.decode.lines import LineBlock, open_quotes, read_blocks, stray_returns
from sluice.transforms.decode.ranges import RANGE_BYTES, FileRange, Look, Read, beginning, opened, split_evenly
from sluice.transforms.decode.spec import CsvOptions, InputSpec

# The bytes of a file that are read at a time to find its header.
_HEAD_BYTES = 1 << 16
# The header ends before this byte. Every range reads it, so it must be much shorter than a range.
MAX_HEAD_BYTES = 1 << 20


def look_csv(path: str, options: CsvOptions) -> Look:
    """Returns the names of a file's fields: those of its header, unless they were given; none if it holds no line.

    Raises:
      CorruptFile: the header leaves a quote open, is not UTF-8, or names a field twice.
    """
    return Look(csv_head(path, options)[0], {}, ())


def split_csv(path: str, size: int, spec: InputSpec, range_bytes: int) -> list[FileRange]:
    """Returns the ranges of a file; a single one if values may hold newlines."""
    if spec.csv.allow_quoted_newlines:
        return [FileRange(path, 0, None, size)]
    return split_evenly(path, size, spec, range_bytes)


def csv_head(path: str, options: CsvOptions) -> tuple[tuple[str, ...], int]:
    """Returns what `read_head` finds in a file."""
    with open_text(path) as file:
        return read_head(file, options)


def read_head(file: BinaryIO, options: CsvOptions) -> tuple[tuple[str, ...], int]:
    """Returns the names of the fields, and the (uncompressed) byte at which the lines after the header begin.

    The header is the first line that is not blank. The names are () if there is none.

    Args:
      file: at byte 0.

    Raises:
      CorruptFile: see `look_csv`; or the header is too long.
    """
    if options.column_names:
        return options.column_names, 0
    joining, delimiter = options.quote if options.allow_quoted_newlines else b"", options.delimiter.encode()
    for block in read_blocks(file, 0, None, joining, delimiter, _HEAD_BYTES, MAX_HEAD_BYTES):
        for line in np.flatnonzero(~block.blank())[:1].tolist():
            _check_header(block.slice(line, line + 1), options)
            return parse_header(block.line(line), options), block.offset + int(block.ends[line])
        if block.offset > MAX_HEAD_BYTES:
            raise CorruptFile(f"the first {MAX_HEAD_BYTES} bytes hold no header, only blank lines")
    return (), 0


def _check_header(header: LineBlock, options: CsvOptions) -> None:
    delimiter = options.delimiter.encode()
    if open_quotes(header, options.quote, delimiter).any():
        raise CorruptFile(
            "the header opens a quote and does not close it; if names hold newlines, give --allow_quoted_newlines; if "
            'quotes mean nothing, give --csv_quote_char ""'
        )
    if stray_returns(header, options.quote, delimiter).any():
        raise CorruptFile("the header holds a carriage return; lines must end with a newline, or with both")


def parse_header(line: bytes, options: CsvOptions) -> tuple[str, ...]:
    """Returns the names of the fields in a header line."""
    try:
        text = line.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CorruptFile(f"the header is not UTF-8: {error}; give --column_names for files without one") from error
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=options.delimiter,
        quotechar=options.quote_char or None,
        quoting=csv.QUOTE_MINIMAL if options.quote_char else csv.QUOTE_NONE,
    )
    try:
        names = tuple(next(reader, ()))
    except csv.Error as error:
        raise CorruptFile(f"the header is not a line of CSV: {error}") from error
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise CorruptFile(f"the header names {', '.join(map(repr, twice))} more than once")
    return names


def read_csv_range(part: FileRange, spec: InputSpec) -> Read:
    """Yields the rows of a range. If a line in a segment leaves a quote open, all its rows are failures."""
    origin = f"{part.path}#byte="
    with opened(part.path, open_text) as file:
        with beginning():
            names, begin = read_head(file, spec.csv)
            if names:
                check_header(names, spec)
        if not names or (part.stop is not None and part.stop <= begin):
            return
        for segment in _segments(file, max(part.start, begin), part.stop, spec.csv):
            yield from _read_segment(segment, names, spec, origin)


def _read_segment(segment: list[LineBlock], names: tuple[str, ...], spec: InputSpec, origin: str) -> Read:
    found = [] if spec.csv.allow_quoted_newlines else [find_open_quote(block, spec.csv) for block in segment]
    first = next((position for position in found if position is not None), None)
    for block in segment:
        if first is None:
            rows = decode_csv(block, names, spec, origin)
        else:
            rows = open_quote_failures(block, origin, first)
        yield rows, len(block.data), block.offset + len(block.data)


def _segments(file: BinaryIO, start: int, stop: int | None, options: CsvOptions) -> Iterator[list[LineBlock]]:
    """Yields the blocks of a range in segments. A segment is checked for open quotes before any of its rows passes.

    A range that begins inside a quoted value looks sound until the quote closes, so the check must come first. With it
    no line of such a value is read as a row, unless the value is longer than the range.
    """
    whole = options.allow_quoted_newlines
    if not start:
        file.seek(0)
    blocks = read_blocks(file, start, stop, options.quote if whole else b"", options.delimiter.encode())
    if whole or not options.quote_char:
        for block in blocks:
            yield [block]
        return
    segment: list[LineBlock] = []
    size = 0
    try:
        for block in blocks:
            segment.append(block)
            size += len(block.data)
            if size >= 2 * RANGE_BYTES:
                yield segment
                segment, size = [], 0
    except Exception:
        yield segment
        raise
    if segment:
        yield segment
