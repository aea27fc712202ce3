"""Rows as Python has them, as the columns that a model takes. No Beam here: beam.Rows are known by what they can do."""

import decimal
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from sluice.models.errors import UsageError
from sluice.models.signature import ColumnSpec, Signature
from sluice.models.tensors.column_types import type_fits
from sluice.transforms.core.outputs import MODEL_COLUMN, VERSION_COLUMN

# The errors of pyarrow, and of numbers, that mean that a value does not fit.
MISFIT = (pa.ArrowException, TypeError, ValueError, OverflowError)
# What pyarrow knows as it is; the common types, so that most values are looked at no further.
_KNOWN = (str, bytes, int, float, bool, type(None))
_FIXED = frozenset({int, float, bool, type(None)})


def fields_of(row: object) -> Mapping[str, Any] | None:
    """Returns the fields of a mapping, a NamedTuple or a beam.Row, by name; None: it is none of these."""
    if isinstance(row, Mapping):
        return row
    as_dict = getattr(row, "_asdict", None)
    return as_dict() if callable(as_dict) else None


def input_columns(signature: Signature, names: Sequence[str] = ()) -> tuple[ColumnSpec, ...]:
    """Returns the columns that rows have for a signature.

    Args:
      names: columns that the rows have. A model of tf.Examples takes these whole where the rows have them.
    """
    whole = ColumnSpec(signature.inputs[0].name, "string") if signature.inputs else None
    if whole is not None and signature.takes_examples and whole.name in names:
        return signature.columns if whole.name in {spec.name for spec in signature.columns} else (whole,)
    return signature.columns or ((whole,) if whole is not None else ())


def to_batch(rows: Sequence[Any], signature: Signature) -> tuple[pa.RecordBatch, dict[int, str]]:
    """Returns rows as the columns of a signature, and the rows that do not fit, with the reason; they are null.

    Columns that no row has are left out, so that the defaults of the model apply.

    Args:
      rows: mappings, NamedTuples or beam.Rows; or, if the model has a single column, the values of it.
    """
    named = [fields_of(row) for row in rows]
    specs = input_columns(signature, [*(named[0] or ())] if named else [])
    misfits: dict[int, str] = {}
    if len(specs) == 1:
        named = [{specs[0].name: row} if fields is None else fields for row, fields in zip(rows, named, strict=True)]
    else:
        misfits = {
            row: f"a {type(rows[row]).__name__}, not a mapping of columns"
            for row, fields in enumerate(named)
            if fields is None
        }
    columns = {
        spec.name: column_of([None if fields is None else fields.get(spec.name) for fields in named], spec, misfits)
        for spec in specs
        if any(fields is not None and spec.name in fields for fields in named)
    }
    if not columns:
        columns = {specs[0].name: pa.nulls(len(rows), _bytes_for_text(specs[0].arrow_type))}
    return pa.RecordBatch.from_arrays(list(columns.values()), list(columns)), misfits


def column_of(values: Sequence[Any], spec: ColumnSpec, misfits: dict[int, str]) -> pa.Array:
    """Returns a column of the values' own type, which the binding casts and checks: pyarrow would cut 2.7 to 2.

    Args:
      misfits: gets the rows whose values fit no such column, with the reason; they are null.
    """
    kind = _wide(_bytes_for_text(spec.arrow_type))
    plain = [_plain(value, spec, kind) for value in values]
    try:
        array = pa.array(plain) if is_number(kind) else pa.array(plain, kind)
        if type_fits(array.type, spec) and not (is_number(kind) and any(map(_has_bool, plain))):
            return array
    except MISFIT:
        pass
    return pa.concat_arrays([_cell(row, value, spec, kind, misfits) for row, value in enumerate(plain)])


def untensored(value: object) -> object:
    """Returns the NumPy array of a tensor, whatever library it is of; any other value as it is."""
    if isinstance(value, (*_KNOWN, np.ndarray, np.generic, list, tuple)):
        return value
    as_array = getattr(value, "numpy", None)
    return as_array() if callable(as_array) else value


def _has_bool(value: object) -> bool:
    """Whether it is or holds a truth value: among numbers pyarrow takes it for 1 or 0, and alone for itself."""
    if not isinstance(value, list):
        return isinstance(value, bool)
    kinds = set(map(type, value))
    return bool in kinds or (list in kinds and any(map(_has_bool, value)))


