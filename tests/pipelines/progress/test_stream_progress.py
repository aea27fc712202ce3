"""The progress line of a streaming job: what it says, and what it leaves out first."""

import dataclasses
import io
import logging
import threading
from collections.abc import Iterable
from typing import TextIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.pipelines.progress.display import Display
from sluice.pipelines.progress.stream_progress import StreamProgress, render_line
from sluice.pipelines.progress.stream_stats import StreamFigures
from tests.support.pubsub.fakes_stream import FIGURES, NOTHING

AWAY = dataclasses.replace(FIGURES, reachable=False, draining=True)
DRAINING = dataclasses.replace(FIGURES, draining=True, failures=0, restarts=0)


@pytest.mark.parametrize(
    "figures,width,line",
    [
        (
            FIGURES,
            200,
            "1,234,567 messages  2,000/s  p50 48 ms  p99 1,251 ms  4,300 waiting  batches of 512  67 failed  "
            "2 restarts  1:02:05",
        ),
        (
            FIGURES,
            107,
            "1,234,567 messages  2,000/s  p50 48 ms  p99 1,251 ms  4,300 waiting  batches of 512  67 failed  1:02:05",
        ),
        (FIGURES, 92, "1,234,567 messages  2,000/s  p50 48 ms  p99 1,251 ms  4,300 waiting  67 failed  1:02:05"),
        (FIGURES, 79, "1,234,567 messages  2,000/s  p50 48 ms  p99 1,251 ms  4,300 waiting  67 failed"),
        (FIGURES, 75, "1,234,567 messages  2,000/s  p50 48 ms  p99 1,251 ms  67 failed"),
        (FIGURES, 59, "1,234,567 messages  2,000/s  p99 1,251 ms  67 failed"),
        (FIGURES, 45, "1,234,567 messages  2,000/s  p99 1,251 ms"),
        (FIGURES, 35, "1,234,567 messages  p99 1,251 ms"),
        (FIGURES, 32, "1,234,567 messages  p99 1,251 ms"),
        (FIGURES, 31, "1,234,567 messages"),
        (FIGURES, 18, "1,234,567 messages"),
        (FIGURES, 12, "1,234,567 me"),
        (FIGURES, 0, ""),
        (AWAY, 60, "1,234,567 messages  2,000/s  p99 1,251 ms  SOURCE AWAY"),
        (AWAY, 40, "1,234,567 messages  SOURCE AWAY"),
        (DRAINING, 28, "1,234,567 messages  draining"),
        (
            DRAINING,
            120,
            "1,234,567 messages  2,000/s  p50 48 ms  p99 1,251 ms  4,300 waiting  batches of 512  draining  1:02:05",
        ),
        (NOTHING, 79, "0 messages  0/s  0 waiting  0:00"),
        (dataclasses.replace(FIGURES, trouble="no GPU"), 35, "1,234,567 messages  PAUSED"),
    ],
)
def test_the_line(figures: StreamFigures, width: int, line: str) -> None:
    assert render_line(figures, width) == line


STATES = ("SOURCE AWAY", "draining", "DEGRADED", "PAUSED", "STUCK")
COUNTS = st.integers(0, 10**12)
SOME_FIGURES = st.builds(
    StreamFigures,
    seconds=st.floats(0, 1e9),
    messages=COUNTS,
    predictions=COUNTS,
    failures=COUNTS,
    messages_per_second=st.floats(0, 1e9),
    latency_p50_ms=st.none() | st.floats(0, 1e8),
    latency_p99_ms=st.none() | st.floats(0, 1e8),
    buffered=COUNTS,
    in_work=COUNTS,
    batch_size=st.none() | st.floats(1, 1e6),
    bundles=COUNTS,
    restarts=COUNTS,
    rpc_retries=COUNTS,
    throttled_seconds=COUNTS,
    model_swaps=COUNTS,
    model_versions_rejected=COUNTS,
    reachable=st.booleans(),
    draining=st.booleans(),
    secs_since_progress=st.floats(0, 1e9),
    model_away_secs=st.floats(0, 10),
    recent_rows=COUNTS,
    recent_failures=COUNTS,
)


@given(SOME_FIGURES)
def test_at_every_width_it_fits_and_shows_what_a_narrower_one_shows(figures: StreamFigures) -> None:
    whole = render_line(figures, 1000).split("  ")
    never_left_out = [whole[0], *(field for field in whole if field in STATES)]
    shown: list[str] = []
    for width in range(201):
        line = render_line(figures, width)
        assert len(line) <= width
        assert line.isprintable()
        if width < len("  ".join(never_left_out)):
            assert line == "  ".join(never_left_out)[:width]
            continue
        fields = line.split("  ")
        assert set(fields) >= {*shown, *never_left_out}
        assert fields == [field for field in whole if field in fields], "a field is cut, or not at its place"
        shown = fields


def left_out(figures: StreamFigures) -> Iterable[str]:
    """Fields in the order in which they vanish as the line becomes narrower."""
    shown = render_line(figures, 200).split("  ")
    for width in range(200, len("1,234,567 messages  SOURCE AWAY") - 1, -1):
        fields = render_line(figures, width).split("  ")
        yield from (field for field in shown if field not in fields)
        shown = fields


def test_what_matters_least_is_left_out_first() -> None:
    order = ["2 restarts", "batches of 512", "1:02:05", "4,300 waiting", "p50 48 ms", "67 failed", "2,000/s"]
    assert list(left_out(AWAY)) == [*order, "p99 1,251 ms"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def show(moments: list[StreamFigures], stream: TextIO, mode: str = "auto", width: int = 20) -> list[float]:
    """Runs the display until it has shown each moment; returns how long it waited before each, and before its end."""
    left, waits = list(moments), []

    def wait(stop: threading.Event, secs: float) -> bool:
        waits.append(secs)
        return not left

    with Display(StreamProgress(lambda: left.pop(0)), mode, stream, wait, lambda _: width):
        pass
    return waits


def test_a_terminal_gets_one_line_that_is_cleared_at_the_end() -> None:
    terminal = Terminal()
    assert show([NOTHING, FIGURES], terminal) == [0.25] * 3
    assert terminal.getvalue() == "\r0 messages  0/s\x1b[K\r1,234,567 messages\x1b[K\r\x1b[K"


def test_anything_else_gets_a_log_line(caplog: pytest.LogCaptureFixture) -> None:
    stream = io.StringIO()
    with caplog.at_level(logging.INFO, "sluice"):
        assert show([NOTHING, FIGURES, DRAINING], stream) == [30.0] * 4
    assert [record.getMessage() for record in caplog.records] == [
        "0 messages, 0/s, 0 waiting, 0:00",
        "1,234,567 messages, 2,000/s, p50 48 ms, p99 1,251 ms, 4,300 waiting, batches of 512, 67 failed, 2 restarts, "
        "1:02:05",
        "1,234,567 messages, 2,000/s, p50 48 ms, p99 1,251 ms, 4,300 waiting, batches of 512, draining, 1:02:05",
    ]
    assert stream.getvalue() == ""


def test_none_looks_at_nothing() -> None:
    assert show([FIGURES], Terminal(), mode="none") == []


@pytest.mark.filterwarnings("error")
def test_a_terminal_that_is_gone_does_not_harm_the_job(caplog: pytest.LogCaptureFixture) -> None:
    class Gone(Terminal):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    assert show([FIGURES, FIGURES], Gone()) == [0.25]
    closed = Terminal()
    closed.close()
    assert show([FIGURES, FIGURES], closed, mode="bar") == [0.25]
    assert caplog.records == []
