"""One Arrow column to one tensor: types, nulls, ranges, list lengths; bad rows are found by mask."""

import dataclasses
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.signature import ColumnSpec, arrow_type, numpy_dtype


@dataclasses.dataclass
class RowErrors:
    """Which rows are bad and why; the first reason of a row stands."""

    rows: int
    reasons: dict[int, str] = dataclasses.field(default_factory=dict)

    def add(self, bad: np.ndarray, reason: Any) -> None:
        """Marks rows where `bad` (bool [rows]) is true; `reason(row)` gives the text."""
        for row in np.flatnonzero(bad):
            self.reasons.setdefault(int(row), reason(int(row)))

    def good(self) -> np.ndarray:
        """Returns bool [rows]."""
        mask = np.ones(self.rows, bool)
        mask[list(self.reasons)] = False
        return mask


@dataclasses.dataclass(frozen=True)
class TensorColumn:
    """A column as one flat array of values, and where each row's values stand in it.

    Attributes:
      values: [total], of the tensor's dtype.
      starts: int64 [rows]; a row's values are values[start:start + product of its sizes].
      sizes: int64 [rows, rank]: the shape of each row; rank 0 for scalars.
    """

    values: np.ndarray
    starts: np.ndarray
    sizes: np.ndarray

    def take(self, rows: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray:
        """Returns [len(rows), *shape] of rows that all have this shape; None takes every row."""
        count = int(np.prod(shape, dtype=np.int64))
        if rows is None and self.values.size == len(self.starts) * count:
            return self.values.reshape(len(self.starts), *shape)
        starts = self.starts if rows is None else self.starts[rows]
        if count == 1:
            return self.values[starts].reshape(-1, *shape)
        return self.values[starts[:, None] + np.arange(count)].reshape(len(starts), *shape)


def bind_column(array: pa.Array, spec: ColumnSpec, errors: RowErrors, default: Any = None) -> TensorColumn:
    """Returns the column as a tensor's values and adds its bad rows to `errors`; their values are arbitrary.

    Args:
      array: any Arrow array; [rows].
      default: what stands for a null; None if the model has no default for it.
    """
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if pa.types.is_null(array.type):
        array = pa.nulls(len(array), spec.arrow_type)
    if is_list(array.type):
        return _bind_lists(array, spec, errors)
    if _is_raw_image(array.type, spec):
        return _bind_raw_bytes(array, spec, errors)
    if not spec.is_scalar:
        _all_bad(array, spec, errors)
        return _scalars(np.zeros(len(array), numpy_dtype(spec.dtype)), spec)
    array = _fill_nulls(array, spec, errors, default)
    return _scalars(_values(array, spec, errors, np.arange(len(array))), spec)


def _scalars(values: np.ndarray, spec: ColumnSpec) -> TensorColumn:
    rows = len(values)
    return TensorColumn(values, np.arange(rows), np.ones((rows, len(spec.shape)), np.int64))


def _fill_nulls(array: pa.Array, spec: ColumnSpec, errors: RowErrors, default: Any) -> pa.Array:
    if array.null_count == 0:
        return array
    if default is not None:
        return array.fill_null(pa.scalar(default).cast(array.type))
    bad = array.is_null().to_numpy(zero_copy_only=False)
    errors.add(
        bad,
        lambda row: (
            f"column '{spec.name}' is null and the model has no default for it ({spec}); "
            f"give one with --column_defaults {spec.name}=VALUE"
        ),
    )
    return array.fill_null(_zero(array.type))


def _zero(kind: pa.DataType) -> pa.Scalar:
    if pa.types.is_boolean(kind):
        return pa.scalar(False, kind)
    if _is_text(kind):
        return pa.scalar(b"" if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) else "", kind)
    return pa.scalar(0).cast(kind)


