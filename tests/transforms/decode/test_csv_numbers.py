"""Null markers, and the ways in which other programs write numbers."""

from typing import Any

import pyarrow as pa
import pytest

from sluice.models.reserved import FED
from sluice.transforms.core.formats import CSV
from sluice.transforms.decode.csv import decode_csv
from sluice.transforms.decode.lines import line_block
from sluice.transforms.decode.null_markers import hint
from sluice.transforms.decode.spec import CsvOptions, Decoded, InputSpec

NUMBERS = (("n", pa.int64()), ("x", pa.float32()), ("when", pa.timestamp("s")), ("name", pa.string()))
NAMES = tuple(name for name, _ in NUMBERS)


def decode(data: str, columns: Any = NUMBERS, csv: CsvOptions | None = None, **spec: Any) -> Decoded:
    names = tuple(name for name, _ in columns)
    return decode_csv(line_block(data.encode(), 0), names, InputSpec(CSV, columns, csv or CsvOptions(), **spec), "f#")


def values(decoded: Decoded, name: str) -> list[Any]:
    return [value for batch in decoded.batches for value in batch.column(name).to_pylist()]


MARKERS = "NA,NA,NA,NA\n 1 ,N/A, NA,N/A\n2,0.5,,\n"


# A value that no column can hold sends the block the slow way, which must agree with pyarrow's.
@pytest.mark.parametrize("bad", ["", "x,x,x,x\n"])
def test_null_markers(bad: str) -> None:
    decoded = decode(MARKERS + bad, csv=CsvOptions(null_values=("NA", "N/A")))
    assert values(decoded, "n") == [None, 1, 2]
    assert values(decoded, "x") == [None, None, 0.5]
    assert values(decoded, "when") == [None, None, None]
    assert values(decoded, "name") == ["NA", "N/A", ""], "strings keep their text"
    assert len(decoded.failures) == bool(bad)


def test_any_spaces_around_null_markers() -> None:
    columns = (*NUMBERS, ("list", pa.list_(pa.int64())))
    decoded = decode("  NA  ,\tNA,   NA,  NA,  NA \n1,2,,,[3]\n", columns, CsvOptions(null_values=("NA",)))
    assert decoded.failures == []
    assert [values(decoded, name) for name, _ in columns] == [
        [None, 1], [None, 2.0], [None, None], ["  NA", ""], [None, [3]]
    ]  # fmt: skip
    decoded = decode(
        "  NA  ,a\n",
        (("x", pa.string()), ("s", pa.string())),
        CsvOptions(null_values=("NA",)),
        fed=(("x", pa.float32()),),
    )
    assert (values(decoded, "x"), values(decoded, FED + "x")) == (["  NA  "], [None])


def test_a_whole_number_with_a_fraction_of_zeros_is_not_rounded() -> None:
    columns = (("x", pa.float64()), ("list", pa.list_(pa.float64())))
    text = '9007199254740993.0,\n9007199254740992.0,\n1,[9007199254740993.0]\n1e300,"[1e300, 0.5]"\n'
    decoded = decode(text, columns, exact=("x", "list"))
    assert values(decoded, "x") == [9007199254740992.0, 1e300]
    assert ["float64 can only hold it rounded" in failure.error_message for failure in decoded.failures] == [True] * 2


@pytest.mark.parametrize("bad", ["", "x,x,x,x\n"])
def test_null_markers_in_strings(bad: str) -> None:
    decoded = decode(MARKERS + bad, csv=CsvOptions(null_values=("NA",), null_strings=True))
    assert values(decoded, "n") == [None, 2], "N/A is no number, and was not named"
    assert values(decoded, "name") == [None, None]
    assert len(decoded.failures) == 1 + bool(bad)


def test_without_markers_a_row_fails_and_says_so() -> None:
    decoded = decode("NA,1,,a\n7,?,,b\n8,old,,c\n")
    assert [failure.error_message for failure in decoded.failures] == [
        "column 'n': 'NA' is not int64; if it stands for no value, name it in --null_values",
        "column 'x': '?' is not float; if it stands for no value, name it in --null_values",
        "column 'x': 'old' is not float",
    ]
    assert hint(" NA ") and not hint("0")


@pytest.mark.parametrize("null_strings", [False, True])
def test_what_is_carried_keeps_its_text(null_strings: bool) -> None:
    columns = (("x", pa.string()), ("name", pa.string()))
    fed: tuple[tuple[str, pa.DataType], ...] = (("x", pa.float32()),)
    fed += (("name", pa.string()),) if null_strings else ()
    decoded = decode("NA,NA\n53.30,a\n,\n", columns, CsvOptions(null_values=("NA",)), fed=fed)
    assert values(decoded, "x") == ["NA", "53.30", ""]
    assert values(decoded, "name") == ["NA", "a", ""]
    assert values(decoded, FED + "x") == pa.array([None, 53.3, None], pa.float32()).to_pylist()
    if null_strings:
        assert values(decoded, FED + "name") == [None, "a", None]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("20.0", 20),
        ("-20.", -20),
        ("+9", 9),
        ("+9.00", 9),
        (" 7.0 ", 7),
        ("1e+05", 100000),
        ("1.5E3", 1500),
        ("9223372036854775807.0", 9223372036854775807),
        ("9007199254740993.0", 9007199254740993),
        ("1e17", "no"),
        ("1.5e0", "no"),
        ("20.5", "no"),
        ("+-5", "no"),
        ("--5", "no"),
        (".0", 0),
        ("200e-1", 20),
        ("35184372088832.5", "no"),
        ("35184372088831.5", "no"),
        ("9223372036854775808.0", "no"),
        ("1e99", "no"),
    ],
)
@pytest.mark.parametrize("decimals", [(), ("n",)])
def test_whole_numbers(text: str, expected: int | str, decimals: tuple[str, ...]) -> None:
    for before, after in (("", ""), ("1\n", "3.0\n"), ("1\n", "x\n")):
        decoded = decode(f"{before}{text}\n{after}", (("n", pa.int64()),), decimals=decimals)
        found = [value for value in values(decoded, "n") if value not in (1, 3)]
        assert found == ([] if expected == "no" else [expected])
        assert len(decoded.failures) == (expected == "no") + (after == "x\n")


def test_whole_numbers_beyond_their_column() -> None:
    decoded = decode("200.0\n100.0\n", (("n", pa.int8()),), decimals=("n",))
    assert values(decoded, "n") == [100]
    assert [failure.error_message for failure in decoded.failures] == ["column 'n': '200.0' is not int8"]


def test_a_plus_before_other_numbers() -> None:
    decoded = decode("+9\n+.5\n-1\n+1e3\n++1\n", (("x", pa.float64()),))
    assert values(decoded, "x") == [9.0, 0.5, -1.0, 1000.0]
    assert len(decoded.failures) == 1


def test_an_input_under_another_name_takes_its_column() -> None:
    columns = (("a b", pa.int64()), ("x", pa.string()))
    decoded = decode("1,y\n2,z\n", columns, mapped=(("x", "a b"), ("y", "a b")))
    assert values(decoded, FED + "x") == values(decoded, FED + "y") == values(decoded, "a b") == [1, 2]
    assert values(decoded, "x") == ["y", "z"]
    text = (("a b", pa.string()),)
    decoded = decode("1\n2.0\n", text, mapped=(("x", "a b"), ("s", "a b")), fed=(("x", pa.int64()),))
    assert values(decoded, FED + "x") == [1, 2]
    assert values(decoded, FED + "s") == values(decoded, "a b") == ["1", "2.0"]
