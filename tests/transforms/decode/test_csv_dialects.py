"""CSV files in dialects: lines to skip, names to number, other encodings and line ends. Read in any ranges."""

import bz2
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.models.errors import CorruptFile
from sluice.transforms.core.formats import CSV
from sluice.transforms.decode import csv_file
from sluice.transforms.decode.csv_file import csv_head, renamed
from sluice.transforms.decode.formats import read_range, split_file
from sluice.transforms.decode.spec import CsvOptions, Decoded, InputSpec, check_columns
from tests.support.formats.decode_cases import origins_of, positions_of, put, rows_of

ROWS = [{"a": f"é{number}", "b": str(number * number)} for number in range(300)]
BODY = "".join(f"{row['a']},{row['b']}\n" for row in ROWS)


def read(path: str, range_bytes: int, columns: tuple[str, ...] = ("a", "b"), **options: Any) -> Decoded:
    spec = InputSpec(CSV, tuple((name, pa.string()) for name in columns), CsvOptions(**options))
    decoded = Decoded()
    for part in split_file(path, Path(path).stat().st_size, spec, range_bytes):
        for piece, _ in read_range(part, spec):
            decoded.add(piece)
    return decoded


@pytest.mark.parametrize("range_bytes", [50, 1000, 1 << 20])
@pytest.mark.parametrize(
    ("data", "options"),
    [
        (f"exported\n\n\"on monday\na,b\n{BODY}".encode(), {"skip_lines": 3}),
        (f"exported\na;b\n{BODY}".encode(), {"skip_lines": 2, "column_names": ("a", "b")}),
        (f"a,b\n{BODY}".replace("\n", "\r").encode(), {"cr_ends": True}),
        (f"a,b\n{BODY}".encode("cp1252"), {"encoding": "cp1252"}),
        (f"a,b\n{BODY}".encode("utf-16"), {"encoding": "utf-16"}),
        (f"a\tb\n{BODY}".replace(",", "\t").encode("utf-16-le"), {"encoding": "utf-16-le", "delimiter": "\t"}),
        (f"x\ra,b\r\n{BODY}".replace("\r\n", "\r").replace("\n", "\r").encode("latin-1"),
         {"encoding": "latin-1", "cr_ends": True, "skip_lines": 1}),
    ],
    ids=["skipped", "no header", "cr", "cp1252", "utf-16", "tabs", "all"],
)  # fmt: skip
def test_rows_of_dialects(data: bytes, options: dict[str, Any], range_bytes: int, tmp_path: Path) -> None:
    path = put(tmp_path, "f.csv", data)
    decoded = read(path, range_bytes, **options)
    assert decoded.failures == []
    assert rows_of(decoded) == ROWS
    if "encoding" not in options:
        places = positions_of(origins_of(decoded))
        assert [data[place:].startswith(f"{row['a']},".encode()) for row, place in zip(ROWS, places, strict=True)]
    packed = put(tmp_path, "f.csv.bz2", bz2.compress(data))
    assert rows_of(read(packed, range_bytes, **options)) == ROWS


def test_lines_to_skip_that_are_not_there(tmp_path: Path) -> None:
    for data in (b"", b"a\n", b"a\nb", b"a\nb\n"):
        assert csv_head(put(tmp_path, "f.csv", data), CsvOptions(skip_lines=2))[0] == ()
        assert read(put(tmp_path, "f.csv", data), 4, skip_lines=2).rows == 0
    with pytest.raises(CorruptFile, match="check --csv_skip_lines"):
        csv_head(put(tmp_path, "f.csv", b"x" * (3 << 20)), CsvOptions(skip_lines=1))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("a", "b"), ("a", "b")),
        (("a", "a", "a"), ("a", "a_2", "a_3")),
        (("a", "a_2", "a"), ("a", "a_2", "a_3")),
        (("", "x", " "), ("column_1", "x", "column_3")),
        (("", "column_1"), ("column_1_2", "column_1")),
    ],
)
def test_names_that_come_again(names: tuple[str, ...], expected: tuple[str, ...], tmp_path: Path) -> None:
    assert renamed(names) == expected
    path = put(tmp_path, "f.csv", (",".join(f'"{name}"' for name in names) + "\n").encode())
    assert csv_head(path, CsvOptions(rename_duplicates=True))[0] == expected


@given(st.lists(st.sampled_from(["a", "a_2", "a_3", "", " ", "column_1", "column_2", "column_2_2"]), max_size=9))
def test_names_that_come_again_are_numbered_from_the_left(names: list[str]) -> None:
    expected: list[str] = []
    for place, name in enumerate(names, 1):
        base = name if name.strip() else f"column_{place}"
        taken = {*expected, *(other for other in names if other != name)}
        choices = [base, *(f"{base}_{number}" for number in range(2, 30))]
        expected.append(next(choice for choice in choices if choice not in taken))
    assert renamed(names) == tuple(expected)


def test_many_names_that_come_again_are_not_searched_from_the_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    numbered = csv_file._numbered
    monkeypatch.setattr(csv_file, "_numbered", lambda base: (asked.append(name) or name for name in numbered(base)))
    assert renamed(["a"] * 500)[-1] == "a_500"
    assert len(asked) == 500


def test_a_header_is_not_searched_for_each_column() -> None:
    class Names(tuple[str, ...]):
        def __contains__(self, _: object) -> bool:
            return pytest.fail("it is searched")

        count = index = __contains__  # type: ignore[assignment]

    spec = InputSpec(CSV, (("a", pa.string()), ("b", pa.string())))
    check_columns(spec, Names(("a", "b", "c", "c")), "the header")
    with pytest.raises(CorruptFile, match="the header has more than one column 'b'"):
        check_columns(spec, Names(("a", "b", "b")), "the header")
    with pytest.raises(CorruptFile, match="the header has no column 'b'"):
        check_columns(spec, Names(("a",)), "the header")


def test_a_byte_that_is_not_of_the_encoding_costs_its_row(tmp_path: Path) -> None:
    data = b"a,b\n" + b"1,2\n" * 100 + b"\x81,3\n" + "4,é\n".encode("cp1252") * 100
    decoded = read(put(tmp_path, "f.csv", data), 1 << 20, encoding="cp1252")
    (failure,) = decoded.failures
    assert failure.error_message == "the line is not valid cp1252: byte 0x81 at place 0"
    assert decoded.rows == 200 + 1
    assert rows_of(decoded)[-1] == {"a": "4", "b": "é"}


def test_a_header_that_is_not_of_the_encoding(tmp_path: Path) -> None:
    with pytest.raises(CorruptFile, match="the header is not cp1252; give another --csv_encoding"):
        csv_head(put(tmp_path, "f.csv", b"a,\x81\n1,2\n"), CsvOptions(encoding="cp1252"))


def test_each_file_has_line_ends_of_its_own(tmp_path: Path) -> None:
    for name, data in (("1.csv", b"x\ra,b\r1,2\r"), ("2.csv", b"x\r\na,b\r\n1,2\r\n")):
        for range_bytes in (5, 1 << 20):
            decoded = read(put(tmp_path, name, data), range_bytes, skip_lines=1)
            assert (decoded.failures, rows_of(decoded)) == ([], [{"a": "1", "b": "2"}])
