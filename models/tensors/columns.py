"""Converts one Arrow column to one tensor: types, nulls, ranges, list lengths. Bad rows are found by masks."""

import dataclasses
import functools
import math
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sluice.models.errors import UsageError
from sluice.models.reserved import FED
from sluice.models.signature import ColumnSpec, Default, arrow_type, numpy_dtype
from sluice.models.tensors.column_types import is_list, is_raw_bytes, is_text, leaf_fits, plain_type
from sluice.models.tensors.strings import Strings, Tensor
from sluice.models.wording import message, text_of

_UNEVEN = "column '{name}' holds lists of unequal lengths; the model takes {spec}"


@functools.lru_cache(maxsize=64)
def _ones(rows: int, rank: int) -> np.ndarray:
    """Returns int64 [rows, rank] of ones, read-only: the sizes of single values, the same for every such column."""
    return np.broadcast_to(np.ones((1, 1), np.int64), (rows, rank))


@dataclasses.dataclass
class RowErrors:
    """The bad rows, each with the first reason that was found."""

    rows: int
    reasons: dict[int, str] = dataclasses.field(default_factory=dict)

    def add(self, bad: np.ndarray, reason: Callable[[int], str]) -> None:
        """Adds the rows where `bad` (bool [rows]) is true; `reason(row)` returns the text."""
        self.add_rows(np.flatnonzero(bad), reason)

    def add_rows(self, rows: np.ndarray, reason: Callable[[int], str]) -> None:
        """Adds these rows (int64 [n], in any order, possibly repeated)."""
        for row in np.unique(rows).tolist():
            if row not in self.reasons:
                self.reasons[row] = reason(row)

    def good(self) -> np.ndarray:
        """Returns bool [rows]: which have no reason."""
        mask = np.ones(self.rows, bool)
        mask[list(self.reasons)] = False
        return mask


@dataclasses.dataclass(frozen=True)
class TensorColumn:
    """A column as one flat array of values, and the position of each row's values in it.

    Attributes:
      values: [total], of the tensor's dtype.
      sizes: int64 [rows, rank]: the shape of each row; rank 0 for scalars.
      starts: int64 [rows]: a row's values are values[start:start + product of its sizes]; None: values[row] only.
    """

    values: Tensor
    sizes: np.ndarray
    starts: np.ndarray | None = None

    @property
    def counts(self) -> np.ndarray:
        """Returns int64 [rows]: how many values each row has."""
        if self.starts is None:
            return np.ones(len(self.sizes), np.int64)
        return np.diff(np.append(self.starts, self.values.size))

    def take(self, rows: np.ndarray | None, shape: tuple[int, ...]) -> Tensor:
        """Returns [len(rows), *shape] for rows that all have this shape; None: all rows."""
        count = math.prod(shape)
        wanted = len(self.sizes) if rows is None else len(rows)
        if rows is None and self.values.size == wanted * count:
            return self.values.reshape(wanted, *shape)
        if self.starts is None:
            return self.values[rows].reshape(wanted, *shape)
        starts = self.starts if rows is None else self.starts[rows]
        return self.values[starts[:, None] + np.arange(count)].reshape(wanted, *shape)


def column_or_nulls(batch: pa.RecordBatch, name: str) -> pa.Array:
    """Returns what the model is fed of the column of this name; nulls if the batch has none."""
    fed = batch.schema.get_field_index(FED + name)
    index = fed if fed >= 0 else batch.schema.get_field_index(name)
    return batch.column(index) if index >= 0 else pa.nulls(batch.num_rows)


def bind_column(array: pa.Array, spec: ColumnSpec, errors: RowErrors, default: Default | None = None) -> TensorColumn:
    """Returns the column as a tensor's values, and adds its bad rows to `errors`; the values of those are arbitrary.

    Args:
      array: [rows], of any type.
      default: the value that replaces nulls in a column of single values; None: nulls are errors.

    Raises:
      UsageError: the default is needed and does not fit.
    """
    array = plain(array, spec.arrow_type)
    if is_list(array.type):
        return _bind_lists(array, spec, errors)
    if is_raw_bytes(array.type, spec):
        return _bind_raw_bytes(array, spec, errors)
    sizes = _ones(len(array), len(spec.shape))
    if not spec.is_scalar:
        _all_bad(array, spec, errors)
        return TensorColumn(_zeros(len(array), spec), sizes)
    nulls = _null_mask(array)
    if nulls is not None and default is None:
        errors.add(nulls, lambda _: null_reason(spec))
    stand_in = None if nulls is None or default is None else default_value(default, spec)
    if isinstance(stand_in, bytes) and is_text(array.type):
        return TensorColumn(Strings.of(array, stand_in), sizes)
    values = _values(array, nulls, spec, errors)
    if stand_in is not None and isinstance(values, np.ndarray):
        values = values if values.flags.writeable else values.copy()
        values[nulls] = stand_in
    return TensorColumn(values, sizes)


