"""A column that the model takes comes out as it was read, whatever type the model is fed."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from sluice.pipelines.cli import main

# The model takes amount as float32: it is fed other numbers than these.
AMOUNTS = ["123456789.125", "53.3", "36", "0.1", "", "1e3"]
TOO_LONG = "123456789012345678901"
ITEMS = ["7", "9007199254740993", "0", "-1", "5", "6"]


@pytest.fixture
def job(cases: Callable[[str], str], tmp_path: Path) -> Callable[..., tuple[int, str]]:
    """Runs a batch job on texts of the model's columns; returns the exit code and the first file of the output."""

    def run(amounts: list[str], output: str, *flags: str, source: str = "csv") -> tuple[int, str]:
        path = tmp_path / f"in.{source}"
        if source == "csv":
            lines = [f"{a},{i},true,NO,{n:03}" for n, (a, i) in enumerate(zip(amounts, ITEMS * 99, strict=False))]
            path.write_text("\n".join(["amount,items,member,country,id", *lines]) + "\n")
        else:
            lines = [
                f'{{"amount": {a or "null"}, "items": {i}, "member": true, "country": "NO"}}'
                for a, i in zip(amounts, ITEMS * 99, strict=False)
            ]
            path.write_text("\n".join(lines) + "\n")
        command = ["batch", "--progress=none", "--model", cases("tf2_function"), "--input", str(path)]
        defaults = ["--column_defaults", "amount=1", "--max_failure_rate=0.9", "--flatten"]
        code = main([*command, "--output", str(tmp_path / f"out.{output}"), *defaults, *flags])
        return code, str(tmp_path / f"out-00000-of-00001.{output}")

    return run


Job = Callable[..., tuple[int, str]]


def test_csv_stays_the_text_that_it_was(job: Job) -> None:
    code, path = job(AMOUNTS, "csv", "--columns=id,amount,items,member")
    rows = [line.split(",") for line in Path(path).read_text().splitlines()[1:]]
    assert (code, [row[0] for row in rows], [row[1] for row in rows]) == (0, AMOUNTS, ITEMS)


@pytest.mark.parametrize("source", ["csv", "jsonl"])
def test_numbers_keep_their_values_in_parquet(source: str, job: Job) -> None:
    code, path = job(AMOUNTS, "parquet", source=source)
    table = pq.read_table(path)
    assert code == 0
    assert table["amount"].to_pylist() == [float(text) if text else None for text in AMOUNTS]
    assert table["items"].to_pylist() == [int(text) for text in ITEMS]


def test_whole_numbers_stay_whole_in_every_format(job: Job) -> None:
    wholes = ["36", "9007199254740993", ""]
    assert pq.read_table(job(wholes, "parquet")[1])["amount"].to_pylist() == [36, 9007199254740993, None]
    code, path = job(wholes, "jsonl")
    assert (code, [json.loads(line)["amount"] for line in Path(path).read_text().splitlines()]) == (
        0,
        [36, 9007199254740993, None],
    )
    code, path = job(wholes, "csv", source="jsonl")
    assert [line.split(",")[0] for line in Path(path).read_text().splitlines()[1:]] == wholes


@pytest.mark.parametrize("source", ["csv", "jsonl"])
def test_a_number_that_would_change_fails_its_row(source: str, job: Job, tmp_path: Path) -> None:
    code, path = job(["0.5", "9007199254740993", "1e20", "9007199254740992", TOO_LONG], "parquet", source=source)
    assert pq.read_table(path)["amount"].to_pylist() == [0.5, 1e20, 9007199254740992.0]
    failures = [*map(json.loads, next(tmp_path.glob("out*failures*")).read_text().splitlines())]
    assert (code, len(failures)) == (0, 2)
    for failure in failures:
        assert "column 'amount': " in failure["error_message"]
        assert "float64 can only hold it rounded" in failure["error_message"]
