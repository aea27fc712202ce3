"""--vertex_direct: a managed job that reads its input and writes its output by itself.

Sluice checks model and input, follows the job, and sums up what the service says of it and has written.
"""

import dataclasses
import json
import logging
import sys
from collections.abc import Mapping

from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions

from sluice.models.errors import SluiceError, UsageError
from sluice.models.uri import ManagedModel
from sluice.pipelines.logs import tell
from sluice.pipelines.managed.direct_output import RESULTS, Counts, count, output_files
from sluice.pipelines.managed.direct_plan import plan_direct
from sluice.pipelines.managed.ends import check_end, describe, detached_text, resume_command
from sluice.pipelines.managed.follow import Jobs, follow, interrupt, obtain
from sluice.pipelines.managed.job import Job, JobRequest
from sluice.pipelines.managed.named import find_model, no_rows, request_of_named
from sluice.pipelines.managed.open import is_here, machines, open_client
from sluice.pipelines.options.batch import BatchOptions
from sluice.pipelines.options.config import used_options
from sluice.pipelines.outcome import EXIT_FAILED, EXIT_FAILURES, EXIT_INTERRUPTED, EXIT_OK
from sluice.pipelines.plan.model import launch_errors
from sluice.pipelines.progress.batch_summary import Summary, render, to_json
from sluice.pipelines.progress.phases import PLAN, RUN, Phases
from sluice.pipelines.progress.why import SHOWN, reasons_text
from sluice.pipelines.report.batch import report_batch
from sluice.transforms.core.beam_files import match_files, write_text
from sluice.transforms.core.failures import PREDICT
from sluice.transforms.core.reasons import Group, Reasons

_LOG = logging.getLogger(__name__)

# A file beside the service's own, which says that this job's results have been reported: with --overwrite, the same
# command then makes a new job.
_REPORT = "sluice-summary.json"
# The error_type of a row that the service answers with an error.
_FAILED = "Failed"


def run_direct(options: BatchOptions, model: ManagedModel, beam: PipelineOptions, phases: Phases) -> int:
    """Runs a job to its end; returns the exit code.

    Raises:
      UsageError: model, input and output do not fit, or a right is missing.
    """
    try:
        return _direct(options, model, beam.view_as(GoogleCloudOptions), phases)
    except UsageError:
        raise
    except (SluiceError, OSError) as error:
        tell(f"sluice: {error}\n")
        return EXIT_FAILED


def _direct(options: BatchOptions, model: ManagedModel, cloud: GoogleCloudOptions, phases: Phases) -> int:
    with phases.timed(PLAN), launch_errors():
        account = cloud.impersonate_service_account or ""
        client = open_client(model, options, account)
        options, registered, named = find_model(client, options, model)
        request = plan_direct(
            options, registered, machines(options), cloud.project or "", account, local=is_here(client.url)
        )
        request = request_of_named(request, named) if named else request

    def resume(job: str) -> str:
        return resume_command(sys.argv, overwrites=False, job=job)

    try:
        with phases.timed(RUN):
            job = _run(client, request, options)
        if not job.is_ended:
            tell(f"{detached_text(job, resume(job.short_name), client.url)}\n")
            return EXIT_OK
        return _report(job, request, registered.version, options, phases)
    except KeyboardInterrupt:
        tell(f"{interrupt(client, request.label, options.cancel_on_interrupt, resume)}\n")
        return EXIT_INTERRUPTED


def _run(client: Jobs, request: JobRequest, options: BatchOptions) -> Job:
    """Returns the job when it has ended; with --detach, as it is."""

    def prepare(attempt: int) -> JobRequest:
        if options.vertex_job:
            raise no_rows(options.vertex_job)
        return dataclasses.replace(request, attempt=attempt)

    def is_kept(job: Job) -> bool:
        return job.has_results and not (_is_deleted(job) or (options.overwrite and _is_reported(job)))

    job = obtain(client, request.label, prepare, is_kept)
    if job.is_ended or options.detach:
        return job
    return follow(client, job, options.progress)


