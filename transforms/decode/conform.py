"""Batches of a columnar source cast to the job's types. A value that does not fit fails its row."""

import functools

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sluice.models.tensors.column_types import is_list
from sluice.models.wording import message
from sluice.transforms.core.batches import payload_of
from sluice.transforms.decode.convert import convert_or_mark
from sluice.transforms.decode.spec import Decoded, InputSpec, finish, without_bad


def conform(batch: pa.RecordBatch, spec: InputSpec, origin: str, position: int) -> Decoded:
    """Returns the rows in the job's columns, with their origins.

    Args:
      batch: has all columns of the job, and maybe others.
      origin: see transforms.core.batches.with_origin.
      position: the position of the first row.
    """
    reasons: dict[int, str] = {}
    arrays = []
    for name, kind in spec.columns:
        found = batch.column(name)
        array, misfits = convert_or_mark(found, functools.partial(_fit, kind=kind, exact=name in spec.exact), kind)
        if misfits is not None:
            text = "column '{name}' has type {found} here, and its value does not fit {kind}"
            reason = message(text, name=name, found=found.type, kind=kind)
            reasons = dict.fromkeys(np.flatnonzero(misfits).tolist(), reason) | reasons
        arrays.append(array)
    positions = np.arange(position, position + batch.num_rows)
    whole = finish(arrays, spec, origin, positions, None)
    return without_bad(whole, reasons, origin, positions, functools.partial(payload_of, batch))


def _fit(array: pa.Array, kind: pa.DataType, exact: bool) -> pa.Array:
    """Returns the array cast to the type.

    Raises:
      ValueError: a value is invalid in the type (text that is not UTF-8), or would change.
    """
    if array.type != kind and pa.types.is_nested(kind):  # pyarrow would cast the values outside of the slice, too
        array = pa.concat_arrays([array])
    fitted = array if array.type == kind else array.cast(kind)
    fitted.validate(full=True)
    narrowed = fitted is not array and pa.types.is_floating(kind) and pa.types.is_floating(array.type)
    if narrowed and not pc.is_inf(fitted).equals(pc.is_inf(array)):
        raise ValueError(f"out of the range of {kind}")
    if exact and fitted is not array and _is_rounded(array, fitted):
        raise ValueError(f"rounded to {kind}")
    return fitted


def _is_rounded(array: pa.Array, fitted: pa.Array) -> bool:
    """Whether floats, or lists of them, have become other numbers."""
    while is_list(array.type):
        array, fitted = array.flatten(), fitted.flatten()
    if not pa.types.is_floating(array.type) or not pa.types.is_floating(fitted.type):
        return False
    same = pc.or_(pc.equal(fitted.cast(array.type), array), pc.is_nan(array))
    return not pc.all(same, min_count=0).as_py()
