"""Converts a RecordBatch to a signature's input tensors; rows that do not fit are set aside, each with its reason."""

import dataclasses
from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from sluice.models.signature import ColumnSpec, Default, Signature, TensorSpec
from sluice.models.tensors.columns import RowErrors, TensorColumn, bind_column, column_or_nulls
from sluice.models.tensors.examples import encode_examples
from sluice.models.tensors.strings import Strings, Tensor

Feeds = dict[str, Tensor]


@dataclasses.dataclass(frozen=True)
class Group:
    """Rows that can go into one call: all their tensors have the same inner shape.

    Attributes:
      rows: int64 [n]: rows of the batch; None: all of them, in order.
      feeds: by input name, [n, ...].
      size: n.
    """

    rows: np.ndarray | None
    feeds: Feeds
    size: int


@dataclasses.dataclass(frozen=True)
class Bound:
    """A bound batch. Every row is in exactly one group, or in `errors`.

    Attributes:
      groups: one, unless the model has unknown inner dimensions and rows differ in them. Rows are never padded, because
        padding may change a model's answer.
      errors: by row, the reason why it does not fit.
    """

    groups: tuple[Group, ...]
    errors: dict[int, str]

    @property
    def bad_mask(self) -> np.ndarray:
        """Returns bool [rows of the batch]: which are in `errors`."""
        rows = len(self.errors) + sum(group.size for group in self.groups)
        mask = np.zeros(rows, bool)
        mask[list(self.errors)] = True
        return mask


def bind(batch: pa.RecordBatch, signature: Signature, defaults: Mapping[str, Default] | None = None) -> Bound:
    """Returns the batch as the signature's input tensors.

    Args:
      defaults: by column, the value that replaces nulls.

    Raises:
      UsageError: a default that is needed does not fit its column.
    """
    errors = RowErrors(batch.num_rows)
    if signature.takes_examples:
        columns = {signature.inputs[0].name: _examples(batch, signature, errors, defaults or {})}
    else:
        columns = {spec.name: _column(batch, spec, errors, defaults or {}) for spec in signature.columns}
    return Bound(_groups(columns, signature.inputs, errors), dict(sorted(errors.reasons.items())))


def _column(
    batch: pa.RecordBatch, spec: ColumnSpec, errors: RowErrors, defaults: Mapping[str, Default]
) -> TensorColumn:
    return bind_column(column_or_nulls(batch, spec.name), spec, errors, defaults.get(spec.name))


def _examples(
    batch: pa.RecordBatch, signature: Signature, errors: RowErrors, defaults: Mapping[str, Default]
) -> TensorColumn:
    """Returns the column of serialized tf.Examples if the batch has it, else Examples made of the feature columns."""
    name = signature.inputs[0].name
    spec = ColumnSpec(name, "string", signature.inputs[0].row_shape)
    if batch.schema.get_field_index(name) >= 0 and name not in {feature.name for feature in signature.columns}:
        return _column(batch, spec, errors, defaults)
    encoded = Strings.from_objects(encode_examples(batch, signature.columns, errors, defaults))
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