@functools.lru_cache(maxsize=1024, typed=True)
def default_value(default: Default, spec: ColumnSpec) -> np.generic | bytes:
    """Returns the value that replaces nulls, in the tensor's dtype.

    Raises:
      UsageError: the default does not fit the column.
    """
    try:
        errors = RowErrors(1)
        column = bind_column(pa.array([default]), spec, errors)
        problem = errors.reasons.get(0)
    except (pa.ArrowException, OverflowError) as error:
        problem = text_of(error)
    if problem:
        raise UsageError(f"the default {default!r} of column '{spec.name}' cannot stand for {spec}: {problem}")
    value: np.generic | bytes = column.values[0]
    return value


def null_reason(spec: ColumnSpec) -> str:
    """Returns the error text for a null, with the remedy."""
    return message(
        "column '{name}' is null and the model has no default for it ({spec}); give one with --column_defaults "
        "{name}=VALUE",
        name=spec.name,
        spec=spec,
    )


def misfit_reason(spec: ColumnSpec, sizes: list[int]) -> str:
    """Returns the error text for lists of these sizes, outermost first."""
    found = f"a list of {sizes[0]}" if len(sizes) == 1 else f"lists of {' x '.join(str(size) for size in sizes)}"
    return message("column '{name}': the model takes {spec}, found {found}", name=spec.name, spec=spec, found=found)


def plain(array: pa.Array, null_type: pa.DataType) -> pa.Array:
    """Returns the array in one chunk, without extension type, and decoded unless a dictionary of non-null strings.

    An array of nulls gets the type `null_type`.
    """
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if pa.types.is_string_view(array.type) or pa.types.is_binary_view(array.type):
        return array.cast(plain_type(array.type))
    if pa.types.is_dictionary(array.type) and (array.dictionary.null_count or not is_text(array.type.value_type)):
        return plain(array.dictionary_decode(), null_type)
    return pa.nulls(len(array), null_type) if pa.types.is_null(array.type) else array


def _null_mask(array: pa.Array) -> np.ndarray | None:
    return array.is_null().to_numpy(zero_copy_only=False) if array.null_count else None


def _values(
    array: pa.Array,
    nulls: np.ndarray | None,
    spec: ColumnSpec,
    errors: RowErrors,
    counts: np.ndarray | None = None,
) -> Tensor:
    """Returns the values of an array in the tensor's dtype; nulls become zero or b"".

    Args:
      nulls: bool [len(array)]; None if there are none.
      counts: int64 [rows]: how many of the values each row has; None: one.
    """
    if not leaf_fits(array.type, spec):
        _all_bad(array, spec, errors)
        return _zeros(len(array), spec)
    if spec.dtype == "string":
        return Strings.of(array)
    if pa.types.is_decimal(array.type):
        array = array.cast(pa.string()).cast(pa.float64())  # Arrow's direct cast is one digit off for values like 4.81
    if nulls is not None:
        array = array.fill_null(_zero(array.type))
    values = array.to_numpy(zero_copy_only=False)
    target = numpy_dtype(spec.dtype)
    if values.dtype == target:
        return values
    with np.errstate(over="ignore", invalid="ignore"):
        cast = values.astype(target)
        wrong = _changed(values, cast, spec)
    if wrong is not None and wrong.any():
        positions = np.flatnonzero(wrong)
        rows = positions if counts is None else _owners(counts)[positions]
        first = dict(zip(rows[::-1].tolist(), positions[::-1].tolist(), strict=True))
        text = "column '{name}': {} does not fit {dtype}"
        errors.add_rows(rows, lambda row: message(text, values[first[row]], name=spec.name, dtype=spec.dtype))
    return cast


def _zeros(count: int, spec: ColumnSpec) -> Tensor:
    if spec.dtype == "string":
        return Strings.of(pa.nulls(count, pa.binary()))
    return np.zeros(count, numpy_dtype(spec.dtype))


def _zero(kind: pa.DataType) -> pa.Scalar:
    return pa.scalar(np.float16(0) if pa.types.is_float16(kind) else False if pa.types.is_boolean(kind) else 0, kind)


def _changed(values: np.ndarray, cast: np.ndarray, spec: ColumnSpec) -> np.ndarray | None:
    """Returns bool [n]: which numbers the target's range excludes (another integer, or infinite). None: none can be."""
    if values.dtype.kind == "b":
        return None
    if spec.dtype.startswith(("float", "bfloat")):
        if values.dtype.kind in "iu" and spec.dtype in ("float32", "float64"):
            return None
        return np.isinf(cast) & np.isfinite(values)
    if values.dtype.kind == "f":
        # What a float beyond the range becomes depends on the processor, so compare the float itself.
        wide, limits = values.astype(np.float64), np.iinfo(cast.dtype)
        return ~((wide >= float(limits.min)) & (wide < float(limits.max + 1)) & (wide == np.floor(wide)))
    return (cast.astype(values.dtype) != values) | ((cast < 0) != (values < 0))


