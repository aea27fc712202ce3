"""`sluice streaming`: Pub/Sub messages in, predictions out, without an end."""

import argparse
import contextlib
import dataclasses
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from sluice.models.errors import UsageError
from sluice.pipelines.options.flags import add_arguments, from_namespace
from sluice.pipelines.options.streaming import StreamingOptions
from sluice.pipelines.progress.outcome import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, is_about_server, reason

_LOG = logging.getLogger(__name__)

# Flags of local jobs, and of others.
_LOCALLY = ("max_bundle_messages", "max_bundle_delay_ms", "max_restarts", "health_port", "summary_file", "progress")
_ELSEWHERE = ("id_label",)

# How long an abort takes to give back what is in work, which otherwise comes again when its leases end.
_ABORT_SECS = 2.0


def run(options: StreamingOptions, beam_flags: list[str]) -> int:
    """Runs a streaming job until it is stopped; returns the exit code. On Dataflow, only launches it.

    Raises:
      UsageError: subscription, model and sinks do not fit; nothing has been read.
    """
    from sluice.pipelines.dataflow.defaults import check_settings
    from sluice.pipelines.dataflow.runner import beam_options, check_reachable, check_streams, is_local
    from sluice.pipelines.plan.streaming import make_tables, plan_streaming

    beam = beam_options(beam_flags)
    check_streams(beam)
    check_reachable(options, beam)
    local = is_local(beam)
    _check_flags(options, local)
    check_settings(beam)
    plan = make_tables(plan_streaming(options, native=not local))
    _announce(plan)
    return _run_here(options, plan, beam) if local else _launch(options, plan, beam)


def _check_flags(options: StreamingOptions, local: bool) -> None:
    """Says which flags mean nothing to the runner.

    Raises:
      UsageError: one of them is there to keep messages from being lost.
    """
    if options.max_delivery_attempts and not local:
        raise UsageError(
            "--max_delivery_attempts is for local jobs: Dataflow does not tell how often a message was delivered. "
            "Leave it out, and give the subscription a dead-letter policy"
        )
    defaults = {field.name: field.default for field in dataclasses.fields(options)}
    for name in _ELSEWHERE if local else _LOCALLY:
        if getattr(options, name) != defaults[name]:
            _LOG.warning("--%s means nothing %s", name, "to a local job" if local else "on Dataflow")


def _announce(plan: Any) -> None:
    version = "" if plan.version is None else f", version {plan.version}"
    _LOG.info("Model %s%s, signature %s", plan.recipe.spec.uri, version, plan.recipe.model.signature)
    _LOG.info("Input %s", plan.subscription or plan.topic)


def _launch(options: StreamingOptions, plan: Any, beam: Any) -> int:
    from apache_beam.options.pipeline_options import StandardOptions

    from sluice.pipelines.dataflow.defaults import set_defaults
    from sluice.pipelines.dataflow.runner import make_pipeline
    from sluice.pipelines.streaming_graph import build_streaming

    beam.view_as(StandardOptions).streaming = True
    set_defaults(beam, options, plan.recipe, plan.version)
    pipeline: Any = make_pipeline(beam)
    try:
        build_streaming(pipeline, plan)
    except ValueError as error:  # names of Pub/Sub's that Beam does not take
        raise UsageError(str(error)) from error
    try:
        result = pipeline.run()
    except Exception as error:  # noqa: BLE001  what the service says of the job is shown
        sys.stderr.write(f"sluice: the job could not be launched: {reason(error)} (--verbose shows where)\n")
        _LOG.debug("The job could not be launched", exc_info=error)
        return EXIT_FAILED
    if not getattr(result, "has_job", True):  # a Flex Template's launcher starts it
        sys.stderr.write("sluice: the job is written; Dataflow starts it\n")
        return EXIT_OK
    job = getattr(result, "job_id", None)
    sys.stderr.write(f"sluice: the job {f'{job()} ' if callable(job) else ''}runs; it goes on until it is drained\n")
    return EXIT_OK


def _run_here(options: StreamingOptions, plan: Any, beam: Any) -> int:
    from sluice.pipelines.progress.health import HealthServer
    from sluice.pipelines.progress.stream_stats import StreamStats
    from sluice.pipelines.progress.streaming import StreamProgress
    from sluice.transforms.core import metrics
    from sluice.transforms.pubsub.read_local import close_source

    metrics.reset_tally()
    stats = StreamStats(metrics.tally, metrics.means)
    plan, source = _open_source(options, plan, stats)

    def figures() -> Any:
        return stats.figures(source)

    error: Exception | None = None
    with _signals(source):
        try:
            with HealthServer(options.health_port, figures), StreamProgress(figures, options.progress):
                error = _run_segments(options, plan, beam, source, stats)
        finally:
            close_source(source)
    try:
        _summarise(options, plan, stats, figures())
    except Exception as problem:  # noqa: BLE001  the job's outcome stands, whatever its summary says
        _LOG.warning("The summary could not be made or written: %s", problem)
    return _exit_code(error, figures().restarts)


