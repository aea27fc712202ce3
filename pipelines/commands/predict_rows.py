"""The rows of `sluice predict`: read from JSON, as columns for a model, and written as JSON with its outputs."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import orjson
import pyarrow as pa

from sluice.models.errors import UsageError
from sluice.models.reserved import PAYLOAD
from sluice.models.signature import ColumnSpec, Signature
from sluice.transforms.core.formats import JSONL
from sluice.transforms.core.rows import column_of, input_columns
from sluice.transforms.decode.json_values import Json, coerce
from sluice.transforms.encode.base import OutputSpec
from sluice.transforms.encode.json import json_objects
from sluice.transforms.predict.data import Answers

_EXAMPLE = """'{"x": 1}'"""


@dataclasses.dataclass(frozen=True)
class JsonRow:
    """A row.

    Attributes:
      text: as it was given.
      fields: None: it is no object.
    """

    text: bytes
    fields: dict[str, Json] | None


def parse_rows(text: str) -> list[JsonRow]:
    """Returns the rows of a JSON object, or of an array of objects.

    Raises:
      UsageError: it is neither.
    """
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise UsageError(f"--json is not JSON: {error}; give an object, as {_EXAMPLE}, or an array of them") from error
    if isinstance(found, dict):
        return [JsonRow(text.encode(), found)]
    if not isinstance(found, list):
        raise UsageError(f"--json is no row: give an object, as {_EXAMPLE}, or an array of them")
    return [_row(orjson.dumps(row), row) for row in found]


def read_rows(lines: Iterable[str]) -> list[JsonRow]:
    """Returns the rows of lines, each of which has an object, or of an array over all of them. Empty lines are skipped.

    Raises:
      UsageError: they begin an array, and are none.
    """
    texts = [line for line in lines if line.strip()]
    if texts and texts[0].lstrip().startswith("["):
        return parse_rows("".join(texts))
    return [_parse_line(text) for text in texts]


def _parse_line(text: str) -> JsonRow:
    try:
        return _row(text.encode(errors="surrogateescape"), orjson.loads(text))
    except (orjson.JSONDecodeError, UnicodeEncodeError):
        return JsonRow(text.encode(errors="surrogateescape"), None)


def _row(text: bytes, value: Json) -> JsonRow:
    return JsonRow(text, value if isinstance(value, dict) else None)


class JsonColumns:
    """Rows as columns for a model; see transforms.predict.forms.Columns."""

    def __init__(self, rows: Sequence[JsonRow]) -> None:
        self._rows, self.rows = rows, len(rows)

    def end(self, start: int, stop: int) -> int:
        return stop

    def columns(self, start: int, stop: int, signature: Signature) -> tuple[pa.RecordBatch, dict[int, str]]:
        rows = [each.fields for each in self._rows[start:stop]]
        misfits: dict[int, str] = {row: "not a JSON object" for row, fields in enumerate(rows) if fields is None}
        specs = input_columns(signature, [*(rows[0] or ())])
        columns = {spec.name: _column([(each or {}).get(spec.name) for each in rows], spec, misfits) for spec in specs}
        return pa.RecordBatch.from_arrays(list(columns.values()), list(columns)), misfits


def _column(values: Sequence[Json], spec: ColumnSpec, misfits: dict[int, str]) -> pa.Array:
    """Returns a column, of values as `sluice batch` reads them. `misfits` gets the rows that do not fit; they are null.

    A text may be {"b64": ...}, and a column of bytes is base64 in any case; true and false are numbers, too.
    """
    convert = _text if spec.dtype == "string" else _boolean if spec.dtype == "bool" else _number
    converted: list[Any] = []
    for row, value in enumerate(values):
        try:
            converted.append(convert(value, spec.arrow_type))
        except ValueError as error:
            misfits.setdefault(row, f"column '{spec.name}': {error}; the model takes {spec}")
            converted.append(None)
    return column_of(converted, spec, misfits)


def _text(value: Json, kind: pa.DataType) -> object:
    if isinstance(value, list):
        return [_text(each, kind) for each in value]
    leaf = kind.value_type if pa.types.is_list(kind) else kind
    return coerce(value, pa.binary() if isinstance(value, dict) else leaf)


def _boolean(value: Json, kind: pa.DataType) -> object:
    return coerce(value, kind)


def _number(value: Json, kind: pa.DataType) -> object:
    return coerce(_numeric(value), kind)


def _numeric(value: Json) -> Json:
    if isinstance(value, list):
        return [_numeric(each) for each in value]
    return int(value) if isinstance(value, bool) else value


def json_lines(rows: Sequence[JsonRow], answers: Answers) -> Iterator[str]:
    """Yields the rows that were predicted, each as it was given, with its outputs at its end.

    Raises:
      UsageError: a row has a member of the name of an output.
    """
    names = answers.outputs.column_names
    kept = [rows[place] for place in answers.places.tolist()]
    for name in names:
        if any(name in (row.fields or ()) for row in kept):
            raise UsageError(f"a row has a member '{name}', as the model's output is called: give --output_prefix")
    if not kept:
        return
    texts = answers.outputs.append_column(PAYLOAD, pa.array([row.text for row in kept], pa.binary()))
    spec = OutputSpec(JSONL, answers.outputs.schema, raw=True)
    for line in json_objects(texts.combine_chunks().to_batches()[0], spec).to_pylist():
        yield line.decode()
