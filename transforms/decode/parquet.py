"""Parquet: the row groups of a range, only the columns that are wanted."""

import contextlib
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sluice.models.errors import CorruptFile
from sluice.transforms.core.beam_files import open_binary
from sluice.transforms.decode.conform import conform
from sluice.transforms.decode.spec import Decoded, InputSpec

BATCH_ROWS = 4096


@contextlib.contextmanager
def open_parquet(path: str) -> Iterator[pq.ParquetFile]:
    """Opens a file; pages that have a checksum are held against it."""
    with open_binary(path) as file:
        yield pq.ParquetFile(pa.PythonFile(file, mode="r"), page_checksum_verification=True)


def group_shares(file: pq.ParquetFile) -> tuple[np.ndarray, np.ndarray]:
    """Returns int64 [row groups]: the rows of each, and its bytes (unpacked).

    Does without `RowGroupMetaData.column`, at which pyarrow 25 ends the process if the footer is damaged.

    Raises:
      CorruptFile: the footer contradicts itself.
    """
    groups = [file.metadata.row_group(group) for group in range(file.metadata.num_row_groups)]
    rows = np.array([group.num_rows for group in groups], np.int64)
    if rows.sum() != file.metadata.num_rows or (rows < 0).any():
        raise CorruptFile(f"the footer counts {file.metadata.num_rows} rows, and {rows.sum()} in its row groups")
    return rows, np.array([max(1, group.total_byte_size) for group in groups], np.int64)


def read_parquet(
    file: pq.ParquetFile, first: int, last: int, spec: InputSpec, path: str, stored_bytes: int
) -> Iterator[tuple[Decoded, int, int]]:
    """Yields (rows, bytes read, row of the file reached) of row groups [first, last).

    Args:
      stored_bytes: of these row groups, to be shared out among their rows.

    Raises:
      CorruptFile: a column of the job is not in the file, or it has fewer rows than its footer says.
    """
    names = [name for name, _ in spec.columns]
    missing = [name for name in names if name not in file.schema_arrow.names]
    if missing:
        raise CorruptFile(f"the file has no column {missing[0]!r}; it has {', '.join(file.schema_arrow.names)}")
    rows, _ = group_shares(file)
    position, end = int(rows[:first].sum()), int(rows[:last].sum())
    row_bytes = stored_bytes / max(1, end - position)
    # With no column asked for, batches still have to say how many rows there are.
    wanted = names or file.schema_arrow.names[:1]
    for batch in file.iter_batches(BATCH_ROWS, row_groups=list(range(first, last)), columns=wanted, use_threads=False):
        decoded = conform(batch, spec, f"{path}#row=", position)
        position += batch.num_rows
        yield decoded, round(batch.num_rows * row_bytes), position
    if position != end:
        raise CorruptFile(f"the row groups end at row {position}, and the footer counts {end}")