def _is_deleted(job: Job) -> bool:
    """Whether somebody has deleted the files of results."""
    if not job.output_directory or match_files(f"{job.output_directory}/{RESULTS}"):
        return False
    return bool(job.stats.successful) or not output_files(job)


def _is_reported(job: Job) -> bool:
    """Whether the results of a job have been shown. Of a table there is no file that says so: then they have."""
    return not job.output_directory or bool(match_files(f"{job.output_directory}/{_REPORT}"))


def _report(job: Job, request: JobRequest, version: str, options: BatchOptions, phases: Phases) -> int:
    """Writes the summary; returns the exit code.

    Raises:
      JobEnded: there is nothing to sum up.
    """
    check_end(job)
    counts = count(job, request.output_format)
    summary = summarise(job, counts, request.model, job.version or version, phases)
    tell(f"{render(summary)}\n{_notes(job, counts)}{reasons_text(summary.reasons)}")
    text = report(dataclasses.replace(summary, options=used_options(options)), job, counts)
    if options.summary_file:
        write_text(options.summary_file, text)
    report_batch(summary, options, None)
    _note(job, text)
    allowed = options.max_failure_rate
    if summary.rows_in and summary.failures / summary.rows_in > allowed:
        tell(
            f"sluice: {summary.failures:,} of {summary.rows_in:,} rows failed; --max_failure_rate allows "
            f"{allowed:.1%}. The service has written its output all the same\n"
        )
        return EXIT_FAILURES
    return EXIT_OK


def _note(job: Job, text: str) -> None:
    """Notes beside the results that they have been reported. An error is logged only: the job is done."""
    if not job.output_directory:
        return
    try:
        write_text(f"{job.output_directory}/{_REPORT}", text)
    except Exception as error:  # noqa: BLE001  of whichever file system
        _LOG.warning("%s cannot be written, so --overwrite will not make a new job: %s", _REPORT, error)


def summarise(job: Job, counts: Counts, model: str, version: str, phases: Phases) -> Summary:
    """Returns the summary of a job, in the form that every other batch job has. Rows without an answer are failures."""
    kinds = {_FAILED: counts.failed, "Incomplete": counts.incomplete or 0}
    failures_by = {kind: number for kind, number in kinds.items() if number}
    failures = sum(failures_by.values())
    return Summary(
        rows_in=counts.predicted + failures,
        predictions=counts.predicted,
        failures=failures,
        failures_by={"predict": failures_by} if failures_by else {},
        seconds=phases.seconds()[RUN] or 0.0,
        output_files=output_files(job),
        failure_files=(),
        output_table=job.output_table,
        model=model,
        version=int(version) if version.isdecimal() else None,
        phases=phases.seconds(),
        reasons=_reasons(counts.reasons),
    )


def _reasons(messages: Mapping[str, int]) -> list[Group]:
    """Returns the most frequent reasons, of messages and how many rows each is for."""
    reasons = Reasons()
    for message, number in messages.items():
        reasons.add(PREDICT, _FAILED, message, count=number)
    return reasons.top(SHOWN)


def report(summary: Summary, job: Job, counts: Counts) -> str:
    """Returns the summary as JSON, with the job's own words added."""
    more = {
        "job": job.name,
        "state": job.state.name,
        "incomplete": counts.incomplete,
        "error_reasons": dict(counts.reasons),
        "partial_failures": list(job.partial_failures),
    }
    return json.dumps(json.loads(to_json(summary)) | more, indent=2) + "\n"


def _notes(job: Job, counts: Counts) -> str:
    """Returns the lines under the summary: the job, what the service does not know, and where all messages are."""
    lines = [f"Job: {describe(job)}"]
    if counts.incomplete is None:
        lines.append("The service does not say how many rows it has left out")
    if len(counts.reasons) > SHOWN:
        lines.append(f"The service gives {len(counts.reasons)} messages of failed rows, in {job.output_directory}")
    return "".join(f"{line}\n" for line in lines)
