"""Converts columns to serialized tf.Examples, with tfx_bsl's encoder."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sluice.models.reserved import is_reserved
from sluice.models.signature import ColumnSpec, Default, arrow_type
from sluice.models.tensors.arrays import list_array
from sluice.models.tensors.column_types import is_list, is_text, leaf_fits, leaf_type
from sluice.models.tensors.columns import (
    RowErrors,
    bind_column,
    column_or_nulls,
    misfit_reason,
    misfits,
    null_reason,
    plain,
)
from sluice.models.tensors.strings import Tensor
from sluice.models.wording import message

# The three kinds of tf.train.Feature.
_KINDS = {"string": pa.binary(), "float32": pa.float32(), "int64": pa.int64()}


def encode_examples(
    batch: pa.RecordBatch, features: Sequence[ColumnSpec], errors: RowErrors, defaults: Mapping[str, Default]
) -> np.ndarray:
    """Returns bytes objects [rows]: the feature columns of each row as a serialized tf.Example.

    If the model's features are not known (`features` is empty), an Example has all columns that it can hold. A null
    without a default, or an empty list, is left out of its row's Example, so that the model's parser supplies its own
    default.
    """
    # Not at the top: tfx_bsl imports TensorFlow and Beam, which most models need not.
    from tfx_bsl.coders.example_coder import RecordBatchToExamplesEncoder

    specs = features or [spec for field in batch.schema if (spec := _spec_of(field))]
    arrays = [_feature(batch, spec, errors, defaults.get(spec.name)) for spec in specs]
    if not arrays:
        return np.full(batch.num_rows, b"", object)
    encoded = pa.RecordBatch.from_arrays(arrays, [spec.name for spec in specs])
    return np.array(RecordBatchToExamplesEncoder().encode(encoded), object)


def _spec_of(field: pa.Field) -> ColumnSpec | None:
    """Returns the feature for a column, from its type alone; None if an Example cannot hold it."""
    kind, depth = leaf_type(field.type)
    if is_reserved(field.name):
        return None
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        dtype = "int64"
    else:
        dtype = "string" if is_text(kind) else "float32"
    spec = ColumnSpec(field.name, dtype, (None,) if depth else (), required=False)
    return spec if dtype == "int64" or leaf_fits(kind, spec) else None


def _feature(batch: pa.RecordBatch, spec: ColumnSpec, errors: RowErrors, default: Default | None) -> pa.Array:
    """Returns list<int64 | float32 | binary> [rows], null where the feature is left out."""
    dtype = spec.dtype if spec.dtype in _KINDS else "float32"
    array = plain(column_or_nulls(batch, spec.name), arrow_type(dtype))
    kind, depth = leaf_type(array.type)
    kind = pa.int64() if pa.types.is_boolean(kind) and dtype == "int64" else kind
    if depth:
        values, counts = _lists(array, kind, depth, dataclasses.replace(spec, dtype=dtype), errors)
    else:
        values, counts = _scalars(array.cast(kind), ColumnSpec(spec.name, dtype), errors, default)
    empty = message("column '{name}' is null or empty; the model takes {spec}", name=spec.name, spec=spec)
    missing = empty if depth else null_reason(spec)
    _check_counts(counts, spec, errors, missing)
    if not isinstance(values, pa.Array):
        values = pa.array(values, _KINDS[dtype])
    return list_array(counts, values, pa.array(counts == 0))


def _scalars(
    array: pa.Array, spec: ColumnSpec, errors: RowErrors, default: Default | None
) -> tuple[Tensor | pa.Array, np.ndarray]:
    """Returns the values, and how many each row has: one, or none for a null without a default."""
    if default is not None:
        return bind_column(array, spec, errors, default).values, np.ones(len(array), np.int64)
    present = array.is_valid().to_numpy(zero_copy_only=False)
    if spec.dtype == "string" and is_text(array.type):
        return array.drop_null().cast(pa.binary()), present.astype(np.int64)
    left_out = b"" if spec.dtype == "string" else 0
    return bind_column(array, spec, errors, left_out).values[present], present.astype(np.int64)


def _cast_leaves(array: pa.Array, leaf: pa.DataType, outermost: bool = True) -> pa.Array:
    """Returns the lists, rebuilt with this value type; outermost nulls become empty lists.

    `cast` is not safe: if a list array and its values are both slices, pyarrow 25 returns lists that abort the process
    when they are read.
    """
    if not is_list(array.type):
        return array.cast(leaf)
    lengths = np.asarray(pc.list_value_length(array).fill_null(0), np.int64)
    nulls = None if outermost or not array.null_count else array.is_null()
    return list_array(lengths, _cast_leaves(array.flatten(), leaf, outermost=False), nulls)


def _lists(
    array: pa.Array, kind: pa.DataType, depth: int, spec: ColumnSpec, errors: RowErrors
) -> tuple[Tensor, np.ndarray]:
    """Returns the flat values of lists, and how many each row has. A null is an empty list."""
    array = _cast_leaves(array, kind)
    column = bind_column(array, dataclasses.replace(spec, shape=(None,) * depth), errors)
    counts = column.counts
    if depth == len(spec.shape):
        wrong = (counts > 0) & misfits(column.sizes, spec)
        errors.add(wrong, lambda row: misfit_reason(spec, column.sizes[row].tolist()))
    return column.values, counts


def _check_counts(counts: np.ndarray, spec: ColumnSpec, errors: RowErrors, missing: str) -> None:
    if spec.size is None:
        return
    if spec.required:
        errors.add(counts == 0, lambda _: missing)
    errors.add((counts > 0) & (counts != spec.size), lambda row: misfit_reason(spec, [counts[row]]))
