"""Runs a batch job: rows of files or of BigQuery in, the rows with their predictions out."""

import dataclasses
import logging
import sys

from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions

from sluice.models.cache import open_ahead
from sluice.models.errors import UsageError
from sluice.models.uri import parse_model_uri
from sluice.pipelines.dataflow.defaults import check_settings, set_defaults
from sluice.pipelines.dataflow.login import check_login
from sluice.pipelines.dataflow.runner import (
    beam_options,
    check_reachable,
    is_here,
    is_local,
    loads_model,
    make_pipeline,
)
from sluice.pipelines.graph import build_batch
from sluice.pipelines.options.batch import BatchOptions
from sluice.pipelines.outcome import EXIT_OK
from sluice.pipelines.plan.batch_job import BatchPlan, plan_batch
from sluice.pipelines.plan.model import check_devices, describe_model, without_account
from sluice.pipelines.progress.check_report import render_check
from sluice.pipelines.progress.phases import PLAN, Phases
from sluice.pipelines.report.launch import check_report, with_place
from sluice.pipelines.running import run_pipeline
from sluice.transforms.core import metrics
from sluice.transforms.core.beam_files import BeamFiles
from sluice.transforms.core.commit_gate import CommitGate
from sluice.transforms.core.observed import forget

_LOG = logging.getLogger(__name__)


def run(options: BatchOptions, beam_flags: list[str], phases: Phases | None = None) -> int:
    """Runs a batch job to its end; returns the exit code.

    Args:
      phases: with the time that imports took, if it is known.

    Raises:
      UsageError: model, input and output do not fit; nothing has been written.
    """
    phases = phases or Phases()
    managed = parse_model_uri(options.model).managed
    if managed:
        if options.check:
            raise UsageError("--check: a managed job has no check; leave it out")
        from sluice.pipelines.managed.run import run_managed  # its clients are slow to import

        return run_managed(options, managed, beam_flags, phases)
    with phases.timed(PLAN):
        beam = beam_options(beam_flags)
        check_reachable(options, beam)
        check_settings(beam)
        check_login(beam)
        check_report(options, beam)
        if is_here(beam):
            check_devices(options)
        cloud = beam.view_as(GoogleCloudOptions)
        account = cloud.impersonate_service_account or ""
        plan = with_place(plan_batch(options, cloud.project or "", cloud.temp_location or "", account), options, beam)
        if not is_local(beam):
            plan = dataclasses.replace(plan, recipe=without_account(plan.recipe))
    if options.check:
        sys.stdout.write(render_check(plan))
        return EXIT_OK
    set_defaults(beam, options, plan.recipe, plan.version)
    _LOG.info("Model %s", describe_model(plan.recipe, plan.version))
    _LOG.info("Input %s", plan.input.description)
    return _run(options, plan, beam, phases)


def _run(options: BatchOptions, plan: BatchPlan, beam: PipelineOptions, phases: Phases) -> int:
    metrics.reset_tally()
    forget()
    if loads_model(beam, plan.recipe.spec):
        open_ahead(plan.recipe, BeamFiles())
    gate = CommitGate()
    pipeline = make_pipeline(beam)
    build_batch(pipeline, plan, gate)
    return run_pipeline(options, plan, pipeline, is_here(beam), gate, phases)
