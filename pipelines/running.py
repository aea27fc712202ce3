"""Runs the pipeline of a batch job that publishes its output: progress, interruption, summary, exit code."""

import dataclasses
import json
import logging
import signal
import time
from types import FrameType

import apache_beam as beam
from apache_beam.runners.runner import PipelineResult

from sluice.models.saved_model.tensorflow_import import real_stderr
from sluice.pipelines.dataflow.launch import NameTaken, launch
from sluice.pipelines.dataflow.runner import is_started_later, used_beam_options
from sluice.pipelines.logs import tell, tell_in_handler
from sluice.pipelines.options.batch import BatchOptions
from sluice.pipelines.options.config import used_options
from sluice.pipelines.outcome import EXIT_OK, is_interrupt, is_refused, tell_end
from sluice.pipelines.plan.batch_job import BatchPlan
from sluice.pipelines.portable.follow import Following
from sluice.pipelines.portable.kind import is_portable
from sluice.pipelines.portable.words import in_words
from sluice.pipelines.progress.batch_progress import BatchProgress
from sluice.pipelines.progress.batch_summary import Summary, render, summarise, to_json
from sluice.pipelines.progress.display import NONE, Display, Lines
from sluice.pipelines.progress.phases import COMMIT, JOIN, RUN, Phases
from sluice.pipelines.progress.told import Figures, Told, ToldLines
from sluice.pipelines.progress.why import reasons_text, top_reasons, where_failures_are
from sluice.pipelines.report.batch import report_batch
from sluice.pipelines.signals import Handler, handling
from sluice.transforms.core import metrics
from sluice.transforms.core.beam_files import write_text
from sluice.transforms.core.commit import clean_up
from sluice.transforms.core.commit_gate import CommitGate, CommitState
from sluice.transforms.core.failures import FULL, READ
from sluice.transforms.files.claim import job_of, read_claim

_LOG = logging.getLogger(__name__)

# What a job that fails has left; None: the job runs elsewhere, and may live on.
_OUTCOMES = {
    CommitState.NOT_BEGUN: "no output was published",
    CommitState.UNDER_WAY: "its output was being published: check what {output} holds before you run it again",
    CommitState.DONE: "its output is published: {output}",
    None: "no output is published unless the job continues where it runs",
}


def run_pipeline(
    options: BatchOptions,
    plan: BatchPlan,
    pipeline: beam.Pipeline,
    local: bool,
    gate: CommitGate,
    phases: Phases,
    since: float | None = None,
) -> int:
    """Runs a pipeline to its end; returns the exit code of the job.

    Args:
      pipeline: ends in a Commit with this gate.
      local: it runs in this process.
      since: of a managed job: when it began, of time.monotonic; its pipeline joins what a service has scored.

    Raises:
      NameTaken: Dataflow has not started the job.
    """
    begun = time.monotonic()
    error: BaseException | None = None
    result: PipelineResult | None = None
    job = Following(gate if local else None) if is_portable(pipeline.options) else None
    told = Told(local, portable=job is not None)
    committers = [sink.committer for sink in plan.sinks]
    of_beam = used_beam_options(pipeline.options) if job else None  # Beam unsets some when it runs a portable job
    try:
        with real_stderr():  # to see whether it is a terminal
            display = Display(_lines(plan, told, local), options.progress if local or job else NONE)
        with handling(_interrupt_handler(gate), signal.SIGINT), display:
            result = told.result = launch(pipeline)
            if job is None:
                result.wait_until_finish()
            else:
                job.follow(result)
    except NameTaken:
        clean_up(committers)
        raise
    except (Exception, KeyboardInterrupt) as raised:  # noqa: BLE001  it ends the job, and its text is printed
        error = in_words(raised) if job else raised
    if error is None and is_started_later(result):
        return EXIT_OK
    state = state_of(error, gate) if local else None
    if job is not None and job.ended and not local:
        state = state_elsewhere(plan, told.figures())
    if (local or state is not None) and state is not CommitState.UNDER_WAY:  # a job that lives on needs its files
        clean_up(committers)
    phases.note(RUN, time.monotonic() - (begun if since is None else since))
    phases.note(JOIN, None if since is None else time.monotonic() - begun)
    phases.note(COMMIT, gate.secs)
    try:
        _summarise(options, plan, told.figures(), phases, error, of_beam or used_beam_options(pipeline.options))
    except Exception as problem:  # noqa: BLE001  the summary does not change the job's outcome
        _LOG.warning("The summary could not be made or written: %s", problem)
    output = options.output_table or options.output
    return tell_end(error, _outcome(error, state, job, output), private=options.failure_payload != FULL)


