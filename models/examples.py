"""Columns to serialized tf.Examples, by tfx_bsl's encoder."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.columns import RowErrors, bind_column, is_list
from models.signature import ColumnSpec, Shape, arrow_type

# The three kinds of tf.train.Feature.
_KINDS = {"string": pa.binary(), "float32": pa.float32()}


def encode_examples(
    batch: pa.RecordBatch, features: Sequence[ColumnSpec], errors: RowErrors, defaults: Mapping[str, Any]
) -> pa.Array:
    """Returns binary [rows]: each row of the features' columns as a serialized tf.Example.

    Where the model's features are not known (`features` is empty) every column goes in. A null in a feature that has a
    default, and an empty list, is left out of its row's Example, so that the model's parser supplies the default.
    """
    from tfx_bsl.coders.example_coder import RecordBatchToExamplesEncoder

    arrays = [_feature(batch, spec, errors, defaults) for spec in features or _all_columns(batch)]
    names = [spec.name for spec in features or _all_columns(batch)]
    if not arrays:
        return pa.array([b""] * batch.num_rows, pa.binary())
    return pa.array(RecordBatchToExamplesEncoder().encode(pa.RecordBatch.from_arrays(arrays, names)), pa.binary())


def _all_columns(batch: pa.RecordBatch) -> list[ColumnSpec]:
    from models.reserved import is_reserved

    return [_spec_of(field) for field in batch.schema if not is_reserved(field.name)]


def _spec_of(field: pa.Field) -> ColumnSpec:
    kind: pa.DataType = field.type
    shape: Shape = ()
    while pa.types.is_list(kind) or pa.types.is_large_list(kind):
        kind, shape = kind.value_type, (None,)
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return ColumnSpec(field.name, "int64", shape, required=False)
    return ColumnSpec(field.name, "float32" if pa.types.is_floating(kind) else "string", shape, required=False)


def _feature(batch: pa.RecordBatch, spec: ColumnSpec, errors: RowErrors, defaults: Mapping[str, Any]) -> pa.Array:
    """Returns list<int64 | float32 | binary> [rows], null where the feature is left out."""
    index = batch.schema.get_field_index(spec.name)
    array = batch.column(index) if index >= 0 else pa.nulls(batch.num_rows)
    column = bind_column(_as_lists(array, spec, defaults.get(spec.name)), _any_length(spec), errors)
    counts = column.sizes.prod(axis=1)
    _check_counts(counts, spec, errors)
    values = pa.array(column.values, _KINDS.get(_any_length(spec).dtype, pa.int64()))
    offsets = np.append(0, np.cumsum(counts)).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values, mask=pa.array(counts == 0))


def _as_lists(array: pa.Array, spec: ColumnSpec, default: Any) -> pa.Array:
    """The column as lists; a null becomes the default, or an empty list."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_null(array.type):
        array = pa.nulls(len(array), arrow_type(spec.dtype))
    if default is not None:
        array = array.fill_null(pa.scalar(default).cast(array.type))
    if pa.types.is_boolean(array.type):
        array = array.cast(pa.int64())
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    if is_list(array.type):
        return array if valid.all() else pc.if_else(array.is_valid(), array, pa.scalar([], array.type))
    offsets = np.append(0, np.cumsum(valid)).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), array.drop_null())


def _any_length(spec: ColumnSpec) -> ColumnSpec:
    """The feature as an Example holds it: a flat list of values, whatever shape the parser gives it."""
    dtype = spec.dtype if spec.dtype in ("string", "int64") else "float32"
    return ColumnSpec(spec.name, dtype, (None,), required=False)


def _check_counts(counts: np.ndarray, spec: ColumnSpec, errors: RowErrors) -> None:
    if None in spec.shape:
        return
    wanted = math.prod(size or 0 for size in spec.shape)
    missing = counts == 0
    if spec.required:
        errors.add(
            missing,
            lambda _: (
                f"column '{spec.name}' is null and the model has no default for it ({spec}); "
                f"give one with --column_defaults {spec.name}=VALUE"
            ),
        )
    errors.add(
        ~missing & (counts != wanted),
        lambda row: f"column '{spec.name}': the model takes {spec}, found a list of {counts[row]}",
    )
