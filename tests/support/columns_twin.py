"""Hypothesis strategies for Arrow columns of every kind, and the brute-force twin of binding: row by row, in Python."""

from __future__ import annotations

import decimal
import math
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from sluice.models.signature import ColumnSpec, arrow_type, numpy_dtype

FLOATS = ("float16", "bfloat16", "float32", "float64")
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
DTYPES = (*FLOATS, *INTEGERS, "bool", "string")
SHAPES = (
    (),
    (),
    (),
    (1,),
    (1,),
    (None,),
    (None,),
    (2,),
    (2,),
    (1, 2),
    (2, 1),
    (None, 2),
    (None, None),
    (2, 2),
    (1, None),
    (None, 1, 2),
)


class Misfit(Exception):
    """Raised for a row that does not fit."""


# --- strategies ---


def _numbers(kind: pa.DataType) -> st.SearchStrategy[Any]:
    if pa.types.is_integer(kind):
        limits = np.iinfo(kind.to_pandas_dtype())
        return st.integers(int(limits.min), int(limits.max)) | st.integers(0, 3)
    if pa.types.is_float16(kind):
        return st.floats(width=16).map(np.float16)
    width = 32 if pa.types.is_float32(kind) else 64
    whole = st.sampled_from([0.0, 1.0, -1.0, 255.0, 256.0, 2.0**31, -(2.0**31), 2.0**63, 2.0**64, -(2.0**63)])
    return st.floats(width=width) | whole


_TEXT = st.text(st.characters(codec="utf-8"), max_size=3)
_BYTES = st.binary(max_size=3)
_LEAVES: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
    *((kind, _numbers(kind)) for kind in (pa.int8(), pa.int16(), pa.int32(), pa.int64())),
    *((kind, _numbers(kind)) for kind in (pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64())),
    *((kind, _numbers(kind)) for kind in (pa.float16(), pa.float32(), pa.float64())),
    (pa.bool_(), st.booleans()),
    (pa.string(), _TEXT),
    (pa.large_string(), _TEXT),
    (pa.binary(), _BYTES),
    (pa.large_binary(), _BYTES),
    (pa.binary(2), st.binary(min_size=2, max_size=2)),
    (pa.decimal128(9, 2), st.decimals(-9999999, 9999999, places=2)),
    (pa.timestamp("us"), st.just(0)),
    (pa.null(), st.none()),
]


@st.composite
def leaves(draw: st.DrawFn, dtype: str) -> tuple[pa.DataType, st.SearchStrategy[Any]]:
    """An Arrow type of single values; usually one that can hold values of the dtype."""
    group = "bool" if dtype == "bool" else "string binary" if dtype == "string" else "int float decimal bool"
    likely = [leaf for leaf in _LEAVES if any(name in str(leaf[0]) for name in group.split())]
    return draw(st.sampled_from(likely) | st.sampled_from(_LEAVES))


@st.composite
def fitting_arrays(draw: st.DrawFn, spec: ColumnSpec, rows: int) -> pa.Array:
    """An array whose rows fit the spec, except for an occasional null; open dimensions have size 0 to 2."""
    kind = arrow_type(spec.dtype)
    values = (
        _numbers(kind) if spec.dtype not in ("string", "bool") else _TEXT if spec.dtype == "string" else st.booleans()
    )
    if draw(st.integers(0, 3)) == 0:
        values = st.none() | values
    for size in reversed(spec.shape):
        kind, (low, high) = pa.list_(kind), (0, 2) if size is None else (size, size)
        values = st.lists(values, min_size=low, max_size=high)
    return pa.array(draw(st.lists(values, min_size=rows + 1, max_size=rows + 1)), kind)[1:]


@st.composite
def arrays(draw: st.DrawFn, spec: ColumnSpec, rows: int) -> pa.Array:
    """An array of `rows` rows that may or may not fit the spec: nested, sliced, dictionary-encoded."""
    kind, values = draw(leaves(spec.dtype))
    depth = draw(st.sampled_from([len(spec.shape), len(spec.shape), 0, 1, 2]))
    nullable = draw(st.booleans())
    likely_sizes = [size for size in spec.shape if size is not None] or [1, 2]
    for _ in range(depth):
        values = st.none() | values if nullable and draw(st.booleans()) else values
        size = draw(st.sampled_from([*likely_sizes, None, None]))
        kind, values = draw(_lists(kind, values, size, draw(st.booleans())))
    values = st.none() | values if nullable else values
    before, after = draw(st.integers(0, 2)), draw(st.integers(0, 2))
    total = before + rows + after
    array = pa.array(draw(st.lists(values, min_size=total, max_size=total)), kind)
    if depth == 0 and not pa.types.is_null(kind) and draw(st.booleans()):
        array = _dictionary(array, draw(st.booleans()))
    return array[before : before + rows]


