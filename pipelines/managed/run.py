"""`sluice batch` with a managed model: prepares rows, has the service score them, joins the answers.

The command may be interrupted anywhere and started again. What it has done lies in files under the label of the job,
each stage with a record written last, and in the service's own list of jobs.
"""

import dataclasses
import logging
import sys
import time

from apache_beam.options.pipeline_options import GoogleCloudOptions

from sluice.models.errors import SluiceError, UsageError
from sluice.models.uri import ManagedModel
from sluice.models.wording import message, told
from sluice.pipelines.dataflow.defaults import check_settings
from sluice.pipelines.dataflow.runner import beam_options, check_reachable
from sluice.pipelines.logs import tell
from sluice.pipelines.managed.client import JobClient
from sluice.pipelines.managed.direct import run_direct
from sluice.pipelines.managed.ends import JobEnded, because, check_end, describe, detached_text, resume_command
from sluice.pipelines.managed.follow import follow, interrupt, obtain
from sluice.pipelines.managed.job import Job, JobRequest
from sluice.pipelines.managed.label import make_label
from sluice.pipelines.managed.named import find_model, of_named
from sluice.pipelines.managed.open import is_here, open_client
from sluice.pipelines.managed.plan import ManagedPlan, place_of, plan_managed
from sluice.pipelines.managed.stages import Stages
from sluice.pipelines.managed.standing import (
    FEW_ROWS,
    has_answered_none,
    is_first_kept,
    is_second_kept,
    unanswered_text,
    words_of,
)
from sluice.pipelines.options.batch import BatchOptions
from sluice.pipelines.outcome import (
    EXIT_FAILED,
    EXIT_FAILURES,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_USAGE,
    failure_text,
    reason,
)
from sluice.pipelines.plan.model import describe_model
from sluice.pipelines.progress.phases import PLAN, PREPARE, SCORE, Phases
from sluice.pipelines.report.launch import check_report, with_place
from sluice.transforms.core.beam_files import match_files
from sluice.transforms.core.commit import FailurePolicy
from sluice.transforms.core.commit_gate import CommitGate, CommitState
from sluice.transforms.core.failures import FULL
from sluice.transforms.core.observed import forget
from sluice.transforms.managed.place import Answers, Place
from sluice.transforms.managed.policy import UnpaidPolicy

_LOG = logging.getLogger(__name__)


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
            options, client, plan = _plan(options, model, beam.view_as(GoogleCloudOptions))
    except UsageError:
        raise
    except SluiceError as error:
        tell(f"sluice: {error}\n")
        return EXIT_FAILED
    plan = dataclasses.replace(plan, batch=with_place(plan.batch, options, beam))
    _LOG.info("Model %s", describe_model(plan.batch.recipe, plan.batch.version))
    _LOG.info("Input %s", plan.batch.input.description)
    return _ManagedRun(options, plan, client, Stages(options, plan, flags), phases).run()


