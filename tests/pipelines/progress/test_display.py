"""When and where a display shows its lines. tests/pipelines/progress/test_batch_progress.py draws whole runs of it."""

import io
import logging
import threading
from typing import TextIO

import pytest

from sluice.pipelines.progress.display import Display, TextLines, fit


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Letters(Display):
    """Shows as many letters as there is room for; its waits return at once, so many times."""

    def __init__(self, mode: str, stream: TextIO, waits: int = 2, width: int = 8) -> None:
        super().__init__(TextLines(lambda: "abcdefghijkl"), mode, stream, self._step, lambda _: width)
        self.waits: list[float] = []
        self._steps = waits

    def _step(self, stop: threading.Event, secs: float) -> bool:
        self.waits.append(secs)
        return len(self.waits) > self._steps


@pytest.mark.parametrize(
    "mode,is_terminal,drawn,logged,waits",
    [
        ("auto", True, "\rabcdefg\x1b[K\rabcdefg\x1b[K\r\x1b[K", 0, [0.25] * 3),
        ("auto", False, "", 2, [30.0] * 3),
        ("bar", False, "\rabcdefg\x1b[K\rabcdefg\x1b[K\r\x1b[K", 0, [0.25] * 3),
        ("log", True, "", 2, [30.0] * 3),
        ("none", True, "", 0, []),
    ],
)
def test_modes(
    mode: str, is_terminal: bool, drawn: str, logged: int, waits: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    stream = Terminal() if is_terminal else io.StringIO()
    with caplog.at_level(logging.INFO, "sluice"), Letters(mode, stream) as display:
        pass
    assert stream.getvalue() == drawn
    assert [record.getMessage() for record in caplog.records] == ["abcdefghijkl"] * logged
    assert display.waits == waits


@pytest.mark.parametrize("width", [1, 2, 12, 13])
def test_the_last_column_stays_free(width: int) -> None:
    terminal = Terminal()
    with Letters("bar", terminal, waits=1, width=width):
        pass
    assert terminal.getvalue() == f"\r{'abcdefghijkl'[: width - 1]}\x1b[K\r\x1b[K"


def progress_threads() -> int:
    return sum(thread.name == "sluice-progress" for thread in threading.enumerate())


def test_the_end_of_the_block_breaks_off_the_wait() -> None:
    with Display(TextLines(str), "log", io.StringIO()):
        assert progress_threads() == 1
    assert progress_threads() == 0


@pytest.mark.filterwarnings("error")
def test_a_stream_that_is_closed_meanwhile_ends_it_quietly(caplog: pytest.LogCaptureFixture) -> None:
    terminal = Terminal()
    display = Letters("bar", terminal, waits=5)
    terminal.close()
    with display:
        pass
    assert display.waits == [0.25]
    assert caplog.records == []


@pytest.mark.parametrize("mode", ["auto", "bar", "none"])
def test_there_may_be_no_standard_error(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", None)
    with Display(TextLines(str), mode, wait=lambda stop, secs: True):
        pass


def test_fields_are_left_out_in_order_and_the_rest_is_cut() -> None:
    fields = {"a": "one", "b": "three", "c": "two"}
    found = [fit(fields, ("b", "a"), width) for width in (15, 14, 8, 7, 3, 2)]
    assert found == ["one  three  two", "one  two", "one  two", "two", "two", "tw"]
    assert fields == {"a": "one", "b": "three", "c": "two"}
