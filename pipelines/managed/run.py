"""`sluice batch` with a managed model: prepares rows, has the service score them, joins the answers.

The command may be interrupted anywhere and started again. What it has done lies in files under the label of the job,
each stage with a record written last, and in the service's own list of jobs.
"""

import dataclasses
import functools
import hashlib
import logging
import sys
import time

from apache_beam.options.pipeline_options import GoogleCloudOptions

from sluice.models.errors import SluiceError, UsageError
from sluice.models.uri import ManagedModel
from sluice.models.wording import message, told
from sluice.pipelines.dataflow.defaults import check_settings
from sluice.pipelines.dataflow.runner import beam_options, check_reachable
from sluice.pipelines.managed.client import JobClient
from sluice.pipelines.managed.direct import run_direct
from sluice.pipelines.managed.direct_output import error_reasons
from sluice.pipelines.managed.ends import JobEnded, because, check_end, describe, detached_text, resume_command
from sluice.pipelines.managed.follow import follow, interrupt, obtain
from sluice.pipelines.managed.job import Job, JobRequest, State
from sluice.pipelines.managed.open import is_here, open_client
from sluice.pipelines.managed.plan import ManagedPlan, place_of, plan_managed
from sluice.pipelines.managed.stages import Stages
from sluice.pipelines.options.batch import BatchOptions
from sluice.pipelines.plan.model import describe_model
from sluice.pipelines.progress.outcome import (
    EXIT_FAILED,
    EXIT_FAILURES,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_USAGE,
    failure_text,
    reason,
)
from sluice.pipelines.progress.phases import PLAN, PREPARE, SCORE, Phases
from sluice.pipelines.report.launch import check_report, with_place
from sluice.transforms.core.beam_files import match_files
from sluice.transforms.core.commit import FailurePolicy
from sluice.transforms.core.commit_gate import CommitGate, CommitState
from sluice.transforms.core.failures import FULL
from sluice.transforms.core.observed import forget
from sluice.transforms.managed.find_answers import read_prepared
from sluice.transforms.managed.place import Place
from sluice.transforms.managed.policy import UnpaidPolicy

_LOG = logging.getLogger(__name__)

# If the service answers no row of more than so many, the model is at fault, and a second job would be paid for nothing.
_FEW_ROWS = 1000
_REASON_LENGTH = 500


def run_managed(options: BatchOptions, model: ManagedModel, flags: list[str], phases: Phases) -> int:
    """Runs a managed job to its end; returns the exit code.

    Args:
      flags: Beam's.

    Raises:
      UsageError: model, input and output do not fit, or a right is missing.
    """
    forget()
    beam = beam_options(flags)
    check_report(options, beam)
    if options.vertex_direct:
        return run_direct(options, model, beam, phases)
    check_reachable(options, beam)
    check_settings(beam)
    try:
        with phases.timed(PLAN):
            client, plan = _plan(options, model, beam.view_as(GoogleCloudOptions))
    except UsageError:
        raise
    except SluiceError as error:
        sys.stderr.write(f"sluice: {error}\n")
        return EXIT_FAILED
    plan = dataclasses.replace(plan, batch=with_place(plan.batch, options, beam))
    _LOG.info("Model %s", describe_model(plan.batch.recipe, plan.batch.version))
    _LOG.info("Input %s", plan.batch.input.description)
    return _ManagedRun(options, plan, client, Stages(options, plan, flags), phases).run()


def _plan(options: BatchOptions, model: ManagedModel, cloud: GoogleCloudOptions) -> tuple[JobClient, ManagedPlan]:
    account = cloud.impersonate_service_account or ""
    client = open_client(model, options, account)
    registered = client.model(model.name)
    project, temp_location = cloud.project or "", cloud.temp_location or ""
    return client, plan_managed(options, registered, project, temp_location, account, local=is_here(client.url))


@dataclasses.dataclass(frozen=True)
class _Answered:
    """What there is to join.

    Attributes:
      jobs: the IDs of the jobs that have answered; (): there was nothing to pay for.
      unanswered: the reason of a row without an answer.
    """

    place: Place
    policy: FailurePolicy
    jobs: tuple[str, ...] = ()
    unanswered: str = ""


