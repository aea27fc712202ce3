"""The outputs of a model as columns beside the columns of the input."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from sluice.models.batching.tickets import Prediction
from sluice.models.errors import BIND, PREDICT, FailedRow
from sluice.models.signature import BYTES_SUFFIX, Signature, TensorSpec
from sluice.models.tensors.arrays import number_array, repeated
from sluice.models.tensors.binding import Group
from sluice.models.wording import message

MODEL_COLUMN, VERSION_COLUMN = "_model", "_version"

_HALF = ("float16", "bfloat16")


def output_schema(signature: Signature, prefix: str = "") -> pa.Schema:
    """Returns the columns of a signature's outputs, without `_model` and `_version`."""
    return pa.schema([(prefix + spec.name, output_type(spec)) for spec in signature.outputs])


def taken_names(names: Sequence[str], signature: Signature, prefix: str) -> list[str]:
    """Returns those of the names that scoring would add a second time."""
    added = {*(prefix + spec.name for spec in signature.outputs), MODEL_COLUMN, VERSION_COLUMN}
    return [name for name in names if name in added]


def output_type(spec: TensorSpec) -> pa.DataType:
    """Returns the column type of an output: a scalar for [batch] and [batch, 1], else lists nested by its rank.

    Half floats become float32. Strings are text, unless the name ends in _bytes.
    """
    kind = _value_type(spec)
    depth = 1 if spec.kind == "sparse" else 0 if spec.is_scalar else len(spec.row_shape)
    for _ in range(depth):
        kind = pa.list_(kind)
    return kind


def _value_type(spec: TensorSpec) -> pa.DataType:
    if spec.dtype == "string":
        return pa.binary() if spec.name.endswith(BYTES_SUFFIX) else pa.string()
    if spec.dtype in _HALF:
        return pa.float32()
    return pa.from_numpy_dtype(np.dtype(spec.dtype))


def score_rows(
    batch: pa.RecordBatch,
    errors: Mapping[int, str],
    predictions: list[tuple[Group, Prediction]],
    signature: Signature,
    uri: str,
    prefix: str,
    version: int | None = None,
) -> tuple[pa.RecordBatch | None, list[FailedRow]]:
    """Returns the predicted rows of a batch with the outputs appended, and the others, both in order.

    Args:
      errors: the rows that were not bound, with the reason.
      version: of the model, for rows whose failure does not tell it.
    """
    failed = {row: FailedRow(row, BIND, "InvalidRow", text, version) for row, text in errors.items()}
    for group, prediction in predictions:
        for row, failure in prediction.failures.items():
            place = row_in_batch(group, row)
            known = version if failure.version is None else failure.version
            failed[place] = FailedRow(place, PREDICT, failure.type, failure.message, known)
    scored, refused = append_outputs(batch, predictions, signature, uri, prefix)
    failed |= {each.row: each for each in refused}
    return scored, [failed[row] for row in sorted(failed)]


def row_in_batch(group: Group, row: int) -> int:
    """Returns the row of the batch that a row of a group is."""
    return row if group.rows is None else int(group.rows[row])


def append_outputs(
    batch: pa.RecordBatch,
    predictions: list[tuple[Group, Prediction]],
    signature: Signature,
    uri: str,
    prefix: str,
) -> tuple[pa.RecordBatch | None, list[FailedRow]]:
    """Returns the predicted rows, in the order of the batch, with the outputs appended; None if there are none.

    Returns also the rows that are refused: a string output is not text.
    """
    parts = [(rows_of(group, prediction), prediction) for group, prediction in predictions]
    parts = [(rows, prediction) for rows, prediction in parts if len(rows)]
    if not parts:
        return None, []
    rows = np.concatenate([rows for rows, _ in parts])
    refused: dict[int, str] = {}
    columns = [_column([p.arrays[spec.name] for _, p in parts], spec, rows, refused) for spec in signature.outputs]
    versions = pa.concat_arrays([_constant(version, count) for _, p in parts for count, version in p.versions])
    names = [*(prefix + spec.name for spec in signature.outputs), MODEL_COLUMN, VERSION_COLUMN]
    answers = pa.RecordBatch.from_arrays([*columns, repeated(uri, len(rows)), versions], names=names)
    if len(parts) > 1:
        order = np.argsort(rows, kind="stable")
        rows, answers = rows[order], answers.take(pa.array(order))
    bad: list[FailedRow] = []
    if refused:
        bad = [
            FailedRow(row, PREDICT, "BadOutput", refused[row], version)
            for row, version in zip(rows.tolist(), answers.column(VERSION_COLUMN).to_pylist(), strict=True)
            if row in refused
        ]
        keep = ~np.isin(rows, list(refused))
        rows, answers = rows[keep], answers.filter(pa.array(keep))
    kept = batch if len(rows) == batch.num_rows else batch.take(pa.array(rows))
    joined = pa.RecordBatch.from_arrays(
        [*kept.columns, *answers.columns], names=[*kept.schema.names, *answers.schema.names]
    )
    return (joined if joined.num_rows else None), bad


def rows_of(group: Group, prediction: Prediction) -> np.ndarray:
    """Returns int64 [predicted rows]: the row of the batch for each row of a prediction's arrays."""
    if group.rows is None:
        return np.arange(group.size) if prediction.rows is None else prediction.rows
    return group.rows if prediction.rows is None else group.rows[prediction.rows]


def _constant(version: int | None, rows: int) -> pa.Array:
    return pa.nulls(rows, pa.int64()) if version is None else number_array(np.full(rows, version, np.int64))


def _column(
    arrays: Sequence[np.ndarray | pa.Array], spec: TensorSpec, rows: np.ndarray, refused: dict[int, str]
) -> pa.Array:
    kind = output_type(spec)
    parts = [_to_arrow(array, spec, kind) for array in arrays]
    converted = parts[0] if len(parts) == 1 else pa.concat_arrays(parts)
    if converted.type == kind:
        return converted
    try:
        return converted.cast(kind)
    except pa.ArrowInvalid:
        return _cast_rows(converted, kind, spec, rows, refused)


def _cast_rows(
    array: pa.Array, kind: pa.DataType, spec: TensorSpec, rows: np.ndarray, refused: dict[int, str]
) -> pa.Array:
    """Casts bytes to text row by row. A row that is not text goes to `refused` and is null in the column."""
    cast = []
    for place, row in enumerate(rows.tolist()):
        try:
            cast.append(array[place : place + 1].cast(kind))
        except pa.ArrowInvalid:
            cast.append(pa.nulls(1, kind))
            refused[row] = message(
                "output '{name}' is not UTF-8 text; an output named {name}_bytes is written as base64", name=spec.name
            )
    return pa.concat_arrays(cast)


def _to_arrow(array: np.ndarray | pa.Array, spec: TensorSpec, kind: pa.DataType) -> pa.Array:
    """Returns the values of an output as scalars, or as lists nested as the array is; strings as bytes."""
    if isinstance(array, pa.Array):
        return array
    if spec.dtype in _HALF:
        array = array.astype(np.float32)
    sizes = array.shape[1:]
    if not pa.types.is_list(kind):
        sizes = ()
    flat = array.reshape(-1)
    column = pa.array(flat, pa.binary()) if spec.dtype == "string" else number_array(flat)
    for depth in range(len(sizes), 0, -1):
        count = int(np.prod(array.shape[:depth]))
        offsets = np.arange(count + 1, dtype=np.int32) * sizes[depth - 1]
        column = pa.ListArray.from_arrays(number_array(offsets), column)
    return column
