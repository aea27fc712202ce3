"""A RecordBatch to the tensors that a signature takes; rows that do not fit are set aside with the reason."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from sluice.models.signature import ColumnSpec, Signature, TensorSpec
from sluice.models.tensors.columns import RowErrors, TensorColumn, bind_column

Feeds = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Group:
    """Rows that go into a call together: all their tensors have the same inner shape.

    Attributes:
      rows: int64 [n]: which rows of the batch; None if it is all of them, in order.
      feeds: by input name, [n, ...].
      size: n.
    """

    rows: np.ndarray | None
    feeds: Feeds
    size: int


@dataclasses.dataclass(frozen=True)
class Bound:
    """A batch, bound. Every row of it is in exactly one group, or in `errors`.

    Attributes:
      groups: one, unless the model has unknown inner dimensions and rows differ in them. Rows are never padded:
        a model may well answer otherwise for padded input.
      errors: by row, what does not fit.
    """

    groups: tuple[Group, ...]
    errors: dict[int, str]

    @property
    def bad_mask(self) -> np.ndarray:
        """Returns bool [rows in the batch]."""
        rows = len(self.errors) + sum(group.size for group in self.groups)
        mask = np.zeros(rows, bool)
        mask[list(self.errors)] = True
        return mask


def bind(batch: pa.RecordBatch, signature: Signature, defaults: Mapping[str, Any] | None = None) -> Bound:
    """Returns the batch as the tensors that the signature takes.

    Args:
      defaults: by column, what stands for a null.

    Raises:
      UsageError: a default that is needed does not fit its column.
    """
    errors = RowErrors(batch.num_rows)
    if signature.takes_examples:
        columns = {signature.inputs[0].name: _examples(batch, signature, errors, defaults or {})}
    else:
        columns = {spec.name: _column(batch, spec, errors, defaults or {}) for spec in signature.columns}
    return Bound(_groups(columns, signature.inputs, errors), dict(sorted(errors.reasons.items())))


def _column(batch: pa.RecordBatch, spec: ColumnSpec, errors: RowErrors, defaults: Mapping[str, Any]) -> TensorColumn:
    index = batch.schema.get_field_index(spec.name)
    array = batch.column(index) if index >= 0 else pa.nulls(batch.num_rows)
    return bind_column(array, spec, errors, defaults.get(spec.name))


def _examples(
    batch: pa.RecordBatch, signature: Signature, errors: RowErrors, defaults: Mapping[str, Any]
) -> TensorColumn:
    """The column that holds serialized tf.Examples, or else Examples made of the feature columns."""
    name = signature.inputs[0].name
    spec = ColumnSpec(name, "string", signature.inputs[0].row_shape)
    if batch.schema.get_field_index(name) >= 0 and name not in {feature.name for feature in signature.columns}:
        return _column(batch, spec, errors, defaults)
    from sluice.models.tensors.examples import encode_examples

    encoded = encode_examples(batch, signature.columns, errors, defaults)
    return TensorColumn(encoded, np.ones((batch.num_rows, len(spec.shape)), np.int64))


def _groups(columns: dict[str, TensorColumn], inputs: tuple[TensorSpec, ...], errors: RowErrors) -> tuple[Group, ...]:
    if errors.rows == len(errors.reasons):
        return ()
    rows = None if not errors.reasons else np.flatnonzero(errors.good())
    open_sizes = [columns[spec.name].sizes for spec in inputs if _is_open(spec)]
    if not open_sizes:
        return (_group(columns, rows),)
    sizes = np.concatenate(open_sizes, 1)
    sizes = sizes if rows is None else sizes[rows]
    if (sizes == sizes[0]).all():
        return (_group(columns, rows),)
    _, shape = np.unique(sizes, axis=0, return_inverse=True)
    order = np.argsort(shape.reshape(-1), kind="stable")
    members = order if rows is None else rows[order]
    return tuple(_group(columns, part) for part in np.split(members, np.cumsum(np.bincount(shape.reshape(-1)))[:-1]))


def _is_open(spec: TensorSpec) -> bool:
    return spec.shape is None or None in spec.row_shape


def _group(columns: dict[str, TensorColumn], rows: np.ndarray | None) -> Group:
    first = 0 if rows is None else int(rows[0])
    feeds = {name: column.take(rows, tuple(column.sizes[first].tolist())) for name, column in columns.items()}
    return Group(rows, feeds, len(next(iter(feeds.values()))))