class _NothingToPay(Exception):
    """There are no rows to score, or too many have failed before."""

    def __init__(self, answered: _Answered) -> None:
        super().__init__()
        self.answered = answered


class _Detached(Exception):
    """The command ends here, and the job goes on."""


class _ManagedRun:
    """One command's run of a managed job."""

    def __init__(
        self, options: BatchOptions, plan: ManagedPlan, client: JobClient, stages: Stages, phases: Phases
    ) -> None:
        self._options, self._plan, self._client = options, plan, client
        self._stages, self._phases = stages, phases
        self._label = plan.label
        self._private = options.failure_payload != FULL
        self._started = time.monotonic()
        self._prepare_secs = 0.0
        self._command = resume_command(sys.argv)
        self._gate, self._joins = CommitGate(), False

    def run(self) -> int:
        """Runs the job to its end, and says how it ended; returns the exit code."""
        try:
            code = self._run()
        except _Detached:
            return EXIT_OK
        except KeyboardInterrupt:
            text = interrupt(self._client, self._label, self._options.cancel_on_interrupt, self._command)
            sys.stderr.write(f"{text}\n")
            code = EXIT_INTERRUPTED
        except UsageError:
            self._end(EXIT_USAGE)
            raise
        except Exception as error:  # noqa: BLE001  it ends the job, and its text is printed
            sys.stderr.write(f"sluice: the job failed: {_failure(error, self._private)}\n")
            _LOG.debug("The job failed", exc_info=None if self._private else error)
            code = EXIT_FAILED
        self._end(code)
        return code

    def _run(self) -> int:
        if self._stages.is_published():
            sys.stderr.write(
                "sluice: an earlier command has published the answers of this job: nothing is left to do\n"
            )
            return EXIT_OK
        try:
            answered = self._score()
        except _NothingToPay as nothing:
            answered = nothing.answered
        self._phases.note(SCORE, time.monotonic() - self._started - self._prepare_secs)
        self._joins = True
        place, jobs, unanswered, policy = answered.place, answered.jobs, answered.unanswered, answered.policy
        return self._stages.join(place, jobs, unanswered, policy, self._gate, self._phases, self._started)

    def _end(self, code: int) -> None:
        """Deletes the files of a job that is done, and names those of one that is not."""
        if code == EXIT_OK:
            self._stages.clean_up()
        elif self._may_be_published(code):
            sys.stderr.write(
                f"sluice: the files of this job stay in {self._plan.directory}. Its output may be published: look at "
                "it, and where the job runs, before you run the same command again. Delete the directory if it is\n"
            )
        elif match_files(f"{self._plan.directory}/*/prepared.json"):
            sys.stderr.write(
                f"sluice: the files of this job stay in {self._plan.directory}: the same command goes on from there, "
                "and nothing is prepared or paid for twice. Delete the directory if you give the job up\n"
            )

    def _may_be_published(self, code: int) -> bool:
        """Whether the job that joins has begun to publish, or goes on elsewhere, or another command has published."""
        if not self._joins or code == EXIT_FAILURES:
            return False
        begun = self._gate.state is not CommitState.NOT_BEGUN
        return begun or not self._stages.is_local or self._stages.is_published()

    def _score(self) -> _Answered:
        """Has the service score the rows; returns what it has answered."""
        first = self._followed(obtain(self._client, self._label, self._first_request, _is_used, _is_worth_joining))
        place, policy = place_of(first), FailurePolicy(self._options.max_failure_rate)
        if first.has_results or not _is_worth_joining(first):
            check_end(first, self._private)
        answers = self._stages.find(place, first, again=True)
        if not answers.missing:
            return _Answered(place, policy, (first.short_name,))
        if not answers.answered and answers.missing > _FEW_ROWS:
            template = "{job} answered none of {rows:,} rows{}"
            raise JobEnded(message(template, because(_words(first)), job=describe(first), rows=answers.missing))
        _LOG.warning(
            "%s rows have no answer: a row that fails takes its batch with it. They are scored again, one by one",
            f"{answers.missing:,}",
        )
        second = self._second(place, first, answers.again)
        return _Answered(place, policy, (first.short_name, second.short_name), _unanswered(second))

    def _first_request(self, attempt: int) -> JobRequest:
        """Prepares the rows; returns the request for the first job."""
        begun = time.monotonic()
        place, prepared = self._stages.prepare()
        self._prepare_secs = time.monotonic() - begun
        self._phases.note(PREPARE, self._prepare_secs)
        allowed, failed = self._options.max_failure_rate, prepared.rows_in - prepared.rows
        if failed and failed / prepared.rows_in > allowed:
            raise _NothingToPay(_Answered(place, UnpaidPolicy(allowed)))
        if not prepared.rows:
            raise _NothingToPay(_Answered(place, FailurePolicy(allowed)))
        _LOG.info("%s rows are prepared, and %s have failed", f"{prepared.rows:,}", f"{failed:,}")
        return self._plan.request(self._label, attempt, place, place.instances)

    def _second(self, place: Place, first: Job, again: str) -> Job:
        """Returns the job that scores again, one by one, the rows that the first one has not answered.

        Args:
          again: see Answers.
        """
        self._label = "s" + hashlib.sha256(f"{self._plan.label} {first.name}".encode()).hexdigest()[:40]

        def request(attempt: int) -> JobRequest:
            return self._plan.request(self._label, attempt, place, place.again(again), batch_size=1)

        second = self._followed(obtain(self._client, self._label, request, _is_used, _is_tried))
        if second.has_results or not _is_tried(second):
            check_end(second, self._private)
        self._stages.find(place, second, again=False)
        return second

    def _followed(self, job: Job) -> Job:
        """Returns the job when it has ended.

        Raises:
          _Detached: it has not, and the command does not wait for it.
        """
        if job.is_ended:
            return job
        if self._options.detach:
            sys.stderr.write(f"{detached_text(job, self._command, self._client.url)}\n")
            raise _Detached
        return follow(self._client, job, self._options.progress)


