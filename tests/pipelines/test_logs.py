"""The log as JSON: each line is one object, whatever it tells."""

import contextlib
import io
import json
import logging
import os
import re
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sluice.models.cache import clear_cache
from sluice.pipelines.cli import main
from sluice.pipelines.logs import (
    JSON,
    TEXT,
    JsonFormatter,
    is_json,
    line_of,
    set_up,
    standard_error,
    tell,
    tell_in_handler,
)
from sluice.pipelines.outcome import EXIT_FAILED, tell_end_of_stream
from tests.support.paths import ROOT


class Log:
    """What is written to the handler that the root logger has during a test."""

    def __init__(self) -> None:
        self.stream = io.StringIO()

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[Log]:
    """A root logger as a process has it that pytest does not watch."""
    root, ours, made = logging.getLogger(), logging.getLogger("sluice"), Log()
    monkeypatch.setattr(root, "handlers", [logging.StreamHandler(made.stream)])
    levels = root.level, ours.level
    ours.setLevel(logging.INFO)
    yield made
    set_up(TEXT, logging.WARNING)  # handlers of pytest have been given the form too, and outlive the test
    logging.captureWarnings(False)
    root.setLevel(levels[0])
    ours.setLevel(levels[1])


def test_a_line_has_time_level_logger_message_and_fields(log: Log) -> None:
    set_up(JSON, logging.WARNING)
    logging.getLogger("sluice.a").warning("%d rows\nof 'é'", 3, extra={"fields": {"rows": 3, "of": Path("x")}})
    logging.getLogger("b").error("bad")
    first, second = log.lines()
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first.pop("time")) and second.pop("time")
    assert first == {
        "level": "WARNING",
        "logger": "sluice.a",
        "message": "3 rows\nof 'é'",
        "fields": {"rows": 3, "of": "x"},
    }
    assert second == {"level": "ERROR", "logger": "b", "message": "bad"}
    assert log.stream.getvalue().isascii(), "a terminal of any encoding can show it"


def test_a_traceback_is_part_of_its_line(log: Log) -> None:
    set_up(JSON, logging.WARNING)
    try:
        raise KeyError("no")
    except KeyError:
        logging.getLogger("sluice").exception("it failed")
    (line,) = log.lines()
    assert line["message"] == "it failed" and "KeyError: 'no'" in line["error"]


def test_warnings_are_lines_too(log: Log) -> None:
    set_up(JSON, logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)  # pytest has put its own function in place
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    assert [line["logger"] for line in log.lines()] == ["py.warnings"]


def test_what_people_are_told(log: Log, capsys: pytest.CaptureFixture[str]) -> None:
    fields: dict[str, Any] = {"rows": 7}
    set_up(TEXT, logging.INFO)
    tell("Rows  7\nModel m\n", message="summary", fields=lambda: fields)
    assert (capsys.readouterr().err, log.stream.getvalue()) == ("Rows  7\nModel m\n", "")
    assert (is_json(), line_of("draining")) == (False, "draining\n")
    set_up(JSON, logging.INFO)
    tell("Rows  7\nModel m\n", message="summary", fields=lambda: fields)
    tell("sluice: interrupted\n", logging.ERROR)
    assert capsys.readouterr().err == ""
    assert [(line["level"], line["message"], line.get("fields")) for line in log.lines()] == [
        ("INFO", "summary", {"rows": 7}),
        ("ERROR", "sluice: interrupted", None),
    ]
    assert json.loads(line_of("draining"))["message"] == "draining"
    set_up(TEXT, logging.INFO)
    assert not is_json(), "the next command in this process has a log of its own form"


