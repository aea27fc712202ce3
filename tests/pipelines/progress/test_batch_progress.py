"""The progress line: what it says, when it is drawn, and that it never harms the job."""

import fcntl
import io
import logging
import os
import pty
import struct
import termios
import threading
from collections.abc import Sequence
from typing import TextIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.pipelines.progress.batch_progress import BatchProgress, Meter, Reading, Sample, render_line, render_log
from sluice.pipelines.progress.display import Display, clock_time, terminal_width

HALFWAY = Sample(
    rows=1_234_567,
    failed=3,
    done=42,
    total=100,
    rows_per_second=182_000.3,
    elapsed_seconds=65.2,
    eta_seconds=52.2,
)
STARTING = Sample(0, 0, 0, 100, 0.0, 1.0, None)
NO_SIZE = Sample(5_000, 0, 77, 0, 2_500.0, 3_725.0, None)
DONE = Sample(10, 0, 120, 100, 0.0, 9.6, 0.0)  # more bytes than the file is long: it was packed


@pytest.mark.parametrize(
    "sample,width,line",
    [
        (HALFWAY, 79, "[=====>       ]   42%  1,234,567 rows  182,000 rows/s  3 failed  1:05  ETA 0:52"),
        (HALFWAY, 75, "[=====>      ]   42%  1,234,567 rows  182,000 rows/s  3 failed  ETA 0:52"),
        (HALFWAY, 69, " 42%  1,234,567 rows  182,000 rows/s  3 failed  ETA 0:52"),
        (HALFWAY, 50, " 42%  1,234,567 rows  3 failed  ETA 0:52"),
        (HALFWAY, 30, " 42%  1,234,567 rows  ETA 0:52"),
        (HALFWAY, 25, " 42%  1,234,567 rows"),
        (HALFWAY, 10, " 42%"),
        (HALFWAY, 2, " 4"),
        (HALFWAY, 0, ""),
        (STARTING, 55, "[          ]    0%  0 rows  0 rows/s  0:01  ETA -:--"),
        (STARTING, 200, "[                              ]    0%  0 rows  0 rows/s  0:01  ETA -:--"),
        (NO_SIZE, 79, "5,000 rows  2,500 rows/s  1:02:05"),
        (DONE, 55, "[==========]  100%  10 rows  0 rows/s  0:10  ETA 0:00"),
    ],
)
def test_the_line(sample: Sample, width: int, line: str) -> None:
    assert render_line(sample, width) == line


@given(
    st.builds(
        Sample,
        rows=st.integers(0, 10**12),
        failed=st.integers(0, 10**9),
        done=st.integers(0, 10**12),
        total=st.integers(0, 10**12),
        rows_per_second=st.floats(0, 1e9),
        elapsed_seconds=st.floats(0, 1e6),
        eta_seconds=st.none() | st.floats(0, 1e9),
    ),
    st.integers(0, 200),
)
def test_the_line_fits_and_is_one_line(sample: Sample, width: int) -> None:
    line = render_line(sample, width)
    assert len(line) <= width
    assert line.isprintable()


@pytest.mark.parametrize(
    "sample,line",
    [
        (HALFWAY, "42%, 1,234,567 rows, 182,000 rows/s, 3 failed, after 1:05, ETA 0:52"),
        (NO_SIZE, "5,000 rows, 2,500 rows/s, after 1:02:05"),
    ],
)
def test_the_log_line(sample: Sample, line: str) -> None:
    assert render_log(sample) == line


@pytest.mark.parametrize(
    "seconds,text", [(0, "0:00"), (59.6, "1:00"), (754, "12:34"), (3599.4, "59:59"), (3723, "1:02:03")]
)
def test_clock_time(seconds: float, text: str) -> None:
    assert clock_time(seconds) == text


def measure(readings: Sequence[tuple[float, int, int]], total: int = 1000) -> list[Sample]:
    """Samples of (seconds, rows, bytes) readings, of which the first is the start."""
    taken = [Reading(seconds, rows, 0, size) for seconds, rows, size in readings]
    meter = Meter(taken[0], total)
    return [meter.sample(reading) for reading in taken[1:]]


def test_the_rate_is_of_the_last_seconds() -> None:
    steady = measure([(100 + second, 50 * second, 1) for second in range(30)])
    assert {sample.rows_per_second for sample in steady} == {50.0}
    stalled = measure([(0, 0, 0), (10, 2000, 1), (12, 2000, 1), (14, 2000, 1), (15, 2000, 1), (30, 2300, 1)])
    assert [sample.rows_per_second for sample in stalled] == [200.0, 2000 / 12, 2000 / 14, 0.0, 20.0]


def test_the_rate_and_the_eta_do_not_count_the_loading_of_the_model() -> None:
    samples = measure([(0, 0, 0), (30, 0, 0), (40, 100, 250), (50, 200, 500), (60, 200, 500), (80, 900, 1000)])
    assert [sample.rows_per_second for sample in samples] == [0.0, 10.0, 10.0, 0.0, 35.0]
    assert [sample.eta_seconds for sample in samples] == [None, 30.0, 20.0, 30.0, 0.0]
    assert [sample.elapsed_seconds for sample in samples] == [30, 40, 50, 60, 80]
    assert [sample.share for sample in samples] == [0.0, 0.25, 0.5, 0.5, 1.0]


