"""`sluice batch`: rows of files or of BigQuery in, with their predictions out."""

import argparse
import contextlib
import logging
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from sluice.models.errors import TooManyFailures
from sluice.pipelines.options.batch import BatchOptions
from sluice.pipelines.options.flags import add_arguments, from_namespace
from sluice.pipelines.progress.outcome import (
    EXIT_FAILED,
    EXIT_FAILURES,
    EXIT_INTERRUPTED,
    EXIT_OK,
    error_text,
    is_about_server,
    reason,
)
from sluice.transforms.core.commit_gate import CommitGate, CommitState

_LOG = logging.getLogger(__name__)

# None: the job runs elsewhere.
_OUTCOMES = {
    CommitState.NOT_BEGUN: "no output was put in place",
    CommitState.UNDER_WAY: "as its output was being put in place: see what {output} holds before you run it again",
    CommitState.DONE: "its output is in place: {output}",
    None: "no output is put in place unless the job goes on where it runs",
}


def run(options: BatchOptions, beam_flags: list[str]) -> int:
    """Runs a batch job to its end; returns the exit code.

    Raises:
      UsageError: model, input and output do not fit; nothing has been written.
    """
    from apache_beam.options.pipeline_options import GoogleCloudOptions

    from sluice.pipelines.dataflow.defaults import check_settings, set_defaults
    from sluice.pipelines.dataflow.runner import beam_options, check_reachable
    from sluice.pipelines.plan.batch import plan_batch

    beam = beam_options(beam_flags)
    check_reachable(options, beam)
    check_settings(beam)
    cloud = beam.view_as(GoogleCloudOptions)
    plan = plan_batch(options, cloud.project or "", cloud.temp_location or "")
    set_defaults(beam, options, plan.recipe, plan.version)
    _announce(plan)
    return _run(options, plan, beam)


def _run(options: BatchOptions, plan: Any, beam: Any) -> int:
    from sluice.pipelines.dataflow.runner import is_local, make_pipeline
    from sluice.pipelines.graph import build_batch
    from sluice.pipelines.progress.batch import Progress
    from sluice.transforms.core import metrics
    from sluice.transforms.core.commit import clean_up

    metrics.reset_tally()
    gate = CommitGate()
    pipeline = make_pipeline(beam)
    build_batch(pipeline, plan, gate)
    started = time.monotonic()
    error: BaseException | None = None
    result: Any = None
    try:
        total, counter = (plan.source.size, metrics.BYTES_READ) if plan.pattern else (plan.rows or 0, metrics.ROWS_READ)
        shown = options.progress if is_local(beam) else "none"
        with _patient_interrupt(gate), Progress(metrics.tally, total, shown, counter):
            result = pipeline.run()
            result.wait_until_finish()
    except (Exception, KeyboardInterrupt) as raised:  # noqa: BLE001  it ends the job, and what it says is shown
        error = raised
    if error is None and not getattr(result, "has_job", True):  # a Flex Template's launcher starts it
        sys.stderr.write("sluice: the job is written; Dataflow starts it\n")
        return EXIT_OK
    local = is_local(beam)
    state = _state(error, gate) if local else None
    if local and state is not CommitState.UNDER_WAY:  # elsewhere the job may live on, and needs its files
        clean_up((plan.output.committer, *plan.failures.committers))
    try:
        _summarise(options, plan, result, time.monotonic() - started, error)
    except Exception as problem:  # noqa: BLE001  the job's outcome stands, whatever its summary says
        _LOG.warning("The summary could not be made or written: %s", problem)
    return _exit_code(error, state, options.output_table or options.output)


def _state(error: BaseException | None, gate: CommitGate) -> CommitState:
    """Returns how far the commit of a local job has come. A job that was interrupted does not begin to commit."""
    if _is_interrupt(error):
        gate.close()
    return gate.state


@contextlib.contextmanager
def _patient_interrupt(gate: CommitGate) -> Iterator[None]:
    """Has ctrl-C wait until output that is being put in place is there; a second one does not."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    told = False

    def interrupt(number: int, frame: Any) -> None:
        nonlocal told
        if told or gate.state is not CommitState.UNDER_WAY:
            signal.default_int_handler(number, frame)
        told = True
        sys.stderr.write("sluice: the output is being put in place, which is waited for; once more to abort\n")

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _announce(plan: Any) -> None:
    version = "" if plan.version is None else f", version {plan.version}"
    _LOG.info("Model %s%s, signature %s", plan.recipe.spec.uri, version, plan.recipe.model.signature)
    source = plan.source
    if plan.pattern:
        _LOG.info("Input %s: %d %s file(s), %.1f MB", plan.pattern, source.files, source.format, source.size / 1e6)
    else:
        rows = "" if plan.rows is None else f", {plan.rows:,} rows"
        _LOG.info("Input %s%s, %.1f MB", plan.table.label.removeprefix("--input_table "), rows, source.size / 1e6)


def _summarise(options: BatchOptions, plan: Any, result: Any, seconds: float, error: BaseException | None) -> None:
    from sluice.pipelines.progress.report import summarise
    from sluice.pipelines.progress.summary import render, to_json

    judged = error is None or TooManyFailures.__name__ in error_text(error)  # its failures were put in place, then
    summary = summarise(plan, result, seconds, done=error is None, judged=judged)
    sys.stderr.write(render(summary) + "\n")
    if summary.failure_files:
        _explain(summary.failure_files[0], sum(summary.failures_by.get("read", {}).values()))
    if options.summary_file:
        from sluice.transforms.core.beam_files import write_text

        write_text(options.summary_file, to_json(summary) + "\n")


def _explain(path: str, files: int) -> None:
    """Shows the first failure, and says so where files could not be read to their end."""
    import json

    from sluice.transforms.core.beam_files import open_binary

    with open_binary(path) as file:
        failure = json.loads(file.readline())
    sys.stderr.write(f"First failure: {failure['error_message']} ({failure['origin']})\n")
    if files:
        sys.stderr.write(f"{files} file(s) could not be read to the end: their further rows are NOT in the output\n")


def _is_interrupt(error: BaseException | None) -> bool:
    return error is not None and KeyboardInterrupt.__name__ in error_text(error)


def _exit_code(error: BaseException | None, state: CommitState | None, output: str) -> int:
    if error is None:
        return EXIT_OK
    outcome = _OUTCOMES[state].format(output=output)
    if _is_interrupt(error):
        if state is None:
            outcome = "the job itself goes on; cancel it where it runs"
        sys.stderr.write(f"sluice: interrupted; {outcome}\n")
        return EXIT_INTERRUPTED
    if TooManyFailures.__name__ in error_text(error):
        sys.stderr.write(f"sluice: {reason(error)}\n")
        return EXIT_FAILURES
    hint = "; --on_unavailable=dead_letter makes failures of such rows" if is_about_server(error) else ""
    sys.stderr.write(f"sluice: the job failed, {outcome}: {reason(error)}{hint} (--verbose shows where)\n")
    _LOG.debug("The job failed", exc_info=error)
    return EXIT_FAILED


def add_batch_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `sluice batch`."""
    add_arguments(parser, BatchOptions)


def run_arguments(namespace: argparse.Namespace, beam_flags: list[str]) -> int:
    """Runs the job that the command line asks for."""
    return run(from_namespace(BatchOptions, namespace), beam_flags)
