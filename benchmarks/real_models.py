"""A model for any table, as its owner would train one: every column is an input, and the answer depends on each.

    score = sum over the columns of weight * number of the value

The number of a text is its hash. A column's weight makes its largest number the root of a prime, so that a change in
the last digits of one value changes the score, and columns that change places do too.
"""

import csv
import dataclasses
import gzip
import os
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.real_packages import read_json_rows
from sluice.models.cache import open_model
from tests.support.saved_models.by_hand import BOOL, DOUBLE, FLOAT, INT64, STRING, HandMade, Whole

OUTPUT = "model_score"
INT, SINGLE, WIDE, TRUTH, TEXT = "int64", "float32", "float64", "bool", "string"
_TYPES = {INT: INT64, SINGLE: FLOAT, WIDE: DOUBLE, TRUTH: BOOL, TEXT: STRING}
_BUCKETS = 1_000_003
# As programs write the number that is none.
_NAN = ("NaN", "nan", "-NaN", "-nan")


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of a file, and what the model takes of it.

    Attributes:
      name: in the file.
      input: in the model's signature.
    """

    name: str
    input: str
    kind: str


@dataclasses.dataclass(frozen=True)
class Table:
    """A file as pandas reads it.

    Attributes:
      columns: those that the model takes.
      values: by name of an input, [rows], with a null (pd.NA or NaN) where the file has none.
      nans: by name of an input, bool [rows]: where the file has NaN, which pandas takes for no value. It is a number.
    """

    path: str
    columns: tuple[Column, ...]
    values: Mapping[str, "pd.Series[Any]"]
    rows: int
    nans: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def nulls(self) -> dict[str, np.ndarray]:
        """Returns bool [rows] by name of an input: where there is no value."""
        found = {name: series.isna().to_numpy(bool) for name, series in self.values.items()}
        return {name: nulls & ~self.nans[name] if name in self.nans else nulls for name, nulls in found.items()}


def input_name(name: str) -> str:
    """Returns what TensorFlow makes of a column's name, for a function's argument may not have any."""
    swapped = "".join(character if character.isalnum() else "_" for character in name)
    return swapped if swapped[:1].isalpha() else f"arg_{swapped}"


def read_table(path: str) -> Table:
    """Returns a table as pandas reads it, which decides what the columns hold."""
    return _read_json(path) if ".json" in os.path.basename(path) else _read_csv(path)


def _read_csv(path: str) -> Table:
    encoding = _encoding(path)
    names = _header(path, encoding)
    # Names are given by place: pandas would number those that are there twice.
    read = {"header": 0, "names": range(len(names)), "index_col": False, "encoding": encoding}
    guessed = pd.read_csv(path, float_precision="round_trip", low_memory=False, **read)
    texts = pd.read_csv(path, dtype=str, keep_default_na=False, **read)
    series = {}
    for at in range(len(names)):
        is_text = _kind(guessed[at], at) == TEXT
        series[at] = texts[at] if is_text else guessed[at]
    nans = {at: (series[at].isna() & texts[at].isin(_NAN)).to_numpy(bool) for at in range(len(names))}
    return _table(path, names, series, nans=nans)


def _encoding(path: str) -> str:
    with _opened(path, "utf-8") as file:
        try:
            file.read()
        except UnicodeDecodeError:
            return "cp1252"
    return "utf-8"


def _opened(path: str, encoding: str) -> Any:
    opening = gzip.open if path.endswith(".gz") else open
    return opening(path, "rt", encoding=encoding, newline="")


def _header(path: str, encoding: str) -> list[str]:
    with _opened(path, "utf-8-sig" if encoding == "utf-8" else encoding) as file:
        return next(csv.reader(file))


def _read_json(path: str) -> Table:
    rows = read_json_rows(path)
    names = list(dict.fromkeys(name for row in rows for name in row))
    kinds = {name: _json_kind([row.get(name) for row in rows]) for name in names}
    series = {at: pd.Series([row.get(name) for row in rows], dtype=object) for at, name in enumerate(names)}
    return _table(path, names, series, kinds)


def _json_kind(values: Sequence[Any]) -> str:
    """Returns the kind of a key's values; "" if they are of several, or lists or objects, or none."""
    present = [value for value in values if value is not None]
    kinds = {"number" if isinstance(v, int | float) and not isinstance(v, bool) else type(v).__name__ for v in present}
    if kinds == {"number"}:
        return INT if all(isinstance(value, int) for value in present) else WIDE
    return {"bool": TRUTH, "str": TEXT}.get(kinds.pop(), "") if len(kinds) == 1 else ""


