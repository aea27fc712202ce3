"""The report of a batch job."""

from collections.abc import Iterator

from sluice.pipelines.options.batch import BatchOptions
from sluice.pipelines.progress.batch_summary import NOT_KNOWN, Summary
from sluice.pipelines.progress.phases import SCORE
from sluice.pipelines.report.data import shown
from sluice.pipelines.report.job import Seen, call_figures, job_page, retry_figures, write_report
from sluice.pipelines.report.page import Figure, Page
from sluice.transforms.core.observe import Watched


def report_batch(
    summary: Summary, options: BatchOptions, watched: Watched | None, error: BaseException | None = None
) -> None:
    """Writes the report of a job that has ended, if one is wanted; see `write_report`."""
    write_report(options, summary, watched, error, lambda seen: batch_page(summary, options, seen))


def batch_page(summary: Summary, options: BatchOptions, seen: Seen) -> Page:
    """Returns the report of a batch job, managed or not."""
    kind = "Sluice: managed batch job" if SCORE in summary.phases else "Sluice: batch job"
    return job_page(
        kind,
        f"{summary.predictions:,} predictions" if summary.counted else "predictions",
        _figures(summary),
        summary,
        options,
        seen,
    )


def _figures(summary: Summary) -> Iterator[Figure]:
    if not summary.counted:
        yield from (Figure(name, NOT_KNOWN) for name in ("Rows in", "Predictions", "Failures"))
        yield Figure("Run", f"{shown(round(summary.seconds, 2))} s", "reading, scoring, writing")
        return
    yield Figure("Rows in", shown(summary.rows_in))
    version = "" if summary.version is None else f"version {summary.version}"
    yield Figure("Predictions", shown(summary.predictions), version)
    share = ""
    if summary.failures and summary.rows_in:  # a file that cannot be read is a failure without rows
        share = f"{shown(100 * summary.failures / summary.rows_in)} % of the rows"
    yield Figure("Failures", shown(summary.failures), share)
    yield Figure("Run", f"{shown(round(summary.seconds, 2))} s", "reading, scoring, writing")
    yield Figure("Rows per second", shown(round(summary.rows_per_second)), "over the run")
    yield from call_figures(summary.batch_size, summary.predict_latency_msec)
    yield from retry_figures(summary.rpc_retries, summary.throttled_seconds)