def _open_source(options: StreamingOptions, plan: Any, stats: Any) -> tuple[Any, Any]:
    """Begins to pull; returns the plan with what was found out of the subscription, and the source."""
    from sluice.transforms.pubsub.clients import subscriber
    from sluice.transforms.pubsub.google_subscription import GoogleSubscription
    from sluice.transforms.pubsub.message_buffer import BundleOptions
    from sluice.transforms.pubsub.message_source import SourceOptions
    from sluice.transforms.pubsub.read_local import open_source
    from sluice.transforms.pubsub.resources import check_subscription, create_subscription

    client = subscriber()
    if plan.subscription:
        allowed = check_subscription(client, plan.subscription, (plan.output_topic, plan.failures.topic))
        attempts = plan.max_delivery_attempts or max(0, allowed - 1)
        plan = dataclasses.replace(plan, max_delivery_attempts=attempts)
    else:
        plan = dataclasses.replace(plan, subscription=create_subscription(client, plan.topic))
    bundles = BundleOptions(max_messages=options.max_bundle_messages, gather_secs=options.bundle_delay_ms / 1000)
    subscription = GoogleSubscription(client, plan.subscription, temporary=bool(plan.topic))
    return plan, open_source(subscription, SourceOptions(bundles), stats.note)


def _run_segments(options: StreamingOptions, plan: Any, beam: Any, source: Any, stats: Any) -> Exception | None:
    """Runs until the source is drained; returns what ended the job, if something did."""
    from sluice.pipelines.segments import run_segments

    run_segment = _segment(plan, beam)
    _settle_memory(plan)
    try:
        run_segments(run_segment, source, options.max_restarts, stats.note_restart)
    except Exception as error:  # noqa: BLE001  it ends the job, and what it says is shown
        return error
    return None


def _settle_memory(plan: Any) -> None:
    """Has the garbage collector leave alone what is imported: to look through it takes a quarter of a second, in which
    no message gets on."""
    if plan.recipe.spec.endpoint is None:
        from sluice.models.saved_model.tensorflow_import import tensorflow

        tensorflow()
    gc.collect()
    gc.freeze()


def _segment(plan: Any, beam: Any) -> Callable[[], None]:
    """Returns what runs the pipeline of a segment. It is built once: that takes longer than to run it anew."""
    from sluice.pipelines.dataflow.runner import local_graph, make_pipeline, run_graph
    from sluice.pipelines.streaming_graph import build_streaming
    from sluice.transforms.pubsub.fused import check_fused

    pipeline = make_pipeline(beam)
    build_streaming(pipeline, plan)
    check_fused(pipeline)
    graph = local_graph(pipeline)
    return lambda: run_graph(graph, beam)


def _say(text: str) -> None:
    """Prints a line from a signal's handler, whatever the thread was about to print when the signal came."""
    with contextlib.suppress(OSError):
        os.write(sys.stderr.fileno(), f"\nsluice: {text}\n".encode())


@contextlib.contextmanager
def _signals(source: Any) -> Iterator[None]:
    """Drains the source at the first SIGINT or SIGTERM while the block runs; the second one ends the process."""

    def stop(number: int, frame: object) -> None:
        if source.draining:
            _say("aborted; messages that were in work will come again")
            giving_back = threading.Thread(target=source.release, daemon=True)  # it may wait for a lock that we hold
            giving_back.start()
            giving_back.join(_ABORT_SECS)
            os._exit(EXIT_INTERRUPTED)
        _say("draining: what is in work is finished; once more to abort")
        source.drain()

    if threading.current_thread() is not threading.main_thread():
        yield  # signals go to the main thread, whoever runs it
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _summarise(options: StreamingOptions, plan: Any, stats: Any, figures: Any) -> None:
    from sluice.pipelines.progress.stream_summary import render, stream_summary, to_json
    from sluice.transforms.core import metrics
    from sluice.transforms.core.beam_files import write_text

    summary = stream_summary(stats, figures, metrics.tally(), plan.recipe.spec.uri)
    sys.stderr.write(render(summary) + "\n")
    if options.summary_file:
        write_text(options.summary_file, to_json(summary) + "\n")


def _exit_code(error: Exception | None, restarts: int) -> int:
    if error is None:
        return EXIT_OK
    hint = "; --on_unavailable=dead_letter makes failures of such rows" if is_about_server(error) else ""
    sys.stderr.write(
        f"sluice: the job failed after {restarts} restart(s), and what was not acknowledged comes again: "
        f"{reason(error)}{hint} (--verbose shows where)\n"
    )
    _LOG.debug("The job failed", exc_info=error)
    return EXIT_FAILED


def add_streaming_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `sluice streaming`."""
    add_arguments(parser, StreamingOptions)


def run_arguments(namespace: argparse.Namespace, beam_flags: list[str]) -> int:
    """Runs the job that the command line asks for."""
    return run(from_namespace(StreamingOptions, namespace), beam_flags)