def _values(array: pa.Array, spec: ColumnSpec, errors: RowErrors, owner: np.ndarray) -> np.ndarray:
    """Returns the values of an array without nulls in the tensor's dtype.

    Args:
      owner: int64 [len(array)]: the row that each value belongs to.
    """
    kind = array.type
    if spec.dtype == "string":
        if not _is_text(kind):
            _all_bad(array, spec, errors)
            return np.full(len(array), b"", object)
        binary = array.cast(pa.large_binary() if pa.types.is_large_string(kind) else _binary(kind))
        return binary.to_numpy(zero_copy_only=False)
    if pa.types.is_decimal(kind) and spec.dtype.startswith(("float", "bfloat")):
        array, kind = array.cast(pa.float64()), pa.float64()
    fits = (
        pa.types.is_boolean(kind) if spec.dtype == "bool" else pa.types.is_integer(kind) or pa.types.is_floating(kind)
    )
    if not fits:
        _all_bad(array, spec, errors)
        return np.zeros(len(array), numpy_dtype(spec.dtype))
    values = array.to_numpy(zero_copy_only=False)
    target = numpy_dtype(spec.dtype)
    if values.dtype == target:
        return values
    with np.errstate(over="ignore", invalid="ignore"):
        cast = values.astype(target)
        wrong = _changed(values, cast, spec)
    if wrong.any():
        places = np.flatnonzero(wrong)
        first = dict(zip(owner[places][::-1].tolist(), places[::-1].tolist(), strict=True))
        bad = np.zeros(errors.rows, bool)
        bad[owner[places]] = True
        errors.add(bad, lambda row: f"column '{spec.name}': {values[first[row]]} does not fit {spec.dtype}")
    return cast


def _changed(values: np.ndarray, cast: np.ndarray, spec: ColumnSpec) -> np.ndarray:
    """Where a number is out of the target's range: another integer, or infinite though it was finite."""
    if spec.dtype.startswith(("float", "bfloat")):
        if values.dtype.kind in "iu" and spec.dtype in ("float32", "float64"):
            return np.zeros(len(values), bool)
        return np.isinf(cast.astype(np.float64)) & np.isfinite(values)
    if values.dtype.kind == "f":
        # float -> int64 of something like 1e300 is undefined, so ask the float whether it lies in the range.
        low, high = float(np.iinfo(cast.dtype).min), float(np.iinfo(cast.dtype).max)
        return ~(
            (values >= low) & (values <= high) & (values == np.floor(values)) & (cast.astype(np.float64) == values)
        )
    return (cast.astype(values.dtype) != values) | ((cast < 0) != (values < 0))


def _bind_lists(array: pa.Array, spec: ColumnSpec, errors: RowErrors) -> TensorColumn:
    """Lists, nested lists, or one flat list for a shape of known sizes."""
    rows = len(array)
    bad = array.is_null().to_numpy(zero_copy_only=False)
    errors.add(bad, lambda row: f"column '{spec.name}' is null and the model takes {spec}")
    sizes: list[np.ndarray] = []
    counts = np.ones(rows, np.int64)
    level: pa.Array = array
    while is_list(level.type):
        lengths = np.asarray(pc.list_value_length(level).fill_null(0), np.int64)
        owner = np.repeat(np.arange(rows), counts)
        size, uneven = _sizes(lengths, owner, counts, rows)
        errors.add(uneven, lambda row: f"column '{spec.name}' holds lists of unequal lengths; the model takes {spec}")
        sizes.append(size)
        counts = np.bincount(owner, weights=lengths, minlength=rows).astype(np.int64)
        level = level.flatten()
    shape, wrong = _match_shape(np.stack(sizes, 1), counts, spec)
    errors.add(
        wrong & ~bad,
        lambda row: f"column '{spec.name}': the model takes {spec}, found {_found([int(s[row]) for s in sizes])}",
    )
    owner = np.repeat(np.arange(rows), counts)
    if level.null_count:
        nulls = np.zeros(rows, bool)
        nulls[owner[level.is_null().to_numpy(zero_copy_only=False)]] = True
        errors.add(nulls, lambda row: f"column '{spec.name}' holds a null; the model takes {spec}")
        level = level.fill_null(_zero(level.type))
    values = _values(level, spec, errors, owner)
    return TensorColumn(values, np.cumsum(counts) - counts, shape)


