"""Batch prediction jobs: created, listed, followed and cancelled, with their states over time."""

import dataclasses
import datetime
import re
import threading

from google.cloud.aiplatform_v1 import types

from sluice.models.server.predict import Predictor
from sluice.models.server.status import StatusError, invalid
from sluice.models.server.store import Spec
from sluice.models.server.vertex.faults import FaultGate
from sluice.models.server.vertex.files import JobFiles, JobTables
from sluice.models.server.vertex.job_checks import check_job
from sluice.models.server.vertex.job_filter import page_of
from sluice.models.server.vertex.place import Place, place_of
from sluice.models.server.vertex.resources import Resources
from sluice.models.server.vertex.run_job import JobRun, Work
from sluice.models.server.vertex.wire import Reply, Request, number_of, parse, render

State = types.JobState
ENDED = frozenset(
    (
        State.JOB_STATE_SUCCEEDED,
        State.JOB_STATE_FAILED,
        State.JOB_STATE_CANCELLED,
        State.JOB_STATE_EXPIRED,
        State.JOB_STATE_PARTIALLY_SUCCEEDED,
    )
)
# Ends at which every instance has been tried.
_WHOLE = (State.JOB_STATE_UNSPECIFIED, State.JOB_STATE_SUCCEEDED, State.JOB_STATE_PAUSED)
_MODEL = re.compile(r"projects/([^/]+)/locations/([^/]+)/models/([^/@]+)(@[^/]+)?")
_FIRST_JOB = 3001
# Those of BatchPredictionJob that a request does not set.
_OUTPUT_ONLY = (
    "name", "model_version_id", "output_info", "state", "error", "partial_failures", "resources_consumed",
    "completion_stats", "create_time", "start_time", "end_time", "update_time", "satisfies_pzs", "satisfies_pzi",
)  # fmt: skip


@dataclasses.dataclass
class _Job:
    """One job.

    Attributes:
      needed: it ends at so many calls of get; 0: when it is done.
      end: the state that a test wants it to end in; UNSPECIFIED: what comes.
    """

    message: types.BatchPredictionJob
    run: JobRun
    place: Place
    needed: int
    end: types.JobState
    unknown_incomplete: bool
    polls: int = 0
    lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)