def _bind_lists(array: pa.Array, spec: ColumnSpec, errors: RowErrors) -> TensorColumn:
    """Binds lists, nested lists, or one flat list for a shape of known sizes."""
    rows = len(array)
    counts = np.ones(rows, np.int64)
    sizes: list[np.ndarray] = []
    while is_list(array.type):
        _refuse_nulls(array, counts, spec, errors, "is null" if not sizes else "holds a null")
        lengths = np.asarray(pc.list_value_length(array).fill_null(0), np.int64)
        owner = _owners(counts)
        size, uneven = _sizes(lengths, owner, rows)
        errors.add(uneven, lambda _: message(_UNEVEN, name=spec.name, spec=spec))
        sizes.append(size)
        counts = np.bincount(owner, weights=lengths, minlength=rows).astype(np.int64)
        array = plain(array.flatten(), arrow_type(spec.dtype))
    nulls = _refuse_nulls(array, counts, spec, errors, "holds a null")
    shape, wrong = _match_shape(np.stack(sizes, 1), counts, spec)
    errors.add(wrong, lambda row: misfit_reason(spec, [int(size[row]) for size in sizes]))
    return TensorColumn(_values(array, nulls, spec, errors, counts), shape, np.cumsum(counts) - counts)


def _owners(counts: np.ndarray) -> np.ndarray:
    """Returns int64 [total]: the row of each value; `counts` is how many values each row has."""
    return np.repeat(np.arange(len(counts)), counts)


def _refuse_nulls(
    array: pa.Array, counts: np.ndarray, spec: ColumnSpec, errors: RowErrors, what: str
) -> np.ndarray | None:
    """Adds rows with nulls to `errors`; returns where the nulls are, None if there are none."""
    nulls = _null_mask(array)
    if nulls is not None:
        text = "column '{name}' {what}; the model takes {spec}"
        errors.add_rows(_owners(counts)[nulls], lambda _: message(text, name=spec.name, what=what, spec=spec))
    return nulls


def _sizes(lengths: np.ndarray, owner: np.ndarray, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the length of each row's lists, and which rows have lists of several lengths."""
    size = np.zeros(rows, np.int64)
    size[owner] = lengths
    uneven = np.zeros(rows, bool)
    uneven[owner[lengths != size[owner]]] = True
    return size, uneven


def misfits(sizes: np.ndarray, spec: ColumnSpec) -> np.ndarray:
    """Returns bool [rows]: which shapes (int64 [rows, rank]) differ from the column's in a known dimension."""
    wanted = np.array([-1 if size is None else size for size in spec.shape])
    return ((wanted >= 0) & (sizes != wanted)).any(1)


def _match_shape(found: np.ndarray, counts: np.ndarray, spec: ColumnSpec) -> tuple[np.ndarray, np.ndarray]:
    """Returns the shape of each row as the model sees it (int64 [rows, rank]), and which rows do not fit."""
    rows, depth = found.shape
    if depth == len(spec.shape):
        # The sizes inside an empty list are not known: assume those that the model takes.
        unknown = np.cumprod(found, axis=1)[:, :-1] == 0
        found[:, 1:] = np.where(unknown, [size or 0 for size in spec.shape[1:]], found[:, 1:])
        return found, misfits(found, spec)
    if spec.size is None:
        return np.zeros((rows, len(spec.shape)), np.int64), np.ones(rows, bool)
    shape = np.array(spec.shape, np.int64)
    wrong = counts != spec.size
    if depth > 1:  # nested differently from the tensor: only dimensions of size 1 may be missing or added
        kinds, kind = np.unique(found, axis=0, return_inverse=True)
        core = [size for size in spec.shape if size != 1]
        differs = [[size for size in each if size != 1] != core for each in kinds.tolist()]
        wrong |= np.array(differs, bool)[kind.reshape(-1)]
    return np.broadcast_to(shape, (rows, len(shape))), wrong


def _bind_raw_bytes(array: pa.Array, spec: ColumnSpec, errors: RowErrors) -> TensorColumn:
    """Binds bytes to a uint8 tensor of known size, such as a raw image, without a copy."""
    array = array.dictionary_decode() if pa.types.is_dictionary(array.type) else array
    _refuse_nulls(array, np.ones(len(array), np.int64), spec, errors, "is null")
    binary = array.cast(pa.large_binary())
    _, offset_buffer, data = binary.buffers()
    offsets = np.frombuffer(offset_buffer, np.int64)[binary.offset : binary.offset + len(array) + 1]
    lengths = np.diff(offsets)
    text = "column '{name}': {size} bytes, the model takes {spec}"
    errors.add(lengths != spec.size, lambda row: message(text, name=spec.name, size=lengths[row], spec=spec))
    sizes = np.broadcast_to(np.array(spec.shape, np.int64), (len(array), len(spec.shape)))
    values = np.frombuffer(data or b"", np.uint8)[offsets[0] : offsets[-1]]
    return TensorColumn(values, sizes, offsets[:-1] - offsets[0])


def _all_bad(array: pa.Array, spec: ColumnSpec, errors: RowErrors) -> None:
    text = message(
        "column '{name}' has type {type}, and the model takes {spec}", name=spec.name, type=array.type, spec=spec
    )
    errors.add(np.ones(errors.rows, bool), lambda _: text)
