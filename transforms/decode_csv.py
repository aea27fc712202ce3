"""Lines of CSV to columns: pyarrow's reader for whole blocks, column by column for a block with a bad value."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from models.errors import CorruptFile
from transforms.convert import convert_or_mark, text_converter
from transforms.decode import CsvOptions, Decoded, InputSpec, finish, halve, row_failure
from transforms.lines import LineBlock, odd_quotes


def decode_csv(block: LineBlock, names: Sequence[str], spec: InputSpec, origin: str) -> Decoded:
    """Returns the rows of a block of lines.

    Args:
      block: whole lines, without the header; a blank line is no row.
      names: of the fields, in order.
      origin: of the lines, to which the byte offset is added, e.g. "data.csv#byte=".

    Raises:
      CorruptFile: the header lacks a column of the job.
    """
    missing = [name for name, _ in spec.columns if name not in names]
    if missing:
        raise CorruptFile(f"the header has no column {missing[0]!r}; it has {', '.join(names)}")
    if spec.header and tuple(names) != spec.header:
        raise CorruptFile(
            "the header is not that of the first file, and lines are written as they are; give all files one header, "
            "or name the columns to write with --columns, which are then found by name"
        )
    rows = np.flatnonzero(~block.blank())
    if not len(rows):
        return Decoded()
    if spec.header and not _is_utf8(block.data):  # columns that nothing parses must be text too
        if len(rows) == 1:
            return _broken(block, int(rows[0]), "the line is not valid UTF-8", origin)
        return halve(len(block), lambda start, stop: decode_csv(block.slice(start, stop), names, spec, origin))
    wrong: list[tuple[int, str]] = []
    try:
        table = _parse(block, names, spec, wrong, typed=True)
        if _overflowed(table):
            table = None
    except pa.ArrowInvalid:
        table = None
    if table is None:
        wrong.clear()
        try:
            table = _parse(block, names, spec, wrong, typed=False)
        except pa.ArrowInvalid:
            if len(rows) == 1:
                return _broken(block, int(rows[0]), "the line cannot be parsed as CSV", origin)
            table = None
    if table is None or table.num_rows + len(wrong) != len(rows):
        if len(rows) == 1:
            return _broken(
                block, int(rows[0]), "the line does not hold one row; is there a stray carriage return?", origin
            )
        return halve(len(block), lambda start, stop: decode_csv(block.slice(start, stop), names, spec, origin))
    return _finish(block, rows, table, wrong, spec, origin)


def open_quote_failures(block: LineBlock, options: CsvOptions, origin: str) -> Decoded:
    """Fails every row of a block that belongs to a range with an open quote: any of them may be half a value."""
    first = odd_quotes(block, options.quote)
    where = f" (the first at {origin}{block.offset + int(block.starts[first[0]])})" if len(first) else ""
    message = (
        f"quotes are left open at a line's end in this part of the file{where}, so rows cannot be told apart: if "
        'values hold newlines, give --allow_quoted_newlines; if quotes mean nothing, give --csv_quote_char ""'
    )
    rows = np.flatnonzero(~block.blank())
    return Decoded(failures=[row_failure(message, _at(block, row, origin), block.line(row)) for row in rows])


def _parse(
    block: LineBlock, names: Sequence[str], spec: InputSpec, wrong: list[tuple[int, str]], typed: bool
) -> pa.Table:
    """Parses the block; rows with another number of fields go to `wrong` as (row, what was found)."""

    def on_wrong(row: pa_csv.InvalidRow) -> str:
        wrong.append((row.number - 1, f"expected {row.expected_columns} fields, found {row.actual_columns}"))
        return "skip"

    kinds = {name: _parsed_type(kind) if typed else pa.binary() for name, kind in spec.columns}
    return pa_csv.read_csv(
        pa.BufferReader(pa.py_buffer(block.data)),
        pa_csv.ReadOptions(use_threads=False, column_names=list(names), block_size=len(block.data) + 1),
        pa_csv.ParseOptions(
            delimiter=spec.csv.delimiter,
            quote_char=spec.csv.quote_char or False,
            newlines_in_values=spec.csv.allow_quoted_newlines,
            invalid_row_handler=on_wrong,
        ),
        pa_csv.ConvertOptions(
            # With no column at all asked for, pyarrow would convert every one.
            include_columns=list(kinds) or list(names[:1]),
            column_types=kinds or {names[0]: pa.binary()},
            null_values=[""],
            strings_can_be_null=False,
        ),
    )


def _parsed_type(kind: pa.DataType) -> pa.DataType:
    """Lists and base64 are read as text and converted behind the parser."""
    return pa.string() if pa.types.is_list(kind) or pa.types.is_binary(kind) else kind


def _overflowed(table: pa.Table) -> bool:
    """Whether a float is infinite: then the text must say whether it was meant to be."""
    return any(pa.types.is_floating(column.type) and pc.any(pc.is_inf(column)).as_py() for column in table.columns)


def _finish(
    block: LineBlock, rows: np.ndarray, table: pa.Table, wrong: list[tuple[int, str]], spec: InputSpec, origin: str
) -> Decoded:
    """Converts what the parser left as text, drops the bad rows and puts the columns together."""
    failures = {int(rows[row]): message for row, message in wrong}
    parsed = rows if not wrong else np.delete(rows, [row for row, _ in wrong])
    arrays = []
    bad = np.zeros(len(parsed), bool)
    for name, kind in spec.columns:
        array = table.column(name).combine_chunks()
        if array.type != kind or pa.types.is_binary(kind):
            array, misfits = convert_or_mark(array, text_converter(kind), kind)
            if misfits is not None:
                texts = table.column(name).combine_chunks()
                for row in np.flatnonzero(misfits & ~bad):
                    failures[int(parsed[row])] = f"column '{name}': {_quoted(texts[row].as_py())} is not {_named(kind)}"
                bad |= misfits
        arrays.append(array)
    positions = block.offset + block.starts[parsed]
    payload = block.texts() if len(parsed) == len(block) else block.texts().take(pa.array(parsed))
    batch = finish(arrays, spec, origin, positions, payload)
    if bad.any():
        batch = batch.filter(pa.array(~bad))
    return Decoded(
        [batch] if batch.num_rows else [],
        [row_failure(text, _at(block, row, origin), block.line(row)) for row, text in sorted(failures.items())],
    )


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _broken(block: LineBlock, row: int, message: str, origin: str) -> Decoded:
    return Decoded(failures=[row_failure(message, _at(block, row, origin), block.line(row))])


def _at(block: LineBlock, row: int, origin: str) -> str:
    return f"{origin}{block.offset + int(block.starts[row])}"


def _quoted(value: bytes | str | None) -> str:
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value or "")
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _named(kind: pa.DataType) -> str:
    if pa.types.is_binary(kind):
        return "base64"
    if pa.types.is_string(kind):
        return "valid UTF-8"
    if pa.types.is_list(kind):
        return f"a JSON list of {kind.value_type}"
    return str(kind)
