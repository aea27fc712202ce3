"""What the first rows of CSV show."""

from pathlib import Path

import pyarrow as pa
import pytest

from sluice.pipelines.plan.csv_texts import NumberForms, marker_advice, number_forms
from sluice.transforms.core.formats import CSV
from sluice.transforms.decode.spec import CsvOptions, InputSpec
from sluice.transforms.files.find_source import Source
from tests.support.formats.decode_cases import put

KINDS = {"n": pa.int64(), "x": pa.float32(), "s": pa.string()}


def source(text: str, tmp_path: Path) -> Source:
    path = put(tmp_path, "f.csv", ("n,x,s\n" + text).encode())
    return Source(CSV, path, 1, Path(path).stat().st_size, tuple(KINDS))


@pytest.mark.parametrize(
    ("text", "nulls", "expected"),
    [
        ("1,2,true\n", (), NumberForms()),
        ("true,FALSE,true\n,True,\n", (), NumberForms(("n", "x"))),
        ("true,1,\nno,2,\n", (), NumberForms()),
        ("NA,true,\nTrue,NA,\n", ("NA",), NumberForms(("n", "x"))),
        ("NA,true,\nTrue,  NA,\n", ("NA",), NumberForms(("n", "x"))),
        ("NA,true,\nTrue,NA,\n", (), NumberForms()),
        ("1,2.0,\n2.0,3,\n", (), NumberForms((), ("n",))),
        ("1,2.0,\n2.5,3,\n", (), NumberForms()),
        (",,\n", (), NumberForms()),
        ("", (), NumberForms()),
    ],
)
def test_how_numbers_are_written(text: str, nulls: tuple[str, ...], expected: NumberForms, tmp_path: Path) -> None:
    assert number_forms(source(text, tmp_path), KINDS, CsvOptions(null_values=nulls)) == expected


@pytest.mark.parametrize(
    ("text", "nulls", "expected"),
    [
        ("1,2,NA\n", (), ""),
        ("NA,2,a\n", (), "column 'n' holds NA: if this stands for no value, give --null_values NA, and "),
        ("NA,NaN,a\n", ("NA",), ""),
        ("  NA  ,1,a\n", ("NA",), ""),
        ("NaN,nan,a\n", (), "column 'n' holds NaN: "),
        ("?,N/A,a\n.,1,a\n", (), "column 'n' holds ?, ., column 'x' holds N/A: if this stands for no value, give "),
        ("?,1,a\n", ("NA",), "give --null_values 'NA,?', and --column_defaults n=VALUE for what replaces it"),
        ("old,1,a\n", (), ""),
    ],
)
def test_markers_that_nobody_named(text: str, nulls: tuple[str, ...], expected: str, tmp_path: Path) -> None:
    spec = InputSpec(CSV, tuple(KINDS.items()), CsvOptions(null_values=nulls))
    found = marker_advice(source(text, tmp_path), spec, list(KINDS))
    assert found.startswith(expected) or expected in found
    assert bool(found) == bool(expected)


def test_markers_in_columns_that_are_carried_as_text(tmp_path: Path) -> None:
    spec = InputSpec(CSV, (("n", pa.string()),), fed=(("age", pa.int64()),), mapped=(("age", "n"),))
    assert "--column_defaults age=VALUE" in marker_advice(source("NA,1,a\n", tmp_path), spec, ["age"])


@pytest.mark.parametrize(("inputs", "default"), [(["x"], "x"), (["s"], "")])
def test_a_default_is_only_for_a_column_that_an_input_takes(inputs: list[str], default: str, tmp_path: Path) -> None:
    spec = InputSpec(CSV, tuple(KINDS.items()))
    found = marker_advice(source("NA,N/A,a\n", tmp_path), spec, inputs)
    assert "give --null_values NA,N/A" in found
    assert ("--column_defaults" in found) == bool(default)
    assert f"--column_defaults {default}=VALUE" in found or not default


def test_defaults_of_all_columns_with_markers_are_one_flag(tmp_path: Path) -> None:
    spec = InputSpec(CSV, tuple(KINDS.items()))
    assert "--column_defaults n=VALUE,x=VALUE for" in marker_advice(source("NA,NA,a\n", tmp_path), spec, ["n", "x"])


def test_of_many_columns_with_markers_none_lacks_its_default(tmp_path: Path) -> None:
    names = [f"c{place}" for place in range(9)]
    path = put(tmp_path, "f.csv", f"{','.join(names)}\n{','.join('NA' for _ in names)}\n".encode())
    spec = InputSpec(CSV, tuple((name, pa.float32()) for name in names))
    found = marker_advice(Source(CSV, path, 1, Path(path).stat().st_size, tuple(names)), spec, names)
    assert f"--column_defaults {','.join(f'{name}=VALUE' for name in names)} for" in found
