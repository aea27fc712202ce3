import json
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sluice.transforms.core.formats import JSONL
from sluice.transforms.decode.json import decode_json, decode_object
from sluice.transforms.decode.json_values import coerce
from sluice.transforms.decode.lines import line_block
from sluice.transforms.decode.spec import Decoded, InputSpec
from tests.support.formats.decode_cases import origins_of, payloads_of, positions_of, rows_of
from tests.support.sizes import examples

COLUMNS: tuple[tuple[str, pa.DataType], ...] = (
    ("id", pa.int64()),
    ("x", pa.float32()),
    ("name", pa.string()),
    ("data", pa.binary()),
    ("tags", pa.list_(pa.int64())),
)
SPEC = InputSpec(JSONL, COLUMNS)
GOOD = b'{"id": 7, "x": 0.5, "name": "a", "data": "AP8=", "tags": [1]}'


def decode(data: bytes, spec: InputSpec = SPEC, at: int = 0) -> Decoded:
    decoded = decode_json(line_block(data, at), spec, "f.jsonl#byte=")
    for batch in decoded.batches:
        batch.validate(full=True)
        assert batch.schema.names[: len(spec.columns)] == [name for name, _ in spec.columns]
    return decoded


def twin(line: bytes) -> dict[str, Any] | None:
    """The row in a line by Python's json module; None if it is bad."""
    try:
        value = json.loads(line)
        assert isinstance(value, dict)
        row = {name: coerce(value.get(name), kind) for name, kind in COLUMNS}
        return {name: pa.array([row[name]], kind)[0].as_py() for name, kind in COLUMNS}
    except (ValueError, AssertionError, pa.ArrowException):
        return None


VALUES = {
    "id": [0, -7, 2**63 - 1, None, 1.0, 2**63, "1", 1.5, [5], True],
    "x": [0, 0.1, 1e39, None, "NaN", "Infinity", "1", [0.5], math.nan],
    "name": ["", 'é\n"\\', None, 5, "null", "2024-01-01", {"b64": "YQ=="}],
    "data": ["AP8=", {"b64": "AP8="}, "", None, "!", {"b64": None}, {"b64": "AA==", "k": 1}],
    "tags": [[], [1, 2], None, [None], [[1], [2]], [1.0], ["1"], 1, [[1], [2, 3]]],
    "other": [None, 1, "x", {"id": [1]}, [[{}]]],
}
ROWS = st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, values in VALUES.items()})
LINES = st.builds(
    lambda row, before, after: before + json.dumps(row).encode() + after,
    ROWS,
    st.sampled_from([b"", b"", b" ", b"\t  "]),
    st.sampled_from([b"", b"", b" ", b"\r", b" " * 12]),
)
JUNK = st.sampled_from(
    [
        b"null",
        b"1",
        b"[]",
        b'"a"',
        b"{",
        b"}",
        b"{}{}",
        b'{"id": 1} {"id": 2}',
        b'{"id": 1},',
        b'{"id": 1, "id": 2}',
        b'{"id": 01}',
        b'{"id": NaN}',
        b'{"x": -Infinity}',
        b'{"name": "\xff"}',
        b'{"other": "\xff"}',
        b'{"name": "\\ud800"}',
        b'{"name": "\\ud800", "x": NaN}',
        b'{"name": "\\u0000"}',
        b'{"name": "a',
        b"{'id': 1}",
        b'{"tags": [1, {}',
        b'{"tags": [{}]}',
        b"\xef\xbb\xbf{}",
        b"\x00",
        b'{"x": 1e999}',
        b'{"other": 1e999}',
        b"[" * 2000,
        b'{"other": ' + b"[" * 2000 + b"]" * 2000 + b"}",
        b'{"id": ' + b"[" * 900 + b"1" + b"]" * 900 + b"}",
        b'{"id": ' + b'{"a":' * 900 + b"1" + b"}" * 900 + b"}",
        b'{"tags": ' + b"[" * 2000 + b"]" * 2000 + b"}",
        b'{"other": Inf, "id": 1}',
        b'{"other": -NaN, "id": 1.0}',
        b'{"id": ' + b"9" * 400 + b"}",
    ]
)

