"""The forms that data comes in: DataFrames, Arrow data and lists of rows, each with the outputs added to it.

pandas is not imported here: whoever has a DataFrame has imported it.
"""

import collections
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from sluice.models.errors import FailedRow, UsageError
from sluice.models.signature import ColumnSpec, Signature
from sluice.models.tensors.column_types import type_fits
from sluice.transforms.core.rows import MISFIT, column_of, fields_of, input_columns, joined, row_bytes, to_batch

# Values of Python become columns in parts of some 16 MB: the numbers of an array are objects on the way, which take
# many times its bytes. How large the rows are, a few of them show.
_PART_BYTES = 16 << 20
_LOOKED_AT = 16
_OBJECT = np.dtype(object)

_NO_FORM = "data is a pandas DataFrame, an Arrow Table or RecordBatch, or a list of dicts"


class Columns(Protocol):
    """Rows that can become columns for a model."""

    @property
    def rows(self) -> int:
        """How many rows there are."""

    def end(self, start: int, stop: int) -> int:
        """Returns where the part of rows [start, stop) ends, of a row at least, that may become columns at once."""

    def columns(self, start: int, stop: int, signature: Signature) -> tuple[pa.RecordBatch, dict[int, str]]:
        """Returns rows [start, stop) as columns for the model, and those that cannot be, from 0, with the reason."""


class Form(Columns, Protocol):
    """Data of one form, which takes outputs."""

    @property
    def names(self) -> Sequence[str] | None:
        """The names of its columns; None: each row has its own."""

    def join(self, places: np.ndarray, outputs: pa.Table) -> object:
        """Returns the rows at these places with their outputs."""

    def failures(self, failed: Sequence[FailedRow]) -> object:
        """Returns the failures."""


def form_of(data: object) -> Form:
    """Returns the form of the data.

    Raises:
      UsageError: it has none of them, or a column twice.
    """
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(data, pandas.DataFrame):
        return _Frame(data)
    if isinstance(data, pa.Table | pa.RecordBatch):
        return _Arrow(data)
    if isinstance(data, Mapping | str | bytes | np.ndarray) or not isinstance(data, Iterable):
        raise UsageError(f"{_NO_FORM}; found {type(data).__name__}")
    return _Rows(list(data))


class _Rows:
    """A list of dicts, or of what has fields as they do."""

    names = None

    def __init__(self, rows: list[Any]) -> None:
        self._rows, self.rows = rows, len(rows)

    def end(self, start: int, stop: int) -> int:
        return _end(start, stop, lambda place: row_bytes(self._rows[place]))

    def columns(self, start: int, stop: int, signature: Signature) -> tuple[pa.RecordBatch, dict[int, str]]:
        self._first = input_columns(signature)[0].name
        return to_batch(self._rows[start:stop], signature)

    def join(self, places: np.ndarray, outputs: pa.Table) -> list[dict[str, Any]]:
        return [
            joined(self._fields(place), answer)
            for place, answer in zip(places.tolist(), outputs.to_pylist(), strict=True)
        ]

    def _fields(self, place: int) -> Mapping[str, Any]:
        fields = fields_of(self._rows[place])
        return {self._first: self._rows[place]} if fields is None else fields

    def failures(self, failed: Sequence[FailedRow]) -> list[dict[str, Any]]:
        return [each._asdict() for each in failed]


class _Arrow:
    """A Table or a RecordBatch."""

    def __init__(self, data: pa.Table | pa.RecordBatch) -> None:
        self._is_batch = isinstance(data, pa.RecordBatch)
        self._table = pa.Table.from_batches([data]) if self._is_batch else data
        self.rows, self.names = self._table.num_rows, _once(self._table.column_names)

    def end(self, start: int, stop: int) -> int:
        return stop

    def columns(self, start: int, stop: int, signature: Signature) -> tuple[pa.RecordBatch, dict[int, str]]:
        there = set(self.names)
        names = [spec.name for spec in input_columns(signature, self.names) if spec.name in there]
        part = self._table.slice(start, stop - start)
        # Whatever else there is may be a feature of an unknown parser.
        part = part if signature.features == () else part.select(names)
        if not part.num_columns:  # such a table has no length
            return pa.RecordBatch.from_arrays([pa.nulls(stop - start)], [""]), {}
        return _one_batch(part), {}

    def join(self, places: np.ndarray, outputs: pa.Table) -> pa.Table | pa.RecordBatch:
        kept = self._table if len(places) == self.rows else self._table.take(pa.array(places))
        for name, column in zip(outputs.column_names, outputs.columns, strict=True):
            kept = kept.append_column(name, column)
        return _one_batch(kept) if self._is_batch else kept

    def failures(self, failed: Sequence[FailedRow]) -> pa.Table | pa.RecordBatch:
        table = _failure_table(failed)
        return _one_batch(table) if self._is_batch else table


