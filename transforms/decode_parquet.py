"""Parquet: the row groups of a range, only the columns that are wanted."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models.errors import CorruptFile
from transforms.batches import payload_of
from transforms.convert import convert_or_mark
from transforms.decode import Decoded, InputSpec, finish, row_failure

BATCH_ROWS = 4096


def read_parquet(
    file: pq.ParquetFile, first: int, last: int, spec: InputSpec, path: str
) -> Iterator[tuple[Decoded, int]]:
    """Yields (rows, bytes read) of row groups [first, last).

    Raises:
      CorruptFile: a column of the job is not in the file.
    """
    names = [name for name, _ in spec.columns]
    missing = [name for name in names if name not in file.schema_arrow.names]
    if missing:
        raise CorruptFile(f"the file has no column {missing[0]!r}; it has {', '.join(file.schema_arrow.names)}")
    groups = [file.metadata.row_group(group) for group in range(file.metadata.num_row_groups)]
    position = sum(group.num_rows for group in groups[:first])
    row_bytes = _stored_bytes(groups[first:last]) / max(1, sum(group.num_rows for group in groups[first:last]))
    # With no column asked for, batches still have to say how many rows there are.
    wanted = names or file.schema_arrow.names[:1]
    for batch in file.iter_batches(BATCH_ROWS, row_groups=list(range(first, last)), columns=wanted, use_threads=False):
        yield _conform(batch, spec, f"{path}#row=", position), round(batch.num_rows * row_bytes)
        position += batch.num_rows


def _stored_bytes(groups: list[Any]) -> int:
    return sum(group.column(column).total_compressed_size for group in groups for column in range(group.num_columns))


def _conform(batch: pa.RecordBatch, spec: InputSpec, origin: str, position: int) -> Decoded:
    """Casts the columns to the job's types; a value that the cast would change fails its row."""
    bad = np.zeros(batch.num_rows, bool)
    reasons: dict[int, str] = {}
    arrays = []
    for name, kind in spec.columns:
        array = batch.column(name)
        if array.type != kind:
            array, misfits = convert_or_mark(array, lambda part, kind=kind: part.cast(kind), kind)
            for row in [] if misfits is None else np.flatnonzero(misfits & ~bad):
                text = f"column '{name}' has type {batch.column(name).type} here, and its value does not fit {kind}"
                reasons[int(row)] = text
                bad[row] = True
        arrays.append(array)
    whole = finish(arrays, spec, origin, np.arange(position, position + batch.num_rows), None)
    if not reasons:
        return Decoded([whole])
    failures = [row_failure(text, f"{origin}{position + row}", payload_of(batch, row)) for row, text in reasons.items()]
    return Decoded([whole.filter(pa.array(~bad))], failures)
