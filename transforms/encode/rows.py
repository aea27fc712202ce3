"""Scored rows as messages, each a JSON object. A row that JSON cannot hold is a failure."""

import numpy as np
import pyarrow as pa
from apache_beam.utils.windowed_value import WindowedValue

from sluice.models.errors import SluiceError
from sluice.models.isolate import isolate
from sluice.models.reserved import is_reserved
from sluice.models.wording import text_of
from sluice.transforms.core.batches import failure_of
from sluice.transforms.core.failures import ENCODE, Failure, count_failures
from sluice.transforms.core.formats import JSONL
from sluice.transforms.core.outputs import MODEL_COLUMN, VERSION_COLUMN
from sluice.transforms.encode.base import OutputSpec
from sluice.transforms.encode.json import json_objects


def encode_rows(batch: pa.RecordBatch, spec: OutputSpec) -> tuple[list[bytes], np.ndarray | None, list[Failure]]:
    """Returns rows as JSON objects, each on one line without a line end; see transforms.encode.json.JsonEncoder.

    Returns also int64 [objects], the row of each object in order (None: every row has one), and a failure for each row
    without an object: a value does not fit its column in `spec`, or the source text of a raw row is not a JSON object.
    """

    def encode(start: int, stop: int) -> list[bytes]:
        return json_objects(batch.slice(start, stop - start), spec).to_pylist()

    texts: list[bytes] = []
    rows: list[int] = []
    failures: list[Failure] = []
    for part in isolate(batch.num_rows, encode, SluiceError):
        if part.error is not None:
            failures.append(scored_failure(batch, part.start, ENCODE, type(part.error).__name__, text_of(part.error)))
        elif part.result is not None:
            texts += part.result
            rows += range(part.start, part.stop)
    return texts, np.array(rows, np.int64) if failures else None, failures


def own_columns(schema: pa.Schema) -> OutputSpec:
    """Returns objects of a batch's own columns: none of ours, nor those that messages have as attributes."""
    ours = (MODEL_COLUMN, VERSION_COLUMN)
    kept = [field for field in schema if field.name not in ours and not is_reserved(field.name)]
    return OutputSpec(JSONL, pa.schema(kept))


def scored_failure(batch: pa.RecordBatch, row: int, stage: str, error_type: str, message: str) -> Failure:
    """Returns the failure of a row that a model has scored."""
    model, version = (
        batch.column(name)[row].as_py() if name in batch.schema.names else None
        for name in (MODEL_COLUMN, VERSION_COLUMN)
    )
    return failure_of(batch, row, stage, error_type, message, model, version)


def counted_failure(failure: Failure, source: WindowedValue) -> WindowedValue:
    """Returns the failure of a row in the window and at the time of its batch, `source`. Counts: rows_failed."""
    count_failures([failure])
    return source.with_value(failure)
