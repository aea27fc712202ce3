"""Parquet files: their row groups as ranges, and the requested columns of a range."""

import contextlib
import functools
import os
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sluice.models.errors import CorruptFile
from sluice.transforms.core.beam_files import open_binary
from sluice.transforms.decode.conform import conform
from sluice.transforms.decode.parquet_dictionary import LargeValues, fixed_bytes
from sluice.transforms.decode.parquet_pages import PageGuard
from sluice.transforms.decode.ranges import FileRange, Look, Read, beginning, opened, typed_look
from sluice.transforms.decode.spec import CsvOptions, Decoded, InputSpec, check_columns

BATCH_ROWS = 4096
# Fewer rows are read at once if they take more than this, by what the footer says of their row groups.
MAX_BATCH_BYTES = 64 << 20
# A value of a dictionary, or a list of them, may be as large without a further look: a batch of it comes to 256 MB.
MOST_VALUE_BYTES = 4 * MAX_BATCH_BYTES // BATCH_ROWS


@contextlib.contextmanager
def open_parquet(path: str) -> Iterator[pq.ParquetFile]:
    """Opens a file. The checksums of pages, where the file has them, are verified, and how far pages unpack is."""
    with open_binary(path) as file:
        yield _as_parquet(file)


def _as_parquet(file: BinaryIO, most_value: int = 0) -> pq.ParquetFile:
    """Opens a file.

    Args:
      most_value: see PageGuard.
    """
    guard = PageGuard(file)
    # Reading ahead would hide where chunks of columns begin. Files on gs:// have a buffer of their own.
    parquet = pq.ParquetFile(pa.PythonFile(guard, mode="r"), page_checksum_verification=True, pre_buffer=False)
    guard.watches, guard.most_value = True, most_value
    groups = range(parquet.metadata.num_row_groups) if most_value else ()
    guard.most_rows = max((parquet.metadata.row_group(group).num_rows for group in groups), default=0)
    return parquet


def look_parquet(path: str, _: CsvOptions) -> Look:
    """Returns the columns of a file."""
    with open_parquet(path) as parquet:
        return typed_look(parquet.schema_arrow)


def read_parquet_range(part: FileRange, spec: InputSpec) -> Read:
    """Yields the rows of the row groups that begin in a range, as far as their sizes in the footer tell."""
    with opened(part.path, open_binary) as file:
        with beginning():
            parquet = _as_parquet(file, most_value=MOST_VALUE_BYTES)
            check_columns(spec, parquet.schema_arrow.names, "the file")
            first, last, stored_bytes = _groups_of(parquet, part, _size_of(file))
        if first < last:
            again = functools.partial(_as_parquet, file)
            yield from read_parquet(parquet, first, last, spec, part.path, stored_bytes, again)


def _size_of(file: BinaryIO) -> int:
    file.seek(0, os.SEEK_END)
    return file.tell()


def _groups_of(parquet: pq.ParquetFile, part: FileRange, size: int) -> tuple[int, int, int]:
    """Returns the row groups [first, last) of a range, and the bytes of the file that are counted for them."""
    _, group_bytes = group_shares(parquet)
    ends = np.cumsum(group_bytes) * (size / max(1, group_bytes.sum()))
    starts = np.append(0, ends[:-1])[: len(ends)]
    first, last = np.searchsorted(starts, (part.start, size if part.stop is None else part.stop)).tolist()
    return first, last, round(float(ends[last - 1] - starts[first])) if first < last else 0


def group_shares(file: pq.ParquetFile) -> tuple[np.ndarray, np.ndarray]:
    """Returns two int64 [row groups]: the rows of each, and its unpacked bytes.

    It avoids `RowGroupMetaData.column`, at which pyarrow 25 ends the process if the footer is damaged.

    Raises:
      CorruptFile: the footer contradicts itself.
    """
    groups = [file.metadata.row_group(group) for group in range(file.metadata.num_row_groups)]
    rows = np.array([group.num_rows for group in groups], np.int64)
    if rows.sum() != file.metadata.num_rows or (rows < 0).any():
        raise CorruptFile(f"the footer counts {file.metadata.num_rows} rows, and {rows.sum()} in its row groups")
    return rows, np.array([max(1, group.total_byte_size) for group in groups], np.int64)