def _sizes(lengths: np.ndarray, owner: np.ndarray, counts: np.ndarray, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns per row the length that its lists have, and where they have more than one."""
    size = np.zeros(rows, np.int64)
    size[owner] = lengths
    uneven = np.zeros(rows, bool)
    uneven[owner[lengths != size[owner]]] = True
    return size, uneven


def _match_shape(found: np.ndarray, counts: np.ndarray, spec: ColumnSpec) -> tuple[np.ndarray, np.ndarray]:
    """Returns the row shapes as the model has them (int64 [rows, rank]) and where they do not fit."""
    rows, depth = found.shape
    if depth == len(spec.shape):
        wanted = np.array([-1 if size is None else size for size in spec.shape])
        return found, ((wanted >= 0) & (found != wanted)).any(1)
    if None in spec.shape:
        return np.zeros((rows, len(spec.shape)), np.int64), np.ones(rows, bool)
    shape = np.array(spec.shape, np.int64)
    wrong = counts != shape.prod(dtype=np.int64)
    if depth > 1:  # nested otherwise than the tensor: only sizes of 1 may be left out or added
        wrong |= np.array(
            [[size for size in row if size != 1] != [s for s in shape if s != 1] for row in found.tolist()]
        )
    return np.broadcast_to(shape, (rows, len(shape))), wrong


def _found(sizes: list[int]) -> str:
    return f"a list of {sizes[0]}" if len(sizes) == 1 else f"lists of {' x '.join(str(size) for size in sizes)}"


def _is_raw_image(kind: pa.DataType, spec: ColumnSpec) -> bool:
    return spec.dtype == "uint8" and not spec.is_scalar and None not in spec.shape and _is_text(kind)


def _bind_raw_bytes(array: pa.Array, spec: ColumnSpec, errors: RowErrors) -> TensorColumn:
    """Bytes for a uint8 tensor of known size, such as a raw image."""
    count = math.prod(size or 0 for size in spec.shape)
    lengths = np.asarray(pc.binary_length(array.cast(pa.large_binary())).fill_null(0), np.int64)
    errors.add(lengths != count, lambda row: f"column '{spec.name}': {lengths[row]} bytes, the model takes {spec}")
    joined = b"".join(value or b"" for value in array.cast(pa.large_binary()).to_pylist())
    sizes = np.broadcast_to(np.array(spec.shape, np.int64), (len(array), len(spec.shape)))
    return TensorColumn(np.frombuffer(joined, np.uint8), np.cumsum(lengths) - lengths, sizes)


def _all_bad(array: pa.Array, spec: ColumnSpec, errors: RowErrors) -> None:
    errors.add(
        np.ones(errors.rows, bool), lambda _: f"column '{spec.name}' has type {array.type}, and the model takes {spec}"
    )


def _binary(kind: pa.DataType) -> pa.DataType:
    return pa.large_binary() if pa.types.is_large_binary(kind) else pa.binary()


def _is_text(kind: pa.DataType) -> bool:
    return (
        pa.types.is_string(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
    )


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


def is_list(kind: pa.DataType) -> bool:
    """Whether an Arrow type is one of the list types."""
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def type_fits(kind: pa.DataType, spec: ColumnSpec) -> bool:
    """Whether a column of this Arrow type can be bound at all; single rows may still be out of range."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_null(kind) or _is_raw_image(kind, spec):
        return True
    depth = 0
    while is_list(kind):
        kind, depth = kind.value_type, depth + 1
    if depth == 0 and not spec.is_scalar:
        return False
    if depth > 1 and depth != len(spec.shape) and None in spec.shape:
        return False
    if spec.dtype == "string":
        return _is_text(kind)
    if spec.dtype == "bool":
        return pa.types.is_boolean(kind)
    if pa.types.is_decimal(kind):
        return arrow_type(spec.dtype) in (pa.float32(), pa.float64())
    return _is_number(kind)
