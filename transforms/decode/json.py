"""Lines of JSON objects to columns: pyarrow's reader for whole blocks, one row by itself where that fails."""

import contextlib
import json
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.json as pa_json

from sluice.transforms.decode.json_values import coerce, form_of, from_form
from sluice.transforms.decode.lines import LineBlock
from sluice.transforms.decode.spec import Decoded, InputSpec, finish, halve, row_failure

# So many rows are looked at for the form of a column's values, as long as they are null.
_FORM_ROWS = 20
_OPEN, _CLOSE = ord("{"), ord("}")
_SPACES = b" \t\r\n"
_IS_SPACE = np.isin(np.arange(256), list(_SPACES))
# Spaces around an object, its line end included, that are stepped over at once.
_MAX_SPACES = 8
# So few rows are decoded one by one rather than halved again.
_FEW_ROWS = 64


def decode_json(block: LineBlock, spec: InputSpec, origin: str) -> Decoded:
    """Returns the rows of a block of lines, each a JSON object; a blank line is no row.

    Keys that are not columns of the job are left alone; a missing key is a null.

    Args:
      origin: of the lines, to which the byte offset is added, e.g. "data.jsonl#byte=".
    """
    rows = np.flatnonzero(~block.blank())
    if not len(rows):
        return Decoded()
    arrays = None if _may_hold_added(block, spec) else _parse(block, rows, spec)
    if arrays is not None:
        return _finish(block, rows, arrays, spec, origin)
    # A float is not enough to hold a decimal, so those go through pyarrow as long as it takes them.
    few = 1 if any(pa.types.is_decimal(kind) for _, kind in spec.columns) else _FEW_ROWS
    if len(rows) > few:
        return halve(len(block), lambda start, stop: decode_json(block.slice(start, stop), spec, origin))
    return _decode_rows(block, rows, spec, origin)


def _finish(block: LineBlock, rows: np.ndarray, arrays: list[pa.Array], spec: InputSpec, origin: str) -> Decoded:
    payload = block.texts() if spec.payload else None
    if payload is not None and len(rows) < len(block):
        payload = payload.take(pa.array(rows))
    return Decoded([finish(arrays, spec, origin, block.positions[rows], payload)])


def _parse(block: LineBlock, rows: np.ndarray, spec: InputSpec) -> list[pa.Array] | None:
    """Returns the columns, or None if some row of the block does not fit."""
    if not _framed(block, rows):
        return None
    try:
        block.data.decode()  # pyarrow does not check the strings that it passes over
        forms = _forms(block, rows, spec)
        table = pa_json.read_json(
            pa.BufferReader(pa.py_buffer(block.data)),
            pa_json.ReadOptions(use_threads=False, block_size=len(block.data) + 1),
            pa_json.ParseOptions(explicit_schema=pa.schema(forms.items()), unexpected_field_behavior="ignore"),
        )
        if table.num_rows != len(rows):
            return None
        columns = table.combine_chunks().to_batches()[0].columns if spec.columns else []
        return [from_form(column, kind) for column, (_, kind) in zip(columns, spec.columns, strict=True)]
    except (ValueError, pa.ArrowException):
        return None


def _may_hold_added(block: LineBlock, spec: InputSpec) -> bool:
    return any(b'"%s"' % name.encode() in block.data for name in spec.added)


def _forms(block: LineBlock, rows: np.ndarray, spec: InputSpec) -> dict[str, pa.DataType]:
    """Returns the type to parse each column with, by the first rows; most often the first holds no null."""
    found: dict[str, Any] = {}
    for row in rows[:_FORM_ROWS].tolist():
        with contextlib.suppress(orjson.JSONDecodeError):  # pyarrow decides what is JSON
            values = orjson.loads(block.line(row))
            found = values | {name: value for name, value in found.items() if value is not None}
        if all(found.get(name) is not None for name, _ in spec.columns):
            break
    return {name: form_of(found.get(name), kind) for name, kind in spec.columns}


def _framed(block: LineBlock, rows: np.ndarray) -> bool:
    """Whether every row begins with a brace and ends with one.

    Then no object spans lines (a raw newline is not valid within one where `}` stands before it and `{` behind), so
    that equal counts mean one object a line. And pyarrow 25 is never shown a null first, at which it crashes.
    """
    raw = np.frombuffer(block.data, np.uint8)
    first, last = block.starts[rows], block.ends[rows] - 1
    for _ in range(_MAX_SPACES):
        spaces = _IS_SPACE[raw[last]]
        if not spaces.any():
            break
        last = np.maximum(last - spaces, first)
    for _ in range(_MAX_SPACES):
        spaces = _IS_SPACE[raw[first]]
        if not spaces.any():
            break
        first = np.minimum(first + spaces, last)
    return bool((raw[first] == _OPEN).all() and (raw[last] == _CLOSE).all() and (first < last).all())


def _decode_rows(block: LineBlock, rows: np.ndarray, spec: InputSpec, origin: str) -> Decoded:
    """Decodes each row by itself to find the bad ones; the good are then parsed as if they stood alone."""
    positions = block.positions
    good, values, failures = np.zeros(len(block), bool), [], []
    for row in rows.tolist():
        line = block.line(row)
        if not line.strip(_SPACES):
            continue
        try:
            values.append(_decode_alone(block.slice(row, row + 1), spec))
            good[row] = True
        except ValueError as error:
            failures.append(row_failure(str(error), f"{origin}{positions[row]}", line))
    if not values:
        return Decoded(failures=failures)
    sound = block.take(good)
    arrays = _parse(sound, np.arange(len(sound)), spec)
    if arrays is None:
        columns = zip(*values, strict=True) if spec.columns else ()
        arrays = [pa.array(column, kind) for column, (_, kind) in zip(columns, spec.columns, strict=True)]
    return Decoded(_finish(sound, np.arange(len(sound)), arrays, spec, origin).batches, failures)


def _decode_alone(block: LineBlock, spec: InputSpec) -> list[Any]:
    """Returns the values of the one row of a block."""
    try:
        return decode_object(block.line(0), spec)
    except _NotJson:  # pyarrow takes "Inf" for JSON and any depth, beside other rows, so it must here
        arrays = _parse(block, np.zeros(1, np.int64), spec)
        if arrays is None or _may_hold_added(block, spec):
            raise
        return [array[0].as_py() for array in arrays]


class _NotJson(ValueError):
    pass


def _loads(line: bytes) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as error:
        if b"NaN" in line or b"Infinity" in line:  # not JSON, but Python and pyarrow write and read it
            with contextlib.suppress(ValueError, TypeError, RecursionError):
                value = json.loads(line)
                orjson.dumps(value)
                return value
        raise _NotJson(f"not valid JSON: {error}") from error


def decode_object(line: bytes, spec: InputSpec) -> list[Any]:
    """Returns one JSON object's values in the order of the columns, as `pa.array` takes them.

    Raises:
      ValueError: it is not one JSON object, or a value does not fit its column; the text says which and why.
    """
    value = _loads(line)
    if not isinstance(value, dict):
        raise ValueError(f"a JSON object is expected, found a {type(value).__name__}")
    for name in spec.added:
        if name in value:
            raise ValueError(f"the row has a value '{name}', and so has the model; give --output_prefix TEXT")
    values = []
    for name, kind in spec.columns:
        try:
            values.append(coerce(value.get(name), kind))
        except (ValueError, pa.ArrowException) as error:
            raise ValueError(f"column '{name}': {error}") from error
    return values
