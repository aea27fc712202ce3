"""CSV files: their header, their ranges, and the rows of a range.

The ranges are cut here because no library cuts CSV: pyarrow reads one stream from its beginning and reports no
positions, and a text source that splits at newlines reads the lines of a quoted value as rows.
"""

import codecs
import csv
import functools
import io
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import BinaryIO, cast

import numpy as np

from sluice.models.errors import CorruptFile
from sluice.transforms.core.beam_files import open_text
from sluice.transforms.core.made_files import CrFile, in_utf8
from sluice.transforms.decode.csv import check_header, decode_csv, find_open_quote, open_quote_failures
from sluice.transforms.decode.lines import LineBlock, open_quotes, read_blocks, stray_returns
from sluice.transforms.decode.ranges import RANGE_BYTES, FileRange, Look, Read, beginning, opened, split_evenly, unsplit
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


def open_csv(path: str, options: CsvOptions) -> BinaryIO:
    """Opens a CSV file to read it as UTF-8, with newlines at the ends of lines, whatever ends them in this file."""
    file = _open_utf8(path, options)
    head = file.read(_HEAD_BYTES)
    file.seek(0)
    return cast(BinaryIO, CrFile(file)) if _has_cr_ends(head, options) else file


def _open_utf8(path: str, options: CsvOptions) -> BinaryIO:
    file = open_text(path)
    return in_utf8(file, options.encoding) if options.encoding else file


def has_cr_ends(path: str, options: CsvOptions) -> bool:
    """Whether the lines of a file end with a carriage return alone, as far as its beginning shows."""
    with _open_utf8(path, options) as file:
        return _has_cr_ends(file.read(_HEAD_BYTES), options)


def _has_cr_ends(head: bytes, options: CsvOptions) -> bool:
    """Whether the lines of a file end so; a line end is not within quotes, and one at its end may end its only line."""
    if b"\r" not in head or b"\n" in head:
        return False
    block = next(read_blocks(io.BytesIO(head)), None)
    return block is not None and bool(stray_returns(block, options.quote, options.delimiter.encode()).any())


def split_csv(path: str, size: int, spec: InputSpec, range_bytes: int) -> list[FileRange]:
    """Returns the ranges of a file; a single one if values may hold newlines, or if it is not UTF-8."""
    if spec.csv.allow_quoted_newlines or spec.csv.encoding:
        return unsplit(path, size)
    return split_evenly(path, size, spec, range_bytes)


def csv_head(path: str, options: CsvOptions) -> tuple[tuple[str, ...], int]:
    """Returns what `read_head` finds in a file."""
    with open_csv(path, options) as file:
        return read_head(file, options)


def read_head(file: BinaryIO, options: CsvOptions) -> tuple[tuple[str, ...], int]:
    """Returns the names of the fields, and the (uncompressed) byte at which the lines after the header begin.

    The header is the first line that is not blank, after those to skip. The names are () if there is none.

    Args:
      file: at byte 0.

    Raises:
      CorruptFile: see `look_csv`; or the header is too long.
    """
    begin = _skip_lines(file, options.skip_lines) if options.skip_lines else 0
    if options.column_names:
        return options.column_names, begin
    joining, delimiter = options.quote if options.allow_quoted_newlines else b"", options.delimiter.encode()
    for block in read_blocks(file, begin, None, joining, delimiter, _HEAD_BYTES, MAX_HEAD_BYTES):
        for line in np.flatnonzero(~block.blank())[:1].tolist():
            _check_header(block.slice(line, line + 1), options)
            return parse_header(block.line(line), options), block.offset + int(block.ends[line])
        if block.offset > begin + MAX_HEAD_BYTES:
            raise CorruptFile(f"the first {MAX_HEAD_BYTES} bytes hold no header, only blank lines")
    return (), 0


def _skip_lines(file: BinaryIO, count: int) -> int:
    """Returns the byte after the first lines of a file, which is at byte 0; its end, if it has no more."""
    position = 0
    while chunk := file.read(_HEAD_BYTES):
        ends = np.flatnonzero(np.frombuffer(chunk, np.uint8) == ord("\n"))
        if len(ends) >= count:
            return position + int(ends[count - 1]) + 1
        count -= len(ends)
        position += len(chunk)
        if position > MAX_HEAD_BYTES:
            raise CorruptFile(f"the lines to skip are longer than {MAX_HEAD_BYTES} bytes; check --csv_skip_lines")
    return position


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
        if options.encoding:
            text = f"the header is not {options.encoding}; give another --csv_encoding"
            raise CorruptFile(text) from error
        raise CorruptFile(f"the header is not UTF-8: {error}; give its encoding, {_guess(line)}") from error
    if "\0" in text:
        raise CorruptFile("the header holds zero bytes; if it is UTF-16, give --csv_encoding utf-16-le (or utf-16-be)")
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
    if options.rename_duplicates:
        names = renamed(names)
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        text = ", ".join(map(repr, twice))
        raise CorruptFile(f"the header names {text} more than once; give --rename_duplicate_columns to number them")
    return names


def _guess(header: bytes) -> str:
    """Returns the flag for an encoding that a header which is not UTF-8 may have."""
    if header.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "--csv_encoding utf-16"
    return "for example --csv_encoding cp1252 (Windows, western) or latin-1"


def renamed(names: Sequence[str]) -> tuple[str, ...]:
    """Returns names that differ: the second `a` becomes `a_2`, and a blank name in the third place `column_3`."""
    given = set(names)
    found: dict[str, None] = {}
    # A number that was once taken stays so: the search goes on where it ended.
    numbered: dict[str, Iterator[str]] = {}
    for place, name in enumerate(names, 1):
        base = name if name.strip() else f"column_{place}"
        candidates = numbered.setdefault(name, _numbered(base)) if base == name else _numbered(base)
        found[next(free for free in candidates if free not in found and (free == name or free not in given))] = None
    return tuple(found)


def _numbered(base: str) -> Iterator[str]:
    yield base
    for number in itertools.count(2):
        yield f"{base}_{number}"


def read_csv_range(part: FileRange, spec: InputSpec) -> Read:
    """Yields the rows of a range. If a line in a segment leaves a quote open, all its rows are failures."""
    origin = f"{part.path}#byte="
    with opened(part.path, functools.partial(open_csv, options=spec.csv)) as file:
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