def _failure(error: Exception, private: bool) -> str:
    """Returns what is told of an error that ends the command."""
    if isinstance(error, JobEnded):
        return told(error, private)
    return reason(error, private) if isinstance(error, SluiceError) else failure_text(error, private)


def _is_used(job: Job) -> bool:
    """Whether the answers of a job have been joined: its files are gone."""
    return not match_files(place_of(job).prepared)


def _is_tried(job: Job) -> bool:
    """Whether a job has tried its rows: a job that has is not paid for again."""
    return job.has_results or _is_about_rows(job)


def _is_worth_joining(job: Job) -> bool:
    """Whether to go on with what the first job has answered, if only nothing: then its rows are few."""
    return job.has_results or (_is_about_rows(job) and read_prepared(place_of(job)).rows <= _FEW_ROWS)


def _is_about_rows(job: Job) -> bool:
    """Whether a job that failed did so because of its rows: it has tried them."""
    return job.state is State.FAILED and (bool(job.stats.failed) or bool(_reasons(job)))


def _reasons(job: Job) -> tuple[str, ...]:
    """Returns what the service says in the files of a job that has ended."""
    return _read_reasons(job.output_directory) if job.output_directory else ()


@functools.lru_cache(4)
def _read_reasons(directory: str) -> tuple[str, ...]:
    """Returns the messages in a directory, once read: the files may be large, and are asked for several times."""
    return tuple(error_reasons(directory))


def _words(job: Job) -> list[str]:
    """Returns what the service says of the rows without an answer, the most frequent first."""
    texts = dict.fromkeys(filter(None, (*_reasons(job), *job.partial_failures, job.error)))
    return [text if len(text) <= _REASON_LENGTH else text[:_REASON_LENGTH] + "..." for text in texts]


def _unanswered(job: Job) -> str:
    """Returns the reason of a row that the service does not answer. Its words may quote any row."""
    words = _words(job)
    if not words:
        return message("the service gives no answer to this row, not even alone, and no reason")
    return message("the service gives no answer to this row, not even alone{}", because(words))
