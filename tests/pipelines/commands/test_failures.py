"""`sluice failures`: reasons of files of all kinds, grouped, and what is exported."""

import dataclasses
import errno
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sluice.pipelines.cli import main
from sluice.pipelines.commands import failures_run
from sluice.transforms.bigquery.write_failures import ensure_failure_table, failure_row
from sluice.transforms.core.beam_files import write_text
from sluice.transforms.core.failures import Failure, to_json
from tests.support.servers import BigQuery, Gcs
from tests.support.sizes import size

FAILURE = Failure("decode", "InvalidRow", "column 'age': 'NA' is not int64", "data.csv#byte=7", b"5.1,NA")


def like(**changes: Any) -> Failure:
    return dataclasses.replace(FAILURE, **changes)


def write(path: Path, *failures: Failure, mode: str = "full") -> str:
    data = b"".join(to_json(each, mode) + b"\n" for each in failures)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return str(path)


def some(path: Path) -> str:
    """Writes failures of two reasons, four in all."""
    others = [like(error_message=f"column 'age': {text!r} is not int64") for text in ("?", "abc")]
    return write(path, FAILURE, *others, Failure("predict", "BadInput", "negative", "data.csv#byte=90", b"\xff"))


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """Runs the command with --json; returns what it prints."""

    def run(*arguments: str, code: int = 0) -> dict[str, Any]:
        capsys.readouterr()
        assert main(["failures", *arguments, "--json"]) == code
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    return run


def test_what_people_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["failures", some(tmp_path / "f.jsonl")]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "4 failures, 2 reasons",
        "  3  decode InvalidRow: column 'age': … is not int64",
        "     such as: column 'age': 'NA' is not int64 (data.csv#byte=7)",
        "     its row: 5.1,NA",
        "     remedy: --null_values 'NA,?' --column_defaults age=VALUE: if they stand for no value; the model is fed "
        "VALUE instead",
        "  1  predict BadInput: negative",
        "     such as: negative (data.csv#byte=90)",
        "     remedy: the model refuses these values: mend what writes these rows, or the rows themselves (sluice "
        "failures --export)",
    ]


def test_what_machines_read(tmp_path: Path, told: Callable[..., dict[str, Any]]) -> None:
    """The keys are an interface."""
    found = told(some(tmp_path / "f.jsonl"), "--top=1")
    assert found == {
        "failures": 4,
        "models": [{"model": "", "version": "", "count": 4}],
        "reasons": [
            {
                "count": 3,
                "stage": "decode",
                "error_type": "InvalidRow",
                "reason": "column 'age': … is not int64",
                "example": "column 'age': 'NA' is not int64",
                "origin": "data.csv#byte=7",
                "flags": "--null_values 'NA,?' --column_defaults age=VALUE",
                "remedy": "if they stand for no value; the model is fed VALUE instead",
                "payload": "5.1,NA",
            }
        ],
        "more_reasons": 1,
        "other_failures": 0,
    }