WANTED = st.fixed_dictionaries({}, optional={name: st.sampled_from(VALUES[name]) for name, _ in COLUMNS})
# What only pyarrow reads, beside values of every form.
PYARROWS = st.builds(
    lambda row, other, first: b"{%s}" % b", ".join(sorted([*row, b'"other": ' + other], reverse=first)),
    WANTED.map(lambda row: [b"%s: %s" % (json.dumps(k).encode(), json.dumps(v).encode()) for k, v in row.items()]),
    st.sampled_from([b"-NaN", b"Inf", b"-Inf", b'[Infinity, "Inf", -NaN]', b"[" * 1100 + b"]" * 1100, b'{"id": Inf}']),
    st.booleans(),
)


@examples(60)
@given(st.lists(LINES, max_size=12), st.sampled_from([b"\n", b"\r\n"]), st.booleans())
def test_rows_are_those_that_python_reads(lines: list[bytes], end: bytes, ends: bool) -> None:
    data = end.join(lines) + (end if ends else b"")
    decoded = decode(data)
    expected = [twin(line) for line in lines]
    good = [number for number, row in enumerate(expected) if row is not None]
    assert repr(rows_of(decoded)) == repr([expected[number] for number in good])
    starts = np.cumsum([0, *(len(line + end) for line in lines)]).tolist()
    assert positions_of(origins_of(decoded)) == [starts[number] for number in good]
    assert payloads_of(decoded) == [lines[number].rstrip(b"\r\n") for number in good]
    assert [(failure.origin, failure.payload) for failure in decoded.failures] == [
        (f"f.jsonl#byte={starts[number]}", lines[number].rstrip(b"\r\n"))
        for number, row in enumerate(expected)
        if row is None
    ]


@examples(60)
@example([b'{"other": -NaN, "id": 1.0}', b'{"id": 2.0}'])
@example([b'{"other": Inf, "tags": [null, 1.0]}', b'{"tags": [2.0]}'])
@example([b'{"other": Inf, "name": {"b64": "YQ=="}}', b'{"name": {"b64": "Yg=="}}'])
@example([b'{"x": Inf}', b'{"x": -Inf, "n\\u0061me": "Inf"}', b'{"\\u006eame": "a", "other": {"name": -NaN}}'])
@given(st.lists(st.one_of(LINES, JUNK, PYARROWS), max_size=10))
def test_a_row_does_not_depend_on_those_beside_it(lines: list[bytes]) -> None:
    check_alone(lines, SPEC)


DECIMALS = [b"0.12345678901234567891", b"1", b"1e2", b'"0.5"', b"[1.5]", b"NaN", b"1e999", b"null", b"9" * 5000]


@examples(60)
@example([(b'{"other": -NaN, "id": 1.0', DECIMALS[0]), (b'{"id": 2.0', b"1")])
@example([(b'{"tags": [null, 1.0]', DECIMALS[0]), (b'{"tags": [2.0]', b"1")])
@given(st.lists(st.tuples(st.one_of(LINES, PYARROWS).map(lambda line: line.strip()[:-1]), st.sampled_from(DECIMALS))))
def test_a_decimal_does_not_depend_on_the_rows_beside_it(rows: list[tuple[bytes, bytes]]) -> None:
    lines = [b'%s%s"d": %s}' % (start, b", " if start != b"{" else b"", number) for start, number in rows]
    check_alone(lines, InputSpec(JSONL, (*COLUMNS, ("d", pa.decimal128(38, 20)))))


def check_alone(lines: list[bytes], spec: InputSpec) -> None:
    data = b"".join(line + b"\n" for line in lines)
    decoded, alone, at = decode(data, spec), Decoded(), 0
    for line in lines:
        one = decode(line + b"\n", spec, at)
        assert one.rows == bool(line.strip())
        alone.add(one)
        at += len(line) + 1
    assert repr(rows_of(decoded)) == repr(rows_of(alone))
    assert origins_of(decoded) == origins_of(alone)
    assert [(f.origin, f.error_message, f.payload) for f in decoded.failures] == [
        (f.origin, f.error_message, f.payload) for f in alone.failures
    ]


TEXTS = InputSpec(JSONL, (("other", pa.string()), ("id", pa.int64()), ("tags", pa.string())), texts=("other", "tags"))


