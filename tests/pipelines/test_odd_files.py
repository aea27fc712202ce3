"""Files as other programs write them: null markers, other names, and the flags that the launch check names."""

import bz2
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from sluice.pipelines.cli import main
from tests.support.saved_models.zoo import read_output

Job = Callable[..., int]


@pytest.fixture
def job(cases: Callable[[str], str], tmp_path: Path) -> Job:
    """Runs a job of the square root of x; returns its exit code."""

    def run(*flags: str, output: str = "out.csv") -> int:
        command = ["batch", "--progress=none", "--model", cases("picky"), "--output", str(tmp_path / output)]
        return main([*command, "--max_failure_rate=0.9", "--overwrite", *flags])

    return run


def rows(tmp_path: Path, ending: str = "csv") -> list[dict[str, object]]:
    return read_output(str(tmp_path / f"out-00000-of-00001.{ending}"))


def failures(tmp_path: Path) -> list[str]:
    lines = [line for path in tmp_path.glob("out.failures-*") for line in path.read_text().splitlines()]
    return [json.loads(line)["error_message"] for line in lines]


NULLS = "id,x\na,4\nb,NA\nc,?\nd,\n"


@pytest.mark.parametrize("flags", [[], ["--columns=id,x"]])
def test_null_markers(flags: list[str], job: Job, tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text(NULLS)
    nulls = ["--null_values=NA", "--null_values=?", "--column_defaults=x=9"]
    assert job("--input", str(path), *nulls, *flags) == 0
    assert [(row["id"], row["x"], float(str(row["root"]))) for row in rows(tmp_path)] == [
        ("a", "4", 2.0),
        ("b", "NA", 3.0),
        ("c", "?", 3.0),
        ("d", "", 3.0),
    ]


def test_null_markers_in_formats_that_have_nulls(job: Job, tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text(NULLS.replace("a,", "NA,"))
    nulls = ["--null_values=NA,?", "--column_defaults=x=9", "--null_strings"]
    assert job("--input", str(path), *nulls, output="out.jsonl") == 0
    assert [(row["id"], row["x"], row["root"]) for row in rows(tmp_path, "jsonl")] == [
        (None, 4, 2.0),
        ("b", None, 3.0),
        ("c", None, 3.0),
        ("d", None, 3.0),
    ]


def test_null_markers_that_nobody_named(
    job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "in.csv"
    path.write_text("x\nNA\n?\n")
    assert job("--input", str(path)) == 2
    told = capsys.readouterr().err
    assert "column 'x' holds NA, ?: if this stands for no value, give --null_values 'NA,?'" in told
    assert "--column_defaults x=VALUE" in told
    path.write_text("x\n4\nNA\n")
    assert job("--input", str(path)) == 0
    assert "column 'x' holds NA: if this stands for no value, give --null_values NA, and" in caplog.text
    assert failures(tmp_path) == ["column 'x': 'NA' is not float; if it stands for no value, name it in --null_values"]


@pytest.mark.parametrize("name", ["X", "x ", "_X_", "X."])
def test_the_flags_to_paste_for_another_name(
    name: str, job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "in.csv"
    path.write_text(f"id,{name}\na,4\n")
    assert job("--input", str(path)) == 2
    told = capsys.readouterr().err
    assert "the model takes 'x', which the input" in told and told.count("\n") == 1
    flags = shlex.split(told.partition("give ")[2])
    assert flags == ["--map", f"x={name}"]
    for output in ("out.csv", "out.jsonl"):
        assert job("--input", str(path), *flags, output=output) == 0
    assert rows(tmp_path, "jsonl") == [{"id": "a", name: 4, "root": 2.0}]
    assert [(row[name], float(str(row["root"]))) for row in rows(tmp_path)] == [("4", 2.0)]


def test_one_error_names_the_flags_for_another_name_and_for_null_markers(
    job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who follows it has predictions by the next command."""
    path = tmp_path / "in.csv"
    path.write_text("id,X\na,4\nb,NA\n")
    assert job("--input", str(path)) == 2
    told = capsys.readouterr().err
    assert (
        "give --map x=X - besides, column 'X' holds NA: if this stands for no value, give --null_values NA, and "
        in told
    )
    assert "--column_defaults x=VALUE" in told
    assert job("--input", str(path), "--map=x=X", "--null_values=NA", "--column_defaults=x=9") == 0
    assert [float(str(row["root"])) for row in rows(tmp_path)] == [2.0, 3.0]


def test_a_column_of_the_name_is_left_alone_where_another_is_mapped(job: Job, tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("x,y\nhigh,4\nlow,9\n")
    for flags in ([], ["--columns=y,x"]):
        assert job("--input", str(path), "--map=x=y", *flags) == 0
        assert [(row["x"], row["y"], float(str(row["root"]))) for row in rows(tmp_path)] == [
            ("high", "4", 2.0),
            ("low", "9", 3.0),
        ]


@pytest.mark.parametrize("source", ["jsonl", "csv"])
def test_true_and_false_are_numbers_for_a_model_of_numbers(source: str, job: Job, tmp_path: Path) -> None:
    path = tmp_path / f"in.{source}"
    path.write_text("x\nTrue\nFALSE\n" if source == "csv" else '{"x": true}\n{"x": false}\n')
    for output in ("csv", "jsonl"):
        assert job("--input", str(path), output=f"out.{output}") == 0
        assert [float(str(row["root"])) for row in rows(tmp_path, output)] == [1.0, 0.0]


def test_whole_numbers_with_fractions_for_an_int64_input(cases: Callable[[str], str], tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("amount,items,member,country\n1,20.0,true,NO\n1,+9,true,NO\n1,2.5,true,NO\n")
    command = ["batch", "--progress=none", "--model", cases("tf2_function"), "--input", str(path), "--flatten"]
    assert main([*command, "--output", str(tmp_path / "out.parquet"), "--max_failure_rate=0.9"]) == 0
    assert [row["items"] for row in read_output(str(tmp_path / "out-00000-of-00001.parquet"))] == [20, 9]
    assert failures(tmp_path) == ["column 'items': '2.5' is not int64"]


def test_files_in_many_forms_are_one_input(job: Job, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a.csv").write_text("x\n1\n")
    (folder / "b.csv.bz2").write_bytes(bz2.compress(b"x\n4\n"))
    (folder / "notes.txt").write_text("not data")
    (tmp_path / "c.csv").write_text("x\n9\n")
    assert job("--input", str(folder), "--input", str(tmp_path / "c.csv")) == 0
    assert sorted(float(str(row["root"])) for row in rows(tmp_path)) == [1.0, 2.0, 3.0]


def test_tabs_another_encoding_lines_to_skip_and_names_twice(job: Job, tmp_path: Path) -> None:
    path = tmp_path / "in.tsv"
    path.write_bytes("Umsätze 2026\nname\tx\tname\t\nGräf\t4\tb\tc\n".encode("cp1252"))
    dialect = ["--csv_encoding=cp1252", "--csv_skip_lines=1", "--rename_duplicate_columns"]
    assert job("--input", str(path), *dialect, output="out.jsonl") == 0
    assert rows(tmp_path, "jsonl") == [{"name": "Gräf", "x": 4, "name_2": "b", "column_4": "c", "root": 2.0}]
    assert job("--input", str(path), *dialect) == 0
    assert [(row["name"], row["column_4"]) for row in rows(tmp_path)] == [("Gräf", "c")]


@pytest.mark.parametrize(
    ("before", "flags"), [(b"", []), (b"exported\r", ["--csv_skip_lines=1"])], ids=["header", "skipped"]
)
def test_lines_that_end_with_carriage_returns(before: bytes, flags: list[str], job: Job, tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes(before + b"id,x\ra,4\rb,9\r")
    assert job("--input", str(path), *flags) == 0
    assert [(row["id"], float(str(row["root"]))) for row in rows(tmp_path)] == [("a", 2.0), ("b", 3.0)]


@pytest.mark.parametrize("indent", [None, 2])
def test_a_json_array(indent: int | None, job: Job, tmp_path: Path) -> None:
    path = tmp_path / "in.json"
    path.write_text(json.dumps([{"id": "a", "x": 4}, {"id": "b", "x": "no"}, {"id": "c", "x": 9}], indent=indent))
    assert job("--input", str(path), output="out.jsonl") == 0
    assert [(row["id"], row["root"]) for row in rows(tmp_path, "jsonl")] == [("a", 2.0), ("c", 3.0)]
    assert len(failures(tmp_path)) == 1


@pytest.mark.parametrize(
    ("limit", "good", "bad"), [(1, ["a"], 0), (2, ["a"], 1), (3, ["a", "c"], 1), (99, ["a", "c", "d"], 1)]
)
def test_only_the_first_rows(limit: int, good: list[str], bad: int, job: Job, tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("id,x\na,4\nb,no\nc,9\n")
    (tmp_path / "2.csv").write_text("id,x\nd,4\n")
    assert job("--input", f"{tmp_path}/[12].csv", f"--limit={limit}") == 0
    assert [row["id"] for row in rows(tmp_path)] == good
    assert len(failures(tmp_path)) == bad


def test_a_check_tells_and_writes_nothing(job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "in.csv"
    path.write_text("id,X\na,4\n")
    before = sorted(each.name for each in tmp_path.rglob("*"))
    assert job("--input", str(path), "--check", "--map=x=X", "--column_defaults=x=1") == 0
    told = capsys.readouterr().out
    assert "x  float32  column 'X', read as float, nulls are 1.0" in told
    assert re.search(r"root +float +added", told)
    assert "id " in told and "as it is in the row" in told
    assert told.endswith("The first rows fit. Nothing was scored or written.\n")
    assert sorted(each.name for each in tmp_path.rglob("*")) == before
    assert job("--input", str(path), "--check") == 2
    assert "--map x=X" in capsys.readouterr().err