def _wide(kind: pa.DataType) -> pa.DataType:
    """Returns the widest type of the same kind of numbers, in which the binding finds those out of range."""
    if pa.types.is_list(kind):
        return pa.list_(_wide(kind.value_type))
    if pa.types.is_floating(kind):
        return pa.float64()
    return pa.int64() if pa.types.is_integer(kind) and not pa.types.is_uint64(kind) else kind


def is_number(kind: pa.DataType) -> bool:
    """Whether a type is one of whole or floating numbers, or of lists of them."""
    while pa.types.is_list(kind):
        kind = kind.value_type
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


def _number(value: object, kind: pa.DataType) -> object:
    """Returns a value, or lists of them, as numbers of this type.

    Raises:
      ValueError, TypeError, OverflowError: it is another number in this type, or no number.
    """
    if isinstance(value, list) and pa.types.is_list(kind):
        return [_number(each, kind.value_type) for each in value]
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | decimal.Decimal):
        raise TypeError(f"{value!r} is no number")
    if pa.types.is_floating(kind):
        return float(value)
    if value != int(value):
        raise ValueError(f"{value} is no whole number")
    return int(value)


def _cell(row: int, value: object, spec: ColumnSpec, kind: pa.DataType, misfits: dict[int, str]) -> pa.Array:
    try:
        return pa.array([_number(value, kind) if is_number(kind) else value], kind)
    except MISFIT as error:
        misfits.setdefault(row, f"column '{spec.name}': {error}; the model takes {spec}")
        return pa.nulls(1, kind)


def _plain(value: object, spec: ColumnSpec, kind: pa.DataType) -> object:
    """Returns a value as Arrow accepts it: Python's types in place of NumPy's, nested in lists as the column is."""
    if not isinstance(value, _KNOWN):
        value = listed(value)
    if not pa.types.is_list(kind):
        return _only(value) if isinstance(value, list) else value
    return list(_leaves(value)) if isinstance(value, list) and not spec.nested else value


def listed(value: object) -> object:
    """Returns an array, a tensor or a tuple as Python's lists, also within lists."""
    value = untensored(value)
    if isinstance(value, np.ndarray | np.generic):
        plain = value.tolist()
        return listed(plain) if value.dtype == object else plain
    if isinstance(value, tuple):
        value = list(value)
    if isinstance(value, list) and any(not isinstance(each, _KNOWN) for each in value):
        return [listed(each) for each in value]
    return value


def _only(value: list[Any]) -> object:
    leaves = list(_leaves(value))
    return leaves[0] if len(leaves) == 1 else value


def _leaves(value: object) -> Iterator[object]:
    if isinstance(value, list | tuple):
        for each in value:
            yield from _leaves(each)
    else:
        yield value


def _bytes_for_text(kind: pa.DataType) -> pa.DataType:
    """Returns the type with bytes for strings, which need not be text."""
    if pa.types.is_list(kind):
        return pa.list_(_bytes_for_text(kind.value_type))
    return pa.binary() if pa.types.is_string(kind) else kind


def joined(fields: Mapping[str, Any], answer: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of a row followed by the outputs of a model.

    Raises:
      UsageError: the row has a field of the name of an output.
    """
    if taken := fields.keys() & answer.keys():
        raise name_taken(sorted(taken))
    return {**fields, **answer}


def name_taken(names: Sequence[str]) -> UsageError:
    """Returns the error for input columns that have the names of outputs."""
    remedy = "give output_prefix, or rename them"
    if any(name in (MODEL_COLUMN, VERSION_COLUMN) for name in names):  # of rows that a model has been at before
        remedy = "rename them, or leave them out; output_prefix does not rename _model and _version"
    return UsageError(f"the rows have the names of the model's outputs ({', '.join(names)}): {remedy}")


def row_bytes(row: object) -> int:
    """Returns roughly the bytes of a row's values."""
    fields = fields_of(row)
    return sum(map(_value_bytes, [row] if fields is None else fields.values()))


def _value_bytes(value: object) -> int:
    if type(value) in _FIXED:
        return 8
    value = untensored(value)
    if isinstance(value, np.ndarray | np.generic):
        return int(value.nbytes)
    if isinstance(value, list | tuple):
        return sum(map(_value_bytes, value))
    return len(value) if isinstance(value, str | bytes) else 8
