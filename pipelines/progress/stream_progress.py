"""The progress line of a local streaming job."""

from collections.abc import Callable

from sluice.pipelines.progress.display import clock_time, fit
from sluice.pipelines.progress.stream_stats import StreamFigures

_LEAST_FIRST = ("restarts", "batch", "elapsed", "waiting", "p50", "failed", "rate", "p99")


class StreamProgress:
    """The lines that a Display shows of a streaming job."""

    def __init__(self, figures: Callable[[], StreamFigures]) -> None:
        self._figures = figures

    def line(self, width: int) -> str:
        return render_line(self._figures(), width)

    def log_line(self) -> str:
        return ", ".join(_fields(self._figures()).values())


def render_line(figures: StreamFigures, width: int) -> str:
    """Returns the figures in at most `width` characters."""
    return fit(_fields(figures), _LEAST_FIRST, width)


def _fields(figures: StreamFigures) -> dict[str, str]:
    fields = {"messages": f"{figures.messages:,} messages", "rate": f"{figures.messages_per_second:,.0f}/s"}
    if figures.latency_p50_ms is not None:
        fields["p50"] = f"p50 {figures.latency_p50_ms:,.0f} ms"
    if figures.latency_p99_ms is not None:
        fields["p99"] = f"p99 {figures.latency_p99_ms:,.0f} ms"
    fields["waiting"] = f"{figures.buffered + figures.in_work:,} waiting"
    if figures.batch_size is not None:
        fields["batch"] = f"batches of {figures.batch_size:,.0f}"
    if figures.failures:
        fields["failed"] = f"{figures.failures:,} failed"
    if figures.restarts:
        fields["restarts"] = f"{figures.restarts:,} restarts"
    if not figures.reachable:
        fields["state"] = "SOURCE AWAY"
    elif figures.draining:
        fields["state"] = "draining"
    elif figures.state.why:
        fields["state"] = figures.state.name.upper()
    fields["elapsed"] = clock_time(figures.seconds)
    return fields
