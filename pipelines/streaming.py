"""Runs a streaming job: Pub/Sub messages in, predictions out, until it is stopped."""

import dataclasses
import functools
import gc
import json
import logging
import os
import signal
import threading
from collections.abc import Callable

from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions, StandardOptions

from sluice.models.cache import OpenedScheduler, open_ahead, shared_scheduler
from sluice.models.errors import UsageError
from sluice.models.saved_model.tensorflow_import import real_stderr
from sluice.pipelines.dataflow.defaults import check_settings, set_defaults
from sluice.pipelines.dataflow.launch import launch
from sluice.pipelines.dataflow.login import check_login
from sluice.pipelines.dataflow.runner import (
    beam_options,
    check_reachable,
    check_streams,
    is_dataflow,
    is_here,
    is_local,
    is_started_later,
    loads_model,
    local_graph,
    make_pipeline,
    run_graph,
    used_beam_options,
)
from sluice.pipelines.graph import build_streaming
from sluice.pipelines.logs import tell, tell_in_handler
from sluice.pipelines.options.config import used_options
from sluice.pipelines.options.streaming import StreamingOptions
from sluice.pipelines.outcome import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, reason, tell_end_of_stream
from sluice.pipelines.plan.model import check_devices, describe_model
from sluice.pipelines.plan.streaming_job import StreamingPlan, make_tables, plan_streaming
from sluice.pipelines.plan.streaming_sinks import FailureSinks
from sluice.pipelines.portable.kind import is_portable
from sluice.pipelines.portable.streams import stream_flags
from sluice.pipelines.progress.display import Display
from sluice.pipelines.progress.health import HealthServer
from sluice.pipelines.progress.metric_values import Job, metric_values
from sluice.pipelines.progress.phases import MODEL_LOAD, PLAN, RUN, Phases
from sluice.pipelines.progress.stream_progress import StreamProgress
from sluice.pipelines.progress.stream_stats import StreamFigures, StreamStats
from sluice.pipelines.progress.stream_summary import render, stream_summary, to_json
from sluice.pipelines.progress.why import reasons_text, top_reasons, where_failures_are
from sluice.pipelines.report.draw import check_drawable
from sluice.pipelines.report.stream import report_stream
from sluice.pipelines.segments import run_segments
from sluice.pipelines.signals import Handler, handling
from sluice.pipelines.subscribing import bundle_options, subscribed
from sluice.transforms.core import metrics
from sluice.transforms.core.beam_files import BeamFiles, write_text
from sluice.transforms.core.failures import FULL
from sluice.transforms.core.observed import forget
from sluice.transforms.pubsub.clients import subscriber
from sluice.transforms.pubsub.fused import check_fused
from sluice.transforms.pubsub.google_subscription import GoogleSubscription
from sluice.transforms.pubsub.message_source import MessageSource
from sluice.transforms.pubsub.read_local import close_source, open_source
from sluice.transforms.pubsub.resources import check_subscription
from sluice.transforms.pubsub.source_parts import SourceOptions

_LOG = logging.getLogger(__name__)

# Flags for local jobs only, for those on Dataflow only, and what each place does without.
_LOCALLY = ("max_restarts", "health_port", "health_address", "summary_file", "progress")
_BY_NATIVE = ("id_label", "file_interval_secs")
_ELSEWHERE = ("readers", *_BY_NATIVE)
_NOT_ON_DATAFLOW = ("max_bundle_messages", "max_bundle_delay_ms", "readers", *_LOCALLY)
_NOT_ON_FLINK = (*_LOCALLY, *_BY_NATIVE)

# How long an abort may take to return the messages in work, which otherwise come again when their leases end.
_ABORT_SECS = 2.0


def run(options: StreamingOptions, beam_flags: list[str], phases: Phases | None = None) -> int:
    """Runs a streaming job until it is stopped; returns the exit code. On Dataflow, only launches it.

    Args:
      phases: with the time that imports took, if it is known.

    Raises:
      UsageError: subscription, model and sinks do not fit; nothing has been read.
    """
    phases = phases or Phases()
    if options.report_file:
        check_drawable("--report_file")
    with phases.timed(PLAN):
        beam, checkpoint_secs = _beam_options(options, beam_flags)
        check_reachable(options, beam)
        local, native = is_local(beam), is_dataflow(beam)
        _check_flags(options, local, native)
        check_settings(beam)
        check_login(beam)
        if is_here(beam):
            check_devices(options)
        cloud = beam.view_as(GoogleCloudOptions)
        account = cloud.impersonate_service_account or ""
        plan = make_tables(plan_streaming(options, native, cloud.temp_location or "", account))
    _LOG.info("Model %s", describe_model(plan.recipe, plan.version))
    _LOG.info("Input %s", plan.subscription or plan.topic)
    if local:
        return _run_here(options, plan, beam, phases)
    if native:
        return _launch(options, plan, beam)
    from sluice.pipelines.flink import run_on_flink  # other jobs do without Beam's portable runners

    return run_on_flink(options, plan, beam, checkpoint_secs)


