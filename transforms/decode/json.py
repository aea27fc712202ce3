"""Lines of JSON objects to columns: pyarrow reads whole blocks; a block that does not fit is decoded row by row.

Blocks take 3.3 us a row of 13 integers, 26 strings and a float; `orjson.loads` of each line, then columns: 7.1 us.
"""

import contextlib
import decimal
import json
import re
from collections.abc import Collection
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from sluice.models.wording import message, text_of
from sluice.transforms.core.failures import Failure
from sluice.transforms.decode.convert import ROUNDED, rounds
from sluice.transforms.decode.json_closed import closed_to
from sluice.transforms.decode.json_text import as_python_reads, may_hold, member_texts, text_columns
from sluice.transforms.decode.json_values import (
    Json,
    coerce,
    form_of,
    from_form,
    holds_decimal,
    holds_rounded,
    read_objects,
)
from sluice.transforms.decode.lines import LineBlock, is_utf8
from sluice.transforms.decode.spec import (
    Decoded,
    InputSpec,
    Undecodable,
    decode_isolated,
    finish,
    row_failure,
)

# Up to this many rows show the form of a column's values, as long as the values are null.
_FORM_ROWS = 20
_OPEN, _CLOSE = ord("{"), ord("}")
_SPACES = b" \t\r\n"
_IS_SPACE = np.isin(np.arange(256), list(_SPACES))
# The least whole number that orjson returns as a float, but for its sign.
_LEAST_FLOAT = 1 << 63
# The spaces around an object, its line end included, that the check of a block steps over.
_MAX_SPACES = 8
# What a number begins with that is whole, beyond 2**53, and has a fraction of zeros.
_LONG_WHOLE = re.compile(rb"[0-9]{16}\.0")
# A block of so few rows is decoded row by row, not halved again.
_FEW_ROWS = 64


def decode_json(block: LineBlock, spec: InputSpec, origin: str) -> Decoded:
    """Returns the rows of a block of lines, each a JSON object. A blank line is no row.

    Keys that are not columns of the job are ignored. A missing key is a null.

    Args:
      origin: the origin of a row up to its byte offset, e.g. "data.jsonl#byte=".
    """

    def decode(start: int, stop: int) -> Decoded:
        return _decode_together(block.slice(start, stop), spec, origin)

    def fail(line: int, reason: str) -> Failure:
        return row_failure(reason, f"{origin}{block.positions[line]}", block.line(line))

    return decode_isolated(len(block), decode, fail)


def _decode_together(block: LineBlock, spec: InputSpec, origin: str) -> Decoded:
    """Returns the rows of a block; a few of them are decoded row by row if they do not fit together.

    Raises:
      Undecodable: more rows do not fit together.
    """
    rows = np.flatnonzero(~block.blank())
    if not len(rows):
        return Decoded()
    arrays = None if may_hold(block.data, spec.added) else _parse(block, rows, spec)
    if arrays is not None:
        return _finish(block, rows, arrays, spec, origin)
    if len(rows) > _FEW_ROWS:
        raise Undecodable("the rows do not fit the columns together")
    return _decode_rows(block, rows, spec, origin)


def _finish(block: LineBlock, rows: np.ndarray, arrays: list[pa.Array], spec: InputSpec, origin: str) -> Decoded:
    payload = block.texts() if spec.payload else None
    if payload is not None and len(rows) < len(block):
        payload = payload.take(pa.array(rows))
    return Decoded([finish(arrays, spec, origin, block.positions[rows], payload)])


def _parse(block: LineBlock, rows: np.ndarray, spec: InputSpec) -> list[pa.Array] | None:
    """Returns the columns, or None if a row of the block does not fit."""
    # pyarrow does not check the strings of keys that it ignores.
    if not _framed(block, rows) or not is_utf8(block.data):
        return None
    try:
        forms = _forms(block, rows, spec)
        table = _read(block, rows, forms, spec)
        if table is None or table.num_rows != len(rows):
            return None
        columns = table.combine_chunks().to_batches()[0].columns if forms else []
        kinds = dict(spec.columns)
        found = {name: from_form(column, kinds[name]) for name, column in zip(forms, columns, strict=True)}
        found |= text_columns(block, rows, spec.texts)
        arrays = [found[name] for name, _ in spec.columns]
    except (ValueError, pa.ArrowException):
        return None
    exact = (array for array, (name, _) in zip(arrays, spec.columns, strict=True) if name in spec.exact)
    return None if any(map(holds_rounded, exact)) else arrays


def _read(block: LineBlock, rows: np.ndarray, forms: dict[str, pa.DataType], spec: InputSpec) -> pa.Table | None:
    """Returns the columns as they are parsed; None if an object has a key that its column is closed to.

    Raises:
      ValueError, pa.ArrowException: a row of the block does not fit.
    """
    schema = pa.schema(forms.items())
    if not spec.closed:
        return read_objects(block.data, schema, "ignore")
    try:
        table = read_objects(block.data, schema, "infer").select(schema.names)
        return table if all(table.schema.field(name).type == forms[name] for name in spec.closed) else None
    except pa.ArrowInvalid:  # also if a key that is no column has values of several types
        if any(closed_to(load_json(block.line(row)), spec) for row in rows.tolist()):
            return None
        return read_objects(block.data, schema, "ignore")


