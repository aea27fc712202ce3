"""`--report_file` end to end: what a job writes, and how a browser shows it."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sluice.pipelines.cli import main
from tests.support.browser import Browser, browser
from tests.support.reports import all_numbers, figures_of, rows_of
from tests.support.saved_models.zoo import ZooSample, read_output

BAD_ROWS = (3, 120, 500)


@pytest.fixture(scope="module")
def report(criteo: ZooSample, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a job with a few failures; its predictions lie beside it."""
    directory = tmp_path_factory.mktemp("report")
    lines = Path(criteo.path("csv")).read_bytes().splitlines(keepends=True)
    for row in BAD_ROWS:
        lines[row + 1] = b"too,few\n"
    (directory / "in.csv").write_bytes(b"".join(lines))
    path = directory / "report.html"
    ends = [f"--input={directory}/in.csv", f"--output={directory}/out.csv", f"--report_file={path}"]
    assert main(["batch", "--progress=none", f"--model={criteo.model}", *ends]) == 0
    return path


def test_the_numbers_are_those_of_the_job(report: Path, criteo: ZooSample) -> None:
    numbers = all_numbers(report)
    figures = figures_of(numbers)
    assert (figures["Rows in"], figures["Predictions"], figures["Failures"]) == ("700", "697", "3")
    scores = [float(row["score"]) for row in read_output(str(report.parent / "out-00000-of-00001.csv"))]
    (told,) = rows_of(numbers, "Predictions in numbers")
    assert (told["column"], told["values"]) == ("score", 697)
    assert told["median"] == pytest.approx(np.quantile(scores, 0.5, method="inverted_cdf"), rel=0.04)
    assert (told["min"], told["max"]) == pytest.approx((min(scores), max(scores)))
    assert sum(row["per_second"] for row in rows_of(numbers, "Predictions over time")) >= 697
    assert sum(row["values"] for row in rows_of(numbers, "score")) == pytest.approx(697, abs=20)
    inputs = {row["column"]: row for row in rows_of(numbers, "Inputs of the model in numbers")}
    assert set(inputs) == {f"I{number}" for number in range(1, 14)}
    kept = [row for place, row in enumerate(criteo.batch().column("I2").to_pylist()) if place not in BAD_ROWS]
    assert inputs["I2"]["values"] == 697 and inputs["I2"]["max"] == max(kept)
    assert rows_of(numbers, "3 rows failed") == [{"stage": "decode", "error_type": "InvalidRow", "rows": 3}]
    (reason,) = rows_of(numbers, "Most frequent")
    assert (reason["rows"], reason["stage"]) == (3, "decode") and "expected 41 fields" in reason["example"]
    assert rows_of(numbers, "One version") == [{"version": "1", "rows": 697}]


def test_a_job_without_the_flag_has_neither_steps_nor_file_for_it(criteo: ZooSample, tmp_path: Path) -> None:
    ends = [f"--input={criteo.path('csv')}", f"--output={tmp_path}/out.csv", "--limit=10"]
    assert main(["batch", "--progress=none", f"--model={criteo.model}", *ends]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out-00000-of-00001.csv"]


def test_a_report_that_cannot_be_written_changes_no_outcome(
    criteo: ZooSample, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    ends = [f"--input={criteo.path('csv')}", f"--output={tmp_path}/out.csv", "--limit=10"]
    command = ["batch", "--progress=none", f"--model={criteo.model}", f"--report_file={tmp_path}/file/r.html"]
    assert main([*command, *ends]) == 0
    assert "the report could not be made or written" in caplog.text


@pytest.fixture(scope="module")
def tab() -> Iterator[Browser]:
    with browser() as tab:
        yield tab


# What a chart has drawn of its data, and whether each has some.
_MARKS = "[...document.querySelectorAll('figure.chart')].map(f => f.querySelectorAll('.role-mark path').length)"
_OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
_SHOWN = "[...document.querySelectorAll('figure.chart svg')].filter(s => s.getBoundingClientRect().width > 0)"
_PAPER = "getComputedStyle(document.body).backgroundColor"
_BAR = "getComputedStyle(document.querySelector('.chart .role-mark path')).fill"


@pytest.mark.parametrize(("width", "dark"), [(1200, False), (1200, True), (390, False)])
def test_a_browser_shows_it(report: Path, tab: Browser, width: int, dark: bool) -> None:
    visit = tab.visit(report.as_uri(), width, dark)
    assert visit.errors == []
    assert [url for url in visit.requests if not url.startswith("data:")] == [report.as_uri()]
    marks = tab.value(_MARKS)
    assert len(marks) >= 15 and all(marks)
    assert tab.value(_OVERFLOW) == 0, "nothing is wider than the screen"
    assert tab.value(f"{_SHOWN}.length") == len(marks), "one drawing of each chart is shown"
    lightness = sum(map(int, re.findall(r"\d+", tab.value(_PAPER))[:3]))
    assert (lightness < 150) == dark and (lightness > 700) == (not dark)


def test_colours_follow_the_screen_and_it_prints(report: Path, tab: Browser) -> None:
    bars = []
    for dark in (False, True):
        tab.visit(report.as_uri(), dark=dark)
        bars.append(tab.value(_BAR))
    assert bars[0] != bars[1]
    pdf = tab.pdf()
    assert pdf.startswith(b"%PDF") and len(pdf) > 10_000


def test_where_nobody_waits_for_the_end_it_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ends = [f"--input={tmp_path}/in.csv", f"--output={tmp_path}/out.csv", f"--report_file={tmp_path}/r.html"]
    assert main(["batch", f"--model={tmp_path}/model", *ends, "--template_location=gs://b/t"]) == 2
    assert "--report_file: a template is started later" in capsys.readouterr().err
