import base64
import csv
import io
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.models.errors import CorruptFile
from sluice.models.reserved import FED
from sluice.transforms.core.formats import CSV
from sluice.transforms.decode.csv import decode_csv
from sluice.transforms.decode.lines import line_block
from sluice.transforms.decode.spec import CsvOptions, Decoded, InputSpec
from tests.support.formats.decode_cases import origins_of, payloads_of, positions_of, rows_of
from tests.support.sizes import examples

COLUMNS = (
    ("id", pa.int64()),
    ("x", pa.float32()),
    ("flag", pa.bool_()),
    ("zip", pa.string()),
    ("data", pa.binary()),
    ("tags", pa.list_(pa.int64())),
)
NAMES = tuple(name for name, _ in COLUMNS)
PAIR = (("a", pa.string()), ("b", pa.string()))
GOOD = "7,0.5,true,007,AP8=,"


def decode(data: bytes, names: tuple[str, ...] = NAMES, columns: Any = COLUMNS, at: int = 0, **options: Any) -> Decoded:
    spec = InputSpec(CSV, columns, CsvOptions(**options))
    quote = spec.csv.quote if spec.csv.allow_quoted_newlines else b""
    block = line_block(data, at, quote, spec.csv.delimiter.encode())
    decoded = decode_csv(block, names, spec, "f.csv#byte=")
    for batch in decoded.batches:
        batch.validate(full=True)
        assert batch.schema.names[: len(columns)] == [name for name, _ in columns]
    assert decoded.rows == int((~block.blank()).sum())
    return decoded


def whole(text: str) -> int:
    text = text.removesuffix(".0")
    value = int(text) if text.strip("-").isdigit() and text.isascii() else int("no")
    return value if -(2**63) <= value < 2**63 else int("no")


def single(text: str) -> float:
    with np.errstate(over="ignore"):
        value = float(np.float32(text))
    if math.isinf(value) and "inf" not in text.lower():
        raise ValueError
    return value


def integers(text: str) -> list[int] | None:
    values = json.loads(text)
    assert isinstance(values, list)
    return [whole(str(value)) for value in values]


def truth(text: str) -> bool:
    return {"true": True, "1": True, "false": False, "0": False}[text.lower()]


CONVERSIONS: dict[str, Callable[[str], Any]] = {
    "id": lambda text: whole(text.strip(" \t")) if text.strip(" \t") else None,
    "x": lambda text: single(text) if text.strip(" \t") else None,
    "flag": lambda text: truth(text) if text else None,
    "zip": str,
    "data": lambda text: base64.b64decode(text, validate=True),
    "tags": lambda text: integers(text) if text else None,
}


def twin(line: str) -> dict[str, Any] | None:
    """The row in a line by Python's csv module and explicit conversions; None if it is bad."""
    fields = next(csv.reader([line]))
    if len(fields) != len(NAMES):
        return None
    try:
        return {name: CONVERSIONS[name](text) for name, text in zip(NAMES, fields, strict=True)}
    except (ValueError, KeyError, AssertionError):
        return None


def quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


PLAIN = st.text(alphabet="a07é ;'", max_size=5)
FIELDS = [
    st.sampled_from(["1", "-5", "", "9223372036854775807", " 7 ", "1.0", "x", "9223372036854775808"]),
    st.sampled_from(["0.5", "1e10", "nan", "-inf", "", " 2 ", "1e39", "x"]),
    st.sampled_from(["true", "False", "0", "", "maybe"]),
    st.one_of(PLAIN, st.text(alphabet='a,"', max_size=5).map(quoted), st.just('5" pipe')),
    st.sampled_from(["", "AP8=", "AP8"]),
    st.sampled_from(["", "[]", '"[1, 2]"', "[3]", '"[1, null"', "7"]),
]
LINES = st.tuples(*FIELDS).map(",".join)
# Lines that may be no rows: too few fields, no UTF-8, quotes and carriage returns in odd positions.
JUNK = st.lists(
    st.sampled_from([b"a", b",", b'"', b'""', b"\r", b"\xff", b"\xc3\xa9", b"\x00", b" ", GOOD.encode()]), max_size=12
).map(b"".join)


