"""RecordBatch, the element that flows between transforms: its coder, and the reserved columns beside a row."""

import itertools
from collections.abc import Iterator

import apache_beam as beam
import numpy as np
import pyarrow as pa

from sluice.models.reserved import ATTRIBUTES, FED, FILE, MESSAGE_ID, PAYLOAD, POSITION, is_reserved
from sluice.models.tensors.arrays import repeated
from sluice.transforms.core.failures import MAX_ATTEMPT, Failure
from sluice.transforms.core.render import clean_text, json_object, scalar_value

# The attribute that counts the attempts at a message, from 1. `sluice replay` sets it.
ATTEMPT_ATTRIBUTE = "sluice_attempt"
_MOST_DIGITS = len(str(MAX_ATTEMPT))


class RecordBatchCoder(beam.coders.Coder):
    """One batch as an Arrow IPC stream. Beam would pickle it, and the pickle of a slice holds its whole parent."""

    def encode(self, value: pa.RecordBatch) -> bytes:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, value.schema) as writer:
            writer.write_batch(value)
        return sink.getvalue().to_pybytes()

    def decode(self, encoded: bytes) -> pa.RecordBatch:
        with pa.ipc.open_stream(encoded) as reader:
            return reader.read_next_batch()

    def estimate_size(self, value: pa.RecordBatch) -> int:
        # Beam samples the sizes of elements for its metrics; by default it encodes a whole element to learn its size.
        return int(value.nbytes)

    def is_deterministic(self) -> bool:
        return False

    def to_type_hint(self) -> type:
        return pa.RecordBatch


beam.coders.registry.register_coder(pa.RecordBatch, RecordBatchCoder)


def with_origin(batch: pa.RecordBatch, origin: str, positions: np.ndarray) -> pa.RecordBatch:
    """Returns the batch with two more columns: the origin of each row.

    Args:
      origin: the common part, which ends with the unit of `positions`, e.g. "gs://b/f.csv#byte=".
      positions: int64 [rows].
    """
    file = repeated(clean_text(origin), len(positions))
    if not batch.num_columns:  # such a batch has no length, and append_column would refuse
        return pa.RecordBatch.from_arrays([file, pa.array(positions, pa.int64())], names=[FILE, POSITION])
    return batch.append_column(FILE, file).append_column(POSITION, pa.array(positions, pa.int64()))


def with_payload(batch: pa.RecordBatch, payload: pa.Array) -> pa.RecordBatch:
    """Returns the batch with the source texts of its rows (binary [rows]) as another column."""
    return batch.append_column(PAYLOAD, payload)


def without_fed(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Returns the batch without the columns that only the model needed."""
    kept = [place for place, name in enumerate(batch.schema.names) if not name.startswith(FED)]
    return batch if len(kept) == batch.num_columns else batch.select(kept)


def failure_of(
    batch: pa.RecordBatch,
    row: int,
    stage: str,
    error_type: str,
    message: str,
    model: str | None = None,
    version: int | None = None,
) -> Failure:
    """Returns the failure of one row; origin, payload, attributes and attempt come from the reserved columns."""
    attributes = attributes_of(batch, row)
    return Failure(
        stage,
        error_type,
        message,
        origin_of(batch, row),
        payload_of(batch, row),
        attributes=tuple((name, value) for name, value in attributes.items() if name != ATTEMPT_ATTRIBUTE),
        model=model,
        version=version,
        attempt=_attempt(attributes),
    )


def attributes_of(batch: pa.RecordBatch, row: int) -> dict[str, str]:
    """Returns the attributes of a row's message; a row of a file has none."""
    index = batch.schema.get_field_index(ATTRIBUTES)
    return dict(batch.column(index)[row].as_py() or ()) if index >= 0 else {}


def _attempt(attributes: dict[str, str]) -> int:
    """Returns the number in the attribute, which anybody may have set; a larger one than an int32 counts as that."""
    before = attributes.get(ATTEMPT_ATTRIBUTE, "")
    if not before.isdecimal():
        return 1
    digits = before.lstrip("0")  # int() refuses thousands of digits
    return min(max(1, int(digits or 0)), MAX_ATTEMPT) if len(digits) <= _MOST_DIGITS else MAX_ATTEMPT


def origin_of(batch: pa.RecordBatch, row: int) -> str:
    """Returns the origin of a row, e.g. "gs://b/f.csv#byte=1234"; "" if it is unknown."""
    file, position = batch.schema.get_field_index(FILE), batch.schema.get_field_index(POSITION)
    if file < 0:
        return ""
    message = batch.schema.get_field_index(MESSAGE_ID)
    if message >= 0:
        return f"{batch.column(file)[row].as_py()}#message_id={batch.column(message)[row].as_py()}"
    return f"{batch.column(file)[row].as_py()}{batch.column(position)[row].as_py() if position >= 0 else ''}"


def payload_of(batch: pa.RecordBatch, row: int) -> bytes:
    """Returns the source text of a row; a row of a columnar source is returned as a JSON object."""
    index = batch.schema.get_field_index(PAYLOAD)
    if index >= 0:
        return batch.column(index)[row].as_py() or b""
    return json_object(
        (name, scalar_value(batch.column(place)[row]))
        for place, name in enumerate(batch.schema.names)
        if not is_reserved(name)
    )


def slices(batch: pa.RecordBatch, max_rows: int) -> Iterator[pa.RecordBatch]:
    """Yields slices of nearly equal size, none of more than `max_rows` rows, without a copy."""
    if not batch.num_rows:
        return
    count = -(-batch.num_rows // max_rows)
    edges = np.linspace(0, batch.num_rows, count + 1).astype(int).tolist()
    for start, stop in itertools.pairwise(edges):
        yield batch.slice(start, stop - start)
