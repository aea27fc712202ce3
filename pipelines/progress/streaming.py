"""How a local streaming job fares: one line on a terminal that keeps changing, or else a log line now and then."""

import threading
from collections.abc import Callable
from typing import TextIO

from sluice.pipelines.progress.batch import clock_time
from sluice.pipelines.progress.display import AUTO, Display, terminal_width
from sluice.pipelines.progress.stream_stats import StreamFigures


class StreamProgress(Display):
    """Shows figures while its `with` block runs; see Display."""

    def __init__(
        self,
        figures: Callable[[], StreamFigures],
        mode: str = AUTO,
        stream: TextIO | None = None,
        wait: Callable[[threading.Event, float], bool] = threading.Event.wait,
        width: Callable[[TextIO], int] = terminal_width,
    ) -> None:
        super().__init__(mode, stream, wait, width)
        self._figures = figures

    def line(self, width: int) -> str:
        return render_line(self._figures(), width)

    def log_line(self) -> str:
        return ", ".join(_fields(self._figures()).values())


def render_line(figures: StreamFigures, width: int) -> str:
    """Returns the figures in at most `width` characters; what matters least is left out first."""
    fields = _fields(figures)
    for name in ("restarts", "batch", "elapsed", "waiting", "p50", "failed", "rate", "p99"):
        if len("  ".join(fields.values())) <= width:
            break
        fields.pop(name, None)
    return "  ".join(fields.values())[:width]


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
    fields["elapsed"] = clock_time(figures.seconds)
    return fields
