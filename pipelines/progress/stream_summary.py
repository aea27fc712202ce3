"""What a local streaming job came to, when it was stopped."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from sluice.pipelines.progress.stream_stats import StreamFigures, StreamStats
from sluice.pipelines.progress.summary import failures_by_stage


@dataclasses.dataclass(frozen=True)
class StreamSummary:
    """What a streaming job came to.

    Attributes:
      messages: acknowledged, each with its prediction or failure written.
      predictions, failures: rows; together above `messages` if some were tried again.
      failures_by: by stage and error type.
      latency_p50_ms, latency_p99_ms: from publishing until the prediction was written; None without messages.
      restarts: how often messages in work were given back and tried again.
    """

    messages: int
    predictions: int
    failures: int
    failures_by: Mapping[str, Mapping[str, int]]
    seconds: float
    latency_p50_ms: float | None
    latency_p99_ms: float | None
    batch_size: float | None
    bundles: int
    restarts: int
    rpc_retries: int
    throttled_seconds: int
    model: str
    model_swaps: int
    model_versions_rejected: int

    @property
    def messages_per_second(self) -> float:
        return self.messages / self.seconds if self.seconds else 0.0


def stream_summary(stats: StreamStats, figures: StreamFigures, tally: Mapping[str, int], model: str) -> StreamSummary:
    """Returns the summary of a job that has ended, by its last figures."""
    taken = {
        field.name: getattr(figures, field.name)
        for field in dataclasses.fields(StreamSummary)
        if hasattr(figures, field.name)
    }
    taken |= {"latency_p50_ms": stats.latency(0.5), "latency_p99_ms": stats.latency(0.99)}
    return StreamSummary(**taken, failures_by=failures_by_stage(tally), model=model)


def to_json(summary: StreamSummary) -> str:
    """Returns the summary as one JSON object. Its keys are an interface: tests hold them."""
    record: dict[str, Any] = {
        name: round(value, 3) if isinstance(value, float) else value
        for name, value in dataclasses.asdict(summary).items()
    }
    record["failures_by_stage"] = record.pop("failures_by")
    return json.dumps(record | {"messages_per_second": round(summary.messages_per_second, 1)}, indent=2)


def render(summary: StreamSummary) -> str:
    """Returns the summary as a small table for a terminal."""
    counts = [
        ("Messages", f"{summary.messages:,}", "acknowledged"),
        ("Predictions", f"{summary.predictions:,}", ""),
        ("Failures", f"{summary.failures:,}", ""),
        *(
            (f"  {stage} {error_type}", f"{count:,}", "")
            for stage, types in summary.failures_by.items()
            for error_type, count in types.items()
        ),
        ("Seconds", f"{summary.seconds:,.1f}", ""),
        ("Messages/s", f"{summary.messages_per_second:,.0f}", ""),
        *_optional(summary),
    ]
    label, number = max(len(row[0]) for row in counts), max(len(row[1]) for row in counts)
    lines = [f"{name:<{label}}  {count:>{number}}  {note}".rstrip() for name, count, note in counts]
    return "\n".join([*lines, f"{'Model':<{label}}  {summary.model}"])


def _optional(summary: StreamSummary) -> list[tuple[str, str, str]]:
    """Lines that only some jobs have."""
    rows = []
    if summary.latency_p50_ms is not None and summary.latency_p99_ms is not None:
        rows.append(("Latency p50", f"{summary.latency_p50_ms:,.0f}", "ms, from publishing to written"))
        rows.append(("Latency p99", f"{summary.latency_p99_ms:,.0f}", "ms"))
    if summary.batch_size is not None:
        rows.append(("Batch size", f"{summary.batch_size:,.0f}", "rows a call, the mean"))
    waited = f"; {summary.throttled_seconds:,} s waited for the server" if summary.throttled_seconds else ""
    for name, count, note in (
        ("Restarts", summary.restarts, "messages in work were given back and came again"),
        ("Retries", summary.rpc_retries, "calls repeated" + waited),
        ("Model swaps", summary.model_swaps, "newer or older versions that took over"),
        ("Not taken", summary.model_versions_rejected, "versions of the model that did not pass"),
    ):
        if count:
            rows.append((name, f"{count:,}", note))
    return rows
