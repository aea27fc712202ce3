"""Files cut into ranges that workers read on their own, and the rows of a range. No Beam transforms here."""

import csv
import dataclasses
import gzip
import io
import itertools
import zlib
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from sluice.models.errors import CorruptFile
from sluice.models.tensors.tfrecord import FOOTER_BYTES, HEADER_BYTES, candidate_starts, read_records
from sluice.transforms.core.beam_files import open_binary, open_text
from sluice.transforms.decode.avro import read_avro
from sluice.transforms.decode.avro_container import read_header
from sluice.transforms.decode.csv import decode_csv, find_open_quote, open_quote_failures
from sluice.transforms.decode.examples import decode_examples
from sluice.transforms.decode.json import decode_json
from sluice.transforms.decode.lines import LineBlock, open_quotes, read_blocks, stray_returns
from sluice.transforms.decode.parquet import group_shares, open_parquet, read_parquet
from sluice.transforms.decode.spec import AVRO, CSV, JSONL, PARQUET, CsvOptions, Decoded, InputSpec, file_failure

# One range is some hundred milliseconds of work: enough to be worth a shuffle, small enough to spread over workers.
RANGE_BYTES = 16 << 20
# Records of a TFRecord are gathered up to this many or this many bytes.
_RECORDS = 4096
_RECORD_BYTES = 4 << 20
# How far a record's start is looked for at a time.
_SCAN_BYTES = 1 << 16
# So much of a CSV file is read at a time to find its header.
_HEAD_BYTES = 1 << 16
# What reading a damaged file can raise, beside OSError.
DAMAGE = (CorruptFile, EOFError, ValueError, zlib.error, pa.ArrowException)


@dataclasses.dataclass(frozen=True)
class FileRange:
    """A part of a file that is read on its own.

    Attributes:
      start, stop: bytes; of Parquet, row groups. stop None: to the end, for files that cannot be split.
      stored_bytes: of the file, that this range stands for in a progress display.
      names: of CSV: the fields, from the file's header.
    """

    path: str
    start: int = 0
    stop: int | None = None
    stored_bytes: int = 0
    names: tuple[str, ...] = ()


