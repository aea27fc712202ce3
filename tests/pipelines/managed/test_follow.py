"""The life of a job: found, followed, replaced; two commands at once."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sluice.models.errors import SluiceError
from sluice.pipelines.managed.client import JobClient
from sluice.pipelines.managed.ends import JobEnded, check_end
from sluice.pipelines.managed.follow import JobLines, follow, interrupt, obtain
from sluice.pipelines.managed.job import Job, JobRequest, State, Stats
from tests.support.vertex.jobs import Pauses, client_of, plus_two, preparer, request_of, states
from tests.support.vertex.service import VertexService, vertex_service

WAIT_SECS = 120
CALLS = ("createJob", "listJobs", "getJob", "cancelJob")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = tmp_path_factory.mktemp("managed") / "model"
    plus_two([-1]).write(directory / "1")
    return str(directory)


@pytest.fixture
def service(model: str) -> Iterator[VertexService]:
    with vertex_service({"m": model}, methods=CALLS) as running:
        yield running


@pytest.fixture
def client(service: VertexService) -> JobClient:
    return client_of(service)


def make(client: JobClient, service: VertexService, directory: Path, state: State | None = None) -> Job:
    """Makes a job of the label s1, and follows it to an end; None: it runs."""
    if state is None:
        service.faults.hold_jobs = True
        return client.create(request_of(service, directory))
    service.faults.end_states += [f"JOB_STATE_{state.name}"]
    job = client.create(request_of(service, directory))
    for _ in range(3):
        job = client.get(job.name)
    assert job.state is state
    return job


def test_a_new_job_is_prepared_and_made(client: JobClient, service: VertexService, tmp_path: Path) -> None:
    attempts: list[int] = []
    job = obtain(client, "s1", preparer(request_of(service, tmp_path), attempts))
    assert (attempts, job.attempt, job.label) == ([1], 1, "s1")
    assert len(states(service)) == 1


@pytest.mark.parametrize("state", [None, State.PAUSED, State.SUCCEEDED, State.PARTIALLY_SUCCEEDED])
def test_a_job_that_is_there_is_kept(
    client: JobClient, service: VertexService, tmp_path: Path, state: State | None
) -> None:
    there = make(client, service, tmp_path, state)
    attempts: list[int] = []
    job = obtain(client, "s1", preparer(request_of(service, tmp_path), attempts))
    assert (job.name, attempts) == (there.name, [])


@pytest.mark.parametrize("state", [State.FAILED, State.EXPIRED, State.CANCELLED])
def test_a_job_without_results_is_replaced(
    client: JobClient, service: VertexService, tmp_path: Path, state: State
) -> None:
    make(client, service, tmp_path, state)
    attempts: list[int] = []
    job = obtain(client, "s1", preparer(request_of(service, tmp_path), attempts))
    assert (attempts, job.attempt) == ([2], 2)


def test_a_job_that_is_being_cancelled_is_replaced(client: JobClient, service: VertexService, tmp_path: Path) -> None:
    client.cancel(make(client, service, tmp_path).name)
    assert obtain(client, "s1", preparer(request_of(service, tmp_path), [])).attempt == 2


def test_results_that_were_used_are_not_used_again(client: JobClient, service: VertexService, tmp_path: Path) -> None:
    used = make(client, service, tmp_path, State.SUCCEEDED)
    attempts: list[int] = []
    prepare = preparer(request_of(service, tmp_path), attempts)
    job = obtain(client, "s1", prepare, lambda job: job.name != used.name)
    assert (attempts, job.attempt) == ([2], 2)


def test_another_label_is_another_job(client: JobClient, service: VertexService, tmp_path: Path) -> None:
    make(client, service, tmp_path)
    assert obtain(client, "s2", preparer(request_of(service, tmp_path, label="s2"), [])).attempt == 1
    assert len(states(service)) == 2


def test_results_come_before_a_job_that_runs_for_the_same(
    client: JobClient, service: VertexService, tmp_path: Path
) -> None:
    done = make(client, service, tmp_path, State.SUCCEEDED)
    make(client, service, tmp_path)
    assert obtain(client, "s1", preparer(request_of(service, tmp_path), [])).name == done.name
    assert states(service) == [State.SUCCEEDED, State.CANCELLING]


def test_a_job_of_a_later_attempt_was_asked_for_and_is_neither_cancelled_nor_passed_over(
    client: JobClient, service: VertexService, tmp_path: Path
) -> None:
    make(client, service, tmp_path, State.SUCCEEDED)
    service.faults.hold_jobs = True
    later = client.create(request_of(service, tmp_path, attempt=2))
    assert obtain(client, "s1", preparer(request_of(service, tmp_path), [])).name == later.name
    assert states(service) == [State.SUCCEEDED, State.QUEUED]


def test_a_job_that_failed_and_is_of_use_is_kept(client: JobClient, service: VertexService, tmp_path: Path) -> None:
    failed, attempts = make(client, service, tmp_path, State.FAILED), list[int]()
    prepare = preparer(request_of(service, tmp_path), attempts)
    assert obtain(client, "s1", prepare, lambda job: job.is_ended).name == failed.name
    assert attempts == []


def test_of_jobs_whose_commands_were_killed_in_a_race_one_is_kept(
    client: JobClient, service: VertexService, tmp_path: Path
) -> None:
    first = make(client, service, tmp_path)
    make(client, service, tmp_path)
    make(client, service, tmp_path)
    assert obtain(client, "s1", preparer(request_of(service, tmp_path), [])).name == first.name
    assert states(service) == [State.QUEUED, State.CANCELLING, State.CANCELLING]


def test_a_job_that_was_made_while_this_one_was_prepared_is_followed(
    client: JobClient, service: VertexService, tmp_path: Path
) -> None:
    request = request_of(service, tmp_path)

    def prepare(attempt: int) -> JobRequest:
        make(client_of(service), service, tmp_path)
        return request

    job = obtain(client, "s1", prepare)
    assert len(states(service)) == 1 and job.name == service.jobs.messages()[0].name


class _Barred(JobClient):
    """A client whose create calls wait until all commands are as far."""

    barrier: threading.Barrier

    def create(self, request: JobRequest) -> Job:
        self.barrier.wait(WAIT_SECS)
        made = super().create(request)
        self.barrier.wait(WAIT_SECS)
        return made


def test_of_two_commands_at_once_one_job_survives(service: VertexService, tmp_path: Path) -> None:
    service.faults.hold_jobs = True
    request, barrier = request_of(service, tmp_path), threading.Barrier(2)
    followed: list[Job] = []

    def command() -> None:
        client = _Barred("p", "l", service.url)
        client.barrier = barrier
        followed.append(obtain(client, "s1", preparer(request, [])))

    commands = [threading.Thread(target=command) for _ in range(2)]
    for each in commands:
        each.start()
    for each in commands:
        each.join(WAIT_SECS)
    first, _ = service.jobs.messages()
    assert [job.name for job in followed] == [first.name, first.name]
    assert states(service) == [State.QUEUED, State.CANCELLING]


def test_a_create_call_that_was_made_twice_leaves_one_job(
    client: JobClient, service: VertexService, tmp_path: Path
) -> None:
    """The first one is seen too late: the list did not have it yet when the call was repeated."""

    class Late(JobClient):
        def _made(self, label: str, token: str) -> Job | None:
            return None

    service.faults.lost_answers += ["createJob"]
    service.faults.hold_jobs = True
    pauses = Pauses()
    late = Late("p", "l", service.url, sleep=pauses.sleep, clock=pauses.clock)
    job = obtain(late, "s1", preparer(request_of(service, tmp_path), []))
    assert job.name == service.jobs.messages()[0].name
    assert states(service) == [State.QUEUED, State.CANCELLING]


def test_a_twin_that_cannot_be_cancelled_is_named(
    client: JobClient, service: VertexService, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make(client, service, tmp_path)
    twin = make(client, service, tmp_path)
    service.faults.methods = ("cancelJob",)
    service.faults.next_errors += ["PERMISSION_DENIED"]
    obtain(client, "s1", preparer(request_of(service, tmp_path), []))
    assert "aiplatform.batchPredictionJobs.cancel" in caplog.text
    assert f"cancel it where it runs: batch prediction job {twin.name}" in caplog.text


ENDS = [State.SUCCEEDED, State.PARTIALLY_SUCCEEDED, State.FAILED, State.EXPIRED, State.CANCELLED]


@pytest.mark.parametrize("state", ENDS)
def test_a_job_is_followed_to_each_end(client: JobClient, service: VertexService, tmp_path: Path, state: State) -> None:
    service.faults.polls = 5
    service.faults.end_states += [f"JOB_STATE_{state.name}"]
    pauses = Pauses()
    job = client.create(request_of(service, tmp_path))
    done = follow(client, job, sleep=pauses.sleep)
    assert done.state is state and len(pauses.slept) == 5
    assert pauses.slept == sorted(pauses.slept)
    assert sum(pauses.slept) < 0.5, "a small job is not waited for"
    if done.has_results:
        check_end(done)
    else:
        with pytest.raises(JobEnded, match="The same command makes a new job"):
            check_end(done)


def test_a_job_that_has_ended_is_not_waited_for(client: JobClient, service: VertexService, tmp_path: Path) -> None:
    done = make(client, service, tmp_path, State.SUCCEEDED)
    pauses = Pauses()
    assert follow(client, done, sleep=pauses.sleep) == done
    assert pauses.slept == []


def test_a_paused_job_is_waited_for(
    client: JobClient, service: VertexService, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    service.faults.end_states += ["JOB_STATE_PAUSED"]
    job = client.create(request_of(service, tmp_path))

    def resume() -> None:
        if len(pauses.slept) == 20:
            assert states(service) == [State.PAUSED]
            service.jobs.resume(job.short_name)

    pauses = Pauses(resume)
    assert follow(client, job, sleep=pauses.sleep).state is State.SUCCEEDED
    assert max(pauses.slept) == 20.0
    assert caplog.text.count("is paused. The command waits until it is resumed") == 1


def test_a_service_that_is_gone_for_a_while_does_not_end_the_command(
    client: JobClient, service: VertexService, tmp_path: Path
) -> None:
    job = client.create(request_of(service, tmp_path))
    service.faults.next_errors += ["UNAVAILABLE", "RESOURCE_EXHAUSTED", "INTERNAL", "UNAVAILABLE"]
    assert follow(client, job, sleep=Pauses().sleep).state is State.SUCCEEDED


def test_a_service_that_stays_away_leaves_the_job(client: JobClient, service: VertexService, tmp_path: Path) -> None:
    job = client.create(request_of(service, tmp_path))
    service.faults.next_errors += ["UNAVAILABLE"] * 100
    with pytest.raises(SluiceError, match=f"{job.name} goes on: the same command follows it"):
        follow(client, job, sleep=Pauses().sleep)


def test_a_job_that_somebody_deleted(client: JobClient) -> None:
    job = Job("projects/p/locations/l/batchPredictionJobs/1", State.RUNNING)
    with pytest.raises(SluiceError, match="is gone: somebody has deleted it"):
        follow(client, job, sleep=Pauses().sleep)


def resume(job: str) -> str:
    return f"sluice batch --vertex_job={job}"


@pytest.mark.parametrize("cancel,words,state", [
    (False, "goes on. To follow it and get its output: sluice batch --vertex_job=", State.QUEUED),
    (True, "interrupted; cancelled batch prediction job", State.CANCELLING),
])  # fmt: skip
def test_an_interrupt(
    client: JobClient, service: VertexService, tmp_path: Path, cancel: bool, words: str, state: State
) -> None:
    job = make(client, service, tmp_path)
    said = interrupt(client, "s1", cancel, resume)
    assert words in said and (cancel or said.endswith(f"--vertex_job={job.short_name}"))
    assert states(service) == [state]


def test_an_interrupt_without_a_job(client: JobClient, service: VertexService, tmp_path: Path) -> None:
    make(client, service, tmp_path, State.SUCCEEDED)
    assert interrupt(client, "s1", True, resume) == "sluice: interrupted; no job runs"
    service.faults.next_errors += ["PERMISSION_DENIED"]
    assert "whether a job goes on is not known" in interrupt(client, "s1", False, resume)


def test_ctrl_c_leaves_the_job(client: JobClient, service: VertexService, tmp_path: Path) -> None:
    job = make(client, service, tmp_path)

    def ctrl_c() -> None:
        if len(pauses.slept) == 3:
            raise KeyboardInterrupt

    pauses = Pauses(ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        follow(client, job, sleep=pauses.sleep)
    assert states(service)[0].value <= State.RUNNING.value


@pytest.mark.parametrize(
    "stats,line",
    [
        (Stats(), "job 7, running, 0:05"),
        (Stats(12_000, 0, 0), "job 7, running, 12,000 rows predicted, 0 to go, 0:05"),
        (Stats(12_000, 3, None), "job 7, running, 12,000 rows predicted, 3 failed, 0:05"),
    ],
)
def test_the_line_of_a_job(stats: Stats, line: str) -> None:
    clock: Callable[[], float] = iter([0.0, 5.0, 5.0, 5.0]).__next__
    name = "projects/p/locations/l/batchPredictionJobs/7"
    lines = JobLines(Job(name, State.QUEUED), clock)
    lines.update(Job(name, State.RUNNING, stats=stats))
    assert lines.log_line() == line
    assert lines.line(200) == line.replace(", ", "  ")
    assert lines.line(10) == "job 7"