def read_parquet(
    file: pq.ParquetFile,
    first: int,
    last: int,
    spec: InputSpec,
    path: str,
    stored_bytes: int,
    again: Callable[[int], pq.ParquetFile] | None = None,
) -> Iterator[tuple[Decoded, int, int]]:
    """Yields (rows, bytes read, row of the file reached) of row groups [first, last).

    Args:
      file: has the columns of the job.
      stored_bytes: the stored size of these row groups, shared out among their rows.
      again: opens the file with this PageGuard.most_value, if it raises LargeValues.

    Raises:
      CorruptFile: the file has fewer rows than its footer says.
      BlockTooLarge: a page would unpack too far.
    """
    rows, unpacked = group_shares(file)
    position, end = int(rows[:first].sum()), int(rows[:last].sum())
    row_bytes = stored_bytes / max(1, end - position)
    # In the order of the file, which is then read forwards. If no column is requested, one is read: batches must have
    # their numbers of rows.
    names = file.schema_arrow.names
    requested = set(spec.schema.names)
    wanted = [name for name in names if name in requested] or names[:1]
    fixed = sum(fixed_bytes(file.schema_arrow.field(name).type) for name in wanted)
    batch_rows = _batch_rows(end - position, max(int(unpacked[first:last].sum()), fixed * (end - position)))
    groups = list(range(first, last))
    for batch in _batches(file, groups, wanted, batch_rows, again):
        decoded = conform(batch, spec, f"{path}#row=", position)
        position += batch.num_rows
        yield decoded, round(batch.num_rows * row_bytes), position
    if position != end:
        raise CorruptFile(f"the row groups end at row {position}, and the footer counts {end}")


def _batches(
    file: pq.ParquetFile,
    groups: list[int],
    columns: list[str],
    batch_rows: int,
    again: Callable[[int], pq.ParquetFile] | None,
) -> Iterator[pa.RecordBatch]:
    """Yields the rows of row groups. Where a dictionary has large values, few rows are read at once.

    Its columns are not read as dictionaries: once a dictionary is full, writers store values plainly, and Arrow would
    add all of these, up to the end of the row group, to the dictionary of each batch.
    """
    done = skipped = large = 0
    while True:
        read = file.iter_batches(batch_rows, row_groups=groups, columns=columns, use_threads=False)
        try:
            for batch in _joined(_without_first(read, skipped)) if large else read:
                yield batch
                done += batch.num_rows
            return
        except LargeValues as error:
            if again is None:
                raise
            large = max(error.size, 2 * large)  # so that it is not read again for each that is a bit larger
        groups, skipped = _left(file, groups, done + skipped)
        done, file, batch_rows = 0, again(large), max(1, min(batch_rows, MAX_BATCH_BYTES // large))


def _left(file: pq.ParquetFile, groups: list[int], done: int) -> tuple[list[int], int]:
    """Returns the row groups that are left after so many rows, and how many rows of the first of these are done."""
    for place, group in enumerate(groups):
        rows = file.metadata.row_group(group).num_rows
        if done < rows:
            return groups[place:], done
        done -= rows
    return [], 0


def _without_first(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    """Yields the rows behind so many."""
    for batch in batches:
        left = batch.slice(min(rows, batch.num_rows))
        rows -= batch.num_rows - left.num_rows
        if left.num_rows:
            yield left


def _joined(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Joins small batches. Those with dictionaries stay small: their bytes do not show what their rows come to."""
    held: list[pa.RecordBatch] = []
    rows = size = 0
    try:
        for batch in batches:
            rows, size = rows + batch.num_rows, size + batch.nbytes
            is_full = rows > BATCH_ROWS or size > MAX_BATCH_BYTES
            if held and (is_full or any(map(pa.types.is_dictionary, batch.schema.types))):
                yield _one(held)
                held, rows, size = [], batch.num_rows, batch.nbytes
            held.append(batch)
    except LargeValues:  # behind these rows
        if held:
            yield _one(held)
        raise
    if held:
        yield _one(held)


def _one(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    return batches[0] if len(batches) == 1 else pa.concat_batches(batches)


def _batch_rows(rows: int, size: int) -> int:
    """Returns how many rows are read at once, of so many with so many bytes in all."""
    return min(BATCH_ROWS, max(1, MAX_BATCH_BYTES * rows // max(1, size)))