def test_the_models_that_rows_failed_for(
    tmp_path: Path, told: Callable[..., dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    failures = [like(model="gs://b/m", version=8)] * 3 + [like(model="gs://b/m", version=7), like(model="grpc://h/n")]
    path = write(tmp_path / "f.jsonl", FAILURE, *failures)
    assert main(["failures", path]) == 0
    assert capsys.readouterr().out.splitlines()[1:4] == [
        "  3  of gs://b/m, version 8",
        "  1  of gs://b/m, version 7",
        "  1  of grpc://h/n",
    ]
    assert told(path)["models"][0] == {"model": "gs://b/m", "version": "8", "count": 3}


def test_the_rest_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["failures", some(tmp_path / "f.jsonl"), "--top=1"]) == 0
    assert capsys.readouterr().out.endswith("1 more reasons, of 1 failures (--top 0 shows all)\n")


def test_files_globs_and_directories(tmp_path: Path, told: Callable[..., dict[str, Any]]) -> None:
    one, other = some(tmp_path / "a.jsonl"), some(tmp_path / "b.jsonl.gz")
    (tmp_path / "predictions.jsonl").write_text('{"x": 1}\n')
    counts = [told(*sources)["failures"] for sources in ([one], [one, other], [f"{tmp_path}/[ab].*"], [str(tmp_path)])]
    assert counts == [4, 8, 8, 8]


def test_a_file_may_be_named_like_a_table(
    tmp_path: Path, told: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    some(tmp_path / "out.failures.old")
    assert told("out.failures.old")["failures"] == 4


def test_files_on_gcs(gcs: Gcs, told: Callable[..., dict[str, Any]]) -> None:
    write_text(gcs.path("failures/f-0.jsonl"), to_json(FAILURE).decode() + "\n")
    write_text(gcs.path("failures/f-1.jsonl"), to_json(FAILURE).decode() + "\n")
    assert told(gcs.path("failures/f-*.jsonl"))["failures"] == 2
    export = gcs.path("exported/mend.jsonl")
    assert told(gcs.path("failures/"), "--export", export)["failures"] == 2
    assert told(export)["failures"] == 2


def test_a_table(bigquery: BigQuery, told: Callable[..., dict[str, Any]]) -> None:
    table = f"{bigquery.make_dataset()}.failed"
    ensure_failure_table(table)
    other = like(error_message="column 'age': 'x' is not int64", timestamp=1e9)
    rows = [failure_row(each) for each in (FAILURE, other)]
    assert bigquery.client.insert_rows_json(table, rows) == []
    (reason,) = told(table)["reasons"]
    assert (reason["count"], reason["payload"]) == (2, "5.1,NA")
    assert told(table, "--row_restriction", "timestamp < TIMESTAMP '2002-01-01'")["failures"] == 1


def test_what_a_table_has_besides(
    bigquery: BigQuery, told: Callable[..., dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    """Another program may write to the table, too, for its columns are those of Google's templates."""
    dataset = bigquery.make_dataset()
    table = f"{dataset}.failed"
    ensure_failure_table(table)
    other = {"timestamp": "2026-01-31T00:00:00Z", "errorMessage": "gone"}
    assert bigquery.client.insert_rows_json(table, [failure_row(FAILURE), other]) == []
    assert main(["failures", table]) == 0
    said = capsys.readouterr()
    assert "1 failures, 1 reason\n" in said.out
    assert "1 rows of tables are no failures, and are left out\n" in said.err
    assert main(["failures", f"{dataset}.none"]) == 2
    said = capsys.readouterr()
    assert f"{dataset}.none" in said.err and "--failures_table" not in said.err, "there is no such flag here"


def test_failures_are_chosen(tmp_path: Path, told: Callable[..., dict[str, Any]]) -> None:
    source = some(tmp_path / "f.jsonl")
    assert told(source, "--stages=predict,bind")["failures"] == 1
    assert told(source, "--error_types=InvalidRow")["failures"] == 3
    assert told(source, "--message", "'abc'")["failures"] == 1


@pytest.mark.parametrize("mode", ["hash", "none"])
def test_a_file_without_values_shows_none(mode: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    secret = like(error_message="it is Zq7Jane0Doe", payload=b"Zq7Jane0Doe", attributes=(("user", "Zq7Jane0Doe"),))
    source, mend, rows = write(tmp_path / "f.jsonl", secret, mode=mode), tmp_path / "mend.jsonl", tmp_path / "rows"
    for flags in ([], ["--json"], ["--export", str(mend), "--export_rows", str(rows)]):
        assert main(["failures", source, *flags]) == 0
        said = capsys.readouterr()
        assert "Zq7Jane0Doe" not in said.out + said.err
        assert "withheld" in said.out
    assert "Zq7Jane0Doe" not in mend.read_text() and rows.read_text() == ""
    assert "0 rows are in " in said.err and "1 others are no text, or were not kept" in said.err


def test_rows_are_exported_for_another_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pretty = like(payload=b'{\n "age": 1}')
    source = write(tmp_path / "f.jsonl", FAILURE, pretty, like(payload=b"\xff"))
    rows = tmp_path / "rows.jsonl"
    assert main(["failures", source, "--export_rows", str(rows)]) == 0
    assert rows.read_text() == '5.1,NA\n{  "age": 1}\n'
    assert f"2 rows are in {rows}; 1 others" in capsys.readouterr().err


class Full(io.BytesIO):
    """A file on a disk that is full: it tells so when it is closed, or as soon as it is written to."""

    def __init__(self, at_once: bool) -> None:
        super().__init__()
        self._at_once = at_once

    def write(self, data: Any) -> int:
        if self._at_once:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data)

    def close(self) -> None:
        if not self.closed:
            super().close()
            raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("at_once", [True, False])
def test_an_export_that_is_not_whole_is_not_said_to_be(
    at_once: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(failures_run, "open", lambda path, mode: Full(at_once), raising=False)
    assert main(["failures", some(tmp_path / "f.jsonl"), "--export", "mend.jsonl"]) == 1
    said = capsys.readouterr()
    assert "failures, " in said.out and "are in mend.jsonl" not in said.err
    assert "sluice: mend.jsonl: not whole, because it cannot be written: [Errno 28] No space left" in said.err


def test_what_cannot_be_read_or_written_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = some(tmp_path / "f.jsonl")
    (tmp_path / "rows.csv").write_text("a,b\n")
    cases = [
        ([f"{tmp_path}/none-*"], "no file matches"),
        ([f"{tmp_path}/rows.csv"], "is not a file of failures"),
        ([source, "--export", source], "exists; give it another name"),
        ([source, "--export", f"{source}/x"], "cannot be written"),
        ([source, "--export=a", "--export_rows=a"], "name the same file"),
        ([source, "--stages=score"], "--stages score"),
        ([source, "--row_restriction=x"], "--row_restriction applies to a table"),
    ]
    for arguments, text in cases:
        assert main(["failures", *arguments]) == 2, arguments
        assert text in capsys.readouterr().err


def test_a_damaged_file_is_told_after_what_it_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b"".join(to_json(FAILURE) + b"\n" for _ in range(9)))[:-9])
    (tmp_path / "b.jsonl").write_bytes(to_json(FAILURE) + b"\nnonsense\n")
    assert main(["failures", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert "read CorruptFile: " in said.out
    assert "not all failures could be read: " in said.err and "a.jsonl.gz cannot be read on" in said.err


def test_memory_is_bounded(tmp_path: Path, told: Callable[..., dict[str, Any]]) -> None:
    """Every failure has a reason of its own; all are counted, and few are held."""
    count = size(3_000, soak=500_000)
    letters = str.maketrans("0123456789", "ghijklmnop")
    with open(tmp_path / "f.jsonl", "wb") as file:
        for number in range(count):
            file.write(to_json(like(error_message=f"no {str(number).translate(letters)}")) + b"\n")
    found = told(f"{tmp_path}/f.jsonl", "--top=0")
    assert found["failures"] == count
    assert len(found["reasons"]) <= 1_000
    assert sum(reason["count"] for reason in found["reasons"]) + found["other_failures"] == count


def test_a_command_that_is_refused_leaves_no_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An empty file would be taken for the export, and the same command, mended, would be refused for it."""
    source, mend = some(tmp_path / "f.jsonl"), tmp_path / "mend.jsonl"
    assert main(["failures", source, "--export", str(mend), "--export_rows", source]) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.jsonl"]
    assert main(["failures", source, "--export", str(mend)]) == 0
    assert mend.read_text() and Path(source).read_text()


def test_remedies_name_the_inputs_of_the_map(tmp_path: Path, told: Callable[..., dict[str, Any]]) -> None:
    """--column_defaults knows inputs only, and failures name the column."""
    path = some(tmp_path / "f.jsonl")
    flags = told(path, "--map", "years=age")["reasons"][0]["flags"]
    assert flags == "--null_values 'NA,?' --column_defaults years=VALUE"
