"""`sluice batch`: rows of files or of BigQuery in, with their predictions out. Also `python -m pipelines.batch`."""

import argparse
import logging
import sys
import time
from typing import Any

from models.errors import TooManyFailures
from pipelines.flags import add_arguments, from_namespace
from pipelines.options import BatchOptions
from pipelines.outcome import (
    EXIT_FAILED,
    EXIT_FAILURES,
    EXIT_INTERRUPTED,
    EXIT_OK,
    error_text,
    is_about_server,
    reason,
)

_LOG = logging.getLogger("sluice")


def run(options: BatchOptions, beam_flags: list[str]) -> int:
    """Runs a batch job to its end; returns the exit code.

    Raises:
      UsageError: model, input and output do not fit; nothing has been written.
    """
    from apache_beam.options.pipeline_options import GoogleCloudOptions

    from pipelines.dataflow import check_settings, set_defaults
    from pipelines.plan import plan_batch
    from pipelines.runner import beam_options, check_reachable

    beam = beam_options(beam_flags)
    check_reachable(options, beam)
    check_settings(beam)
    cloud = beam.view_as(GoogleCloudOptions)
    plan = plan_batch(options, cloud.project or "", cloud.temp_location or "")
    set_defaults(beam, plan.recipe, plan.version)
    _announce(plan)
    return _run(options, plan, beam)


def _run(options: BatchOptions, plan: Any, beam: Any) -> int:
    from pipelines.graph import build_batch
    from pipelines.progress import Progress
    from pipelines.runner import is_local, make_pipeline
    from transforms import metrics

    metrics.reset_tally()
    pipeline = make_pipeline(beam)
    build_batch(pipeline, plan)
    started = time.monotonic()
    error: BaseException | None = None
    result: Any = None
    try:
        total, counter = (plan.source.size, metrics.BYTES_READ) if plan.pattern else (plan.rows or 0, metrics.ROWS_READ)
        with Progress(metrics.tally, total, options.progress if is_local(beam) else "none", counter):
            result = pipeline.run()
            result.wait_until_finish()
    except (Exception, KeyboardInterrupt) as raised:  # noqa: BLE001  it ends the job, and what it says is shown
        error = raised
    if error is None and not getattr(result, "has_job", True):  # a Flex Template's launcher starts it
        sys.stderr.write("sluice: the job is written; Dataflow starts it\n")
        return EXIT_OK
    if is_local(beam):  # elsewhere the job may live on, and needs its files
        for place in (plan.output.place, *plan.failures.places):
            place.clean_up()
    try:
        _summarise(options, plan, result, time.monotonic() - started, error)
    except Exception as problem:  # noqa: BLE001  the job's outcome stands, whatever its summary says
        _LOG.warning("The summary could not be made or written: %s", problem)
    return _exit_code(error, is_local(beam))


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
    from pipelines.report import summarise
    from pipelines.summary import render, to_json

    judged = error is None or TooManyFailures.__name__ in error_text(error)  # its failures were put in place, then
    summary = summarise(plan, result, seconds, done=error is None, judged=judged)
    sys.stderr.write(render(summary) + "\n")
    if summary.failure_files:
        _explain(summary.failure_files[0], sum(summary.failures_by.get("read", {}).values()))
    if options.summary_file:
        from transforms.beam_files import write_text

        write_text(options.summary_file, to_json(summary) + "\n")


def _explain(path: str, files: int) -> None:
    """Shows the first failure, and says so where files could not be read to their end."""
    import json

    from transforms.beam_files import open_binary

    with open_binary(path) as file:
        failure = json.loads(file.readline())
    sys.stderr.write(f"First failure: {failure['error_message']} ({failure['origin']})\n")
    if files:
        sys.stderr.write(f"{files} file(s) could not be read to the end: their further rows are NOT in the output\n")


def _exit_code(error: BaseException | None, local: bool) -> int:
    if error is None:
        return EXIT_OK
    text = error_text(error)
    if KeyboardInterrupt.__name__ in text:
        outcome = "no output was put in place" if local else "the job itself goes on; cancel it where it runs"
        sys.stderr.write(f"sluice: interrupted; {outcome}\n")
        return EXIT_INTERRUPTED
    if TooManyFailures.__name__ in text:
        sys.stderr.write(f"sluice: {reason(error)}\n")
        return EXIT_FAILURES
    hint = "; --on_unavailable=dead_letter makes failures of such rows" if is_about_server(error) else ""
    nothing = "no output was put in place" if local else "no output is put in place unless the job goes on"
    sys.stderr.write(f"sluice: the job failed, {nothing}: {reason(error)}{hint} (--verbose shows where)\n")
    _LOG.debug("The job failed", exc_info=error)
    return EXIT_FAILED


def add_batch_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `sluice batch`."""
    add_arguments(parser, BatchOptions)


def main(argv: list[str] | None = None) -> int:
    """Entry point of `python -m pipelines.batch`."""
    from pipelines.cli import main as cli_main

    return cli_main(["batch", *(sys.argv[1:] if argv is None else argv)])


def run_arguments(namespace: argparse.Namespace, beam_flags: list[str]) -> int:
    """Runs the job that the command line asks for."""
    return run(from_namespace(BatchOptions, namespace), beam_flags)


if __name__ == "__main__":
    sys.exit(main())
