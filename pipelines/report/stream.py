"""The report of a stream that has ended."""

from collections.abc import Iterator

from sluice.pipelines.options.streaming import StreamingOptions
from sluice.pipelines.progress.stream_summary import StreamSummary
from sluice.pipelines.report.data import shown
from sluice.pipelines.report.job import Seen, call_figures, job_page, retry_figures, write_report
from sluice.pipelines.report.page import Figure, Page
from sluice.transforms.core.observe import Watched


def report_stream(
    summary: StreamSummary, options: StreamingOptions, watched: Watched | None, error: BaseException | None = None
) -> None:
    """Writes the report of a stream that has ended, if one is wanted; see `write_report`."""
    write_report(options, summary, watched, error, lambda seen: stream_page(summary, options, seen))


def stream_page(summary: StreamSummary, options: StreamingOptions, seen: Seen) -> Page:
    """Returns the report of a stream."""
    return job_page("Sluice: stream", f"{summary.messages:,} messages", _figures(summary), summary, options, seen)


def _figures(summary: StreamSummary) -> Iterator[Figure]:
    yield Figure("Messages", shown(summary.messages), "acknowledged")
    yield Figure("Predictions", shown(summary.predictions))
    yield Figure("Failures", shown(summary.failures))
    yield Figure("Ran for", f"{shown(round(summary.seconds, 1))} s")
    yield Figure("Messages per second", shown(round(summary.messages_per_second, 1)), "over the run")
    for rank, msec in ((50, summary.latency_p50_ms), (99, summary.latency_p99_ms)):
        if msec is not None:
            yield Figure(f"Latency p{rank}", f"{shown(round(msec, 1))} ms", "from publishing to written")
    yield from call_figures(summary.batch_size, None)
    if summary.restarts:
        yield Figure("Restarts", shown(summary.restarts), "messages in work came again")
    yield from retry_figures(summary.rpc_retries, summary.throttled_seconds)