def _forms(block: LineBlock, rows: np.ndarray, spec: InputSpec) -> dict[str, pa.DataType]:
    """Returns the type to parse each column with, except texts, by the first values that are not null."""
    typed = [(name, kind) for name, kind in spec.columns if name not in spec.texts]
    found: dict[str, Json] = {}
    for row in rows[:_FORM_ROWS].tolist():
        with contextlib.suppress(orjson.JSONDecodeError):  # pyarrow decides what is JSON
            values = orjson.loads(block.line(row))
            found = values | {name: value for name, value in found.items() if value is not None}
        if all(found.get(name) is not None for name, _ in typed):
            break
    return {name: form_of(found.get(name), kind) for name, kind in typed}


def _framed(block: LineBlock, rows: np.ndarray) -> bool:
    """Whether every row begins with a brace and ends with one.

    Then no object spans lines (within an object no newline is valid between `}` and `{`), so equal counts mean one
    object a line. It also keeps from pyarrow 25 a null as the first value, at which it crashes.
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
    """Decodes each row by itself to find the bad ones, then parses the good ones together."""
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
            failures.append(row_failure(text_of(error), f"{origin}{positions[row]}", line))
    if not values:
        return Decoded(failures=failures)
    sound = block.take(good)
    arrays = _parse(sound, np.arange(len(sound)), spec)
    if arrays is None:
        columns = zip(*values, strict=True) if spec.columns else ()
        arrays = [pa.concat_arrays(column) for column in columns]
    return Decoded(_finish(sound, np.arange(len(sound)), arrays, spec, origin).batches, failures)


def _decode_alone(block: LineBlock, spec: InputSpec) -> list[pa.Array]:
    """Returns the columns of the one row of a block."""
    line = block.line(0)
    try:
        values = decode_object(line, spec)
    except _NotJson:  # among other rows pyarrow accepts "Inf" and any depth, so a single row must pass, too
        if not _is_pyarrows(block):
            raise
        names = {name for name, _ in spec.columns if name not in spec.texts}.union(spec.added)
        values = decode_object(as_python_reads(line, names), spec)
    texts = dict.fromkeys(spec.texts) | member_texts(line, spec.texts) if spec.texts else {}
    columns = zip(values, spec.columns, strict=True)
    return [pa.array([texts.get(name, value)], kind) for value, (name, kind) in columns]


def _is_pyarrows(block: LineBlock) -> bool:
    """Whether pyarrow takes the one row of a block for an object."""
    if not _framed(block, np.zeros(1, np.int64)) or not is_utf8(block.data):
        return False
    try:
        return read_objects(block.data, pa.schema([]), "ignore").num_rows == 1
    except (ValueError, pa.ArrowException):
        return False


class _NotJson(ValueError):
    pass


def load_json(line: bytes) -> Json:
    """Returns a JSON value, in which NaN and Infinity may stand as Python writes them.

    Raises:
      ValueError: it is no JSON.
    """
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as error:
        if b"NaN" in line or b"Infinity" in line:  # not JSON, but Python and pyarrow read and write it
            with contextlib.suppress(ValueError, TypeError, RecursionError):
                value = json.loads(line)
                orjson.dumps(value)
                return value
        raise _NotJson(message("not valid JSON: {}", error)) from error


def decode_object(line: bytes, spec: InputSpec) -> list[Any]:
    """Returns the values of a JSON object in the order of the columns, in the forms that `pa.array` accepts; no texts.

    Raises:
      ValueError: the line is not one JSON object, or a value does not fit its column. The text names the column.
    """
    value = load_json(line)
    if not isinstance(value, dict):
        raise ValueError(message("a JSON object is expected, found a {kind}", kind=type(value).__name__))
    for name in spec.added:
        if name in value:
            text = "the row has a value '{name}', and so has the model; give --output_prefix TEXT"
            raise ValueError(message(text, name=name))
    values, decimals = [], {name for name, kind in spec.columns if holds_decimal(kind)}
    exact = dict.fromkeys(spec.texts) | (_exactly(line, decimals) if decimals else {})
    for name, kind in spec.columns:
        try:
            values.append(coerce(exact.get(name, value.get(name)), kind))
        except (ValueError, pa.ArrowException) as error:
            text = message("column '{name}': {}{hint}", text_of(error), name=name, hint=spec.hint(name))
            raise ValueError(text) from error
    if closed := closed_to(value, spec):
        raise ValueError(closed)
    if spec.exact and (_LONG_WHOLE.search(line) or any(map(_is_large, map(value.get, spec.exact)))):
        value = _exactly(line, spec.exact)
    for name in spec.exact:
        if rounds(value.get(name)):
            raise ValueError(message("column '{name}': {rounded}", name=name, rounded=ROUNDED))
    return values


def _exactly(line: bytes, names: Collection[str]) -> dict[str, Any]:
    """Returns the values of these keys, with whole numbers of any length and all others as Decimals.

    Raises:
      ValueError: a value is beyond the limits of Python.
    """
    try:
        values: dict[str, Any] = json.loads(as_python_reads(line, names), parse_float=decimal.Decimal)
    except RecursionError as error:
        raise ValueError("hundreds of lists or objects within another") from error
    return values


def _is_large(value: Json) -> bool:
    """Whether a float may be a whole number in the source: orjson returns those of more than 64 bits as floats."""
    if isinstance(value, list):
        return any(map(_is_large, value))
    return isinstance(value, float) and abs(value) >= _LEAST_FLOAT