@st.composite
def _lists(
    draw: st.DrawFn, kind: pa.DataType, values: st.SearchStrategy[Any], size: int | None, large: bool
) -> tuple[pa.DataType, st.SearchStrategy[Any]]:
    """A list type over `kind`, and values for it; all of length `size` unless that is None."""
    if size is None:
        bounds = draw(st.sampled_from([(0, 2), (1, 1), (2, 2)]))
    else:
        bounds = (size, size)
    lists = st.lists(values, min_size=bounds[0], max_size=bounds[1])
    if bounds[0] == bounds[1] and draw(st.booleans()):
        return pa.list_(kind, bounds[0]), lists
    return (pa.large_list(kind) if large else pa.list_(kind)), lists


def _dictionary(array: pa.Array, null_entry: bool) -> pa.Array:
    try:
        return array.dictionary_encode("encode" if null_entry else "mask")
    except pa.ArrowNotImplementedError:  # half floats
        return array


# --- the twin ---


def expected_row(value: Any, kind: pa.DataType, spec: ColumnSpec, default: Any = None) -> np.ndarray:
    """Returns one row's tensor.

    Raises:
      Misfit: binding must report the row as an error.
    """
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    depth = 0
    while pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        kind, depth = kind.value_type, depth + 1
    if value is None:
        if depth or default is None or not spec.is_scalar or not (pa.types.is_null(kind) or may_hold(kind, spec.dtype)):
            raise Misfit
        return np.array([default], numpy_dtype(spec.dtype)).reshape(spec.shape)
    if depth == 0 and not spec.is_scalar:
        return _raw_bytes(value, kind, spec)
    if not pa.types.is_null(kind) and not may_hold(kind, spec.dtype):
        raise Misfit
    sizes = _sizes(value, depth)
    flat = [_leaf(each, kind, spec.dtype) for each in _flatten(value, depth)]
    shape = _shape(sizes, math.prod(max(size, 0) for size in sizes), spec) if depth else (1,) * len(spec.shape)
    return np.array(flat, numpy_dtype(spec.dtype)).reshape(shape)


def _raw_bytes(value: Any, kind: pa.DataType, spec: ColumnSpec) -> np.ndarray:
    count = math.prod(size or 0 for size in spec.shape)
    raw = value.encode() if isinstance(value, str) else value
    if spec.dtype != "uint8" or None in spec.shape or not may_hold(kind, "string") or len(raw) != count:
        raise Misfit
    return np.array(list(raw), np.uint8).reshape(spec.shape)


def _sizes(value: Any, depth: int) -> list[int]:
    """The length of the lists at each depth; -1 below an empty list."""
    sizes = []
    level = [value]
    for _ in range(depth):
        if any(each is None for each in level):
            raise Misfit
        if len({len(each) for each in level}) > 1:
            raise Misfit
        sizes.append(len(level[0]) if level else -1)
        level = [entry for each in level for entry in each]
    return sizes


def _flatten(value: Any, depth: int) -> list[Any]:
    return [value] if depth == 0 else [leaf for each in value for leaf in _flatten(each, depth - 1)]


def _shape(sizes: list[int], count: int, spec: ColumnSpec) -> tuple[int, ...]:
    if len(sizes) == len(spec.shape):
        if any(size not in (-1, wanted) for size, wanted in zip(sizes, spec.shape, strict=True) if wanted is not None):
            raise Misfit
        return tuple(size if size >= 0 else wanted or 0 for size, wanted in zip(sizes, spec.shape, strict=True))
    if None in spec.shape or count != math.prod(size or 0 for size in spec.shape):
        raise Misfit
    if len(sizes) > 1 and [size for size in sizes if size != 1] != [size for size in spec.shape if size != 1]:
        raise Misfit
    return tuple(size or 0 for size in spec.shape)


def may_hold(kind: pa.DataType, dtype: str) -> bool:
    """Whether single values of the Arrow type can be bound to the dtype."""
    if dtype == "string":
        return any(word in str(kind) for word in ("string", "binary"))
    if dtype == "bool":
        return kind == pa.bool_()
    if pa.types.is_decimal(kind):
        return "float" in dtype
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or kind == pa.bool_()


def _leaf(value: Any, kind: pa.DataType, dtype: str) -> Any:
    if value is None:
        raise Misfit
    if dtype == "string":
        return value.encode() if isinstance(value, str) else value
    if dtype == "bool":
        return value
    if isinstance(value, bool):
        value, kind = int(value), pa.int8()
    if "float" in dtype:
        wide = float(value) if isinstance(value, decimal.Decimal) else value
        source = np.float64 if isinstance(value, decimal.Decimal) else kind.to_pandas_dtype()
        with np.errstate(over="ignore"):
            cast = np.array([wide], source).astype(numpy_dtype(dtype))[0]
        if math.isinf(float(cast)) and math.isfinite(wide):
            raise Misfit
        return cast
    limits = np.iinfo(dtype)
    if not math.isfinite(value) or int(value) != value or not limits.min <= int(value) <= limits.max:
        raise Misfit
    return int(value)


def same(found: np.ndarray, wanted: np.ndarray) -> bool:
    """Whether two tensors have the same dtype, shape and values; NaN equals NaN."""
    if found.dtype != wanted.dtype or found.shape != wanted.shape:
        return False
    if found.dtype == object:
        return found.tolist() == wanted.tolist() and all(isinstance(value, bytes) for value in found.reshape(-1))
    return bool(((found == wanted) | ((found != found) & (wanted != wanted))).all())