class _Frame:
    """A DataFrame. Its own columns never pass through Arrow, so they keep their types; so does its index."""

    def __init__(self, frame: Any) -> None:
        self._frame, self.rows = frame, len(frame)
        self.names: Sequence[str] = _once(list(self._frame.columns))
        self._objects = [frame[name] for name, kind in zip(self.names, frame.dtypes, strict=True) if kind == _OBJECT]

    def end(self, start: int, stop: int) -> int:
        return _end(start, stop, lambda place: row_bytes([column.iat[place] for column in self._objects]))

    def columns(self, start: int, stop: int, signature: Signature) -> tuple[pa.RecordBatch, dict[int, str]]:
        part, there, misfits = self._frame.iloc[start:stop], set(self.names), dict[int, str]()
        specs = [spec for spec in input_columns(signature, self.names) if spec.name in there]
        columns = {spec.name: _series(part[spec.name], spec, misfits) for spec in specs}
        if signature.features == ():
            columns |= {name: pa.array(part[name], from_pandas=True) for name in self.names if name not in columns}
        columns = columns or {"": pa.nulls(stop - start)}
        return pa.RecordBatch.from_arrays([*map(_one_array, columns.values())], list(columns)), misfits

    def join(self, places: np.ndarray, outputs: pa.Table) -> object:
        kept = self._frame if len(places) == self.rows else self._frame.iloc[places]
        return sys.modules["pandas"].concat([kept, outputs.to_pandas().set_index(kept.index)], axis=1)

    def failures(self, failed: Sequence[FailedRow]) -> object:
        labels = self._frame.index.take(np.array([each.row for each in failed], np.int64))
        return _failure_table(failed).to_pandas().set_index(labels)


def _end(start: int, stop: int, size_of: Callable[[int], int]) -> int:
    """Returns where a part of rows ends that has some `_PART_BYTES`, if no row is larger than those looked at."""
    looked_at = range(start, stop, max(1, (stop - start) // _LOOKED_AT))
    largest = max(1, *map(size_of, looked_at))
    return min(stop, start + max(1, _PART_BYTES // largest))


def _series(series: Any, spec: ColumnSpec, misfits: dict[int, str]) -> pa.Array:
    """Returns a column of a DataFrame; of values of several types, each by itself."""
    try:
        array = pa.array(series, from_pandas=True)
        if type_fits(array.type, spec):
            return array
    except MISFIT:
        pass
    missing = series.isna().tolist()
    values = [None if is_missing else value for value, is_missing in zip(series.tolist(), missing, strict=True)]
    return column_of(values, spec, misfits)


def _failure_table(failed: Sequence[FailedRow]) -> pa.Table:
    types = (pa.int64(), pa.string(), pa.string(), pa.string(), pa.int64())
    columns = [pa.array([each[place] for each in failed], kind) for place, kind in enumerate(types)]
    return pa.Table.from_arrays(columns, list(FailedRow._fields))


def _one_batch(table: pa.Table) -> pa.RecordBatch:
    arrays = [_one_array(column) for column in table.columns]
    return pa.RecordBatch.from_arrays(arrays, schema=table.schema)


def _one_array(array: pa.Array | pa.ChunkedArray) -> pa.Array:
    if not isinstance(array, pa.ChunkedArray):
        return array
    return array.combine_chunks()


def _once(names: Sequence[str]) -> Sequence[str]:
    """Returns the names of columns, each of which must be there once."""
    twice = [name for name, count in collections.Counter(names).items() if count > 1]
    if twice:
        raise UsageError(f"two columns of the data are named '{twice[0]}'")
    return names
