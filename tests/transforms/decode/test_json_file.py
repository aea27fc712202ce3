"""JSON files: an array among files of lines is seen by whoever reads it, whatever launch has seen of the others."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pytest

from sluice.transforms.core.formats import JSONL
from sluice.transforms.decode import json_file, lines
from sluice.transforms.decode.json_file import read_lines
from sluice.transforms.decode.spec import Decoded, InputSpec
from tests.support.formats.decode_cases import put, read_file, rows_of

SPEC = InputSpec(JSONL, (("a", pa.int64()),))
VALUES = [json.dumps({"a": number, "t": "x" * (number % 7)}) for number in range(40)]


def rows(decoded: Decoded) -> list[int]:
    return [row["a"] for row in rows_of(decoded)]


@pytest.mark.parametrize("range_bytes", [7, 30, 100, 1 << 20])
@pytest.mark.parametrize(
    "text",
    [
        "[" + ",".join(VALUES) + "]",
        "[\n" + ",\n".join(VALUES) + "\n]\n",
        "[" + "\n,".join(VALUES) + "]",
        "\ufeff [\n" + "\n,\n".join(VALUES) + "\n\n]",
        json.dumps([json.loads(value) for value in VALUES], indent=2),
        "\n".join(VALUES),
    ],
)
def test_every_row_once_whichever_way_a_file_is_written(text: str, range_bytes: int, tmp_path: Path) -> None:
    decoded = read_file(put(tmp_path, "f.json", text.encode()), SPEC, range_bytes)
    assert decoded.failures == []
    assert rows(decoded) == list(range(40))


def test_a_range_without_failures_does_not_look_at_the_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_file, "is_array", lambda path: pytest.fail("it is opened again"))
    decoded = read_file(put(tmp_path, "f.jsonl", "\n".join(VALUES).encode()), SPEC, 200)
    assert rows(decoded) == list(range(40))


def test_bad_rows_of_lines_stay_failures(tmp_path: Path) -> None:
    written = [value if number % 5 else f"{value}," for number, value in enumerate(VALUES)]
    decoded = read_file(put(tmp_path, "f.jsonl", "\n".join(written).encode()), SPEC, 50)
    assert len(decoded.failures) == 8 and decoded.rows == 40


def test_a_line_that_never_ends_leaves_the_row_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 2_000_000)
    data = b"\n".join([json.dumps({"a": 0, "t": "x" * 1_600_000}).encode(), b'{"a": 1}', b"x" * 3_000_000])
    decoded = read_file(put(tmp_path, "f.jsonl", data), SPEC, 1_200_000)
    assert rows(decoded) == [0, 1]
    assert {failure.stage for failure in decoded.failures} == {"read"}


@pytest.mark.parametrize("text", ['{"a": 1}\n\n \n[2]\r\n', '[{"a": 1}, [2]]'])
def test_lines_as_they_are_written(text: str, tmp_path: Path) -> None:
    assert list(read_lines(put(tmp_path, "f.json.gz", gzip.compress(text.encode())))) == [b'{"a": 1}', b"[2]"]