class Jobs:
    """The jobs of the service. Thread-safe.

    Args:
      gate: has the faults.
      files, tables: where they read and write; without tables, there is no BigQuery.
    """

    def __init__(
        self,
        resources: Resources,
        predictor: Predictor,
        gate: FaultGate,
        files: JobFiles,
        tables: JobTables | None = None,
    ) -> None:
        self._resources, self._predictor, self._gate = resources, predictor, gate
        self._files, self._tables = files, tables
        self._lock = threading.Lock()
        self._jobs: dict[str, _Job] = {}
        self._last_time = datetime.datetime.fromtimestamp(0, datetime.UTC)

    # What a test asks.

    def states(self) -> dict[str, str]:
        """Returns the state of every job by its id, in the order of creation."""
        with self._lock:
            return {number: job.message.state.name for number, job in self._jobs.items()}

    def messages(self) -> list[types.BatchPredictionJob]:
        """Returns every job as it is now, in the order of creation."""
        with self._lock:
            return [_copy(job.message) for job in self._jobs.values()]

    def resume(self, job_id: str) -> None:
        """Lets a paused job go on."""
        job = self._find(job_id)
        with job.lock:
            assert job.message.state == State.JOB_STATE_PAUSED
            job.end, job.message.state = State.JOB_STATE_UNSPECIFIED, State.JOB_STATE_RUNNING

    def close(self) -> None:
        """Ends all jobs."""
        with self._lock:
            jobs = list(self._jobs.values())
        for job in jobs:
            job.run.stop()
        for job in jobs:
            job.run.wait()

    # Calls.

    def create(self, request: Request) -> Reply:
        """Answers createBatchPredictionJob, and starts the job.

        Raises:
          StatusError: the service would not accept it.
        """
        message = parse(types.BatchPredictionJob, request.body)
        for field in _OUTPUT_ONLY:
            types.BatchPredictionJob.pb(message).ClearField(field)
        check_job(message, self._tables is not None)
        spec = self._model(message.model)
        with self._lock:
            job_id = str(_FIRST_JOB + len(self._jobs))
            self._fill(message, job_id, spec)
            self._jobs[job_id] = self._start(message, spec)
            return render(message, request)

    def list_jobs(self, request: Request) -> Reply:
        """Answers listBatchPredictionJobs.

        Raises:
          StatusError: a field of the query is wrong.
        """
        with self._lock:
            jobs = list(self._jobs.values())
        for job in jobs:
            if not job.needed:
                self._look(job)
        return render(page_of([_copy(job.message) for job in jobs], request), request)

    def get(self, request: Request, job_id: str) -> Reply:
        """Answers getBatchPredictionJob; each call takes the job a step further.

        Raises:
          StatusError: there is no such job.
        """
        job = self._find(job_id)
        self._look(job)
        return render(_copy(job.message), request)

    def cancel(self, job_id: str) -> None:
        """Begins to end a job.

        Raises:
          StatusError: there is no such job, or it has ended.
        """
        job = self._find(job_id)
        with job.lock:
            if job.message.state in ENDED:
                raise StatusError("FAILED_PRECONDITION", f"The job has ended in state {job.message.state.name}.")
            job.message.state = State.JOB_STATE_CANCELLING
            job.run.stop()

    def _model(self, name: str) -> Spec:
        found = _MODEL.fullmatch(name)
        if not found:
            raise invalid(f"model: {name!r} is not the resource name of a model.")
        self._resources.check_location(found[1], found[2])
        return self._resources.find_model(found[3] + (found[4] or ""))

    def _find(self, job_id: str) -> _Job:
        with self._lock:
            if job_id not in self._jobs:
                name = f"{self._resources.parent}/batchPredictionJobs/{job_id}"
                raise StatusError("NOT_FOUND", f"The BatchPredictionJob {name} does not exist.")
            return self._jobs[job_id]

    def _fill(self, message: types.BatchPredictionJob, job_id: str, spec: Spec) -> None:
        """Sets what the service sets. No two jobs have the same time, which is part of a directory's name."""
        now = datetime.datetime.now(datetime.UTC)
        self._last_time = max(now, self._last_time + datetime.timedelta(milliseconds=1))
        message.name = f"{self._resources.parent}/batchPredictionJobs/{job_id}"
        message.model = f"{self._resources.parent}/models/{message.model.rpartition('/')[2].partition('@')[0]}"
        message.model_version_id = str(spec.version)
        message.create_time = message.update_time = self._last_time
        message.state = State.JOB_STATE_QUEUED

    def _start(self, message: types.BatchPredictionJob, spec: Spec) -> _Job:
        faults = dataclasses.replace(self._gate.faults)
        self._gate.faults.lost_shard = None
        end = State[faults.end_states.pop(0)] if faults.end_states else State.JOB_STATE_UNSPECIFIED
        place = place_of(message, spec.name)
        is_partial = end == State.JOB_STATE_PARTIALLY_SUCCEEDED
        share = 1.0 if end in _WHOLE else faults.done_share
        work = Work(_copy(message), spec, place, share, rest_fails=is_partial)
        run = JobRun(work, self._predictor, faults, self._files, self._tables)
        return _Job(message, run, place, faults.polls, end, faults.unknown_incomplete)

    def _look(self, job: _Job) -> None:
        """Takes a job a step further."""
        with job.lock:
            job.polls += 1
            message = job.message
            if message.state in ENDED or message.state == State.JOB_STATE_PAUSED:
                return
            is_cancelled = message.state == State.JOB_STATE_CANCELLING
            if is_cancelled:
                self._finish(job, State.JOB_STATE_CANCELLED)
            elif self._gate.faults.hold_jobs or not self._is_due(job):
                self._go_on(job)
            elif job.end == State.JOB_STATE_PAUSED:
                message.state = job.end
            else:
                self._finish(job, job.end)

    def _is_due(self, job: _Job) -> bool:
        return job.polls >= job.needed if job.needed else job.run.is_done

    def _go_on(self, job: _Job) -> None:
        message = job.message
        message.state = State.JOB_STATE_PENDING if job.polls == 1 < job.needed - 1 else State.JOB_STATE_RUNNING
        message.update_time = datetime.datetime.now(datetime.UTC)
        if message.state == State.JOB_STATE_RUNNING:
            if not types.BatchPredictionJob.pb(message).HasField("start_time"):
                message.start_time = message.update_time
            message.completion_stats.successful_count = job.run.progress.succeeded
            message.completion_stats.failed_count = job.run.progress.failed

    def _finish(self, job: _Job, end: types.JobState) -> None:
        """Ends a job; waits until it has written all that it will write."""
        job.run.wait()
        message, progress = job.message, job.run.progress
        message.state = end or _natural_end(job.run)
        message.end_time = message.update_time = datetime.datetime.now(datetime.UTC)
        job.place.tell(message.output_info)
        stops_early = job.unknown_incomplete and end not in _WHOLE
        message.completion_stats = types.CompletionStats(
            successful_count=progress.succeeded,
            failed_count=progress.failed,
            incomplete_count=-1 if stops_early else progress.incomplete,
        )
        plain = types.BatchPredictionJob.pb(message)
        for text in progress.partial_failures:
            plain.partial_failures.add(code=number_of("INVALID_ARGUMENT"), message=text)
        if message.state == State.JOB_STATE_FAILED:
            plain.error.code = number_of("INTERNAL")
            plain.error.message = progress.fatal or "The job failed: too many predictions failed."
        elif message.state == State.JOB_STATE_CANCELLED:
            plain.error.code = number_of("CANCELLED")
            plain.error.message = "The job was cancelled."


def _natural_end(run: JobRun) -> types.JobState:
    if run.progress.fatal or not run.progress.succeeded:
        return State.JOB_STATE_FAILED
    return State.JOB_STATE_SUCCEEDED


def _copy(message: types.BatchPredictionJob) -> types.BatchPredictionJob:
    copied = types.BatchPredictionJob()
    types.BatchPredictionJob.pb(copied).CopyFrom(types.BatchPredictionJob.pb(message))
    return copied