def _table(
    path: str,
    names: Sequence[str],
    series: Mapping[int, Any],
    kinds: Mapping[str, str] | None = None,
    nans: Mapping[int, np.ndarray] = MappingProxyType({}),
) -> Table:
    columns, values, taken, nans_of = [], {}, set(), {}
    for at, name in enumerate(names):
        kind = kinds[name] if kinds else _kind(series[at], at)
        given = input_name(name)
        if kind and name.strip() and given.casefold() not in taken:
            taken.add(given.casefold())
            columns.append(Column(name, given, kind))
            values[given] = series[at].reset_index(drop=True)
            nans_of |= {given: nans[at]} if at in nans else {}
    return Table(path, tuple(columns), values, len(next(iter(series.values()))), nans_of)


def _kind(series: Any, place: int) -> str:
    """Returns what the model takes of a column of CSV; of floats, every second column as float32."""
    if pd.api.types.is_bool_dtype(series.dtype):
        return TRUTH
    if pd.api.types.is_signed_integer_dtype(series.dtype):
        return INT
    if pd.api.types.is_float_dtype(series.dtype):
        return WIDE if place % 2 else SINGLE
    return TEXT


def save_model(table: Table, directory: str) -> None:
    """Writes a SavedModel for a table."""
    made = HandMade()
    sums: list[str] = []
    for column, prime in zip(table.columns, _primes(len(table.columns)), strict=True):
        weight = np.sqrt(prime) / _largest(table.values[column.input], column.kind)
        sums.append(_add_column(made, len(sums), column.kind, float(weight)))
        if len(sums) > 1:
            made.node(f"sum_{len(sums)}", "AddV2", _last_sum(len(sums) - 1), sums[-1], T=DOUBLE)
    inputs = {column.input: (_TYPES[column.kind], f"in_{at}:0", [-1]) for at, column in enumerate(table.columns)}
    made.signature(inputs, {OUTPUT: (DOUBLE, f"{_last_sum(len(sums))}:0", [-1])})
    made.write(directory)


def _last_sum(count: int) -> str:
    return "part_0" if count == 1 else f"sum_{count}"


def _add_column(made: HandMade, at: int, kind: str, weight: float) -> str:
    """Adds the nodes of a column; returns the name of the last one, float64 [rows]."""
    given = f"in_{at}"
    made.node(given, "Placeholder", dtype=_TYPES[kind], shape=[-1])
    made.constant(f"weight_{at}", weight, DOUBLE)
    number, number_type = given, _TYPES[kind]
    if kind == TEXT:
        number, number_type = f"hash_{at}", INT64
        made.node(number, "StringToHashBucketFast", given, num_buckets=Whole(_BUCKETS))
    if number_type != DOUBLE:
        made.node(f"cast_{at}", "Cast", number, SrcT=number_type, DstT=DOUBLE)
        number = f"cast_{at}"
    made.node(f"part_{at}", "Mul", number, f"weight_{at}", T=DOUBLE)
    return f"part_{at}"


def _primes(count: int) -> list[int]:
    found: list[int] = []
    number = 2
    while len(found) < count:
        if all(number % prime for prime in found):
            found.append(number)
        number += 1
    return found


def _largest(series: Any, kind: str) -> float:
    if kind == TEXT:
        return float(_BUCKETS)
    numbers = np.abs(pd.to_numeric(series.dropna()).to_numpy(np.float64)) if kind != TRUTH else np.ones(1)
    numbers = numbers[np.isfinite(numbers)]
    return float(numbers.max()) if numbers.size and numbers.max() > 0 else 1.0


def feeds(table: Table, defaults: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Returns what a direct call of the model is fed: all rows, with defaults, or else zeros, in place of nulls."""
    found = {}
    for column in table.columns:
        series, nulls = table.values[column.input], table.nulls()[column.input]
        found[column.input] = _array(series, nulls, column.kind, defaults.get(column.input, ""))
    return found


def _array(series: Any, nulls: np.ndarray, kind: str, default: str) -> np.ndarray:
    if kind == TEXT:
        return np.array(
            [default.encode() if n else str(v).encode() for v, n in zip(series, nulls, strict=True)], object
        )
    dtype = {INT: np.int64, SINGLE: np.float32, WIDE: np.float64, TRUTH: np.bool_}[kind]
    stand_in = default == "true" if kind == TRUTH else int(default or 0) if kind == INT else float(default or 0)
    return np.array([stand_in if n else v for v, n in zip(series, nulls, strict=True)], dtype)


def call_directly(directory: str, fed: dict[str, np.ndarray]) -> np.ndarray:
    """Returns the model's scores, float64 [rows], without anything of Sluice's that reads or binds columns."""
    model = open_model(directory)
    try:
        return np.asarray(model.call(fed).arrays[OUTPUT])
    finally:
        model.close()
