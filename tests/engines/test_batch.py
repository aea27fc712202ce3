"""`sluice batch` on real engines: Prism, and Flink with one and two tasks, of its own and on a cluster.

`make test-engines` runs these tests; PRISM_BIN and FLINK_JOB_SERVER_JAR name the engines.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sluice.pipelines.cli import main
from tests.support.engines import flink
from tests.support.engines.job_service import HELD, die_when_written, hold_when_written, work, worker_pool
from tests.support.engines.prism import prism_binary
from tests.support.engines.rows import assert_same, copy_rows, scored
from tests.support.fakes import PATIENCE_SECS
from tests.support.saved_models.zoo import ZooSample

_COPIES = 8


@dataclass(frozen=True)
class Rows:
    """What all jobs read, and what the default runner makes of it."""

    model: str
    input: str
    scores: dict[str, float]

    @property
    def flags(self) -> list[str]:
        return ["batch", "--progress=none", "--model", self.model, "--input", self.input]


@pytest.fixture(scope="session")
def rows(criteo: ZooSample, tmp_path_factory: pytest.TempPathFactory) -> Rows:
    directory = tmp_path_factory.mktemp("rows")
    pattern = copy_rows(criteo.path("csv"), directory, _COPIES)
    found = Rows(criteo.model, pattern, {})
    assert main([*found.flags, "--output", f"{directory}/out.csv"]) == 0
    scores = scored(directory / "out")
    assert len(scores) == 700 * _COPIES
    return Rows(criteo.model, pattern, scores)


@pytest.fixture(scope="session")
def embedded() -> Iterator[list[str]]:
    with flink.job_server() as endpoint:
        yield ["--runner=FlinkRunner", f"--job_endpoint={endpoint}"]


@pytest.fixture(scope="session")
def cluster() -> Iterator[list[str]]:
    """The flags of jobs on a cluster of two TaskManagers, whose workers are processes of this machine."""
    with flink.cluster() as running, flink.job_server(running.master) as endpoint, worker_pool(work) as pool:
        external = ["--environment_type=EXTERNAL", f"--environment_config={pool}"]
        yield ["--runner=FlinkRunner", f"--job_endpoint={endpoint}", *external]


@pytest.fixture(scope="session")
def prism() -> list[str]:
    return ["--runner=PrismRunner", f"--prism_location={prism_binary()}"]


ENGINES = [
    ("prism", ()),
    ("embedded", ("--parallelism=1",)),
    ("embedded", ("--parallelism=2", "--object_reuse=true")),
    ("cluster", ("--parallelism=1",)),
    ("cluster", ("--parallelism=2", "--checkpointing_interval=60000")),
]
engines = pytest.mark.parametrize(("engine", "more"), ENGINES, ids=lambda value: value or None)


@engines
def test_predictions_are_those_of_the_default_runner(
    engine: str, more: tuple[str, ...], rows: Rows, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    summary = tmp_path / "summary.json"
    flags = [*request.getfixturevalue(engine), *more, "--summary_file", str(summary)]
    assert main([*rows.flags, "--output", f"{tmp_path}/out.csv", *flags]) == 0
    assert_same(scored(tmp_path / "out"), rows.scores)
    found = json.loads(summary.read_text())
    assert (found["rows_in"], found["predictions"], found["failures"]) == (701 * _COPIES, 700 * _COPIES, _COPIES)
    assert not list(tmp_path.glob(".sluice*"))


@pytest.mark.parametrize("engine", ["prism", "embedded", "cluster"])
def test_too_many_failures_are_exit_3(
    engine: str, rows: Rows, tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [*request.getfixturevalue(engine), "--max_failure_rate=0"]
    assert main([*rows.flags, "--output", f"{tmp_path}/out.csv", *flags]) == 3
    said = capsys.readouterr().err
    assert f"{_COPIES} of {701 * _COPIES} rows failed" in said and "Traceback" not in said
    assert not scored(tmp_path / "out") and list(tmp_path.glob("out.failures-*.jsonl"))
    assert not list(tmp_path.glob(".sluice*"))


@pytest.mark.parametrize("engine", ["prism", "embedded", "cluster"])
def test_a_killed_worker_fails_the_job(
    engine: str, rows: Rows, tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    with worker_pool(die_when_written) as pool:
        external = ["--environment_type=EXTERNAL", f"--environment_config={pool}"]
        flags = [*request.getfixturevalue(engine)[:2], *external]
        assert main([*rows.flags, "--output", f"{tmp_path}/out.csv", *flags]) == 1
    said = capsys.readouterr().err
    assert "sluice: the job failed; no output was published: " in said and "Traceback" not in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("engine", ["prism", "embedded", "cluster"])
def test_ctrl_c_ends_job_and_command(
    engine: str, rows: Rows, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The terminal sends ctrl-C to all processes of a command; a job server that Beam started is none of them."""
    output, held = tmp_path / "output", tmp_path / "held"
    output.mkdir()
    monkeypatch.setenv(HELD, str(held))
    with worker_pool(hold_when_written) as pool:
        external = ["--environment_type=EXTERNAL", f"--environment_config={pool}"]
        flags = [*request.getfixturevalue(engine)[:2], *external]
        command = [sys.executable, "-m", "sluice", *rows.flags, "--output", f"{output}/out.csv", *flags]
        with _started(command) as process:
            _wait_for(lambda: held.exists() or process.poll() is not None)
            os.killpg(process.pid, signal.SIGINT)
            _, said = process.communicate(timeout=PATIENCE_SECS)
    assert process.returncode == 130, said
    assert "sluice: cancelling the job" in said and "sluice: interrupted; no output was published" in said
    assert not list(output.iterdir())


@contextlib.contextmanager
def _started(command: list[str]) -> "Iterator[subprocess.Popen[str]]":
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, process_group=0)
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def _wait_for(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + PATIENCE_SECS
    while not condition():
        assert time.monotonic() < give_up, "it does not come to it"
        time.sleep(0.01)
