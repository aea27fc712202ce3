"""The Beam jobs of a managed job, on the user's runner: one prepares rows, one looks through answers, one joins."""

import contextlib
import dataclasses
import datetime
import logging
import uuid
from collections.abc import Callable
from typing import TypeVar

import apache_beam as beam
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions

from sluice.models.errors import SluiceError
from sluice.models.saved_model.tensorflow_import import real_stderr
from sluice.pipelines.dataflow.defaults import check_settings, set_defaults
from sluice.pipelines.dataflow.runner import beam_options, is_dataflow, is_local, is_started_later, make_pipeline
from sluice.pipelines.graph import build_join
from sluice.pipelines.managed.job import Job
from sluice.pipelines.managed.plan import ManagedPlan
from sluice.pipelines.options.batch import BatchOptions
from sluice.pipelines.plan.batch_job import Input
from sluice.pipelines.progress.batch_progress import BatchProgress
from sluice.pipelines.progress.display import Display
from sluice.pipelines.progress.phases import Phases
from sluice.pipelines.running import run_pipeline
from sluice.transforms.core import metrics
from sluice.transforms.core.beam_files import delete_tree, match_files
from sluice.transforms.core.commit import FailurePolicy
from sluice.transforms.core.commit_gate import CommitGate
from sluice.transforms.managed.find_answers import FindAnswers
from sluice.transforms.managed.join_answers import JoinAnswers
from sluice.transforms.managed.place import Answers, Place, Prepared
from sluice.transforms.managed.prepare import PrepareInstances

_LOG = logging.getLogger(__name__)

_Record = TypeVar("_Record", Prepared, Answers)

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
          Exception: as the runner does. Nothing is left, then.
        """
        for path in reversed([file.path for file in match_files(f"{self.plan.directory}/*/prepared.json")]):
            place = Place(path.rpartition("/")[0])
            if prepared := Prepared.read(place):
                _LOG.info("The rows are prepared already: %s", place.directory)
                return place, prepared
        place = Place(
            f"{self.plan.directory}/{datetime.datetime.now(datetime.UTC):%Y%m%d%H%M%S}-{uuid.uuid4().hex[:8]}"
        )
        _LOG.info("Preparing: rows become instances in %s", place.directory)
        reads = self.plan.batch.input
        progress = BatchProgress(metrics.tally, reads.total, reads.counter, metrics.ROWS_PREPARED)

        def build(pipeline: beam.Pipeline) -> None:
            pipeline | "Read" >> reads.reader | "Prepare" >> PrepareInstances(place, self.plan.encoding)

        try:
            self._run("prepare", build, progress)
        except BaseException:
            with contextlib.suppress(Exception):
                delete_tree(place.directory)
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
        self._run("find", lambda pipeline: pipeline | "Find" >> find, None)
        return _there(Answers.read(place, job.short_name), "looked through")

    def join(
        self,
        place: Place,
        jobs: tuple[str, ...],
        unanswered: str,
        policy: FailurePolicy,
        phases: Phases,
        since: float,
    ) -> int:
        """Joins answers to their rows and publishes the output; returns the exit code of the whole.

        Args:
          jobs: the IDs of the jobs that have answered; (): none has, and only failures are published.
          unanswered: the reason of a row without an answer.
          since: when the whole began, of time.monotonic.
        """
        rows = _there(Prepared.read(place), "prepared").rows_in
        _LOG.info("Joining answers to %s rows", f"{rows:,}")
        reader = JoinAnswers(place, self.plan.decoding(unanswered), jobs)
        reads = Input(self.plan.batch.input.description, reader, metrics.ROWS_READ, rows)
        plan = dataclasses.replace(self.plan.batch, input=reads, failure_policy=policy)
        settings = self._settings("join")
        metrics.reset_tally()
        gate = CommitGate()
        pipeline = make_pipeline(settings)
        build_join(pipeline, plan, gate)
        return run_pipeline(self.options, plan, pipeline, is_local(settings), gate, phases, since)

    def clean_up(self) -> None:
        """Deletes the files of the job. An error is logged only: the outcome of the job is known by now."""
        try:
            delete_tree(self.plan.directory)
        except Exception as error:  # noqa: BLE001
            _LOG.warning("%s is left behind: %s", self.plan.directory, error)

    def _run(self, stage: str, build: Callable[[beam.Pipeline], object], progress: BatchProgress | None) -> None:
        settings = self._settings(stage)
        metrics.reset_tally()
        pipeline = make_pipeline(settings)
        build(pipeline)
        if progress is None or not is_local(settings):
            result = pipeline.run()
            result.wait_until_finish()
        else:
            with real_stderr():  # to see whether it is a terminal
                display = Display(progress, self.options.progress)
            with display:
                result = pipeline.run()
                result.wait_until_finish()
        if is_started_later(result):
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


def _there(record: _Record | None, what: str) -> _Record:
    if record is None:
        raise SluiceError(f"the job on the runner has ended, and the rows are not {what}: see its messages")
    return record