@examples(30)
@example([b'{"other": Inf, "id": 1}', b'{"id": "x"}', b'{"other": {"a": -NaN}, "id": 1.0}', b'{"id": 2}'])
@given(st.lists(st.one_of(LINES, JUNK, PYARROWS), max_size=10))
def test_a_text_does_not_depend_on_the_rows_beside_it(lines: list[bytes]) -> None:
    check_alone(lines, TEXTS)


@pytest.mark.parametrize("beside", [b"", b'{"id": "x"}'])
def test_texts_are_the_values_as_they_are_written(beside: bytes) -> None:
    written = [b"1.50", b'"a\\u0062\\"}"', b"[1, {}]", b'{"b": [9007199254740993.0]}', b"true", b"12345678901234567890"]
    lines = [b'{"id": 1, "x": {"other": 1}, "oth\\u0065r" :  %s , "tags": null}' % text for text in written]
    decoded = decode(b"\n".join([*lines, beside]), TEXTS)
    assert [row["other"] for row in rows_of(decoded)] == [text.decode() for text in written]
    assert {row["tags"] for row in rows_of(decoded)} == {None}
    assert len(decoded.failures) == bool(beside)


def test_of_a_text_that_is_there_twice_the_last_counts() -> None:
    line = b'{"other": 1, "id": 1, "other": [2]}'
    expected = [{"other": "[2]", "id": 1, "tags": None}]
    assert rows_of(decode(line, TEXTS)) == rows_of(decode(line + b"\n{", TEXTS)) == expected


@pytest.mark.parametrize("count", [1, 64, 65, 1000])
@pytest.mark.parametrize("bad", [b"null", b"[1]", b'{"id": "x"}', b"\xff", GOOD[:-1], GOOD + GOOD])
def test_one_bad_row_costs_one_row(count: int, bad: bytes) -> None:
    lines = [b'{"id": %d, "x": 0.1}' % number for number in range(count)]
    at = count // 3
    decoded = decode(b"\n".join([*lines[:at], bad, *lines[at:]]))
    assert [row["id"] for row in rows_of(decoded)] == list(range(count))
    assert [failure.payload for failure in decoded.failures] == [bad]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "not valid JSON: "),
        (b"\xff", "not valid JSON: "),
        (b'{"id": 1} {"id": 2}', "not valid JSON: "),
        (b"[1]", "a JSON object is expected, found a list"),
        (b"null", "a JSON object is expected, found a NoneType"),
        (b'{"id": "x"}', "column 'id': int64 is expected, found 'x'"),
        (b'{"id": 9223372036854775808}', "column 'id': 9223372036854775808 is out of the range of int64"),
        (b'{"x": 1e39}', "column 'x': 1e+39 is out of the range of float"),
        (b'{"name": 1}', "column 'name': a string is expected, found 1"),
        (b'{"data": "AP8"}', "column 'data': 'AP8' is not base64: "),
        (b'{"tags": 1}', "column 'tags': a list is expected, found 1"),
    ],
)
def test_what_is_said_of_a_bad_row(line: bytes, message: str) -> None:
    decoded = decode(GOOD + b"\n" + line + b"\r\n" + GOOD + b"\n", at=1000)
    assert positions_of(origins_of(decoded)) == [1000, 1000 + len(GOOD) + len(line) + 3]
    (failure,) = decoded.failures
    assert (failure.stage, failure.error_type) == ("decode", "InvalidRow")
    assert failure.error_message.startswith(message)
    assert (failure.origin, failure.payload) == (f"f.jsonl#byte={1000 + len(GOOD) + 1}", line)


def test_an_object_alone() -> None:
    assert decode_object(GOOD, SPEC) == [7, 0.5, "a", b"\x00\xff", [1]]
    with pytest.raises(ValueError, match="column 'id': int64 is expected, found 'x'"):
        decode_object(b'{"id": "x"}', SPEC)