def test_a_process_without_standard_error_tells_nobody(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    set_up(TEXT, logging.INFO)
    monkeypatch.setattr("sys.stderr", None)
    tell("Rows  7\n")
    tell_in_handler("draining")
    standard_error().flush()
    assert not standard_error().isatty()
    assert log.stream.getvalue() == ""


def test_a_standard_error_that_nobody_reads_does_not_change_how_a_job_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    set_up(TEXT, logging.INFO)
    reader, writer = os.pipe()
    os.close(reader)
    with contextlib.suppress(BrokenPipeError), os.fdopen(writer, "w", buffering=1) as stream:
        monkeypatch.setattr("sys.stderr", stream)
        tell("sluice: the job failed\n", logging.ERROR)
        tell_in_handler("draining")
    tell("sluice: the job failed\n", logging.ERROR)  # it is closed now


# They write to standard error itself, and bear that there is none.
_OF_STDERR = {"pipelines/logs.py", "models/saved_model/tensorflow_import.py"}


def test_no_other_file_writes_to_standard_error_itself() -> None:
    """`tell` and `standard_error` bear that there is none."""
    paths = [path for package in ("models", "transforms", "pipelines") for path in (ROOT / package).rglob("*.py")]
    direct = re.compile(r"\bsys\.(__)?stderr|from sys import .*stderr|\bwrite\(2, ")
    assert {str(path.relative_to(ROOT)) for path in paths if direct.search(path.read_text())} == _OF_STDERR


def test_every_line_of_a_job_is_json(
    log: Log, cases: Callable[[str], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.csv").write_text("x\n1\n-2\n3\n" + "4\n" * 30)
    flags = ["--input", str(tmp_path / "in.csv"), "--output", str(tmp_path / "out.csv"), "--log_format=json"]
    clear_cache()  # of a job that ran before in this process, for the line of a model that is loaded
    assert main(["batch", f"--model={cases('picky')}", *flags]) == 0
    lines = log.lines()
    (summary,) = [line for line in lines if line["message"] == "summary"]
    assert (summary["fields"]["predictions"], summary["fields"]["failures"]) == (32, 1)
    (loaded,) = [line for line in lines if "is loaded on" in line["message"]]
    assert (loaded["level"], loaded["logger"]) == ("INFO", "sluice.models.saved_model.loader")
    assert main(["batch", f"--model={cases('picky')}", *flags]) == 2
    assert log.lines()[-1]["level"] == "ERROR" and "--overwrite" in log.lines()[-1]["message"]
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--log_format", "json", "--model=m"], "required: --name"),
        (["--model=m", "--name=n", "--modle=m", "--log_format=json"], "--modle: did you mean --model?"),
        (["--log_format=text", "--log_format=json", "--grpc_port=a"], "invalid int value"),
        (["--log_format=json", "--config=nowhere.yaml"], "nowhere.yaml cannot be read"),
    ],
)
def test_what_is_typed_wrongly_is_json(
    flags: list[str], words: str, log: Log, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["serve", *flags])
    (line,) = log.lines()
    assert line["level"] == "ERROR" and words in line["message"] and "--help lists all" in line["message"]
    assert capsys.readouterr() == ("", "")


def test_the_form_may_come_from_a_file(log: Log, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "job.yaml").write_text("log_format: json\n")
    with pytest.raises(SystemExit, match="2"):
        main(["serve", f"--config={tmp_path / 'job.yaml'}"])
    assert "required: --model" in log.lines()[0]["message"]
    with pytest.raises(SystemExit, match="2"):
        main(["serve"])
    assert len(log.lines()) == 1, "the next command in this process has a log of its own form"
    assert "required: --model" in capsys.readouterr().err


_UNCAUGHT = """
import threading
from sluice.pipelines.logs import JSON, set_up

class Bad:
    def __del__(self):
        raise KeyError("nowhere to raise it")

def fail():
    raise ValueError("in a thread")

set_up(JSON, 0)
thread = threading.Thread(target=fail)
thread.start()
thread.join()
Bad()
raise RuntimeError("in the main thread")
"""


def test_errors_that_nobody_catches_are_lines_too() -> None:
    ran = subprocess.run([sys.executable, "-c", _UNCAUGHT], capture_output=True, text=True, timeout=120, check=False)
    lines = [json.loads(line) for line in ran.stderr.splitlines()]
    assert ran.returncode == 1
    assert [(line["level"], line["message"]) for line in lines] == [
        ("CRITICAL", "ValueError: in a thread"),
        ("CRITICAL", "KeyError: 'nowhere to raise it'"),
        ("CRITICAL", "RuntimeError: in the main thread"),
    ]
    assert all("Traceback" in line["error"] for line in lines)


def test_a_log_for_people_leaves_errors_to_python(log: Log) -> None:
    before = sys.excepthook, threading.excepthook, sys.unraisablehook
    set_up(JSON, logging.WARNING)
    assert sys.excepthook is not before[0] and threading.excepthook is not before[1]
    set_up(TEXT, logging.WARNING)
    assert (sys.excepthook, threading.excepthook, sys.unraisablehook) == before


def test_the_formatter_takes_what_json_has_no_form_for() -> None:
    record = logging.LogRecord("a", logging.INFO, "", 0, "m", None, None)
    record.fields = {"type": int, "none": None}
    assert json.loads(JsonFormatter().format(record))["fields"] == {"type": "<class 'int'>", "none": None}


def test_what_a_handler_of_signals_tells(log: Log, capfd: pytest.CaptureFixture[str]) -> None:
    set_up(TEXT, logging.INFO)
    tell_in_handler("draining")
    assert capfd.readouterr().err == "\nsluice: draining\n"
    set_up(JSON, logging.INFO)
    tell_in_handler("draining")
    (line,) = capfd.readouterr().err.splitlines()
    assert json.loads(line)["message"] == "sluice: draining"


def test_what_a_stream_tells_at_its_end(log: Log, capfd: pytest.CaptureFixture[str]) -> None:
    set_up(JSON, logging.INFO)
    assert tell_end_of_stream(RuntimeError("no slots"), private=False) == EXIT_FAILED
    (line,) = log.lines()
    assert line["level"] == "ERROR" and "no slots" in line["message"]
    assert capfd.readouterr() == ("", "")
