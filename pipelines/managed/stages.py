"""The Beam jobs of a managed job, on the user's runner: one prepares rows, one looks through answers, one joins."""

import contextlib
import dataclasses
import datetime
import logging
import uuid
from collections.abc import Callable
from typing import Any, TypeVar, cast

import apache_beam as beam
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions
from apache_beam.runners.runner import PipelineResult, PipelineState

from sluice.models.errors import SluiceError
from sluice.models.saved_model.tensorflow_import import real_stderr
from sluice.pipelines.dataflow.defaults import check_settings, set_defaults
from sluice.pipelines.dataflow.launch import launch
from sluice.pipelines.dataflow.runner import beam_options, is_dataflow, is_local, is_started_later, make_pipeline
from sluice.pipelines.graph import build_join, with_inputs_seen
from sluice.pipelines.logs import tell
from sluice.pipelines.managed.job import Job
from sluice.pipelines.managed.named import no_rows
from sluice.pipelines.managed.plan import ManagedPlan
from sluice.pipelines.options.batch import BatchOptions
from sluice.pipelines.plan.batch_job import Input
from sluice.pipelines.plan.batch_sinks import Sink
from sluice.pipelines.progress.batch_progress import BatchProgress
from sluice.pipelines.progress.display import Display
from sluice.pipelines.progress.phases import Phases
from sluice.pipelines.running import run_pipeline
from sluice.transforms.bigquery.table_target import TRUNCATE
from sluice.transforms.core import metrics
from sluice.transforms.core.beam_files import delete_files, delete_tree, match_files
from sluice.transforms.core.commit import FailurePolicy
from sluice.transforms.core.commit_gate import CommitGate
from sluice.transforms.core.committer import Resumable
from sluice.transforms.managed.find_answers import FindAnswers
from sluice.transforms.managed.join_answers import JoinAnswers
from sluice.transforms.managed.place import Answers, Place, Prepared
from sluice.transforms.managed.prepare import PrepareInstances
from sluice.transforms.managed.published import AppendOnce

_LOG = logging.getLogger(__name__)

_Record = TypeVar("_Record", Prepared, Answers)

# What is published: the name of its files.
_PREDICTIONS = "predictions"

# https://cloud.google.com/dataflow/docs/guides/pipeline-options#basic_options
_NAME_LENGTH = 63