def test_a_decimal_keeps_digits_that_a_float_has_not() -> None:
    spec = InputSpec(JSONL, (("d", pa.decimal128(38, 20)), ("i", pa.int64())))
    digits = "0.12345678901234567891"
    lines = [f'{{"d": {digits}, "i": 1}}', "x", f'{{"d": "{digits}", "i": 2}}', '{"d": 1, "i": "x"}'] * 20
    decoded = decode("\n".join(lines).encode(), spec)
    assert [str(row["d"]) for row in rows_of(decoded)] == [digits] * 40


@pytest.mark.parametrize(
    "time", ["9999-12-31T23:59:59-05:00", "0001-01-01T00:00:00+05:00", "2024-01-02T03:04:05.000000006Z"]
)
@pytest.mark.parametrize("beside", [b'{"t": "x"}', b'{"x": Inf}'])
def test_a_time_that_python_cannot_hold_is_the_same_beside_a_bad_row(time: str, beside: bytes) -> None:
    spec = InputSpec(JSONL, (("t", pa.timestamp("ns" if "." in time else "us", "UTC")), ("x", pa.float64())))
    line = b'{"t": "%s"}' % time.encode()
    (alone,) = decode(line, spec).batches
    (among,) = decode(line + b"\n" + beside, spec).batches
    assert among.column(0)[:1].equals(alone.column(0))


def test_rows_without_any_column_are_still_rows() -> None:
    decoded = decode(b'{"a": 1}\n{}\nx\n', InputSpec(JSONL, ()))
    assert payloads_of(decoded) == [b'{"a": 1}', b"{}"]
    assert [failure.payload for failure in decoded.failures] == [b"x"]


def test_blank_lines_are_no_rows() -> None:
    decoded = decode(b"\n\r\n  \n" + GOOD + b"\n \t \r\n")
    assert (len(rows_of(decoded)), decoded.failures) == (1, [])


@pytest.mark.parametrize("key", ["score", r"\u0073core", r"scor\u0065", r"\u0073\u0063\u006F\u0072\u0065"])
@pytest.mark.parametrize("others", [0, 200])
def test_a_name_that_the_output_adds_is_found_in_every_spelling(key: str, others: int) -> None:
    spec = InputSpec(JSONL, (("id", pa.int64()),), added=("score",))
    sound = [r'{"id": 1, "text": "\u0073core\": ", "a\"b": "\\", "\u0073": ":"}'] * others
    decoded = decode("\n".join([*sound, f'{{"id": 2, "{key}": 5}}', *sound]).encode(), spec)
    assert [failure.payload for failure in decoded.failures] == [f'{{"id": 2, "{key}": 5}}'.encode()]
    assert "the row has a value 'score', and so has the model" in decoded.failures[0].error_message
    assert len(rows_of(decoded)) == 2 * others


@pytest.mark.parametrize("name", ['a"b', "a/b", "é", "𝄞", "a\\b", "a\tb"])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_any_name_that_the_output_adds_is_found(name: str, ascii_only: bool) -> None:
    spec = InputSpec(JSONL, (), added=(name,))
    spelled = json.dumps(name, ensure_ascii=ascii_only).replace("/", "\\/" if ascii_only else "/")
    assert len(decode(f'{{"x": 1, {spelled}: 5}}\n{{"x": 1}}\n'.encode(), spec).failures) == 1


def test_a_row_is_parsed_once_unless_a_number_may_be_a_long_whole_one(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = InputSpec(JSONL, (("x", pa.float64()),), exact=("x",))
    with pytest.raises(ValueError, match="float64 can only hold it rounded"):
        decode_object(b'{"x": -18446744073709551617}', spec)
    with pytest.raises(ValueError, match="float64 can only hold it rounded"):
        decode_object(b'{"x": 9007199254740993.0}', spec)
    with pytest.raises(ValueError, match="float64 can only hold it rounded"):
        decode_object(b'{"x": -18446744073709551617.00}', spec)
    assert decode_object(b'{"x": 1e300}', spec) == [1e300]
    assert decode_object(b'{"x": 9007199254740992.0}', spec) == [9007199254740992.0]
    assert decode_object(b'{"x": 9007199254740993.5}', spec) == [9007199254740994.0]
    monkeypatch.setattr(json, "loads", lambda *_, **__: pytest.fail("it is parsed again"))
    assert decode_object(b'{"x": 1.7e18}', spec) == [1.7e18]
