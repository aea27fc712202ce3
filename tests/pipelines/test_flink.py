"""The launcher of a stream on Flink: which files it makes and leaves, and when it keeps a subscription of its own."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from apache_beam.options.pipeline_options import FlinkRunnerOptions, PipelineOptions

from sluice.models.errors import UsageError
from sluice.pipelines import flink
from sluice.pipelines.portable.follow_stream import End
from sluice.transforms.pubsub.reader_files import ReaderFiles, Report

DRAINED = Report("one", 9, pulled=5, acknowledged=5, drained=True)


def options(temp: Path) -> PipelineOptions:
    flags = ["--runner=FlinkRunner", "--environment_type=EXTERNAL", "--job_name=daily"]
    return PipelineOptions([*flags, f"--temp_location={temp}"])


class Plan(NamedTuple):
    """What a launch needs to know of a stream whose subscription is its own."""

    topic: str = "projects/p/topics/clicks"
    subscription: str = ""


def launch(
    monkeypatch: pytest.MonkeyPatch,
    temp: Path,
    outcome: tuple[int, bool] | BaseException,
    closed: list[tuple[str, int]] | None = None,
) -> int:
    """Launches a job of which a reader reports, and which ends like this.

    Args:
      closed: gets the subscriptions that are closed, and how many messages are said to be left in each.
    """

    class Subscription:
        def __init__(self, client: object, name: str, temporary: bool) -> None:
            assert temporary
            self.name = name

        def close(self, left: int) -> None:
            if closed is not None:
                closed.append((self.name, left))

    def run(options: Any, plan: Any, beam: Any, files: ReaderFiles, drain_secs: float) -> tuple[int, bool]:
        assert files.reports() == [] and not files.is_asked(), "nothing of an earlier job"
        files.tell(DRAINED)
        if isinstance(outcome, BaseException):
            raise outcome
        files.ask_to_drain()
        return outcome

    monkeypatch.setattr(flink, "_with_source", lambda options, plan, *_: plan._replace(subscription="projects/p/s"))
    monkeypatch.setattr(flink, "_run", run)
    monkeypatch.setattr(flink, "subscriber", lambda: None)
    monkeypatch.setattr(flink, "GoogleSubscription", Subscription)
    nothing: Any = None
    plan: Any = Plan()
    return flink.run_on_flink(nothing, plan, options(temp), 3.0)


def test_a_job_leaves_nothing_and_touches_nothing_that_has_its_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kept = tmp_path / "daily" / "models"
    kept.mkdir(parents=True)
    ReaderFiles(str(tmp_path / "daily")).ask_to_drain()  # of a launcher that was killed
    assert launch(monkeypatch, tmp_path, (0, True)) == 0
    assert kept.is_dir()
    assert [path.name for path in tmp_path.iterdir()] == ["daily"]


def test_a_job_that_may_go_on_finds_that_it_is_to_drain(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert launch(monkeypatch, tmp_path, (0, False)) == 0
    (directory,) = tmp_path.iterdir()
    assert ReaderFiles(str(directory)).is_asked()
    assert f"{directory}/drain" in caplog.text


def test_a_job_that_was_refused_leaves_nothing_and_one_that_was_interrupted_drains(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    closed = list[tuple[str, int]]()
    with pytest.raises(UsageError):
        launch(monkeypatch, tmp_path, UsageError("no"), closed)
    assert list(tmp_path.iterdir()) == []
    assert closed == [("projects/p/s", 0)]
    with pytest.raises(KeyboardInterrupt):
        launch(monkeypatch, tmp_path, KeyboardInterrupt(), closed)
    assert len(closed) == 1, "the job may read it"
    (directory,) = tmp_path.iterdir()
    assert ReaderFiles(str(directory)).is_asked()


@pytest.mark.parametrize(
    ("end", "reports", "left"),
    [
        (End.DRAINED, [DRAINED], 0),
        (End.DRAINED, [], 0),
        (End.DRAINED, [DRAINED, Report("two", 9, pulled=7, acknowledged=3, returned=4, drained=True)], 4),
        (End.DRAINED, [DRAINED, Report("killed", 3, pulled=7, in_work=7)], 7),
        (End.DRAINED, [Report("killed", 3)], 1),
        (End.LATE, [DRAINED], 1),
        (End.ABORTED, [], 1),
    ],
)
def test_messages_that_were_given_back_keep_the_subscription(end: End, reports: list[Report], left: int) -> None:
    assert flink.left_by(end, reports) == left


class Submitted:
    """A pipeline, and the job that it becomes: it ends when it is cancelled."""

    def __init__(self) -> None:
        self._job_id, self._job_service, self._state = "job-1", self, "RUNNING"
        self._over = threading.Event()

    def run(self) -> Submitted:
        os.kill(os.getpid(), signal.SIGTERM)  # as it is submitted
        return self

    def Cancel(self, request: object) -> None:
        self._over.set()

    def wait_until_finish(self) -> None:
        self._over.wait()


@pytest.mark.parametrize("master", ["", "flink:8081"])
def test_a_job_is_drained_and_ended_where_it_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str], master: str
) -> None:
    job, cancelled = Submitted(), list[tuple[str, str]]()

    def cancel(master: str, name: str) -> None:
        cancelled.append((master, name))
        job.Cancel(None)

    monkeypatch.setattr(flink, "make_pipeline", lambda beam: job)
    monkeypatch.setattr(flink, "build_streaming", lambda pipeline, plan: None)
    monkeypatch.setattr(flink, "check_fused", lambda pipeline: None)
    monkeypatch.setattr(flink, "cancel_jobs", cancel)
    files = ReaderFiles(str(tmp_path))
    files.tell(DRAINED)
    beam = options(tmp_path)
    beam.view_as(FlinkRunnerOptions).flink_master = master
    settings: Any = SimpleNamespace(failure_payload="full", topic="")
    assert flink._run(settings, settings, beam, files, 60.0) == (0, bool(master))
    assert cancelled == ([("http://flink:8081", "daily")] if master else [])
    assert files.is_asked()
    assert "drained: 5 messages are done, and 0 were given back, by 1 worker(s)" in capfd.readouterr().err