@examples(48)
@given(st.lists(LINES, max_size=12), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_rows_are_those_that_python_reads(lines: list[str], end: str, ends: bool) -> None:
    data = end.join(lines) + (end if ends else "")
    decoded = decode(data.encode())
    expected = [twin(line) for line in lines]
    assert repr(rows_of(decoded)) == repr([row for row in expected if row is not None])
    starts = np.cumsum([0, *(len((line + end).encode()) for line in lines)]).tolist()
    good = [number for number, row in enumerate(expected) if row is not None]
    assert positions_of(origins_of(decoded)) == [starts[number] for number in good]
    assert payloads_of(decoded) == [lines[number].encode() for number in good]
    bad = [number for number, row in enumerate(expected) if row is None]
    assert [(failure.payload, failure.origin) for failure in decoded.failures] == [
        (lines[number].encode(), f"f.csv#byte={starts[number]}") for number in bad
    ]


@examples(60)
@given(st.lists(st.one_of(LINES.map(str.encode), JUNK), max_size=8), st.sampled_from(['"', ""]))
def test_a_row_does_not_depend_on_those_beside_it(lines: list[bytes], quote: str) -> None:
    data = b"".join(line + b"\n" for line in lines)
    decoded, alone, at = decode(data, quote_char=quote), Decoded(), 0
    for line in lines:
        alone.add(decode(line + b"\n", at=at, quote_char=quote))
        at += len(line) + 1
    assert repr(rows_of(decoded)) == repr(rows_of(alone))
    assert origins_of(decoded) == origins_of(alone)
    assert payloads_of(decoded) == payloads_of(alone)
    assert sorted((f.origin, f.error_message, f.payload) for f in decoded.failures) == sorted(
        (f.origin, f.error_message, f.payload) for f in alone.failures
    )
    assert all(data[int(f.origin.split("=")[1]) :].startswith(f.payload) for f in decoded.failures)


@given(st.lists(st.tuples(*[st.text(alphabet='a,"\r\n\té7', max_size=6)] * 2), min_size=1, max_size=8), st.booleans())
def test_quoted_newlines(rows: list[tuple[str, str]], all_quoted: bool) -> None:
    fields = [[quoted(text) if all_quoted or set(text) & set(',"\r\n') else text for text in row] for row in rows]
    data = "".join(",".join(row) + "\n" for row in fields).encode()
    decoded = decode(data, ("a", "b"), PAIR, allow_quoted_newlines=True)
    assert [tuple(row.values()) for row in rows_of(decoded)] == rows
    starts = positions_of(origins_of(decoded))
    pieces = [data[start:stop] for start, stop in zip(starts, [*starts[1:], None], strict=True)]
    assert [next(csv.reader(io.StringIO(piece.decode(), newline=""))) for piece in pieces] == list(map(list, rows))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"7", "expected 6 fields, found 1"),
        (GOOD.encode() + b",", "expected 6 fields, found 7"),
        (b"seven" + GOOD.encode()[1:], "column 'id': 'seven' is not int64"),
        (b"9" * 100 + GOOD.encode()[1:], f"column 'id': '{'9' * 57}...' is not int64"),
        (b"7,1e39,,,,", "column 'x': '1e39' is not float"),
        (b"7,,maybe,,,", "column 'flag': 'maybe' is not bool"),
        (b"7,,,\xff,,", "the line is not valid UTF-8: byte 0xff at place 4"),
        (b"\xff", "the line is not valid UTF-8: byte 0xff at place 0"),
        (b"7,,,,AP8,", "column 'data': 'AP8' is not base64"),
        (b"7,,,,,[1", "column 'tags': '[1' is not JSON of list<item: int64>"),
        (b'7,,,"a,,', "a quote is opened and not closed"),
        (b'7,,5",",,', "a quote is opened and not closed"),
        (b"7,,\r,a,,", "a carriage return within the line is not quoted"),
    ],
)
def test_what_is_said_of_a_bad_row(line: bytes, message: str) -> None:
    data = GOOD.encode() + b"\n" + line + b"\r\n" + GOOD.encode() + b"\n"
    decoded = decode(data, at=1000)
    assert len(rows_of(decoded)) == 2
    assert positions_of(origins_of(decoded)) == [1000, 1000 + len(GOOD) + len(line) + 3]
    (failure,) = decoded.failures
    assert (failure.stage, failure.error_type, failure.error_message) == ("decode", "InvalidRow", message)
    assert (failure.origin, failure.payload) == (f"f.csv#byte={1000 + len(GOOD) + 1}", line)


