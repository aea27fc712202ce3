"""Lines of JSON objects to columns: pyarrow's reader for whole blocks, one row by itself where that fails."""

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.json as pa_json

from transforms.decode import Decoded, InputSpec, finish, halve, row_failure
from transforms.json_values import coerce, form_of, from_form
from transforms.lines import LineBlock

_OPEN, _CLOSE = ord("{"), ord("}")
_SPACES = b" \t\r\n"


def decode_json(block: LineBlock, spec: InputSpec, origin: str) -> Decoded:
    """Returns the rows of a block of lines, each a JSON object; a blank line is no row.

    Keys that are not columns of the job are left alone; a missing key is a null.

    Args:
      origin: of the lines, to which the byte offset is added, e.g. "data.jsonl#byte=".
    """
    rows = np.flatnonzero(~block.blank())
    if not len(rows):
        return Decoded()
    arrays = _parse(block, rows, spec)
    if arrays is not None:
        payload = block.texts() if len(rows) == len(block) else block.texts().take(pa.array(rows))
        return Decoded([finish(arrays, spec, origin, block.offset + block.starts[rows], payload)])
    if len(rows) > 1:
        return halve(len(block), lambda start, stop: decode_json(block.slice(start, stop), spec, origin))
    return _decode_row(block, int(rows[0]), spec, origin)


def _parse(block: LineBlock, rows: np.ndarray, spec: InputSpec) -> list[pa.Array] | None:
    """Returns the columns, or None if some row of the block does not fit."""
    if not _framed(block, rows):
        return None
    try:
        block.data.decode()  # pyarrow does not check the strings that it passes over
        first = orjson.loads(block.line(int(rows[0])))
        forms = {name: form_of(first.get(name), kind) for name, kind in spec.columns}
        table = pa_json.read_json(
            pa.BufferReader(pa.py_buffer(block.data)),
            pa_json.ReadOptions(use_threads=False, block_size=len(block.data) + 1),
            pa_json.ParseOptions(explicit_schema=pa.schema(forms.items()), unexpected_field_behavior="ignore"),
        )
        if table.num_rows != len(rows):
            return None
        return [from_form(table.column(name).combine_chunks(), kind) for name, kind in spec.columns]
    except (ValueError, pa.ArrowException):
        return None


def _framed(block: LineBlock, rows: np.ndarray) -> bool:
    """Whether every row begins with a brace and ends with one.

    Then no object spans lines (a raw newline is not valid within one where `}` stands before it and `{` behind), so
    that equal counts mean one object a line. And pyarrow 25 is never shown a null first, at which it crashes.
    """
    raw = np.frombuffer(block.data, np.uint8)
    last = block.ends[rows] - 1
    for _ in range(2):  # steps over the line end, one or two bytes
        last = np.where(np.isin(raw[last], (10, 13)), last - 1, last)
    return bool((raw[block.starts[rows]] == _OPEN).all() and (raw[last] == _CLOSE).all())


def _decode_row(block: LineBlock, row: int, spec: InputSpec, origin: str) -> Decoded:
    line = block.line(row)
    at = f"{origin}{block.offset + int(block.starts[row])}"
    if not line.strip(_SPACES):
        return Decoded()
    try:
        arrays = decode_object(line, spec)
    except ValueError as error:
        return Decoded(failures=[row_failure(str(error), at, line)])
    position = np.array([block.offset + int(block.starts[row])])
    return Decoded([finish(arrays, spec, origin, position, pa.array([line], pa.binary()))])


def decode_object(line: bytes, spec: InputSpec) -> list[pa.Array]:
    """Returns one JSON object as columns of one row.

    Raises:
      ValueError: it is not one JSON object, or a value does not fit its column; the text says which and why.
    """
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"a JSON object is expected, found a {type(value).__name__}")
    arrays = []
    for name, kind in spec.columns:
        try:
            arrays.append(pa.array([coerce(value.get(name), kind)], kind))
        except (ValueError, TypeError, pa.ArrowException) as error:
            raise ValueError(f"column '{name}': {error}") from error
    return arrays