def _lines(plan: BatchPlan, told: Told, local: bool) -> Lines:
    progress = BatchProgress(told.tally, plan.input.total, plan.input.counter)
    return progress if local else ToldLines(progress, told)


def state_elsewhere(plan: BatchPlan, figures: Figures | None) -> CommitState | None:
    """Returns how far the commit of a job came that ended elsewhere; None: it is not known."""
    counters = figures[0] if figures else {}
    if counters.get(metrics.COMMITS_DONE):
        return CommitState.DONE
    target = plan.output.target
    if target is None:
        return None
    try:
        claimed = read_claim(target) == job_of(target)
    except Exception as error:  # noqa: BLE001  the storage is out of reach; the job's own error is what matters
        _LOG.debug("Whether the output was being published is not known: %s", error)
        return None
    return CommitState.UNDER_WAY if claimed else CommitState.NOT_BEGUN


def _outcome(error: BaseException | None, state: CommitState | None, job: Following | None, output: str) -> str:
    """Returns what a job that did not end well has left."""
    if state is None and is_interrupt(error) and not (job and job.ended):
        if job is None:
            return "the job itself goes on; cancel it where it runs"
        return f"the job{job.job_id and f' {job.job_id}'} may go on; cancel it where it runs"
    if state is None and job and job.ended:
        return f"whether its output was published is not known: look at {output}"
    return _OUTCOMES[state].format(output=output)


def state_of(error: BaseException | None, gate: CommitGate) -> CommitState:
    """Returns how far the commit of a local job has come. A job that was interrupted does not begin to commit."""
    if is_interrupt(error):
        gate.close()
    return gate.state


def _interrupt_handler(gate: CommitGate) -> Handler:
    """Returns a handler for ctrl-C. While output is being published, the first one waits for that; a second aborts."""
    waiting = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal waiting
        if waiting or gate.state is not CommitState.UNDER_WAY:
            signal.default_int_handler(number, frame)
        waiting = True
        tell_in_handler("waiting until the output is published; press ctrl-C again to abort")

    return interrupt


def _summarise(
    options: BatchOptions,
    plan: BatchPlan,
    figures: Figures | None,
    phases: Phases,
    error: BaseException | None,
    of_beam: dict[str, object],
) -> None:
    judged = error is None or is_refused(error)  # its failures are published, then
    summary = summarise(plan, figures, phases, done=error is None, judged=judged)
    private = options.failure_payload != FULL
    reasons = top_reasons(summary.failures, summary.failure_files, private, options.map)
    summary = dataclasses.replace(summary, reasons=reasons)
    _LOG.debug("Phases: %s", phases.text())
    summary = dataclasses.replace(summary, options=used_options(options), beam_options=of_beam)
    text = f"{render(summary)}\n{reasons_text(reasons)}{_more(summary, options, plan.contents is not None)}"
    tell(text, message="summary", fields=lambda: json.loads(to_json(summary)))
    if options.summary_file:
        write_text(options.summary_file, to_json(summary) + "\n")
    report_batch(summary, options, plan.watched, error)


def _more(summary: Summary, options: BatchOptions, rows_name_files: bool) -> str:
    """Returns the lines under the reasons: what shows all of them, and which files could not be read to the end."""
    files = sum(summary.failures_by.get(READ, {}).values())
    rows = "the rows that name them, or further rows of them," if rows_name_files else "their further rows"
    lost = f"{files} file(s) could not be read to the end: {rows} are NOT in the output\n" if files else ""
    some = summary.failures or not summary.counted
    where = where_failures_are(summary.failure_files, summary.failures_table, options.map) if some else ""
    return where + lost
