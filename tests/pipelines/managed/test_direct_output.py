"""Counts and reasons from what the service has written by itself."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.pipelines.managed.direct_output import Counts, count, error_reasons, output_files, parse_error
from sluice.pipelines.managed.job import Job, State, Stats

NAME = "projects/p/locations/l/batchPredictionJobs/7"


NOT_KNOWN = Stats()


def job(directory: Path, stats: Stats = NOT_KNOWN) -> Job:
    return Job(NAME, State.SUCCEEDED, output_directory=str(directory), stats=stats)


@pytest.mark.parametrize(
    "line,parsed",
    [
        ('(\'Post request fails. {"error": "a, b"}\', 64)', ('Post request fails. {"error": "a, b"}', 64)),
        ('["Post request fails.", 64]', ("Post request fails.", 64)),
        ('{"message": "no", "count": 3}', ("no", 3)),
        ('{"error": {"code": 3}, "error_count": "2"}', ('{"code": 3}', 2)),
        ('{"error": "no count"}', ("no count", 1)),
        ("a message, 12", ("a message", 12)),
        ("a message\t12", ("a message", 12)),
        ("a message (cut off) 12", ("a message (cut off)", 12)),
        ("cannot connect to port 8080", ("cannot connect to port 8080", 1)),
        ("status: 503", ("status: 503", 1)),
        ("the limit is 1,000", ("the limit is 1,000", 1)),
        ("('cut off in the mid', 12)x", ("('cut off in the mid', 12)x", 1)),
        ("only words", ("only words", 1)),
        ("42", ("42", 1)),
        ("[1, 2, 3]", ("[1, 2, 3]", 1)),
    ],
)
def test_lines_of_errors(line: str, parsed: tuple[str, int]) -> None:
    assert parse_error(line) == parsed


@given(st.text(min_size=1))
def test_no_line_breaks_it(line: str) -> None:
    message, number = parse_error(line)
    assert isinstance(message, str) and number >= 0


@given(st.text(), st.integers(0, 1 << 40))
def test_tuples_come_back(text: str, number: int) -> None:
    assert parse_error(repr((text, number))) == (text, number)


def test_reasons_of_several_files_are_added(tmp_path: Path) -> None:
    (tmp_path / "prediction.errors_stats-00000-of-00002").write_text("('a', 1)\n\n('b', 5)\n")
    (tmp_path / "prediction.errors_stats-00001-of-00002.txt").write_bytes(b"('a', 2)\n('\xff', 1)")
    assert error_reasons(str(tmp_path)) == {"b": 5, "a": 3, "\ufffd": 1}
    assert list(error_reasons(str(tmp_path))) == ["b", "a", "\ufffd"]


def test_the_services_own_counts_are_believed(tmp_path: Path) -> None:
    (tmp_path / "prediction.results-00000-of-00001").write_text("{}\n")
    assert count(job(tmp_path, Stats(10, 2, 3)), "jsonl") == Counts(10, 2, 3, {})


@pytest.mark.parametrize("output_format,suffix,header", [("jsonl", "", ""), ("csv", ".csv", "x,y\n")])
def test_where_the_service_does_not_know_lines_are_counted(
    tmp_path: Path, output_format: str, suffix: str, header: str
) -> None:
    (tmp_path / f"prediction.results-00000-of-00003{suffix}").write_text(header + "1\n2\n")
    (tmp_path / f"prediction.results-00001-of-00003{suffix}").write_text(header + "3\n4")
    (tmp_path / f"prediction.results-00002-of-00003{suffix}").write_text("")
    (tmp_path / "prediction.errors_stats-00000-of-00001").write_text("('a', 6)\n")
    assert count(job(tmp_path), output_format) == Counts(4, 6, None, {"a": 6})
    assert len(output_files(job(tmp_path))) == 4


def test_a_table_has_counts_only() -> None:
    there = Job(NAME, State.SUCCEEDED, output_table="p.d.t", stats=Stats(1, 2, 0))
    assert (count(there, "bigquery"), output_files(there)) == (Counts(1, 2, 0, {}), ())
