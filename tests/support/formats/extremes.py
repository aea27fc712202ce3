"""Every type of Arrow with its extreme values, and values as they are stored, to compare without any conversion."""

from __future__ import annotations

import decimal
from typing import Any

import numpy as np
import pyarrow as pa

_D = decimal.Decimal
_BEYOND_DOUBLE = (1 << 53) + 1
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_LONGS = [-(1 << 63), (1 << 63) - 1, 0, 1, -1, None]
_TEXTS = ["", "a\0b", '"q",\n\r\t\\', "\ud7ff\U0010ffff\u2028", "null", "NaN", " x ", "007", None]
_BYTES = [b"", b"\xff\x00\xfe", b"abc", None]
# The first and last dates that texts have, and those before and after them.
_DAYS = [-719_163, -719_162, 2_932_896, 2_932_897]


def _integers(bits: int, signed: bool) -> pa.Array:
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    kind = getattr(pa, f"{'' if signed else 'u'}int{bits}")()
    return pa.array([low, high, 0, None, *([_BEYOND_DOUBLE] if bits == 64 else [])], kind)


def _floats(width: int) -> pa.Array:
    kind = np.dtype(f"float{width}").type
    limits = np.finfo(kind)
    ends = [limits.max, limits.min, limits.smallest_subnormal, kind(0.1), kind("nan"), kind("inf"), -kind("inf")]
    return pa.array(np.array([*ends, kind(-0.0)], kind))


def _timestamps(unit: str, zone: str | None) -> pa.Array:
    edges = [] if unit == "ns" else [days * 86_400 * _PER_SECOND[unit] for days in _DAYS]
    return pa.array([*_LONGS, 1000, *edges], pa.int64()).cast(pa.timestamp(unit, zone))


def _times(unit: str) -> pa.Array:
    storage = pa.int32() if unit in ("s", "ms") else pa.int64()
    day = 86_400 * _PER_SECOND[unit]
    kind = pa.time32(unit) if unit in ("s", "ms") else pa.time64(unit)
    return pa.array([0, 1, 1000, day - 1, day, -1, None], storage).cast(kind)


def _dictionary(values: list[Any]) -> pa.Array:
    return pa.array(values).dictionary_encode()


# By a name for the docs.
EXTREMES: dict[str, list[pa.Array]] = {
    "integers to 64 bits, uint32": [
        *(_integers(bits, True) for bits in (8, 16, 32, 64)),
        *(_integers(bits, False) for bits in (8, 16, 32)),
    ],
    "uint64": [_integers(64, False)],
    "float16, float32": [_floats(16), _floats(32)],
    "float64": [_floats(64)],
    "bool": [pa.array([True, False, None])],
    "null": [pa.nulls(2)],
    "string, large_string, string_view": [pa.array(_TEXTS, k) for k in (pa.string(), pa.large_string())]
    + [pa.array(_TEXTS, pa.string_view())],
    "binary, large_binary, binary_view, fixed_size_binary": [
        *(pa.array(_BYTES, kind) for kind in (pa.binary(), pa.large_binary(), pa.binary_view())),
        pa.array([b"\xff\x00a", None], pa.binary(3)),
    ],
    "decimal": [
        pa.array([_D("-9999999.99"), _D("0.01"), None], pa.decimal32(9, 2)),
        pa.array([_D("-9999999999999999.99")], pa.decimal64(18, 2)),
        pa.array([_D("9" * 38), _D("-" + "9" * 38), _D(0), None], pa.decimal128(38, 0)),
        pa.array([_D("0." + "9" * 38)], pa.decimal128(38, 38)),
        pa.array([_D("-" + "9" * 38 + "." + "9" * 38)], pa.decimal256(76, 38)),
    ],
    "decimal of negative scale": [pa.array([_D("12300")], pa.decimal128(5, -2))],
    "date32, date64": [
        pa.array([-(1 << 31), (1 << 31) - 1, 0, None, *_DAYS], pa.int32()).cast(pa.date32()),
        pa.array([0, *(days * 86_400_000 for days in (*_DAYS, 1 << 31, (1 << 63) // 86_400_000))]).view(pa.date64()),
    ],
    "time32, time64": [_times(unit) for unit in _PER_SECOND],
    "timestamp": [_timestamps(unit, zone) for unit in _PER_SECOND for zone in (None, "UTC", "Asia/Tokyo")],
    "duration": [pa.array(_LONGS, pa.int64()).cast(pa.duration(unit)) for unit in _PER_SECOND],
    "month_day_nano_interval": [pa.array([pa.MonthDayNano([1, 2, 3])])],
    "dictionary": [_dictionary(["a", None, ""]), _dictionary([_BEYOND_DOUBLE, None])],
    "list, large_list, fixed_size_list": [
        pa.array([[_BEYOND_DOUBLE], [], None, [7]]),
        pa.array([["a\0", ""], None], pa.large_list(pa.string())),
        pa.array([[1, 2], [3, 4]], pa.list_(pa.int64(), 2)),
    ],
    "list of float64": [pa.array([[0.1, float("nan"), -0.0], []])],
    "list of list": [pa.array([[[1], []], [], None])],
    "list of timestamp": [pa.array([[1], [1000], [1 << 62]]).cast(pa.list_(pa.timestamp("ns")))],
    "struct": [
        pa.array([{"a": _BEYOND_DOUBLE, "b": "x\0"}, None, {"a": None, "b": None}]),
        pa.array([{"a": 1}, {"a": 1 << 62}]).cast(pa.struct([("a", pa.timestamp("us"))])),
    ],
    "struct without fields": [pa.array([{}], pa.struct([]))],
    "map": [
        pa.array([[("k", 1), ("k", 2)], [], None], pa.map_(pa.string(), pa.int64())),
        pa.array([[(1, b"\xff")]], pa.map_(pa.int64(), pa.binary())),
    ],
    "list_view": [pa.array([[1], [], None], pa.list_view(pa.int64()))],
    "union": [pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([5])])],
    "run_end_encoded": [pa.RunEndEncodedArray.from_arrays(pa.array([2], pa.int32()), pa.array([7]))],
}


def stored(scalar: pa.Scalar) -> Any:
    """A value as it is stored: an integer for dates and times, a NumPy number for floats, a Decimal, text, bytes."""
    kind, types = scalar.type, pa.types
    if not scalar.is_valid:
        return None
    if types.is_dictionary(kind):
        return stored(scalar.value)
    if types.is_map(kind):
        return [{"key": stored(key), "value": stored(value)} for key, value in _items(scalar)]
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return [stored(value) for value in scalar.values]
    if types.is_struct(kind):
        return {name: stored(scalar[name]) for name in scalar}
    if types.is_floating(kind):
        return np.dtype(f"float{kind.bit_width}").type(scalar.as_py())
    if types.is_temporal(kind):
        return scalar.value
    return scalar.as_py()


def _items(scalar: pa.Scalar) -> list[tuple[pa.Scalar, pa.Scalar]]:
    pairs = scalar.values
    return list(zip(pairs.field(0), pairs.field(1), strict=True))