def _plan(
    options: BatchOptions, model: ManagedModel, cloud: GoogleCloudOptions
) -> tuple[BatchOptions, JobClient, ManagedPlan]:
    account = cloud.impersonate_service_account or ""
    client = open_client(model, options, account)
    options, registered, named = find_model(client, options, model)
    project, temp_location = cloud.project or "", cloud.temp_location or ""
    plan = plan_managed(options, registered, project, temp_location, account, local=is_here(client.url))
    return options, client, of_named(plan, named) if named else plan


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
        self._first = ""
        self._gate, self._joins, self._starts_anew = CommitGate(), False, False

    def run(self) -> int:
        """Runs the job to its end, and says how it ended; returns the exit code."""
        try:
            code = self._run()
        except _Detached:
            return EXIT_OK
        except KeyboardInterrupt:
            text = interrupt(self._client, self._label, self._options.cancel_on_interrupt, self._resume)
            tell(f"{text}\n")
            code = EXIT_INTERRUPTED
        except UsageError:
            self._end(EXIT_USAGE)
            raise
        except Exception as error:  # noqa: BLE001  it ends the job, and its text is printed
            tell(f"sluice: the job failed: {_failure(error, self._private)}\n")
            _LOG.debug("The job failed", exc_info=None if self._private else error)
            code = EXIT_FAILED
        self._end(code)
        return code

    def _run(self) -> int:
        if self._stages.finish():
            tell("sluice: an earlier command has published the answers of this job: nothing is left to do\n")
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
            tell(
                f"sluice: the files of this job stay in {self._plan.directory}. Its output may be published: look at "
                "it, and where the job runs, before you run the same command again. Delete the directory if it is\n"
            )
        elif match_files(f"{self._plan.directory}/*/prepared.json"):
            tell(
                f"sluice: the files of this job stay in {self._plan.directory}: the same command {self._next}. Delete "
                "the directory if you give the job up\n"
            )

    @property
    def _next(self) -> str:
        if self._starts_anew:
            return "makes a new job for the rows, which are prepared"
        return "goes on from there, and nothing is prepared or paid for twice"

    def _may_be_published(self, code: int) -> bool:
        """Whether output that the same command would publish again may be there, or be on its way elsewhere."""
        if not self._joins or code == EXIT_FAILURES or self._stages.appends:
            return False
        return self._gate.state is not CommitState.NOT_BEGUN or not self._stages.is_local

    def _score(self) -> _Answered:
        """Has the service score the rows; returns what it has answered."""
        first = obtain(self._client, self._label, self._first_request, is_first_kept)
        self._first = first.short_name
        first = self._followed(first)
        self._check(first, is_first_kept(first))
        place, policy = place_of(first), FailurePolicy(self._options.max_failure_rate)
        answers = self._stages.find(place, first, again=True)
        if not answers.missing:
            return _Answered(place, policy, (first.short_name,))
        if has_answered_none(answers):
            return self._refused(place, policy, first, answers.missing)
        self._check_missing(first, answers)
        _LOG.warning(
            "%s rows have no answer: a row that fails takes its batch with it. They are scored again, one by one",
            f"{answers.missing:,}",
        )
        second = self._second(place, first, answers.again)
        jobs = first.short_name, second.short_name
        return _Answered(place, policy, jobs, unanswered_text(second, "this row, not even alone"))

    def _refused(self, place: Place, policy: FailurePolicy, job: Job, rows: int) -> _Answered:
        """Returns what there is to join of a job that has answered none of many rows: failures only."""
        self._starts_anew = True
        text = "%s answered none of %s rows. All are failures, and no second job tries them one by one"
        _LOG.warning(text, describe(job), f"{rows:,}")
        return _Answered(place, policy, (job.short_name,), unanswered_text(job, "any row"))

    def _check(self, job: Job, goes_on: bool) -> None:
        """Checks that a job has ended with results, unless the command goes on without; warns if it has some only."""
        if job.has_results or not goes_on:
            check_end(job, self._private)

    def _check_missing(self, job: Job, answers: Answers) -> None:
        """Checks that rows without an answer are worth a second job, in which each row is a call of its own.

        Raises:
          JobEnded: they are not.
        """
        missing, rows, rate = answers.missing, answers.missing + answers.answered, self._options.vertex_max_rescore_rate
        if missing <= FEW_ROWS:
            return
        words = because(words_of(job))
        if missing > rate * rows:
            raise JobEnded(message(
                "{job} left {missing:,} of {rows:,} rows without an answer ({share:.1%}){}. That is more than "
                "--vertex_max_rescore_rate {rate:g} allows to score once more, one by one, which costs a call for "
                "each row. With a higher rate the same command goes on from here. If the model refuses many rows, each "
                "takes its batch with it, and a smaller --vertex_batch_size loses fewer",
                words, job=describe(job), missing=missing, rows=rows, share=missing / rows, rate=rate,
            ))  # fmt: skip

    def _resume(self, job: str) -> str:
        """Returns the command line that goes on with the job, or with its first one; `job` is known to run."""
        return resume_command(sys.argv, job=self._first or job)

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
        self._label = make_label(self._plan.label, first.name)

        def request(attempt: int) -> JobRequest:
            return self._plan.request(self._label, attempt, place, place.again(again), batch_size=1)

        second = self._followed(obtain(self._client, self._label, request, is_second_kept))
        self._check(second, is_second_kept(second))
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
            tell(f"{detached_text(job, self._resume(job.short_name), self._client.url)}\n")
            raise _Detached
        return follow(self._client, job, self._options.progress)


def _failure(error: Exception, private: bool) -> str:
    """Returns what is told of an error that ends the command."""
    if isinstance(error, JobEnded):
        return told(error, private)
    return reason(error, private) if isinstance(error, SluiceError) else failure_text(error, private)
