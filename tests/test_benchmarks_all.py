"""`make bench`: what names a page of results, and how pages of docs get their tables."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as everything
from benchmarks import compare
from benchmarks.checkouts import ROOT
from benchmarks.header import commit, written_by
from benchmarks.quote import PAGES, quoted, tables


@pytest.mark.parametrize(("results", "page"), PAGES.items(), ids=list(PAGES))
def test_the_tables_of_a_page_are_found_again(results: str, page: str) -> None:
    """They are what the benchmark last wrote, so that nothing changes; with another figure, that changes."""
    old, written = Path(ROOT, page).read_text(), Path(ROOT, "benchmarks", results).read_text()
    assert quoted(old, written) == old
    start, stop = list(tables(written.splitlines()))[-1]
    row = written.splitlines()[stop - 1]
    assert stop > start + 2
    changed = quoted(old, written.replace(row, "| other | 1 |"))
    assert changed != old and "| other | 1 |" in changed


def test_tables_that_begin_alike_are_taken_in_their_order() -> None:
    page = (
        "# Page\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\ntext\n\n| a | b |\n|---|---|\n| 3 | 4 |\n\n"
        "| own | table |\n|---|\n| x |\n"
    )
    results = "| a | b |\n|---|---|\n| 5 | 6 |\n| 7 | 8 |\n\n| a | b |\n|---|---|\n| 9 | 10 |\n"
    assert quoted(page, results) == (
        "# Page\n\n| a | b |\n|---|---|\n| 5 | 6 |\n| 7 | 8 |\n\ntext\n\n| a | b |\n|---|---|\n| 9 | 10 |\n\n"
        "| own | table |\n|---|\n| x |\n"
    )
    with pytest.raises(ValueError, match="a table more"):
        quoted(page, results.partition("\n\n")[0])
    with pytest.raises(ValueError, match="lacks a table"):
        quoted("# Page", results)


def test_results_name_commit_machine_and_date() -> None:
    text = written_by("serving")
    assert text.startswith("Written by `make bench-serving` (`python -m benchmarks.serving`) on ")
    assert re.search(
        r"on \d{1,2} [A-Z][a-z]+ 20\d\d, at commit (unknown|[0-9a-f]{10}( with changes)?), on \d+ cores \(.+\)", text
    )


def test_a_commit_is_told_from_changed_files(tmp_path: Path) -> None:
    assert commit(str(tmp_path)) == "unknown"
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / "benchmarks").mkdir()
    for name in ("code.py", "benchmarks/RESULTS.md"):
        (tmp_path / name).write_text("1")
    for words in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "first"]):
        subprocess.run(["git", "-C", tmp_path, *words], check=True)
    assert re.fullmatch("[0-9a-f]{10}", commit(str(tmp_path)))
    (tmp_path / "benchmarks" / "RESULTS.md").write_text("2")
    assert "changes" not in commit(str(tmp_path)), "a benchmark before this one wrote it"
    (tmp_path / "code.py").write_text("2")
    assert commit(str(tmp_path)).endswith(" with changes")


def test_make_runs_each_of_them() -> None:
    makefile = Path(ROOT, "Makefile").read_text()
    for name in everything.NAMES:
        assert Path(ROOT, "benchmarks", f"{name}.py").exists()
        assert re.search(
            rf"^bench-{name}: .*\n(\t.*\n)*\t\$\(BIN\)/python -m benchmarks.{name}$", makefile, re.MULTILINE
        )


def figures(marginal: list[float]) -> dict[str, Any]:
    def stream(rate: float, mini_batches: bool, complete: bool) -> dict[str, Any]:
        return {"load": {"rate": rate, "mini_batches": mini_batches}, "complete": complete}

    way = {
        "way": "worker", "rank": 1, "tied": True, "rows_per_second": [1e6 / each for each in marginal],
        "marginal_us": marginal, "cost_per_million_rows": 0.00012345,
        "streams": [stream(400, False, True), stream(800, False, False), stream(4000, True, True)],
    }  # fmt: skip
    failed = way | {"way": "rest", "rank": None, "rows_per_second": None, "marginal_us": None, "streams": []}
    claim = {"text": "A claim", "verdict": "holds", "reason": "why"}
    found = {"at_rest": "worker", "in_stream": "grpc", "currency": "USD", "claims": [claim]}
    return found | {"ways": [way, failed | {"cost_per_million_rows": None}]}


def test_comparisons_are_told_with_what_the_batch_benchmark_finds() -> None:
    found = figures([5.0, 4.0])
    assert compare.table(found)[2:] == [
        "| 1= | worker | 225,000 (200,000 to 250,000) | 4.50 (4.00 to 5.00) | 0.000123 | 4,000 | 400 |",
        "|  | rest |  |  |  |  |  |",
    ]
    assert "**" not in compare.agreement(found, [4.9, 6.0])
    assert "**the two do not overlap**" in compare.agreement(found, [5.1, 6.0])
    text = "\n".join(compare.report({"criteo": found, "mnist": found}, [4.9, 6.0], 60))
    assert (
        text.count("Recommended: at rest worker, in a stream grpc") == 2 and text.count("measured right after it") == 1
    )
