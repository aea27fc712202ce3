"""What a job ends with: its three most frequent reasons, from this process or from its files."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from sluice.models.wording import message
from sluice.pipelines.progress import why
from sluice.pipelines.progress.why import reasons_text, render_reasons, top_reasons, where_failures_are
from sluice.transforms.core import metrics
from sluice.transforms.core.failures import Failure, count_failures, to_json
from sluice.transforms.core.reasons import Reasons

SECRET = "Zq7Jane0Doe"


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    metrics.reset_tally()
    yield
    metrics.reset_tally()


def failures() -> list[Failure]:
    texts = [message("column '{name}': {} is not int64", repr(each), name="age") for each in (SECRET, "NA", "abc", "?")]
    made = [Failure("decode", "InvalidRow", text, f"f.csv#byte={n}", b"row") for n, text in enumerate(texts)]
    made += [Failure("predict", "BadInput", f"could not convert {SECRET}", "f.csv#byte=9", b"row")] * 3
    made += [Failure("bind", "InvalidRow", message("column '{name}' is null", name="age"), "f.csv#byte=10", b"row")] * 2
    return [*made, Failure("read", "EOFError", message("cut off"), "g.gz#byte=7")]


def test_the_end_of_a_job() -> None:
    count_failures(failures())
    groups = top_reasons(10, (), private=False)
    assert reasons_text(groups).splitlines() == [
        "Why rows failed, the 3 most frequent reasons:",
        "  4  decode InvalidRow: column 'age': … is not int64",
        f"     such as: column 'age': '{SECRET}' is not int64 (f.csv#byte=0)",
        "     remedy: --null_values 'NA,?' --column_defaults age=VALUE: if they stand for no value; the model is fed "
        "VALUE instead",
        f"  3  predict BadInput: could not convert {SECRET}",
        f"     such as: could not convert {SECRET} (f.csv#byte=9)",
        "     remedy: the model refuses these values: mend what writes these rows, or the rows themselves (sluice "
        "failures --export)",
        "  2  bind InvalidRow: column 'age' is null",
        "     such as: column 'age' is null (f.csv#byte=10)",
        "     remedy: --column_defaults age=VALUE: the model is fed VALUE for nulls; or --map "
        "INPUT=COLUMN, if the input is to take another column",
    ]
    assert reasons_text(()) == ""


@pytest.mark.parametrize("seen_here", [True, False])
@pytest.mark.parametrize("mode", ["hash", "none"])
def test_private_values_are_not_told(mode: str, seen_here: bool, tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    path.write_bytes(b"".join(to_json(each, mode) + b"\n" for each in failures()))
    if seen_here:
        count_failures(failures())
    text = reasons_text(top_reasons(10, [str(path)], private=True))
    assert SECRET not in text and "NA" not in text and "withheld" in text
    assert "  4  decode InvalidRow: column 'age': … is not int64\n" in text
    assert "  3  predict BadInput: " in text and "  2  bind InvalidRow: column 'age' is null\n" in text


def test_failures_of_other_processes_are_read(tmp_path: Path) -> None:
    paths = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for path in paths:
        path.write_bytes(b"".join(to_json(each) + b"\n" for each in failures()))
    count_failures(failures()[:1])
    groups = top_reasons(20, list(map(str, paths)), private=False)
    assert [(group.stage, group.count) for group in groups] == [("decode", 8), ("predict", 6), ("bind", 4)]


def test_of_large_failures_few_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = Failure("predict", "BadInput", "no image", "f#1", b"\xff" * 1000)
    paths = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for path in paths:
        path.write_bytes((to_json(large) + b"\n") * 5)
    monkeypatch.setattr(why, "_MOST_BYTES", 4_000)
    (group,) = top_reasons(10, list(map(str, paths)), private=False)
    assert group.count == 3


def test_a_file_that_cannot_be_read_does_not_end_the_job(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(to_json(failures()[0]) + b"\nnonsense\n")
    (group,) = top_reasons(20, [str(path)], private=False)
    assert group.count == 1
    assert "Not all failures could be read" in caplog.text


def test_rows_are_shown_where_they_are_known() -> None:
    reasons = Reasons()
    reasons.add("decode", "InvalidRow", "wrong", "", "a,b")
    assert render_reasons(reasons.top()) == ["  1  decode InvalidRow: wrong", "     its row: a,b"]
    private = [dataclasses.replace(group, payload="") for group in reasons.top()]
    assert render_reasons(private) == ["  1  decode InvalidRow: wrong"]


@pytest.mark.parametrize(
    ("files", "table", "line"),
    [
        ([], "", ""),
        (["out/f-00000-of-00001.jsonl"], "", "All reasons: sluice failures out/f-00000-of-00001.jsonl\n"),
        (["f-00000-of-00002.jsonl", "f-00001-of-00002.jsonl"], "p.d.t", "All reasons: sluice failures 'f-*.jsonl'\n"),
        (["out/failed-*.jsonl"], "", "All reasons: sluice failures 'out/failed-*.jsonl'\n"),
        ([], "p.d.t", "All reasons: sluice failures p.d.t\n"),
    ],
)
def test_where_all_of_them_are(files: list[str], table: str, line: str) -> None:
    assert where_failures_are(files, table) == line


def test_the_command_that_shows_all_of_them_knows_the_map_of_the_job() -> None:
    line = "All reasons: sluice failures p.d.t --map bill_length=bill.length --map 'a=b c'\n"
    assert where_failures_are([], "p.d.t", (("bill_length", "bill.length"), ("a", "b c"))) == line