def test_of_a_packed_file_there_is_no_share_before_its_end() -> None:
    samples = measure([(0, 0, 0), (1, 0, 0), (2, 100, 0), (3, 200, 3000)])
    assert [(sample.share, sample.eta_seconds) for sample in samples] == [(0.0, None), (None, None), (1.0, 0.0)]


def test_without_a_size_there_is_no_share_and_no_eta() -> None:
    (sample,) = measure([(0, 0, 0), (1, 10, 10)], total=0)
    assert (sample.share, sample.eta_seconds) == (None, None)


class Terminal(io.StringIO):
    """A stream that says it is a terminal and keeps what is drawn on it."""

    def isatty(self) -> bool:
        return True


class Script:
    """A job as the progress thread sees it: each wait is a step, at whose end more has been counted."""

    def __init__(self, *steps: dict[str, int]) -> None:
        self._steps = list(steps)
        self.seconds = 0.0
        self.tally: dict[str, int] = {}
        self.waits: list[float] = []

    def wait(self, stop: threading.Event, seconds: float) -> bool:
        self.waits.append(seconds)
        if not self._steps:
            return True
        self.seconds += seconds
        self.tally = self._steps.pop(0)
        return False

    def run(self, stream: TextIO, mode: str = "auto", width: int = 80) -> None:
        progress = BatchProgress(lambda: self.tally, total=1000, clock=lambda: self.seconds)
        with Display(progress, mode, stream, self.wait, lambda _: width):
            pass


def counted(rows: int, size: int, failed: int = 0) -> dict[str, int]:
    return {"rows_read": rows + failed, "rows_predicted": rows, "rows_failed": failed, "bytes_read": size}


def test_a_terminal_gets_one_line_that_is_cleared_at_the_end() -> None:
    terminal = Terminal()
    script = Script({}, counted(100, 250), counted(190, 500, failed=10))
    script.run(terminal)
    drawn = terminal.getvalue().split("\r")
    assert drawn == [
        "",
        "[             ]    0%  0 rows  0 rows/s  0:00  ETA -:--\x1b[K",
        "[===>         ]   25%  100 rows  400 rows/s  0:00  ETA 0:01\x1b[K",
        "[======>      ]   50%  200 rows  400 rows/s  10 failed  0:01  ETA 0:00\x1b[K",
        "\x1b[K",
    ]
    assert script.waits == [0.25] * 4


def test_the_last_column_stays_free() -> None:
    terminal = Terminal()
    Script(counted(100, 250)).run(terminal, width=20)
    assert terminal.getvalue() == "\r 25%  100 rows\x1b[K\r\x1b[K"


def test_anything_else_gets_a_log_line_every_30_seconds(caplog: pytest.LogCaptureFixture) -> None:
    stream = io.StringIO()
    script = Script(counted(3000, 250), counted(6000, 500))
    with caplog.at_level(logging.INFO, "sluice"):
        script.run(stream)
    assert [record.getMessage() for record in caplog.records] == [
        "25%, 3,000 rows, 100 rows/s, after 0:30, ETA 1:30",
        "50%, 6,000 rows, 100 rows/s, after 1:00, ETA 1:00",
    ]
    assert stream.getvalue() == ""
    assert script.waits == [30.0] * 3


def test_a_mode_that_is_asked_for_overrules_what_the_stream_is(caplog: pytest.LogCaptureFixture) -> None:
    stream, terminal = io.StringIO(), Terminal()
    Script(counted(1, 1)).run(stream, mode="bar")
    assert stream.getvalue().endswith("\r\x1b[K")
    with caplog.at_level(logging.INFO, "sluice"):
        Script(counted(1, 1)).run(terminal, mode="log")
        assert len(caplog.records) == 1
        silent = Script(counted(1, 1))
        silent.run(terminal, mode="none")
        assert (len(caplog.records), silent.waits) == (1, [])
    assert terminal.getvalue() == ""


def progress_threads() -> int:
    return sum(thread.name == "sluice-progress" for thread in threading.enumerate())


def test_the_end_of_the_block_ends_the_thread_at_once_whatever_ended_it() -> None:
    with Display(BatchProgress(dict, 0), "log", io.StringIO()):
        assert progress_threads() == 1
    assert progress_threads() == 0
    with pytest.raises(KeyError), Display(BatchProgress(dict, 0), "log", io.StringIO()):
        raise KeyError
    assert progress_threads() == 0


class Gone(Terminal):
    def write(self, text: str) -> int:
        raise BrokenPipeError


@pytest.mark.filterwarnings("error")
def test_a_terminal_that_is_gone_does_not_harm_the_job() -> None:
    script = Script(counted(1, 1), counted(2, 2))
    script.run(Gone())
    assert len(script.waits) == 1
    closed = Terminal()
    closed.close()
    Script(counted(1, 1)).run(closed, mode="bar")


def test_the_width_is_that_of_the_streams_own_terminal() -> None:
    reader, writer = pty.openpty()
    with os.fdopen(reader, "rb"), os.fdopen(writer, "w") as terminal:
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 57, 0, 0))
        assert terminal_width(terminal) == 57
    assert terminal_width(io.StringIO()) == 80
