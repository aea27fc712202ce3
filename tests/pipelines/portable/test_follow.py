"""A portable job is followed to its end, whatever becomes of the connection, and whoever cancels it."""

import signal
import threading
from collections.abc import Callable, Sequence

import grpc
import pytest
from apache_beam.portability.api import beam_job_api_pb2 as api

from sluice.pipelines.portable import follow
from sluice.pipelines.portable.follow import Following, JobCancelled, JobServerLost
from sluice.transforms.core.commit_gate import CommitGate
from tests.support.engines.failed_call import FailedCall
from tests.support.fakes import PATIENCE_SECS

State = api.JobState
LOST = FailedCall(grpc.StatusCode.UNAVAILABLE, "connection refused")


class Job:
    """A job and its job server, as Beam's result shows them.

    Attributes:
      cancelled: somebody asked for it.
    """

    _job_id = "job-1"

    def __init__(self, end: Callable[["Job"], str], answers: Sequence[int | Exception] = ()) -> None:
        """Makes a job.

        Args:
          end: waits for the end, and returns the last state; or raises.
          answers: to questions for the state after that; the last one again and again.
        """
        self._end, self._answers = end, list(answers)
        self._state = "UNKNOWN"
        self.cancelled = threading.Event()
        self._job_service = self

    def wait_until_finish(self) -> None:
        self._state = self._end(self)
        if self._state != "DONE":
            raise RuntimeError(f"Pipeline job-1 failed in state {self._state}: no luck")

    def GetState(self, request: api.GetJobStateRequest) -> api.JobStateEvent:
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return api.JobStateEvent(state=answer)

    def Cancel(self, request: api.CancelJobRequest) -> None:
        self.cancelled.set()


class Clock:
    """A clock that a wait moves on. At its first wait it interrupts the process, if it is told to."""

    def __init__(self, interrupts: int = 0) -> None:
        self._secs, self._interrupts = 0.0, interrupts

    def __call__(self) -> float:
        return self._secs

    def wait(self, event: threading.Event, secs: float) -> bool:
        self._secs += secs
        if self._interrupts:
            self._interrupts -= 1
            signal.raise_signal(signal.SIGINT)
            return False
        return event.wait(0.01)


def following(clock: Clock | None = None, gate: CommitGate | None = None) -> Following:
    clock = clock or Clock()
    return Following(gate, clock, clock.wait)


def lose(job: Job) -> str:
    raise LOST


def until_cancelled(job: Job) -> str:
    assert job.cancelled.wait(PATIENCE_SECS)
    return "CANCELLED"


def test_a_job_that_ends_well() -> None:
    job = following()
    job.follow(Job(lambda _: "DONE"))
    assert (job.ended, job.job_id) == (True, "job-1")


def test_a_job_that_fails_says_why() -> None:
    job = following()
    with pytest.raises(RuntimeError, match="no luck"):
        job.follow(Job(lambda _: "FAILED"))
    assert job.ended


def test_a_job_that_others_cancelled() -> None:
    job = following()
    with pytest.raises(JobCancelled, match="the job job-1 was cancelled where it runs"):
        job.follow(Job(lambda _: "CANCELLED"))
    assert job.ended


def test_a_lost_connection_does_not_end_a_job() -> None:
    job = following()
    job.follow(Job(lose, [LOST, State.RUNNING, LOST, State.RUNNING, State.DONE]))
    assert job.ended


def test_a_job_that_fails_unheard() -> None:
    job = following()
    with pytest.raises(RuntimeError, match=r"the job job-1 failed, and the connection .* was lost: see"):
        job.follow(Job(lose, [State.RUNNING, State.FAILED]))
    assert job.ended


@pytest.mark.parametrize("answer", [LOST, FailedCall(grpc.StatusCode.NOT_FOUND, "job-1")])
def test_of_a_lost_job_server_nothing_is_known(answer: FailedCall) -> None:
    job = following()
    with pytest.raises(JobServerLost, match="whether the job job-1 goes on is not known"):
        job.follow(Job(lose, [State.RUNNING, answer]))
    assert not job.ended


def test_ctrl_c_cancels_a_job_and_waits_for_its_end(capfd: pytest.CaptureFixture[str]) -> None:
    job = following(Clock(interrupts=1))
    with pytest.raises(KeyboardInterrupt):
        job.follow(Job(until_cancelled))
    assert job.ended
    assert capfd.readouterr().err == "\nsluice: cancelling the job; press ctrl-C again not to wait for its end\n"


def test_a_second_ctrl_c_waits_no_longer() -> None:
    job = following(Clock(interrupts=2))
    never = threading.Event()
    with pytest.raises(KeyboardInterrupt):
        job.follow(Job(lambda _: str(never.wait(PATIENCE_SECS))))
    assert not job.ended
    never.set()


def test_a_job_that_does_not_end_though_it_was_cancelled() -> None:
    clock, never = Clock(interrupts=1), threading.Event()
    job = following(clock)
    with pytest.raises(KeyboardInterrupt):
        job.follow(Job(lambda _: str(never.wait(PATIENCE_SECS))))
    assert not job.ended and clock() > follow._CANCEL_SECS
    never.set()


def test_a_job_that_ended_before_it_was_cancelled_has_ended_well() -> None:
    job = following(Clock(interrupts=1))
    job.follow(Job(lambda each: "DONE" if each.cancelled.wait(PATIENCE_SECS) else "FAILED"))
    assert job.ended


def test_ctrl_c_keeps_a_worker_in_this_process_from_its_commit() -> None:
    gate = CommitGate()
    job = following(Clock(interrupts=1), gate)
    with pytest.raises(KeyboardInterrupt):
        job.follow(Job(until_cancelled))
    assert not gate.begin()


def test_ctrl_c_waits_for_output_that_is_being_published(capfd: pytest.CaptureFixture[str]) -> None:
    gate, clock = CommitGate(), Clock(interrupts=1)
    assert gate.begin()
    published = threading.Event()

    def publish(_: Job) -> str:
        assert published.wait(PATIENCE_SECS)
        gate.finish()
        return "DONE"

    def wait(event: threading.Event, secs: float) -> bool:
        done = clock.wait(event, 10 * secs)
        if clock() > 2 * follow._CANCEL_SECS:
            published.set()
        return done

    job = Following(gate, clock, wait)
    running = Job(publish)
    job.follow(running)
    assert job.ended and not running.cancelled.is_set()
    assert "waiting until the output is published" in capfd.readouterr().err
