"""Files cut into ranges that workers read on their own, and the rows of a range. No Beam transforms here."""

import csv
import dataclasses
import io
import itertools
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models.errors import CorruptFile, SluiceError
from models.tfrecord import candidate_starts, read_records
from transforms.beam_files import open_binary, open_text
from transforms.decode import AVRO, CSV, JSONL, PARQUET, CsvOptions, Decoded, InputSpec, file_failure
from transforms.decode_avro import read_avro, read_header
from transforms.decode_csv import decode_csv, open_quote_failures
from transforms.decode_examples import decode_examples
from transforms.decode_json import decode_json
from transforms.decode_parquet import read_parquet
from transforms.lines import LineBlock, odd_quotes, read_blocks

# One range is some hundred milliseconds of work: enough to be worth a shuffle, small enough to spread over workers.
RANGE_BYTES = 16 << 20
# Records of a TFRecord are gathered up to this many or this many bytes.
_RECORDS = 4096
_RECORD_BYTES = 4 << 20
# How far a record's start is looked for at a time.
_SCAN_BYTES = 1 << 20
# What reading a damaged file can raise, below the errors of our own.
_FILE_ERRORS = (SluiceError, OSError, EOFError, ValueError, pa.ArrowException)


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

    Raises:
      CorruptFile, OSError: the file's head cannot be read.
    """
    if size == 0:
        return []
    if spec.format == PARQUET:
        return _split_parquet(path, range_bytes)
    names = csv_names(path, spec.csv) if spec.format == CSV else ()
    if path.endswith(".gz") or (spec.format == CSV and spec.csv.allow_quoted_newlines):
        return [FileRange(path, 0, None, size, names)]
    edges = np.linspace(0, size, -(-size // range_bytes) + 1).astype(int).tolist()
    return [FileRange(path, start, stop, stop - start, names) for start, stop in itertools.pairwise(edges)]


def _split_parquet(path: str, range_bytes: int) -> list[FileRange]:
    with open_binary(path) as file:
        metadata = pq.ParquetFile(pa.PythonFile(file, mode="r")).metadata
    ranges, first, held = [], 0, 0
    for group in range(metadata.num_row_groups):
        held += sum(metadata.row_group(group).column(c).total_compressed_size for c in range(metadata.num_columns))
        if held >= range_bytes or group == metadata.num_row_groups - 1:
            ranges.append(FileRange(path, first, group + 1, held))
            first, held = group + 1, 0
    return ranges


def csv_names(path: str, options: CsvOptions) -> tuple[str, ...]:
    """Returns the names of a CSV file's fields: those of its header, unless they were given.

    Raises:
      CorruptFile: the header is missing, not UTF-8, or names a field twice.
    """
    if options.column_names:
        return options.column_names
    with open_text(path) as file:
        block = next(read_blocks(file, 0, None, options.quote), None)
    if block is None:
        raise CorruptFile("the file is empty, and so has no header; give --column_names for files without one")
    return parse_header(block.line(0), options)


def parse_header(line: bytes, options: CsvOptions) -> tuple[str, ...]:
    """Returns the field names in a header line."""
    try:
        text = line.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CorruptFile(f"the header is not UTF-8: {error}; give --column_names for files without one") from error
    quoting = csv.QUOTE_MINIMAL if options.quote_char else csv.QUOTE_NONE
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=options.delimiter,
        quotechar=options.quote_char or None,
        quoting=quoting,
    )
    names = tuple(next(reader, ()))
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise CorruptFile(f"the header names {', '.join(map(repr, twice))} more than once")
    return names


def read_range(part: FileRange, spec: InputSpec) -> Iterator[tuple[Decoded, int]]:
    """Yields (rows, bytes of the stored file) of a range, in order. Never raises for what the file holds.

    A file that cannot be read on ends with one failure of stage "read"; what came before it stands.
    """
    reached = f"{part.path}#{'group' if spec.format == PARQUET else 'byte'}={part.start}"
    done = 0
    try:
        for decoded, size in _READERS.get(spec.format, _read_tfrecord)(part, spec):
            done += size
            yield decoded, size if part.stop is not None else 0
    except _FILE_ERRORS as error:
        failure = file_failure(error, reached if not done else f"{reached}+{done}")
        yield Decoded(failures=[failure]), 0
    if part.stop is None:  # of a compressed file only the whole size is known
        yield Decoded(), part.stored_bytes


def _read_csv(part: FileRange, spec: InputSpec) -> Iterator[tuple[Decoded, int]]:
    origin = f"{part.path}#byte="
    header = part.start == 0 and not spec.csv.column_names
    for segment in _segments(part, spec.csv):
        open_quotes = not spec.csv.allow_quoted_newlines and any(len(odd_quotes(b, spec.csv.quote)) for b in segment)
        for block in segment:
            size = len(block.data)
            body = block.slice(1, len(block)) if header and len(block) > 1 else block
            rows = Decoded()
            if open_quotes:
                rows = open_quote_failures(body, spec.csv, origin)
            elif not (header and len(block) == 1):
                rows = decode_csv(body, part.names, spec, origin)
            header = False
            yield rows, size


def _segments(part: FileRange, options: CsvOptions) -> Iterator[list[LineBlock]]:
    """The blocks of a range in the groups that are checked for open quotes before any of their rows is let go.

    A range that begins inside a quoted value looks well until the quote closes, so the check comes first.
    """
    with open_text(part.path) as file:
        blocks = read_blocks(file, part.start, part.stop, options.quote if options.allow_quoted_newlines else b"")
        if options.allow_quoted_newlines or not options.quote_char:
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
        except _FILE_ERRORS:
            yield segment
            raise
        if segment:
            yield segment


def _read_json(part: FileRange, spec: InputSpec) -> Iterator[tuple[Decoded, int]]:
    with open_text(part.path) as file:
        for block in read_blocks(file, part.start, part.stop):
            yield decode_json(block, spec, f"{part.path}#byte="), len(block.data)


def _read_parquet(part: FileRange, spec: InputSpec) -> Iterator[tuple[Decoded, int]]:
    with open_binary(part.path) as file:
        parquet = pq.ParquetFile(pa.PythonFile(file, mode="r"))
        yield from read_parquet(parquet, part.start, part.stop or 0, spec, part.path)


def _read_avro(part: FileRange, spec: InputSpec) -> Iterator[tuple[Decoded, int]]:
    with open_binary(part.path) as file:
        header = read_header(file)
        yield from read_avro(file, header, part.start, part.stop or part.stored_bytes, spec, part.path)


def _read_tfrecord(part: FileRange, spec: InputSpec) -> Iterator[tuple[Decoded, int]]:
    with open_text(part.path) as file:
        begin = find_record(file, part.start) if part.start else 0
        if begin is None or (part.stop is not None and begin >= part.stop):
            return
        file.seek(begin)
        records: list[bytes] = []
        positions: list[int] = []
        size = 0

        def flush() -> tuple[Decoded, int]:
            return decode_examples(records, np.array(positions), spec, f"{part.path}#byte="), size

        try:
            for position, record in read_records(file, begin, part.stop):
                records.append(record)
                positions.append(position)
                size += len(record)
                if len(records) >= _RECORDS or size >= _RECORD_BYTES:
                    yield flush()
                    records, positions, size = [], [], 0
        except _FILE_ERRORS:
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
