"""Scored rows as messages: each is one JSON object, and a row that JSON cannot hold is a failure of its own."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from apache_beam.utils.windowed_value import WindowedValue

from sluice.models.errors import SluiceError
from sluice.transforms.core import metrics
from sluice.transforms.core.batches import failure_of
from sluice.transforms.core.failures import ENCODE, Failure
from sluice.transforms.core.outputs import MODEL_COLUMN, VERSION_COLUMN
from sluice.transforms.encode.base import OutputSpec
from sluice.transforms.encode.json import json_objects


def encode_rows(batch: pa.RecordBatch, spec: OutputSpec) -> tuple[list[bytes], np.ndarray | None, list[Failure]]:
    """Returns rows as JSON objects, each on one line and without a line end; see transforms.encode.json.JsonEncoder.

    Returns also int64 [objects]: the rows that they are of, in order (None: every row has one), and a failure for each
    row that has none: a value does not fit its column in `spec`, or, of a raw spec, its own text is not a JSON object.
    """
    pieces = list(_encode(batch, spec, 0))
    if len(pieces) == 1 and isinstance(pieces[0][1], list):
        return pieces[0][1], None, []
    texts: list[bytes] = []
    rows: list[int] = []
    failures: list[Failure] = []
    for start, piece in pieces:
        if isinstance(piece, Failure):
            failures.append(piece)
        else:
            texts += piece
            rows += range(start, start + len(piece))
    return texts, np.array(rows, np.int64), failures


def _encode(batch: pa.RecordBatch, spec: OutputSpec, start: int) -> Iterator[tuple[int, list[bytes] | Failure]]:
    """Yields the first row, and the objects, of the whole batch, or else of its halves; of a single row, a failure.

    Args:
      start: which row the batch's first is.
    """
    try:
        objects = json_objects(batch, spec).to_pylist()
    except SluiceError as error:  # some row is at fault
        if batch.num_rows > 1:
            middle = batch.num_rows // 2
            yield from _encode(batch.slice(0, middle), spec, start)
            yield from _encode(batch.slice(middle), spec, start + middle)
        elif batch.num_rows:
            yield start, scored_failure(batch, 0, ENCODE, type(error).__name__, str(error))
    else:
        yield start, objects


def scored_failure(batch: pa.RecordBatch, row: int, stage: str, error_type: str, message: str) -> Failure:
    """Returns the failure of a row that a model has scored."""
    model, version = (
        batch.column(name)[row].as_py() if name in batch.schema.names else None
        for name in (MODEL_COLUMN, VERSION_COLUMN)
    )
    return failure_of(batch, row, stage, error_type, message, model, version)


def counted_failure(failure: Failure, source: WindowedValue) -> WindowedValue:
    """Returns the failure of a row in the window and at the time of its batch, `source`. Counts: rows_failed."""
    metrics.count_failure(failure.stage, failure.error_type)
    return source.with_value(failure)