def split_file(path: str, size: int, spec: InputSpec, range_bytes: int = RANGE_BYTES) -> list[FileRange]:
    """Returns the ranges of a file, which together hold every row once.

    Parquet is cut between row groups only: one huge row group is read by one worker.

    Raises:
      CorruptFile, OSError: the file's head cannot be read.
    """
    if size == 0:
        return []
    if spec.format == PARQUET:
        return _split_parquet(path, size, range_bytes)
    names, begin = csv_head(path, spec.csv) if spec.format == CSV else ((), 0)
    if spec.format == CSV and not names:
        return []
    if path.endswith(".gz") or (spec.format == CSV and spec.csv.allow_quoted_newlines):
        return [FileRange(path, begin, None, size, names)]
    edges = np.linspace(begin, size, -(-(size - begin) // range_bytes) + 1).astype(int).tolist()
    return [FileRange(path, start, stop, stop - start, names) for start, stop in itertools.pairwise(edges)]


def _split_parquet(path: str, size: int, range_bytes: int) -> list[FileRange]:
    with open_parquet(path) as parquet:
        _, group_bytes = group_shares(parquet)
    stored = group_bytes * (size / max(1, group_bytes.sum()))
    ranges, first, held = [], 0, 0.0
    for group, share in enumerate(stored.tolist()):
        held += share
        if held >= range_bytes or group == len(stored) - 1:
            ranges.append(FileRange(path, first, group + 1, round(held)))
            first, held = group + 1, 0.0
    return ranges


def csv_names(path: str, options: CsvOptions) -> tuple[str, ...]:
    """Returns the names of a CSV file's fields: those of its header, unless they were given; () if it holds no line.

    Raises:
      CorruptFile: the header leaves a quote open, is not UTF-8, or names a field twice.
    """
    return csv_head(path, options)[0]


def csv_head(path: str, options: CsvOptions) -> tuple[tuple[str, ...], int]:
    """Returns `csv_names`, and the (uncompressed) byte at which the lines behind the header begin.

    The header is the first line that is not blank.
    """
    if options.column_names:
        return options.column_names, 0
    joining = options.quote if options.allow_quoted_newlines else b""
    with open_text(path) as file:
        for block in read_blocks(file, 0, None, joining, options.delimiter.encode(), _HEAD_BYTES):
            for line in np.flatnonzero(~block.blank())[:1].tolist():
                _check_header(block.slice(line, line + 1), options)
                return parse_header(block.line(line), options), block.offset + int(block.ends[line])
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
    """Returns the field names in a header line."""
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


def read_range(part: FileRange, spec: InputSpec) -> Iterator[tuple[Decoded, int]]:
    """Yields (rows, bytes of the stored file) of a range, in order. Never raises for what the file holds.

    A file that cannot be read on ends with one failure of stage "read", whose origin is the place reached; what came
    before it stands. Errors of the network and of the disk are raised, for the runner to try again.
    """
    reached = part.start if spec.format != PARQUET else 0
    try:
        for decoded, size, place in _READERS.get(spec.format, _read_tfrecord)(part, spec):
            yield decoded.joined(), size if part.stop is not None else 0
            reached = place
    except Exception as error:
        if not is_file_error(error):
            raise
        unit = "row" if spec.format == PARQUET else "byte"
        yield Decoded(failures=[file_failure(error, f"{part.path}#{unit}={reached}")]), 0
    if part.stop is None:  # of a compressed file only the whole size is known
        yield Decoded(), part.stored_bytes


def is_file_error(error: Exception) -> bool:
    """Whether a file is at fault, by what it holds or by not being there for us, rather than the way to it."""
    if isinstance(error, OSError):  # gzip and pyarrow raise it for damage, without a number
        damage = type(error) in (OSError, gzip.BadGzipFile) and error.errno is None
        return damage or isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError)
    status = getattr(error, "code", None)  # of google.api_core: as in HTTP
    refused = isinstance(status, int) and 400 <= status < 500 and status not in (408, 429)
    return refused or isinstance(error, DAMAGE)


# What a reader yields: rows, bytes of the file that they stand for, and the place reached, in the unit of the origins.
_Read = Iterator[tuple[Decoded, int, int]]


def _read_csv(part: FileRange, spec: InputSpec) -> _Read:
    origin = f"{part.path}#byte="
    for segment in _segments(part, spec.csv):
        places = [] if spec.csv.allow_quoted_newlines else [find_open_quote(block, spec.csv) for block in segment]
        first = next((place for place in places if place is not None), None)
        for block in segment:
            if first is None:
                rows = decode_csv(block, part.names, spec, origin)
            else:
                rows = open_quote_failures(block, origin, first)
            yield rows, len(block.data), block.offset + len(block.data)


def _segments(part: FileRange, options: CsvOptions) -> Iterator[list[LineBlock]]:
    """The blocks of a range in the groups that are checked for open quotes before any of their rows is let go.

    A range that begins inside a quoted value looks well until the quote closes, so the check comes first. It sees to
    it that no line of such a value is taken for a row, unless the value is longer than the range.
    """
    whole = options.allow_quoted_newlines
    with open_text(part.path) as file:
        blocks = read_blocks(file, part.start, part.stop, options.quote if whole else b"", options.delimiter.encode())
        if whole or not options.quote_char:
            for block in blocks:
                yield [block]
            return
        segment, size = [], 0
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


def _read_json(part: FileRange, spec: InputSpec) -> _Read:
    with open_text(part.path) as file:
        for block in read_blocks(file, part.start, part.stop):
            yield decode_json(block, spec, f"{part.path}#byte="), len(block.data), block.offset + len(block.data)


def _read_parquet(part: FileRange, spec: InputSpec) -> _Read:
    with open_parquet(part.path) as parquet:
        yield from read_parquet(parquet, part.start, part.stop or 0, spec, part.path, part.stored_bytes)


def _read_avro(part: FileRange, spec: InputSpec) -> _Read:
    with open_binary(part.path) as file:
        header = read_header(file)
        yield from read_avro(file, header, part.start, part.stop or part.stored_bytes, spec, part.path)


def _read_tfrecord(part: FileRange, spec: InputSpec) -> _Read:
    """A range begins with the first sound record in it, and what is before that belongs to the range before."""
    with open_text(part.path) as file:
        begin = find_record(file, part.start) if part.start else 0
        end = None if part.stop is None else find_record(file, part.stop)
        if begin is None or begin == end:
            return
        file.seek(begin)
        records: list[bytes] = []
        positions: list[int] = []
        size = 0

        def flush() -> tuple[Decoded, int, int]:
            rows = decode_examples(records, np.array(positions), spec, f"{part.path}#byte=")
            return rows, size, positions[0] + size if positions else begin

        try:
            for position, record in read_records(file, begin, end):
                records.append(record)
                positions.append(position)
                size += len(record) + HEADER_BYTES + FOOTER_BYTES
                if len(records) >= _RECORDS or size >= _RECORD_BYTES:
                    yield flush()
                    records, positions, size = [], [], 0
        except Exception:
            yield flush()
            raise
        yield flush()


def find_record(file: BinaryIO, start: int) -> int | None:
    """Returns the offset of the first TFRecord that begins at or behind `start`; None if there is none.

    A place is taken for a record's start if its length has the right checksum and the record behind it does too.
    """
    position = start
    while True:
        file.seek(position)
        data = file.read(_SCAN_BYTES)
        for candidate in candidate_starts(data).tolist():
            if _is_record(file, position + candidate):
                return position + candidate
        if len(data) < _SCAN_BYTES:
            return None
        position += len(data) - 11  # a header may lie across the edge of two scans


def _is_record(file: BinaryIO, position: int) -> bool:
    file.seek(position)
    try:
        next(read_records(file, position))
    except (CorruptFile, OverflowError, MemoryError):
        return False
    return True


_READERS = {CSV: _read_csv, JSONL: _read_json, PARQUET: _read_parquet, AVRO: _read_avro}
