"""`ReadFiles` with plain arguments: what it decides; `ReadPatterns` has tests of its own."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import sluice
from sluice.models.errors import UsageError
from sluice.models.interface import ModelOptions
from sluice.models.uri import parse_model_uri
from sluice.transforms.decode.formats import read_range, split_found
from sluice.transforms.files.find_files import match_all

CSV_TEXT = "zip,x,n\n01234,4,1.50\n02345,9,NA\n"


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    path = tmp_path / "rows.csv"
    path.write_text(CSV_TEXT)
    return path


def rows_of(read: Any, names: list[str] | None = None) -> list[dict[str, object]]:
    """Returns what a reader reads, without Beam."""
    parts = [part for file in match_all(read._patterns) for part in split_found(file, read._spec)]
    decoded = [each for part in parts for each, _ in read_range(part, read._spec)]
    assert not [failure for each in decoded for failure in each.failures]
    batches = [batch for each in decoded for batch in each.batches]
    names = names or [name for name in batches[0].schema.names if not name.startswith("_sluice_")]
    return [row for batch in batches for row in batch.select(names).to_pylist()]


def test_without_a_model_csv_is_text(csv: Path) -> None:
    assert rows_of(sluice.ReadFiles(csv)) == [
        {"zip": "01234", "x": "4", "n": "1.50"},
        {"zip": "02345", "x": "9", "n": "NA"},
    ]


def test_the_model_and_the_schema_type_columns(csv: Path, cases: Callable[[str], str]) -> None:
    wanted = [{"zip": "01234", "x": 4.0, "n": 1.5}, {"zip": "02345", "x": 9.0, "n": None}]
    for schema in ({"n": pa.float64()}, pa.schema({"n": pa.float64()})):
        read = sluice.ReadFiles([csv], cases("picky"), schema=schema, null_values=["NA"])
        assert rows_of(read) == wanted
    assert rows_of(sluice.ReadFiles(csv, cases("picky"), columns=["zip"])) == [
        {"zip": row["zip"], "x": row["x"]} for row in wanted
    ]


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("zip;x\n01234;4\n", {"delimiter": ";"}),
        ("01234,4\n", {"column_names": ["zip", "x"]}),
        ("zip,x\n01234,4\n", {"format": "csv"}),
    ],
)
def test_dialects_of_csv(text: str, options: Mapping[str, Any], tmp_path: Path) -> None:
    path = tmp_path / ("rows.csv" if "format" not in options else "rows")
    path.write_text(text)
    assert rows_of(sluice.ReadFiles(str(path), **options)) == [{"zip": "01234", "x": "4"}]


def test_a_directory_of_parquet_has_its_own_types(tmp_path: Path) -> None:
    for place in range(2):
        pq.write_table(pa.table({"x": [place], "t": [b"a"]}), tmp_path / f"{place}.parquet")
    assert rows_of(sluice.ReadFiles(tmp_path)) == [{"x": 0, "t": b"a"}, {"x": 1, "t": b"a"}]


def test_json_needs_the_types_of_what_it_reads(tmp_path: Path, cases: Callable[[str], str]) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"x": 4, "id": 7, "tag": "a"}\n')
    with pytest.raises(UsageError, match=r"the types of id, tag are not known.*schema=\{'id': pyarrow.string\(\)\}"):
        sluice.ReadFiles(path, cases("picky"))
    read = sluice.ReadFiles(path, cases("picky"), schema={"id": pa.int64()}, columns=["id"])
    assert rows_of(read, ["x", "id"]) == [{"x": 4.0, "id": 7}]


def test_a_column_with_a_default_need_not_be_there(tmp_path: Path, cases: Callable[[str], str]) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("k\na\n")
    with pytest.raises(UsageError, match="takes column 'x'"):
        sluice.ReadFiles(path, cases("picky"))
    recipe = sluice.ModelRecipe(parse_model_uri(cases("picky")), ModelOptions(defaults=(("x", 4.0),)))
    assert rows_of(sluice.ReadFiles(path, recipe)) == [{"k": "a"}]


def test_what_cannot_be(tmp_path: Path, csv: Path) -> None:
    with pytest.raises(UsageError, match="no file matches"):
        sluice.ReadFiles(tmp_path / "none.csv")
    with pytest.raises(UsageError, match="paths names no file"):
        sluice.ReadFiles([])
    with pytest.raises(UsageError, match="format is 'xls'"):
        sluice.ReadFiles(csv, format="xls")
    with pytest.raises(UsageError, match="/nowhere"):
        sluice.ReadFiles(csv, "/nowhere")
    with pytest.raises(UsageError, match="give a table, or a query"):
        sluice.ReadTable()
