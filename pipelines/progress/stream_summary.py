"""The summary of a local streaming job, when it has stopped."""

import dataclasses
import json
from collections.abc import Mapping, Sequence

from sluice.pipelines.progress.phases import rounded_phases
from sluice.pipelines.progress.stream_stats import StreamFigures, StreamStats
from sluice.pipelines.progress.summary import (
    Count,
    failure_counts,
    failures_by_stage,
    render_table,
    retry_counts,
    rounded,
    rows_by_version,
    version_counts,
)
from sluice.pipelines.progress.why import reason_records
from sluice.transforms.core.reasons import Group


@dataclasses.dataclass(frozen=True)
class StreamSummary:
    """What a streaming job did.

    Attributes:
      messages: acknowledged, each with its prediction or failure written.
      predictions, failures: rows; their sum is above `messages` if some were retried.
      failures_by: by stage and error type.
      versions: rows by the version of a served model that answered.
      latency_p50_ms, latency_p99_ms: from publishing until the prediction was written; None without messages.
      restarts: how often messages in work were returned and retried.
      phases: the seconds of each phase; see Phases.
      options, beam_options: of the job, with its defaults; of Beam, those that are no defaults. Without secrets.
      reasons: the most frequent ones for which rows failed.
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
    phases: Mapping[str, float | None] = dataclasses.field(default_factory=dict)
    versions: Mapping[str, int] = dataclasses.field(default_factory=dict)
    options: Mapping[str, object] = dataclasses.field(default_factory=dict)
    beam_options: Mapping[str, object] = dataclasses.field(default_factory=dict)
    reasons: Sequence[Group] = ()

    @property
    def messages_per_second(self) -> float:
        return self.messages / self.seconds if self.seconds else 0.0


def stream_summary(
    stats: StreamStats,
    figures: StreamFigures,
    tally: Mapping[str, int],
    model: str,
    phases: Mapping[str, float | None],
) -> StreamSummary:
    """Returns the summary of a job that has ended, from its last figures."""
    taken = {
        field.name: getattr(figures, field.name)
        for field in dataclasses.fields(StreamSummary)
        if hasattr(figures, field.name)
    }
    taken |= {"latency_p50_ms": stats.latency(0.5), "latency_p99_ms": stats.latency(0.99)}
    versions = rows_by_version(tally)
    return StreamSummary(**taken, failures_by=failures_by_stage(tally), versions=versions, model=model, phases=phases)


def to_json(summary: StreamSummary) -> str:
    """Returns the summary as one JSON object. Its keys are an interface: tests hold them."""
    record = rounded(summary)
    record["failures_by_stage"] = record.pop("failures_by")
    record["phases"] = rounded_phases(summary.phases)
    record["reasons"] = reason_records(summary.reasons)
    record["messages_per_second"] = round(summary.messages_per_second, 1)
    return json.dumps(record, indent=2, default=str)


def render(summary: StreamSummary) -> str:
    """Returns the summary as a small table for a terminal."""
    counts = [
        ("Messages", f"{summary.messages:,}", "acknowledged"),
        ("Predictions", f"{summary.predictions:,}", ""),
        *version_counts(summary.versions),
        ("Failures", f"{summary.failures:,}", ""),
        *failure_counts(summary.failures_by),
        ("Seconds", f"{summary.seconds:,.1f}", ""),
        ("Messages/s", f"{summary.messages_per_second:,.0f}", ""),
        *_optional(summary),
    ]
    return render_table(counts, [("Model", summary.model)])


def _optional(summary: StreamSummary) -> list[Count]:
    """Returns the lines that only some jobs have."""
    rows: list[Count] = []
    if summary.latency_p50_ms is not None and summary.latency_p99_ms is not None:
        rows.append(("Latency p50", f"{summary.latency_p50_ms:,.0f}", "ms, from publishing to written"))
        rows.append(("Latency p99", f"{summary.latency_p99_ms:,.0f}", "ms"))
    if summary.batch_size is not None:
        rows.append(("Batch size", f"{summary.batch_size:,.0f}", "rows per call, on average"))
    if summary.restarts:
        rows.append(("Restarts", f"{summary.restarts:,}", "messages in work were returned and retried"))
    rows += retry_counts(summary.rpc_retries, summary.throttled_seconds)
    if summary.model_swaps:
        rows.append(("Model swaps", f"{summary.model_swaps:,}", "switches to a newer or an older version"))
    if summary.model_versions_rejected:
        rows.append(
            ("Rejected", f"{summary.model_versions_rejected:,}", "versions of the model that did not pass checks")
        )
    return rows
