"""`sluice batch` on Beam's own portable job service: what a runner that is no process of ours tells, and what not."""

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from apache_beam.portability.api import beam_job_api_pb2 as api

from sluice.pipelines.cli import main
from sluice.transforms.core.commit import _Commit
from tests.support.engines.job_service import JobService, die_when_written, job_service, worker_pool
from tests.support.fakes import PATIENCE_SECS

_DAY_SECS = 24 * 3600
_DECLARED = [
    api.PipelineOptionDescriptor(name="checkpointing_interval", type=api.PipelineOptionType.INTEGER),
    api.PipelineOptionDescriptor(name="object_reuse", type=api.PipelineOptionType.BOOLEAN),
]


@pytest.fixture(scope="module")
def service() -> Iterator[JobService]:
    with job_service(_DECLARED) as running:
        yield running


@pytest.fixture
def command(cases: Callable[[str], str], service: JobService, tmp_path: Path) -> list[str]:
    """A job of 300 rows, of which two fail."""
    source = tmp_path / "in.csv"
    source.write_text("n,x\n" + "".join(f"{n},{-n if n in (7, 8) else n}\n" for n in range(300)))
    return ["batch", "--progress=none", "--model", cases("picky"), "--input", str(source)]


def portable(service: JobService, *more: str) -> list[str]:
    environment = [] if any(flag.startswith("--environment_type") for flag in more) else ["--environment_type=LOOPBACK"]
    return ["--runner=PortableRunner", f"--job_endpoint={service.endpoint}", *environment, *more]


def written(directory: Path, stem: str) -> tuple[list[bytes], list[dict[str, object]]]:
    """Returns the files of predictions, and the failures without their times."""
    lines = [line for path in directory.glob(f"{stem}.failures-*") for line in path.read_text().splitlines()]
    failures = [{name: value for name, value in json.loads(line).items() if name != "timestamp"} for line in lines]
    return [path.read_bytes() for path in sorted(directory.glob(f"{stem}-*"))], failures


def test_rows_and_failures_are_those_of_one_machine_however_long_the_job(
    command: list[str], service: JobService, tmp_path: Path
) -> None:
    summary = tmp_path / "summary.json"
    assert main([*command, "--output", f"{tmp_path}/here.csv"]) == 0
    more = ["--job_server_timeout=1", "--checkpointing_interval", "3000", "--object_reuse=true"]
    flags = [*portable(service, *more), "--summary_file", str(summary)]
    assert main([*command, "--output", f"{tmp_path}/there.csv", *flags]) == 0
    assert written(tmp_path, "there") == written(tmp_path, "here")
    assert [len(each) for each in written(tmp_path, "there")] == [1, 2]
    found = json.loads(summary.read_text())
    assert (found["rows_in"], found["predictions"], found["failures"]) == (300, 298, 2)
    assert found["beam_options"]["runner"] == "PortableRunner"
    assert service.limits.pop() > _DAY_SECS, "Beam would end the job after --job_server_timeout"
    assert (service.given["checkpointing_interval"], service.given["object_reuse"]) == ("3000", True)


def test_too_many_failures_are_exit_3(
    command: list[str], service: JobService, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = f"{tmp_path}/out.csv"
    assert main([*command, "--output", output, "--max_failure_rate=0", *portable(service)]) == 3
    said = capsys.readouterr().err
    assert "2 of 300 rows failed" in said and "Traceback" not in said
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["in.csv", "out.failures-00000-of-00001.jsonl"]


def test_ctrl_c_cancels_the_job(
    command: list[str],
    service: JobService,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held, go_on = threading.Event(), threading.Event()

    def hold(*_: object) -> None:
        held.set()
        go_on.wait(PATIENCE_SECS)

    def interrupt() -> None:
        if held.wait(PATIENCE_SECS):
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(_Commit, "_claim", hold)
    thread = threading.Thread(target=interrupt)
    thread.start()
    code = main([*command, "--output", f"{tmp_path}/out.csv", *portable(service)])
    thread.join()
    go_on.set()
    service.wait()
    assert code == 130
    said = capfd.readouterr().err
    assert "sluice: cancelling the job" in said
    assert "sluice: interrupted; no output was published" in said
    assert not list(tmp_path.glob("out-*")) and not list(tmp_path.glob(".sluice*"))


# Beam's runner tells of it in threads, too.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_killed_worker_fails_the_job(
    command: list[str], service: JobService, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with worker_pool(die_when_written) as address:
        flags = portable(service, "--environment_type=EXTERNAL", f"--environment_config={address}")
        assert main([*command, "--output", f"{tmp_path}/out.csv", *flags]) == 1
    said = capsys.readouterr().err
    assert "sluice: the job failed; no output was published: " in said and "Traceback" not in said
    assert said.count("not known") == 3, "this process has counted nothing, and the runner tells nothing"
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_a_flag_that_nobody_declares_is_refused(
    command: list[str], service: JobService, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = portable(service, "--checkpointing_intervall=3000")
    assert main([*command, "--output", f"{tmp_path}/out.csv", *flags]) == 2
    assert "did you mean --checkpointing_interval?" in capsys.readouterr().err