def _beam_options(options: StreamingOptions, flags: list[str]) -> tuple[PipelineOptions, float]:
    """Returns Beam's options, and on Flink the seconds between two checkpoints."""
    beam = beam_options(flags)
    check_streams(beam)
    if not is_portable(beam):
        return beam, 0.0
    completed = stream_flags(flags, options.readers)
    return beam_options(completed.flags), completed.checkpoint_secs


def _check_flags(options: StreamingOptions, local: bool, native: bool) -> None:
    """Warns of flags that have no effect on this runner.

    Raises:
      UsageError: one of them is there to keep messages from being lost, or asks for a file that would not come.
    """
    place = "on a local job" if local else "on Dataflow" if native else "on Flink"
    if options.max_delivery_attempts and native:
        raise UsageError(
            "--max_delivery_attempts works locally only: Dataflow does not report how often a message was delivered. "
            "Leave it out, and give the subscription a dead-letter policy"
        )
    if options.report_file and not local:
        raise UsageError(
            f"--report_file: a stream {place} goes on {'after' if native else 'apart from'} this command, which cannot "
            "report on it; leave the flag out. Its figures are in the job's metrics, under the names sluice/..."
        )
    defaults = {field.name: field.default for field in dataclasses.fields(options)}
    for name in _ELSEWHERE if local else _NOT_ON_DATAFLOW if native else _NOT_ON_FLINK:
        if getattr(options, name) != defaults[name]:
            _LOG.warning("--%s has no effect %s", name, place)


def _launch(options: StreamingOptions, plan: StreamingPlan, beam: PipelineOptions) -> int:
    if plan.subscription:
        client = subscriber()
        check_subscription(client, plan.subscription, (plan.output_topic, plan.failures.topic))
        client.close()
    beam.view_as(StandardOptions).streaming = True
    set_defaults(beam, options, plan.recipe, plan.version)
    pipeline = make_pipeline(beam)
    try:
        build_streaming(pipeline, plan)
    except ValueError as error:  # Beam refuses some names of Pub/Sub resources
        raise UsageError(str(error)) from error
    try:
        result = launch(pipeline)
    except UsageError:
        raise
    except Exception as error:  # noqa: BLE001  what the service says of the job is printed
        tell(f"sluice: the job could not be launched: {reason(error)} (--verbose shows where)\n", logging.ERROR)
        _LOG.debug("The job could not be launched", exc_info=error)
        return EXIT_FAILED
    if is_started_later(result):
        return EXIT_OK
    job = getattr(result, "job_id", None)
    tell(f"sluice: the job {f'{job()} ' if callable(job) else ''}runs; it goes on until it is drained\n")
    return EXIT_OK


def _run_here(options: StreamingOptions, plan: StreamingPlan, beam: PipelineOptions, phases: Phases) -> int:
    metrics.reset_tally()
    forget()
    if loads_model(beam, plan.recipe.spec):
        open_ahead(plan.recipe, BeamFiles())
    opened = OpenedScheduler(plan.recipe)
    away_secs, call_secs = lambda: opened.away_secs, lambda: opened.call_secs
    stats = StreamStats(metrics.tally, metrics.means, model_away_secs=away_secs, call_secs=call_secs)
    plan, source = _open_source(options, plan, stats)

    def figures() -> StreamFigures:
        return stats.figures(source)

    job = Job(figures, stats, source, opened, plan.recipe.spec.uri, plan.version)
    error: Exception | None = None
    with phases.timed(RUN), handling(_stop_handler(source), signal.SIGINT, signal.SIGTERM):
        try:
            with real_stderr():  # to see whether it is a terminal
                display = Display(StreamProgress(figures), options.progress)
            health = HealthServer(options.health_port, figures, lambda: metric_values(job), options.health_address)
            with health, display:
                error = _run_segments(options, plan, beam, source, stats)
        finally:
            close_source(source)
    try:
        _summarise(options, plan, stats, figures(), phases, beam, error)
    except Exception as problem:  # noqa: BLE001  the summary does not change the job's outcome
        _LOG.warning("The summary could not be made or written: %s", problem)
    failed = f"the job failed after {figures().restarts} restart(s)"
    return tell_end_of_stream(error, options.failure_payload != FULL, failed)


