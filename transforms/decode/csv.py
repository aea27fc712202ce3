"""Lines of CSV to columns: pyarrow reads whole blocks; a block with a bad value is converted column by column."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from sluice.models.errors import CorruptFile
from sluice.models.tensors.column_types import is_text
from sluice.models.wording import message
from sluice.transforms.core.failures import Failure
from sluice.transforms.decode.convert import ROUNDED, SURELY_WHOLE, convert_or_mark, may_round, parse_texts
from sluice.transforms.decode.json_values import parse_json
from sluice.transforms.decode.lines import BOM, LineBlock, is_utf8, open_quotes, stray_returns, unpaired_quotes
from sluice.transforms.decode.null_markers import hint, with_nulls, with_spaced_nulls
from sluice.transforms.decode.spec import (
    CsvOptions,
    Decoded,
    InputSpec,
    Undecodable,
    check_columns,
    decode_isolated,
    finish,
    row_failure,
)


def decode_csv(block: LineBlock, names: Sequence[str], spec: InputSpec, origin: str) -> Decoded:
    """Returns the rows of a block of lines.

    Args:
      block: whole lines, without the header. A blank line is no row.
      names: the fields, in order.
      origin: the origin of a row up to its byte offset, e.g. "data.csv#byte=".

    Raises:
      CorruptFile: the header lacks a column of the job.
    """
    check_header(names, spec)
    torn = _torn_lines(block, spec.csv)
    if not torn:
        return _decode(block, names, spec, origin)
    sound = np.ones(len(block), bool)
    sound[list(torn)] = False
    decoded = decode_csv(block.take(sound), names, spec, origin)
    return Decoded(decoded.batches, _failures(block, torn, origin) + decoded.failures)


def check_header(names: Sequence[str], spec: InputSpec) -> None:
    """Checks that the fields of a file are those of the job.

    Raises:
      CorruptFile: they are not.
    """
    check_columns(spec, names, "the header")
    if spec.header and tuple(names) != spec.header:
        raise CorruptFile(
            "the header is not that of the first file, and lines are written as they are; give all files one header, "
            "or name the columns to write with --columns, which are then found by name"
        )


def open_quote_failures(block: LineBlock, origin: str, first: int) -> Decoded:
    """Returns a failure for every row of a block in a range with an open quote: any row may be half a value.

    Args:
      first: the position in the file of the first line with such a quote.
    """
    message = (
        f"quotes are left open at a line's end in this part of the file (the first at {origin}{first}), so rows cannot "
        "be told apart: if values hold newlines, give --allow_quoted_newlines; if quotes mean nothing, give "
        '--csv_quote_char ""'
    )
    return Decoded(failures=_failures(block, dict.fromkeys(np.flatnonzero(~block.blank()), message), origin))


def find_open_quote(block: LineBlock, options: CsvOptions) -> int | None:
    """Returns the position of the first line that leaves a quote open, or would if the block began within quotes.

    None means that every line is a row, unless one row spans the whole block.
    """
    lines = np.flatnonzero(unpaired_quotes(block, options.quote, options.delimiter.encode()))
    return int(block.positions[lines[0]]) if len(lines) else None


def _torn_lines(block: LineBlock, options: CsvOptions) -> dict[int, str]:
    """Returns the lines that pyarrow would not read as one row each, with the reason; only the first kind it finds.

    Rows are matched with lines by counting, so no line may join the next one or count as two.
    """
    # No step parses columns that are only carried, and pyarrow's error handler needs text.
    if not is_utf8(block.data):
        return _not_utf8(block, options.encoding or "UTF-8")
    opened = np.flatnonzero(open_quotes(block, options.quote, options.delimiter.encode()))
    if len(opened):
        return dict.fromkeys(opened.tolist(), message("a quote is opened and not closed"))
    stray = np.flatnonzero(stray_returns(block, options.quote, options.delimiter.encode()))
    return dict.fromkeys(stray.tolist(), message("a carriage return within the line is not quoted"))


def _not_utf8(block: LineBlock, encoding: str) -> dict[int, str]:
    reasons: dict[int, str] = {}
    for line in range(len(block)):
        try:
            block.line(line).decode()
        except UnicodeDecodeError as error:
            text = "the line is not valid {encoding}: byte {:#04x} at place {place}"
            reasons[line] = message(text, error.object[error.start], place=error.start, encoding=encoding)
    return reasons


def _decode(block: LineBlock, names: Sequence[str], spec: InputSpec, origin: str) -> Decoded:
    def decode(start: int, stop: int) -> Decoded:
        return _decode_together(block.slice(start, stop), names, spec, origin)

    def fail(line: int, reason: str) -> Failure:
        return _failures(block, {line: reason}, origin)[0]

    return decode_isolated(len(block), decode, fail)


def _decode_together(block: LineBlock, names: Sequence[str], spec: InputSpec, origin: str) -> Decoded:
    """Returns the rows of a block.

    Raises:
      Undecodable: pyarrow does not find one row a line.
    """
    rows = np.flatnonzero(~block.blank())
    if not len(rows):
        return Decoded()
    wrong: list[tuple[int, str]] = []
    for typed in (True, False):
        wrong.clear()
        table = _parse(block, names, spec, wrong, typed)
        if table is not None and not (typed and _differs(table, spec)):
            break
    if table is None or table.num_rows + len(wrong) != len(rows):
        raise Undecodable(message("the line cannot be parsed as one row of CSV"))
    return _finish(block, rows, table, wrong, spec, origin)


def _parse(
    block: LineBlock, names: Sequence[str], spec: InputSpec, wrong: list[tuple[int, str]], typed: bool
) -> pa.Table | None:
    """Returns the block parsed, or None. Rows with another number of fields go to `wrong` as (row, what was found)."""

    def on_wrong(row: pa_csv.InvalidRow) -> str:
        text = "expected {wanted} fields, found {found}"
        wrong.append((row.number - 1, message(text, wanted=row.expected_columns, found=row.actual_columns)))
        return "skip"

    kinds = {name: _parsed_type(name, kind, spec) if typed else pa.binary() for name, kind in spec.columns}
    # pyarrow drops a byte order mark from the beginning of its data, which is not the beginning of the file.
    data = block.data if not block.data.startswith(BOM) else b"\n" + block.data
    options = (
        pa_csv.ReadOptions(use_threads=False, column_names=list(names), block_size=len(data) + 1),
        pa_csv.ParseOptions(
            delimiter=spec.csv.delimiter,
            quote_char=spec.csv.quote_char or False,
            newlines_in_values=spec.csv.allow_quoted_newlines,
            invalid_row_handler=on_wrong,
        ),
        pa_csv.ConvertOptions(
            # If no column is requested, pyarrow converts every one.
            include_columns=list(kinds) or list(names[:1]),
            column_types=kinds or {names[0]: pa.binary()},
            null_values=spec.csv.null_texts,
            strings_can_be_null=spec.csv.null_strings,
        ),
    )
    try:
        return pa_csv.read_csv(pa.BufferReader(pa.py_buffer(data)), *options)
    except pa.ArrowInvalid:
        return None


def _parsed_type(name: str, kind: pa.DataType, spec: InputSpec) -> pa.DataType:
    """Returns the type to parse a column as: string if pyarrow cannot parse it, or parses it unlike `parse_texts`."""
    if name in spec.decimals:
        return pa.float64()
    types = pa.types
    native = (types.is_integer, types.is_floating, types.is_boolean, types.is_decimal128)
    return kind if any(is_kind(kind) for is_kind in native) else pa.string()


def _differs(table: pa.Table, spec: InputSpec) -> bool:
    """Whether a float may be another number than its text: infinite, or a large whole number where these are exact.

    Or it is no whole number, and of a column of these.
    """
    for name, column in zip(table.column_names, table.columns, strict=True):
        if pa.types.is_floating(column.type) and pc.any(pc.is_inf(column)).as_py():
            return True
        if name in spec.decimals and not _are_whole(column):
            return True
        if name in spec.exact and pa.types.is_floating(column.type) and pc.any(may_round(column)).as_py():
            return True
    return False


def _are_whole(floats: pa.ChunkedArray) -> bool:
    """Whether all floats are whole numbers that no rounding can have made."""
    small = pc.less(pc.abs(floats), SURELY_WHOLE)
    return bool(pc.all(pc.and_(small, pc.equal(floats, pc.floor(floats))), min_count=0).as_py())


def _finish(
    block: LineBlock, rows: np.ndarray, table: pa.Table, wrong: list[tuple[int, str]], spec: InputSpec, origin: str
) -> Decoded:
    """Converts the columns that the parser left as text, and drops the bad rows."""
    reasons = {int(rows[row]): message for row, message in wrong}
    parsed = rows if not wrong else np.delete(rows, [row for row, _ in wrong])
    arrays = []
    bad = np.zeros(len(parsed), bool)
    sources = [*spec.columns, *((spec.source_of(name), kind) for name, kind in spec.fed)]
    for place, (name, kind) in enumerate(sources):
        texts = _joined(table.column(name))
        present = _without_markers(texts, kind, spec, fed=place >= len(spec.columns))
        array, misfits = _convert(present, kind, name in spec.exact)
        if misfits is not None:
            for row in np.flatnonzero(misfits & ~bad):
                reasons[int(parsed[row])] = _misfit(texts[row], name, kind, spec)
            bad |= misfits
        arrays.append(array)
    payload = block.texts() if len(parsed) == len(block) else block.texts().take(pa.array(parsed))
    batch = finish(arrays, spec, origin, block.positions[parsed], payload)
    if bad.any():
        batch = batch.filter(pa.array(~bad))
    return Decoded([batch] if batch.num_rows else [], _failures(block, dict(sorted(reasons.items())), origin))


def _joined(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()  # which copies even a single one


def _without_markers(texts: pa.Array, kind: pa.DataType, spec: InputSpec, fed: bool) -> pa.Array:
    """Returns a parsed column with nulls for what stands for no value; the parser has seen to columns with a type."""
    if not is_text(texts.type):
        return texts
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        return with_nulls(texts, spec.csv.null_texts) if fed and pa.types.is_string(kind) else texts
    return with_spaced_nulls(texts, spec.csv.null_texts) if spec.csv.null_values else texts


def _convert(array: pa.Array, kind: pa.DataType, exact: bool) -> tuple[pa.Array, np.ndarray | None]:
    """Returns a parsed column in the job's type, null where a value does not fit, and the misfits (bool [n])."""
    if array.type == kind and not pa.types.is_binary(kind):
        return array, None
    if pa.types.is_floating(array.type):  # of whole numbers, see InputSpec.decimals
        return convert_or_mark(array, lambda part: part.cast(kind), kind)
    if pa.types.is_nested(kind):
        return convert_or_mark(array, lambda part: parse_json(part, kind, exact), kind)
    return parse_texts(array, kind, exact)


def _failures(block: LineBlock, reasons: Mapping[int, str], origin: str) -> list[Failure]:
    positions = block.positions
    return [row_failure(reason, f"{origin}{positions[line]}", block.line(line)) for line, reason in reasons.items()]


def _misfit(text: pa.Scalar, name: str, kind: pa.DataType, spec: InputSpec) -> str:
    if name in spec.exact and _convert(pa.array([text.as_py()], text.type), kind, exact=False)[1] is None:
        return message("column '{name}': {}: {rounded}", _quoted(text.as_py()), name=name, rounded=ROUNDED)
    marker = "" if pa.types.is_binary(kind) else hint(_text(text.as_py()))
    wanted = f"{_named(kind)}{spec.hint(name)}{marker}"
    return message("column '{name}': {} is not {wanted}", _quoted(text.as_py()), name=name, wanted=wanted)


def _text(value: object) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value or "")


def _quoted(value: object) -> str:
    text = _text(value)
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _named(kind: pa.DataType) -> str:
    if pa.types.is_binary(kind):
        return "base64"
    return f"JSON of {kind}" if pa.types.is_nested(kind) else str(kind)