@dataclasses.dataclass(frozen=True)
class Stages:
    """Runs the Beam jobs of a managed job.

    Attributes:
      flags: Beam's.
    """

    options: BatchOptions
    plan: ManagedPlan
    flags: list[str]

    def prepare(self) -> tuple[Place, Prepared]:
        """Writes the rows as instances, unless an earlier command has done so; returns where they are.

        Raises:
          SluiceError: the rows are to be those of a job that is named, and they are gone.
          Exception: as the runner does. Nothing is left, then, unless the job goes on elsewhere.
        """
        for path in reversed([file.path for file in match_files(f"{self.plan.directory}/*/prepared.json")]):
            place = Place(path.rpartition("/")[0])
            if prepared := Prepared.read(place):
                _LOG.info("The rows are prepared already: %s", place.directory)
                return place, prepared
        if self.options.vertex_job:
            raise no_rows(self.options.vertex_job)
        place = Place(
            f"{self.plan.directory}/{datetime.datetime.now(datetime.UTC):%Y%m%d%H%M%S}-{uuid.uuid4().hex[:8]}"
        )
        _LOG.info("Preparing: rows become instances in %s", place.directory)
        reads = self.plan.batch.input
        progress = BatchProgress(metrics.tally, reads.total, reads.counter, metrics.ROWS_PREPARED)

        def build(pipeline: beam.Pipeline) -> None:
            read = pipeline | "Read" >> reads.reader
            seen = read._replace(rows=with_inputs_seen(read.rows, self.plan.batch.watched))
            seen | "Prepare" >> PrepareInstances(place, self.plan.encoding)

        job = _Running()
        try:
            self._run("prepare", build, progress, job)
        except BaseException:
            if self.is_local or job.is_ended:  # otherwise it may still write there
                with contextlib.suppress(Exception):
                    delete_tree(place.directory)
            else:
                _LOG.warning("%s is left behind: the job may still write there", place.directory)
            raise
        return place, _there(Prepared.read(place), "prepared")

    def find(self, place: Place, job: Job, again: bool) -> Answers:
        """Looks through the answers of a job that has ended, unless an earlier command has done so.

        Args:
          again: rows without an answer are written for a second job.
        """
        found = Answers.read(place, job.short_name)
        if found:
            return found
        _LOG.info("Looking through the answers of %s", job.name)
        find = FindAnswers(place, job.short_name, job.output_directory, again)
        self._run("find", lambda pipeline: pipeline | "Find" >> find, None, _Running())
        return _there(Answers.read(place, job.short_name), "looked through")

    def join(
        self,
        place: Place,
        jobs: tuple[str, ...],
        unanswered: str,
        policy: FailurePolicy,
        gate: CommitGate,
        phases: Phases,
        since: float,
    ) -> int:
        """Joins answers to their rows and publishes the output; returns the exit code of the whole.

        Args:
          jobs: the IDs of the jobs that have answered; (): none has, and only failures are published.
          unanswered: the reason of a row without an answer.
          gate: tells afterwards how far the commit has come, if it is local.
          since: when the whole began, of time.monotonic.
        """
        rows = _there(Prepared.read(place), "prepared").rows_in
        _LOG.info("Joining answers to %s rows", f"{rows:,}")
        reader = JoinAnswers(place, self.plan.decoding(unanswered), jobs)
        reads = Input(self.plan.batch.input.description, reader, metrics.ROWS_READ, rows)
        output, failures = self._sinks(place, jobs)
        plan = dataclasses.replace(
            self.plan.batch, input=reads, output=output, failures=failures, failure_policy=policy
        )
        settings = self._settings("join")
        metrics.reset_tally()
        pipeline = make_pipeline(settings)
        build_join(pipeline, plan, gate)
        return run_pipeline(self.options, plan, pipeline, is_local(settings), gate, phases, since)

    def _sinks(self, place: Place, jobs: tuple[str, ...]) -> tuple[Sink, tuple[Sink, ...]]:
        """Returns the sinks of predictions and failures, of which each publishes once what could be published twice."""
        output, failures = self.plan.batch.output, self.plan.batch.failures
        if self.appends:
            output = dataclasses.replace(output, committer=self._once(output, _PREDICTIONS, place))
        return output, tuple(self._failures(sink, place, jobs) if sink.table else sink for sink in failures)

    def _failures(self, sink: Sink, place: Place, jobs: tuple[str, ...]) -> Sink:
        """Returns a table of failures. They are published before the failure rate is judged, and so perhaps earlier."""
        unpaid = self._once(sink, "failures", place)
        if not jobs:
            return dataclasses.replace(sink, committer=unpaid)
        earlier = unpaid.finish()
        once = self._once(sink, f"failures-{'-'.join(jobs)}", place, earlier or ())
        return dataclasses.replace(sink, committer=once, earlier=earlier)

    def _once(self, sink: Sink, name: str, place: Place, before: tuple[Any, ...] = ()) -> AppendOnce:
        committer = cast(Resumable, sink.committer)
        return AppendOnce(committer, self.plan.directory, name, place, uuid.uuid4().hex, before)

    @property
    def appends(self) -> bool:
        """Whether to publish the same answers again would give rows twice. Others are replaced."""
        return bool(self.options.output_table) and self.options.write_disposition != TRUNCATE

    @property
    def is_local(self) -> bool:
        """Whether the Beam jobs end with this process."""
        return is_local(beam_options(self.flags))

    def finish(self) -> bool:
        """Publishes answers that an earlier command was about to append; returns whether there was such a command."""
        output = self.plan.batch.output
        return self.appends and self._once(output, _PREDICTIONS, Place(self.plan.directory)).finish() is not None

    def clean_up(self) -> None:
        """Deletes the files of the job. An error is logged only: the outcome of the job is known by now.

        The records of preparations are first: without one, no other command joins these answers.
        """
        try:
            delete_files(file.path for file in match_files(f"{self.plan.directory}/*/prepared.json"))
            delete_tree(self.plan.directory)
        except Exception as error:  # noqa: BLE001
            _LOG.warning("%s is left behind: %s", self.plan.directory, error)

    def _run(
        self, stage: str, build: Callable[[beam.Pipeline], object], progress: BatchProgress | None, job: "_Running"
    ) -> None:
        settings = self._settings(stage)
        metrics.reset_tally()
        pipeline = make_pipeline(settings)
        build(pipeline)
        try:
            if progress is None or not is_local(settings):
                job.run(pipeline)
            else:
                with real_stderr():  # to see whether it is a terminal
                    display = Display(progress, self.options.progress)
                with display:
                    job.run(pipeline)
        except KeyboardInterrupt:
            if not is_local(settings):
                job.cancel()
            raise
        if is_started_later(job.result):
            raise SluiceError("a managed job is several jobs, and cannot be made a template: run `sluice batch` itself")

    def _settings(self, stage: str) -> PipelineOptions:
        """Returns Beam's options for one of the jobs; on Dataflow each needs a name of its own."""
        settings = beam_options(self.flags)
        check_settings(settings)
        set_defaults(settings, self.options, self.plan.batch.recipe, self.plan.batch.version)
        if is_dataflow(settings):
            google = settings.view_as(GoogleCloudOptions)
            google.job_name = f"{google.job_name[: _NAME_LENGTH - 1 - len(stage)].rstrip('-')}-{stage}"
        return settings


class _Running:
    """A Beam job that this command waits for.

    Attributes:
      result: None: it has not been started, or nothing is known of it.
    """

    result: PipelineResult | None = None
    _is_started = False

    def run(self, pipeline: beam.Pipeline) -> None:
        """Runs a pipeline to its end."""
        self._is_started = True
        self.result = launch(pipeline)
        self.result.wait_until_finish()

    @property
    def is_ended(self) -> bool:
        """Whether it is known not to run."""
        if not self._is_started:
            return True
        try:
            return self.result is not None and PipelineState.is_terminal(self.result.state)
        except Exception:  # noqa: BLE001  the service does not answer
            return False

    def cancel(self) -> None:
        """Cancels a job that runs elsewhere. An error is told only: the command ends all the same."""
        if self.result is None:
            return
        name = self.result.job_id() if callable(getattr(self.result, "job_id", None)) else "on the runner"
        try:
            self.result.cancel()
            tell(f"sluice: interrupted; the job {name} is cancelled\n")
        except Exception as error:  # noqa: BLE001
            tell(f"sluice: interrupted; the job {name} goes on, and cannot be cancelled: {error}\n")


def _there(record: _Record | None, what: str) -> _Record:
    if record is None:
        raise SluiceError(f"the job on the runner has ended, and the rows are not {what}: see its messages")
    return record
