"""`sluice demo-streaming`: what it shows, and that it leaves nothing behind, however it ends."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sluice.pipelines import cli
from sluice.pipelines.commands import demo_streaming_run
from sluice.pipelines.commands.demo_streaming_run import figures_line
from sluice.pipelines.commands.pubsub_emulator import JAR_VARIABLE, MISSING, find_emulator
from tests.support.fakes import PATIENCE_SECS
from tests.support.processes import Forked, run_sluice
from tests.support.pubsub.fakes_stream import FIGURES
from tests.support.pubsub.streams import wait_until
from tests.support.saved_models.zoo import ZooSample
from tests.support.servers import require


def session_of(pid: str) -> int:
    """The session that a process belongs to; 0 if there is none."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[3])
    except OSError:
        return 0


def left_of(session: int) -> list[str]:
    """The processes that still run in a session: a demo's own process, its emulator, its job."""
    return [pid for pid in os.listdir("/proc") if pid.isdigit() and session_of(pid) == session]


def demonstrate(output: str, seconds: float) -> None:
    """Runs a demo in a fork, in a session of its own, as a terminal does; it shows a line twice a second."""
    os.setsid()
    demo_streaming_run._LINE_SECS = 0.5
    run_sluice(["demo-streaming", f"--seconds={seconds}", f"--output={output}"])


@contextlib.contextmanager
def demo_of(output: str, seconds: float) -> Iterator[Forked]:
    """Begins a demo; it is killed at the end of the block, if it still runs."""
    require(find_emulator(), MISSING)
    demo = Forked(demonstrate, output, seconds, output="pipe")
    try:
        yield demo
    finally:
        demo.kill()
        demo.wait()


def rest_of(demo: Forked) -> str:
    """What a demo prints until it ends."""
    assert demo.stdout is not None
    return demo.stdout.read()


def test_all_rows_come_back_with_their_predictions(criteo: ZooSample) -> None:
    with demo_of(criteo.directory, 1.5) as demo:
        printed = rest_of(demo)
        assert demo.wait(PATIENCE_SECS) == 0, printed
    (published,) = re.findall(r"(\d+) rows published in", printed)
    assert 0 < int(published) <= 76  # 50 a second; a busy machine sends fewer, and none too early
    assert re.search(rf"messages +{published}\ndistinct ids +{published}\n", printed.replace("\n  ", "\n"))
    assert re.search(r"latency p99 +[\d.,]+ ms", printed)
    assert len(re.findall(r'^  \{"id": .* "score": [\d.e-]+\}$', printed, re.MULTILINE)) == 3
    assert '"sluice_version": "1"' in printed
    assert re.search(r"\d+ messages .*/s +p50 [\d,]+ ms", printed), "a line while it runs"
    assert f"sluice streaming --model {criteo.model}" in printed
    wait_until(lambda: left_of(demo.pid) == [], "every process ends")


def to_all(demo: Forked) -> None:
    """As ctrl-C on a terminal: the emulator gets it, too."""
    os.killpg(demo.pid, signal.SIGINT)


def to_itself(demo: Forked) -> None:
    demo.terminate()


@pytest.mark.parametrize(
    ("line", "stop"),
    [("Starting", to_all), ("$ sluice streaming", to_itself), ("$ sluice simulate", to_all)],
    ids=["emulator-starts", "job-starts", "messages-come"],
)
def test_stopped_at_any_time_it_leaves_nothing_behind(
    criteo: ZooSample, line: str, stop: Callable[[Forked], None]
) -> None:
    with demo_of(criteo.directory, 60) as demo:
        assert demo.stdout is not None
        seen = next(printed for printed in demo.stdout if printed.startswith(line))
        assert seen
        stop(demo)
        rest = rest_of(demo)
        assert demo.wait(PATIENCE_SECS) == 130, rest
    assert "sluice demo-streaming: interrupted" in rest
    wait_until(lambda: left_of(demo.pid) == [], "every process ends")


def test_without_an_emulator_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(JAR_VARIABLE, raising=False)
    assert cli.main(["demo-streaming", f"--output={tmp_path}/demo"]) == 2
    assert capsys.readouterr().err == f"sluice demo-streaming: {MISSING}\n"
    assert list(tmp_path.iterdir()) == [], "nothing is made first"


@pytest.mark.parametrize("flag", ["--rate=0", "--seconds=0", "--rate=-1", "--seconds=nan"])
def test_rate_and_seconds_are_above_zero(flag: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["demo-streaming", f"--output={tmp_path}/demo", flag]) == 2
    assert flag.split("=")[0] in capsys.readouterr().err


def test_figures_of_the_health_port_are_shown_as_the_job_shows_them() -> None:
    line = figures_line(FIGURES.to_json())
    assert line.startswith("1,234,567 messages  2,000/s  p50 48 ms  p99 1,251 ms  4,300 waiting")
    assert figures_line({}) == "no answer from the job"
