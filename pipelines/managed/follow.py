"""The life of a managed job, whichever command looks at it: the one that made it, or one that is started later.

A job belongs to its label (`label.job_label`), and not to a process. So a command that was interrupted finds its job
when it is started again, and of two commands at once both follow the same one.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from sluice.models.errors import SluiceError
from sluice.pipelines.managed.ends import PAUSED_TEXT, describe
from sluice.pipelines.managed.errors import NoSuchResource
from sluice.pipelines.managed.job import Job, JobRequest, State
from sluice.pipelines.progress.display import NONE, Display, clock_time, fit

_LOG = logging.getLogger(__name__)

# Pauses between looks at a job. The first ones are short, so that a small job on a local service is not waited for: six
# looks more than from 0.2 s on. The quota of reads is 600 a minute for the whole project.
_FIRST_LOOK_SECS, _LAST_LOOK_SECS, _LOOK_GROWTH = 0.02, 20.0, 1.5
_LEAST_FIRST = ("elapsed", "incomplete", "failed", "predicted", "state")


class Jobs(Protocol):
    """The calls of `client.JobClient` that are about jobs."""

    def find(self, label: str) -> list[Job]: ...

    def get(self, name: str) -> Job: ...

    def create(self, request: JobRequest) -> Job: ...

    def cancel(self, name: str) -> None: ...


def with_results(job: Job) -> bool:
    """Says of a job that has ended that it is one to go on with if it has results."""
    return job.has_results


def obtain(
    client: Jobs,
    label: str,
    prepare: Callable[[int], JobRequest],
    is_kept: Callable[[Job], bool] = with_results,
) -> Job:
    """Returns the job of this label: one that is there, running or ended with results, or else a new one.

    A job that failed, expired or was cancelled is replaced by a new attempt; so is one whose results were used before.
    A job of a later attempt comes before one of an earlier: somebody has asked for it although the other was there.
    Of jobs that were created at the same time by several commands, the oldest is kept: each command cancels its own if
    another one is older, and follows that.

    Args:
      prepare: gets the number of the attempt, from 1, writes what the job reads, and returns the request. It is called
        only if a new job is needed. It may take long: if another command has created a job meanwhile, that one is
        returned, and the request is dropped.
      is_kept: whether a job that has ended is one to go on with: it has answers, and nobody has used them before.

    Raises:
      SluiceError: the service refuses a call, or cannot be reached.
    """

    def choose(found: Sequence[Job]) -> Job | None:
        return _kept(found, is_kept)

    jobs = client.find(label)
    kept = choose(jobs)
    if kept is None:
        request = prepare(1 + max((job.attempt for job in jobs), default=0))
        jobs = client.find(label)
        kept = choose(jobs)
        if kept is None:
            return _settled(client, client.create(request), choose)
    _cancel(client, (job for job in jobs if job.is_live and job.name != kept.name))
    _LOG.info("%s is there already, %s", describe(kept), kept.state.name)
    return kept


def _kept(jobs: Sequence[Job], is_kept: Callable[[Job], bool]) -> Job | None:
    """Returns the job to go on with, of the last attempt: an ended one first, then the oldest; None: there is none."""
    there = [job for job in jobs if job.is_live or (job.is_ended and is_kept(job))]
    return min(there, key=lambda job: (-job.attempt, job.is_live, *job.age_order), default=None)


def _settled(client: Jobs, made: Job, choose: Callable[[Sequence[Job]], Job | None]) -> Job:
    """Returns the job that all commands of this label agree on, now that this one has created its own.

    A command whose job is younger cancels it. A create call that was repeated may have made two: the same holds.
    """
    _LOG.info("%s is created", describe(made))
    seen = {job.name: job for job in (made, *client.find(made.label))}
    kept = choose(list(seen.values())) or made
    mine = (job for job in seen.values() if job.token == made.token and job.is_live)
    _cancel(client, (job for job in mine if job.name != kept.name))
    if kept.token != made.token:
        _LOG.info("Another command was first: %s is followed instead", describe(kept))
    return kept


def _cancel(client: Jobs, jobs: Iterator[Job]) -> None:
    for job in jobs:
        _LOG.info("%s is cancelled: an older one does the same", describe(job))
        try:
            client.cancel(job.name)
        except SluiceError as error:  # it costs money, and no result: the older one is followed all the same
            _LOG.warning("%s; cancel it where it runs: %s", error, describe(job))


def follow(
    client: Jobs,
    job: Job,
    progress: str = NONE,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Job:
    """Returns the job as it is when it has ended, in whichever state; `ends.check_end` judges it.

    Args:
      progress: see pipelines.progress.display.Display.
      sleep: waits so many seconds.
      clock: seconds, monotonic.

    Raises:
      SluiceError: the service cannot be reached. The job goes on.
    """
    lines = JobLines(job, clock)
    with Display(lines, progress):
        for pause in _looks():
            if job.is_ended:
                break
            sleep(pause)
            job = _look(client, job)
            lines.update(job)
    return job


def _look(client: Jobs, job: Job) -> Job:
    """Returns the job as it is now; says what has changed."""
    try:
        now = client.get(job.name)
    except NoSuchResource as error:
        raise SluiceError(
            f"{describe(job)} is gone: somebody has deleted it. The same command makes a new job"
        ) from error
    except SluiceError as error:
        raise SluiceError(f"{error}. {describe(job)} goes on: the same command follows it") from error
    if now.state is not job.state:
        if now.state is State.PAUSED:
            _LOG.warning(PAUSED_TEXT, describe(now))
        else:
            _LOG.info("%s: %s", describe(now), now.state.name)
    return now


def _looks() -> Iterator[float]:
    pause = _FIRST_LOOK_SECS
    while True:
        yield pause
        pause = min(_LOOK_GROWTH * pause, _LAST_LOOK_SECS)


class JobLines:
    """The lines that a Display shows of a job.

    Args:
      clock: seconds, monotonic.
    """

    def __init__(self, job: Job, clock: Callable[[], float] = time.monotonic) -> None:
        self._job = job
        self._clock = clock
        self._start = clock()

    def update(self, job: Job) -> None:
        """Shows this from now on."""
        self._job = job

    def line(self, width: int) -> str:
        return fit(self._fields(), _LEAST_FIRST, width)

    def log_line(self) -> str:
        return ", ".join(self._fields().values())

    def _fields(self) -> dict[str, str]:
        stats = self._job.stats
        counts = {"predicted": stats.successful, "failed": stats.failed or None, "incomplete": stats.incomplete}
        words = {"predicted": "rows predicted", "failed": "failed", "incomplete": "to go"}
        return {
            "job": f"job {self._job.short_name}",
            "state": self._job.state.name.lower().replace("_", " "),
            **{name: f"{count:,} {words[name]}" for name, count in counts.items() if count is not None},
            "elapsed": clock_time(self._clock() - self._start),
        }


def interrupt(client: Jobs, label: str, cancel: bool, resume: Callable[[str], str]) -> str:
    """Returns what to say after Ctrl-C, when the job has been cancelled if that is wanted.

    Args:
      cancel: --cancel_on_interrupt.
      resume: returns the command line that resumes, of a job's own name; "": none is known.
    """
    try:
        live = [job for job in client.find(label) if job.is_live]
        for job in live if cancel else ():
            client.cancel(job.name)
    except SluiceError as error:
        return f"sluice: interrupted; whether a job goes on is not known: {error}. To follow it: {resume('')}"
    if not live:
        return "sluice: interrupted; no job runs"
    names = ", ".join(map(describe, live))
    if cancel:
        return f"sluice: interrupted; cancelled {names}"
    command = resume(live[0].short_name)
    return f"sluice: interrupted; {names} goes on. To follow it and get its output: {command}"
