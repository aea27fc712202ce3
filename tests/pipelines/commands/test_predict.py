"""`sluice predict`."""

import io
import json
from collections.abc import Callable

import pyarrow as pa
import pytest

from sluice.models.errors import UsageError
from sluice.models.signature import Signature, TensorSpec
from sluice.pipelines.cli import main
from sluice.pipelines.commands.predict_rows import JsonColumns, parse_rows, read_rows


@pytest.fixture
def picky(cases: Callable[[str], str]) -> str:
    """Takes the root of x, and raises on any batch with a negative x."""
    return cases("picky")


def lines(text: str) -> list[object]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_row_comes_back_with_its_outputs(picky: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "--model", picky, "--json", '{"id": 1.50, "x": 2}']) == 0
    out, error = capsys.readouterr()
    assert out == '{"id": 1.50, "x": 2,"root":1.4142135}\n', "the row as it was given, a float32 as such"
    assert not error


@pytest.mark.parametrize(
    "given",
    ['{"x": 4}\n\n{"x": 9}\n', '[{"x": 4}, {"x": 9}]', ' [{"x": 4},\n {"x": 9}]\n'],
    ids=["lines", "array", "array over lines"],
)
def test_rows_on_standard_input(
    given: str, picky: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(given))
    assert main(["predict", "--model", picky, "--output_prefix=p_"]) == 0
    assert lines(capsys.readouterr().out) == [{"x": 4, "p_root": 2.0}, {"x": 9, "p_root": 3.0}]


def test_a_line_that_is_not_utf8_fails_alone(
    picky: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = io.BytesIO('{"x": 4, "k": "é"}\n'.encode() + b'{"x": 9, "k": "\xe9"}\n{"x": 16}\n')
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(given, encoding="utf-8"))
    assert main(["predict", "--model", picky]) == 3
    out, error = capsys.readouterr()
    assert lines(out) == [{"x": 4, "k": "é", "root": 2.0}, {"x": 16, "root": 4.0}]
    assert [line.split(": ")[1] for line in error.splitlines()] == ["row 1"]


def test_rows_that_fail_are_told_and_the_others_printed(picky: str, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"x": 4}, {"x": "four"}, {"x": -1}, {"z": 1}, 5, {"x": True}, {"x": [9]}]
    assert main(["predict", "--model", picky, "--json", json.dumps(rows)]) == 3
    out, error = capsys.readouterr()
    assert [row["root"] for row in lines(out)] == [2.0, 1.0, 3.0]  # type: ignore[call-overload,index]
    told = error.splitlines()
    assert [line.split(": ")[1] for line in told] == ["row 1", "row 2", "row 3", "row 4"]
    assert "a number is expected, found 'four'; the model takes float32" in told[0]
    assert "must not be negative" in told[1] and "not a JSON object" in told[3]


def test_a_default_for_what_a_row_lacks(picky: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "--model", picky, "--column_defaults=x=4", "--json", '[{"z": null}, {"x": 9}]']) == 0
    assert lines(capsys.readouterr().out) == [{"z": None, "root": 2.0}, {"x": 9, "root": 3.0}]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--json", "{x: 1}"], "--json is not JSON"),
        (["--json", "7"], "--json is no row"),
        (["--json", '{"x": 1, "root": 2}'], "a row has a member 'root'"),
        (["--json", '{"x": 1}', "--signature=none"], "none"),
        (["--json", '{"x": 1}', "--column_defaults=x=a"], "--column_defaults x=a"),
    ],
)
def test_what_cannot_be(arguments: list[str], problem: str, picky: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "--model", picky, *arguments]) == 2
    out, error = capsys.readouterr()
    assert not out and error.startswith("sluice predict: ") and problem in error


def test_a_model_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "--model", "/nowhere", "--json", "{}"]) == 2
    assert "/nowhere" in capsys.readouterr().err


def columns_of(dtype: str, *values: object, name: str = "x", shape: tuple[int | None, ...] = (None,)) -> object:
    signature = Signature("s", "", (TensorSpec(name, dtype, shape),), (TensorSpec("y", dtype, (None,)),))
    batch, misfits = JsonColumns(parse_rows(json.dumps([{name: value} for value in values]))).columns(
        0, len(values), signature
    )
    assert batch.num_rows == len(values)
    return [None if row in misfits else value for row, value in enumerate(batch.column(0).to_pylist())]


def test_values_as_batch_reads_them() -> None:
    assert columns_of("string", "a", {"b64": "/w=="}, None, 7) == [b"a", b"\xff", None, None]
    assert columns_of("string", "/w==", {"b64": "/w=="}, "?", name="x_bytes") == [b"\xff", b"\xff", None]
    assert columns_of("int64", 1, 2.0, 2.5, True, 1 << 70) == [1, 2, None, 1, None]
    assert columns_of("float32", 1, "NaN", "Infinity", "one")[2:] == [float("inf"), None]  # type: ignore[index]
    assert columns_of("bool", True, 1, None) == [True, None, None]
    assert columns_of("float64", [1, 2], [[1], [2]], 3, shape=(None, 2)) == [[1.0, 2.0], [1.0, 2.0], None]


def test_lines_that_are_no_objects_are_rows_that_fail() -> None:
    rows = read_rows(['{"x": 1}\n', "\n", "x\n", "[1]\n", "\udcff\n"])
    assert [row.fields for row in rows] == [{"x": 1}, None, None, None]
    signature = Signature("s", "", (TensorSpec("x", "int64", (None,)),), (TensorSpec("y", "int64", (None,)),))
    batch, misfits = JsonColumns(rows).columns(0, 4, signature)
    assert list(misfits) == [1, 2, 3] and batch.column(0) == pa.array([1, None, None, None])
    with pytest.raises(UsageError, match="not JSON"):
        read_rows(["[1,\n"])
