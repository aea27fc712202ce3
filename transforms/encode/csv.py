"""Scored rows as CSV.

pyarrow's CSVWriter is as fast, but quotes every string or none. Here a field is quoted only where RFC 4180 asks for it,
so that the columns of a CSV file come out as they went in.
"""

from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from sluice.models.reserved import PAYLOAD
from sluice.models.tensors.column_types import is_list
from sluice.transforms.core.search import holds
from sluice.transforms.encode.base import OutputSpec, data_bytes, data_view, join, parts, select_columns, shown_schema
from sluice.transforms.encode.json import json_texts, json_unsupported
from sluice.transforms.encode.text import check_texts, column_text, has_text

# pandas and pyarrow read these as floats (pyarrow reads `nan` as null unless `null_values` says otherwise).
_NONFINITE = ("nan", "inf", "-inf")
_SPECIAL = (b",", b'"', b"\n", b"\r")
_SPECIAL_REGEX = '[,"\r\n]'


def csv_unsupported(kind: pa.DataType, flatten: bool) -> str | None:
    """Returns the part of this shown type that a CSV field cannot hold, or None."""
    if is_list(kind) or pa.types.is_struct(kind):
        return json_unsupported(kind) if flatten else str(kind)
    return None if has_text(kind) else str(kind)


class CsvEncoder:
    """Comma-separated lines under a header line.

    Null and the empty string are both an empty field. In a file of one column they are `""`, because readers skip an
    empty line. Lists and structs (flatten) are JSON text, binary is base64, timestamps are ISO 8601, and floats may be
    nan, inf and -inf.
    """

    def __init__(self, file: BinaryIO, spec: OutputSpec) -> None:
        self._file = file
        self._raw = spec.raw
        self._schema = shown_schema(spec.schema)
        # A header is a row of strings.
        names = [*spec.raw_names, *self._schema.names]
        header = pa.RecordBatch.from_arrays([pa.array([name]) for name in names], [str(n) for n in range(len(names))])
        file.write(data_bytes(_lines(header)))
        if spec.raw:
            self._schema = self._schema.append(pa.field(PAYLOAD, pa.binary(), nullable=False))

    def write(self, batch: pa.RecordBatch) -> None:
        selected = select_columns(batch, self._schema)
        check_texts(selected)
        for part in parts(selected):
            self._file.write(data_bytes(_added_lines(part) if self._raw else _lines(part)))

    def close(self) -> None:
        """A file of lines has no end."""


def _added_lines(batch: pa.RecordBatch) -> pa.Array:
    """Returns the source line of each row, which is the last column, with the other columns as fields at its end.

    The line may be in any encoding, though its type says string: nothing here decodes it.
    """
    pieces: list[pa.Array | str] = [pc.ascii_rtrim(batch.column(PAYLOAD).view(pa.string()), "\r\n")]
    for column in batch.columns[:-1]:
        pieces += [",", _fields(column)]
    return join([*pieces, "\n"], batch.num_rows, "")


def _lines(batch: pa.RecordBatch) -> pa.Array:
    fields = [_fields(column) for column in batch.columns]
    if len(fields) == 1:
        text = fields[0].fill_null("")
        fields = [pc.if_else(pc.equal(text, ""), '""', text)]
    pieces: list[pa.Array | str] = []
    for field in fields:
        pieces += [field, ","]
    return join([*pieces[:-1], "\n"], batch.num_rows, "")


def _fields(array: pa.Array) -> pa.Array:
    """Returns string [rows], quoted if needed, null for null."""
    if is_list(array.type) or pa.types.is_struct(array.type):
        text = json_texts(array)
        array = pc.if_else(array.is_valid(), text, None) if array.null_count else text
    text = column_text(array, _NONFINITE)
    if not pa.types.is_string(array.type):
        return text
    data = data_view(text)
    if not any(holds(data, character) for character in _SPECIAL):
        return text
    quoted = pc.binary_join_element_wise('"', pc.replace_substring(text, '"', '""'), '"', "")
    return pc.if_else(pc.match_substring_regex(text, _SPECIAL_REGEX), quoted, text)