def _open_source(
    options: StreamingOptions, plan: StreamingPlan, stats: StreamStats
) -> tuple[StreamingPlan, MessageSource]:
    """Starts to pull; returns the plan, completed by what the subscription says, and the source."""
    client = subscriber()
    plan = subscribed(plan, client)
    subscription = GoogleSubscription(client, plan.subscription, temporary=bool(plan.topic))
    return plan, open_source(subscription, SourceOptions(bundle_options(options)), stats.note)


def _run_segments(
    options: StreamingOptions, plan: StreamingPlan, beam: PipelineOptions, source: MessageSource, stats: StreamStats
) -> Exception | None:
    """Runs until the source is drained; returns the error that ended the job, if any."""
    run_segment = _segment(plan, beam)
    _settle_memory()
    try:
        private = options.failure_payload != FULL
        run_segments(
            run_segment,
            source,
            options.max_restarts,
            stats.note_restart,
            say=functools.partial(reason, private=private),
            answers=lambda: shared_scheduler(plan.recipe, BeamFiles()).answers(),
        )
    except Exception as error:  # noqa: BLE001  it ends the job, and its text is printed
        return error
    return None


def _settle_memory() -> None:
    """Excludes the plan, the graph and what they have imported from garbage collection, which would stop all messages.

    What came before is excluded already (pipelines.commands.start), so that this collects garbage in little time.
    """
    gc.collect()
    gc.freeze()


def _segment(plan: StreamingPlan, beam: PipelineOptions) -> Callable[[], None]:
    """Returns a function that runs the pipeline of a segment. Builds it once: building takes longer than running."""
    pipeline = make_pipeline(beam)
    build_streaming(pipeline, plan)
    check_fused(pipeline)
    graph = local_graph(pipeline)
    return lambda: run_graph(graph, beam)


def _stop_handler(source: MessageSource) -> Handler:
    """Returns a handler that drains the source at the first signal, and ends the process at the second one."""

    def stop(number: int, frame: object) -> None:
        if source.draining:
            tell_in_handler("aborted; messages that were in work will come again")
            releasing = threading.Thread(target=source.release, daemon=True)  # it may wait for a lock that we hold
            releasing.start()
            releasing.join(_ABORT_SECS)
            os._exit(EXIT_INTERRUPTED)
        tell_in_handler("draining: messages in work are finished; stop it again to abort")
        source.drain()

    return stop


def _summarise(
    options: StreamingOptions,
    plan: StreamingPlan,
    stats: StreamStats,
    figures: StreamFigures,
    phases: Phases,
    settings: PipelineOptions,
    error: Exception | None,
) -> None:
    load_msec = metrics.means().get(metrics.MODEL_LOAD_MSEC)
    phases.note(MODEL_LOAD, None if load_msec is None else load_msec / 1000)
    _LOG.debug("Phases: %s", phases.text())
    summary = stream_summary(stats, figures, metrics.tally(), plan.recipe.spec.uri, phases.seconds())
    reasons = top_reasons(0, (), options.failure_payload != FULL, options.map)
    summary = dataclasses.replace(summary, reasons=reasons)
    used, of_beam = used_options(options), used_beam_options(settings)
    summary = dataclasses.replace(summary, options=used, beam_options=of_beam)
    text = f"{render(summary)}\n{reasons_text(reasons)}{_where(plan.failures, options) if reasons else ''}"
    tell(text, message="summary", fields=lambda: json.loads(to_json(summary)))
    if options.summary_file:
        write_text(options.summary_file, to_json(summary) + "\n")
    report_stream(summary, options, plan.watched, error)


def _where(failures: FailureSinks, options: StreamingOptions) -> str:
    """Returns the line with the command that shows all reasons; "" if failures are in a topic only."""
    files = failures.files
    return where_failures_are([f"{files.prefix}-*{files.suffix}"] if files else [], failures.table, options.map)
