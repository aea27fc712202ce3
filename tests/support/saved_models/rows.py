"""The rows of a test model as columns, and as the tensors that it takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from sluice.models.batching.mini_batch import pad, slice_feeds
from sluice.models.signature import Signature
from sluice.models.tensors.binding import Feeds, bind
from tests.support.saved_models.case import ModelCase, Row


def batch_of(case: ModelCase, rows: Sequence[Row], signature: Signature) -> pa.RecordBatch:
    """Returns the rows as a reader does: with the signature's types, or inferred ones if it names no features."""
    if case.example_spec is not None:
        kinds = {"int64": pa.int64(), "float": pa.float32(), "bytes": pa.binary()}
        types = {name: pa.list_(kinds[kind]) for name, kind in case.example_spec.items()}
    else:
        types = {spec.name: _binary(spec.arrow_type) for spec in signature.columns}
    return pa.RecordBatch.from_arrays(
        [pa.array([_unwrapped(row[name], kind) for row in rows], kind) for name, kind in types.items()], list(types)
    )


def _binary(kind: pa.DataType) -> pa.DataType:
    """Returns the type with binary in place of strings, because some rows have bytes that are not text."""
    if pa.types.is_list(kind):
        return pa.list_(_binary(kind.value_type))
    return pa.binary() if pa.types.is_string(kind) else kind


def _unwrapped(value: Any, kind: pa.DataType) -> Any:
    """Returns a row's value with as many lists around it as the type has."""
    if pa.types.is_list(kind) and pa.types.is_list(kind.value_type):
        return value
    flat = np.array(value, object).reshape(-1).tolist()
    return flat if pa.types.is_list(kind) else flat[0]


def feeds_of(case: ModelCase, signature: Signature) -> list[Feeds]:
    """Returns the tensors of a case's rows, for each shape that they have; of a fixed size where the model wants it."""
    groups = bind(batch_of(case, case.rows, signature), signature, {}).groups
    fixed = [spec.shape[0] for spec in signature.inputs if spec.shape and spec.shape[0]]
    return [pad(slice_feeds(group.feeds, 0, fixed[0]), fixed[0]) if fixed else group.feeds for group in groups]