@pytest.mark.parametrize(
    ("data", "options", "expected"),
    [
        (b"007, x \n", {}, [("007", " x ")]),
        (b",\n", {}, [("", "")]),
        (b'"",""\n', {}, [("", "")]),
        (b"null,NaN\n", {}, [("null", "NaN")]),
        (b"\n\r\n\r\r\na,b\n\n", {}, [("a", "b")]),
        (b"a,b", {}, [("a", "b")]),
        (b'"a""b","c,d"\n', {}, [('a"b', "c,d")]),
        (b'"a\rb",c\n', {}, [("a\rb", "c")]),
        (b'5" pipe,6" pipe\n', {}, [('5" pipe', '6" pipe')]),
        (b'"a"b,c\n', {}, [("ab", "c")]),
        (b'a, "b"\n', {}, [("a", ' "b"')]),
        (b'a\t"b\n', {"delimiter": "\t", "quote_char": ""}, [("a", '"b')]),
        (b'a\t{"k": "v"}\n', {"delimiter": "\t"}, [("a", '{"k": "v"}')]),
        (b"a;'b;c'\n", {"delimiter": ";", "quote_char": "'"}, [("a", "b;c")]),
        (b"\xef\xbb\xbfa,b\n", {}, [("\ufeffa", "b")]),
        (b"c,d\n\xef\xbb\xbfa,b\n", {}, [("c", "d"), ("\ufeffa", "b")]),
        (b"\x00,\x00\n", {}, [("\x00", "\x00")]),
    ],
)
def test_fields_are_verbatim(data: bytes, options: dict[str, str], expected: list[tuple[str, str]]) -> None:
    decoded = decode(data, ("a", "b"), PAIR, at=3, **options)
    assert [tuple(row.values()) for row in rows_of(decoded)] == expected


def test_columns_are_chosen_by_name_and_put_in_order() -> None:
    decoded = decode(b"1,2,3\n4,5,6,7\n", ("a", "b", "c"), (("c", pa.int64()), ("a", pa.string())))
    assert rows_of(decoded) == [{"c": 3, "a": "1"}]
    assert [failure.error_message for failure in decoded.failures] == ["expected 3 fields, found 4"]


def test_rows_without_any_column_are_still_rows() -> None:
    decoded = decode(b"1,2\n3\n4,5\n", ("a", "b"), ())
    assert payloads_of(decoded) == [b"1,2", b"4,5"]
    assert origins_of(decoded) == ["f.csv#byte=0", "f.csv#byte=6"]


def test_no_payload_where_none_is_wanted() -> None:
    spec = InputSpec(CSV, PAIR, payload=False)
    (batch,) = decode_csv(line_block(b"a,b\n", 0), ("a", "b"), spec, "").batches
    assert batch.schema.names == ["a", "b", "_sluice_file", "_sluice_position"]


@pytest.mark.parametrize(
    ("names", "header", "message"),
    [
        (("a", "c"), (), "the header has no column 'b'; it has a, c"),
        (("b", "a"), ("a", "b"), "the header is not that of the first file"),
    ],
)
def test_a_file_under_another_header(names: tuple[str, ...], header: tuple[str, ...], message: str) -> None:
    with pytest.raises(CorruptFile, match=message):
        decode_csv(line_block(b"1,2\n", 0), names, InputSpec(CSV, PAIR, header=header), "")


def test_the_remedy_for_a_type_that_the_first_rows_gave() -> None:
    spec = InputSpec(CSV, (("x", pa.int64()),), guessed=("x",))
    block = line_block(b"36\n36.5\n", 0, b'"')
    (failure,) = decode_csv(block, ["x"], spec, "f.csv#byte=").failures
    assert failure.error_message == (
        "column 'x': '36.5' is not int64, the type of the whole numbers in the first rows; declare the column FLOAT64 "
        "in --input_schema"
    )


def test_the_text_of_a_column_is_carried_beside_what_the_model_is_fed() -> None:
    spec = InputSpec(CSV, (("x", pa.string()), ("y", pa.string())), fed=(("x", pa.float32()),))
    block = line_block(b' 53.3,a\n"36",b\n,c\nmany,d\n1e39,e\n', 0, b'"')
    decoded = decode_csv(block, ["x", "y"], spec, "f.csv#byte=")
    (batch,) = decoded.batches
    assert batch.column("x").to_pylist() == [" 53.3", "36", ""]
    assert batch.column(FED + "x").equals(pa.array([53.3, 36, None], pa.float32()))
    assert [failure.error_message for failure in decoded.failures] == [
        "column 'x': 'many' is not float",
        "column 'x': '1e39' is not float",
    ]
