"""A stream on Flink as its launcher sees it: readers that report, a drain, a failure, a job server that is lost."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from sluice.pipelines.portable.follow import JobCancelled, JobServerLost
from sluice.pipelines.portable.follow_stream import End, StreamJob
from sluice.transforms.pubsub.reader_files import Report


class Result:
    """A job of Beam's, which ends as it is told."""

    def __init__(self) -> None:
        self._state = "RUNNING"
        self._job_id, self._job_service = "job-1", self
        self.cancelled: list[str] = []
        self._over = threading.Event()
        self._error: Exception | None = None

    def Cancel(self, request: Any) -> None:
        self.cancelled.append(request.job_id)

    def wait_until_finish(self) -> None:
        self._over.wait()
        if self._error is not None:
            raise self._error

    def end(self, error: Exception | None, state: str = "FAILED") -> None:
        self._error, self._state = error, state
        self._over.set()


class Files:
    """The reader files of a job, in memory."""

    def __init__(self) -> None:
        self.asked = False
        self.away = 0  # so many questions fail
        self.told: dict[str, Report] = {}

    def ask_to_drain(self) -> None:
        if self.away:
            self.away -= 1
            raise OSError("the storage is away")
        self.asked = True

    def reports(self) -> list[Report]:
        return list(self.told.values())

    def tell(self, reader: str, **fields: Any) -> None:
        before = self.told.get(reader, Report(reader, 0))
        self.told[reader] = dataclasses.replace(before, beat=before.beat + 1, **fields)


class Following:
    """A job that is followed, with a clock that only `steps` move: one is called at each second that is waited for."""

    def __init__(self, *steps: Callable[[Following], object], drain_secs: float = 60.0) -> None:
        self.now = 0.0
        self.said: list[str] = []
        self.result, self.files = Result(), Files()
        self._steps = iter(steps)
        self.submitting: Callable[[], object] = lambda: None
        files: Any = self.files
        self.job = StreamJob(self._submit, files, drain_secs, self.said.append, lambda: self.now, self._wait)

    def _submit(self) -> Any:
        self.submitting()
        return self.result

    def _wait(self, event: threading.Event, secs: float) -> bool:
        self.now += secs
        step = next(self._steps, None)
        if step is not None:
            step(self)
        assert self.now < 1000, "it does not end"
        return event.is_set()

    def end(self, error: Exception | None, state: str = "FAILED") -> None:
        self.result.end(error, state)
        assert self.job.ended.wait(60)


def interrupt(following: Following) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_stream_says_that_it_runs_when_a_worker_reads_and_is_drained_by_a_signal() -> None:
    def before(following: Following) -> None:
        assert following.said == []

    def begun(following: Following) -> None:
        following.files.tell("one", pulled=9, in_work=9)

    def drained(following: Following) -> None:
        assert following.said == ["the stream runs: a worker reads; SIGTERM or ctrl-C drains it"]
        assert following.files.asked
        following.files.tell("one", acknowledged=9, in_work=0, drained=True)

    following = Following(before, begun, interrupt, drained)
    assert following.job.follow() is End.DRAINED
    assert following.job.reports["one"].acknowledged == 9


def test_a_worker_that_was_killed_does_not_keep_a_drain() -> None:
    def begun(following: Following) -> None:
        following.files.tell("killed", pulled=9, in_work=9)
        following.files.tell("other", pulled=9)

    def drained(following: Following) -> None:
        following.files.tell("other", drained=True)

    following = Following(begun, interrupt, drained)
    assert following.job.follow() is End.DRAINED
    assert following.now > 30, "until it is sure that the worker is gone"


def test_a_drain_that_somebody_else_asks_for_ends_the_stream() -> None:
    following = Following(lambda following: following.files.tell("one", drained=True))
    assert following.job.follow() is End.DRAINED


def test_a_drain_before_any_worker_reads_has_nothing_to_wait_for() -> None:
    assert Following(interrupt).job.follow() is End.DRAINED


def test_a_drain_that_does_not_end_is_late_and_a_second_signal_aborts() -> None:
    def beat(following: Following) -> None:
        following.files.tell("one", in_work=9)

    slow = Following(beat, interrupt, *[beat] * 20, drain_secs=10.0)
    assert slow.job.follow() is End.LATE
    assert Following(beat, interrupt, interrupt).job.follow() is End.ABORTED


def test_a_job_that_fails_says_why() -> None:
    following = Following(lambda following: following.end(RuntimeError("the model is gone")))
    with pytest.raises(RuntimeError, match="the model is gone"):
        following.job.follow()


def test_a_job_that_somebody_cancels_where_it_runs() -> None:
    following = Following(lambda following: following.end(RuntimeError("in state CANCELLED"), "CANCELLED"))
    with pytest.raises(JobCancelled, match="come again"):
        following.job.follow()


def test_readers_that_cannot_be_asked_to_drain_are_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    def begun(following: Following) -> None:
        following.files.away = 3
        following.files.tell("one", in_work=9)

    def beat(following: Following) -> None:
        assert not following.files.asked
        following.files.tell("one", in_work=9)

    def drained(following: Following) -> None:
        assert following.files.asked
        following.files.tell("one", in_work=0, drained=True)

    following = Following(begun, interrupt, beat, beat, lambda following: None, drained)
    assert following.job.follow() is End.DRAINED
    assert caplog.text.count("cannot be asked to drain") == 1


def test_a_drain_that_nobody_hears_of_is_late() -> None:
    following = Following(interrupt, drain_secs=10.0)
    following.files.away = 1000
    assert following.job.follow() is End.LATE


def test_a_signal_while_the_job_server_takes_the_job_drains_it_and_a_second_one_ends_the_wait() -> None:
    following = Following()
    following.submitting = lambda: interrupt(following)
    assert following.job.follow() is End.DRAINED
    assert following.files.asked

    def twice() -> None:
        interrupt(again)
        interrupt(again)

    again = Following()
    again.submitting = twice
    with pytest.raises(KeyboardInterrupt):
        again.job.follow()


def test_a_cancellation_names_the_job() -> None:
    following = Following(interrupt)
    following.job.follow()
    following.job.cancel()
    assert following.result.cancelled == ["job-1"]


class Unreachable(grpc.RpcError):
    """What gRPC raises; it is no `grpc.Call`."""


def test_a_stream_outlives_its_job_server(caplog: pytest.LogCaptureFixture) -> None:
    def begun(following: Following) -> None:
        following.files.tell("one")

    def lost(following: Following) -> None:
        following.end(Unreachable())

    def drained(following: Following) -> None:
        following.files.tell("one", drained=True)

    following = Following(begun, lost, lambda following: None, interrupt, drained)
    assert following.job.follow() is End.DRAINED
    assert "the job goes on without it" in caplog.text


def test_a_stream_without_job_server_and_readers_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    following = Following(lambda following: following.files.tell("one"), lambda following: following.end(Unreachable()))
    with pytest.raises(JobServerLost):
        following.job.follow()
    assert "No reader has reported" in caplog.text
