"""What a job came to: rows in, predictions, failures by kind, speed, files."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

# Names that transforms.core.metrics gives; not imported from there, because it imports Beam.
ROWS_READ, ROWS_PREDICTED, ROWS_FAILED = "rows_read", "rows_predicted", "rows_failed"
BATCH_SIZE, PREDICT_LATENCY_MSEC, MODEL_LOAD_MSEC = "batch_size", "predict_latency_msec", "model_load_msec"
RPC_RETRIES, THROTTLED_SECS = "rpc_retries", "cumulativeThrottlingSeconds"

# Stages at which rows fail that were predicted.
_WRITING = ("encode", "write")

# Files of each kind that the text names; the JSON names all.
_SHOWN_FILES = 3


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a job came to.

    Attributes:
      predictions: that are written: with the failures, they are the rows in.
      failures_by: by stage and error type, e.g. {"decode": {"InvalidRow": 2}}.
      output_table, failures_table: PROJECT.DATASET.TABLE; "": none has been written to.
      version: of the model; None if it has none.
      model_load_msec: None if not known, as the two below.
      batch_size: rows of a call, the mean.
      predict_latency_msec: of a call, the mean.
      rpc_retries: calls of a served model that were repeated.
      throttled_seconds: how long bundles have waited for a server that was away or overloaded.
    """

    rows_in: int
    predictions: int
    failures: int
    failures_by: Mapping[str, Mapping[str, int]]
    seconds: float
    output_files: tuple[str, ...]
    failure_files: tuple[str, ...]
    model: str
    output_table: str = ""
    failures_table: str = ""
    version: int | None = None
    model_load_msec: float | None = None
    batch_size: float | None = None
    predict_latency_msec: float | None = None
    rpc_retries: int = 0
    throttled_seconds: int = 0

    @property
    def rows_per_second(self) -> float:
        return self.rows_in / self.seconds if self.seconds else 0.0


def from_counters(
    counters: Mapping[str, int],
    means: Mapping[str, float],
    *,
    seconds: float,
    model: str,
    version: int | None = None,
    output_files: Sequence[str] = (),
    failure_files: Sequence[str] = (),
    output_table: str = "",
    failures_table: str = "",
) -> Summary:
    """Returns the summary of a finished job.

    Args:
      counters: by name, of the namespace "sluice"; those named "rows_failed/STAGE/TYPE" tell the failures apart.
      means: by name, of the distributions.
    """
    failures_by = failures_by_stage(counters)
    unwritten = sum(sum(failures_by.get(stage, {}).values()) for stage in _WRITING)
    return Summary(
        rows_in=counters.get(ROWS_READ, 0),
        predictions=counters.get(ROWS_PREDICTED, 0) - unwritten,
        failures=counters.get(ROWS_FAILED, 0),
        failures_by=failures_by,
        seconds=seconds,
        output_files=tuple(output_files),
        failure_files=tuple(failure_files),
        output_table=output_table,
        failures_table=failures_table,
        model=model,
        version=version,
        model_load_msec=means.get(MODEL_LOAD_MSEC),
        batch_size=means.get(BATCH_SIZE),
        predict_latency_msec=means.get(PREDICT_LATENCY_MSEC),
        rpc_retries=counters.get(RPC_RETRIES, 0),
        throttled_seconds=counters.get(THROTTLED_SECS, 0),
    )


def failures_by_stage(counters: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Returns the failures by stage and error type; those named "rows_failed/STAGE/TYPE" tell them apart."""
    failures_by: dict[str, dict[str, int]] = {}
    for name, count in sorted(counters.items()):
        if name.startswith(f"{ROWS_FAILED}/"):
            _, stage, error_type = name.split("/", 2)
            failures_by.setdefault(stage, {})[error_type] = count
    return failures_by


def to_json(summary: Summary) -> str:
    """Returns the summary as one JSON object. Its keys are an interface: test_summary.py pins them."""
    record: dict[str, Any] = {
        "rows_in": summary.rows_in,
        "predictions": summary.predictions,
        "failures": summary.failures,
        "failures_by_stage": {stage: dict(types) for stage, types in summary.failures_by.items()},
        "seconds": round(summary.seconds, 3),
        "rows_per_second": round(summary.rows_per_second, 1),
        "output_files": list(summary.output_files),
        "failure_files": list(summary.failure_files),
        "output_table": summary.output_table,
        "failures_table": summary.failures_table,
        "model": summary.model,
        "version": summary.version,
        "model_load_msec": _rounded(summary.model_load_msec),
        "batch_size": _rounded(summary.batch_size),
        "predict_latency_msec": _rounded(summary.predict_latency_msec),
        "rpc_retries": summary.rpc_retries,
        "throttled_seconds": summary.throttled_seconds,
    }
    return json.dumps(record, indent=2)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def render(summary: Summary) -> str:
    """Returns the summary as a small table for a terminal."""
    counts = _counts(summary)
    width = max(len(count) for _, count, _ in counts)
    rows = [(label, f"{count:>{width}}  {note}".rstrip()) for label, count, note in counts]
    rows.append(("Model", _model(summary)))
    rows += _places("Output", summary.output_files, summary.output_table)
    rows += _places("Failures in", summary.failure_files, summary.failures_table)
    labels = max(len(label) for label, _ in rows)
    return "\n".join(f"{label:<{labels}}  {text}" for label, text in rows)


def _counts(summary: Summary) -> list[tuple[str, str, str]]:
    """Lines that have a number: (label, number, what is said behind it)."""
    return [
        ("Rows in", f"{summary.rows_in:,}", ""),
        ("Predictions", f"{summary.predictions:,}", ""),
        ("Failures", f"{summary.failures:,}", _share(summary)),
        *(
            (f"  {stage} {error_type}", f"{count:,}", "")
            for stage, types in summary.failures_by.items()
            for error_type, count in types.items()
        ),
        ("Seconds", f"{summary.seconds:,.1f}", ""),
        ("Rows/s", f"{summary.rows_per_second:,.0f}", ""),
        *([("Batch size", f"{summary.batch_size:,.0f}", _call(summary))] if summary.batch_size is not None else []),
        *([("Retries", f"{summary.rpc_retries:,}", _waited(summary))] if summary.rpc_retries else []),
    ]


def _share(summary: Summary) -> str:
    share = summary.failures / summary.rows_in if summary.rows_in else 0.0
    if not share:
        return ""
    return f"{share:.1%} of the rows" if share >= 0.001 else "under 0.1% of the rows"


def _call(summary: Summary) -> str:
    latency = summary.predict_latency_msec
    return "rows a call, the mean" + ("" if latency is None else f"; {latency:,.1f} ms a call")


def _waited(summary: Summary) -> str:
    secs = summary.throttled_seconds
    return "calls repeated" + (f"; {secs:,} s waited for the server" if secs else "")


def _model(summary: Summary) -> str:
    notes = [] if summary.version is None else [f"version {summary.version}"]
    if summary.model_load_msec is not None:
        notes.append(f"loaded in {summary.model_load_msec / 1000:,.1f} s")
    return f"{summary.model} ({', '.join(notes)})" if notes else summary.model


def _places(label: str, files: Sequence[str], table: str) -> list[tuple[str, str]]:
    if table:
        files = (table, *files)
    rows = [(label if not place else "", file) for place, file in enumerate(files[:_SHOWN_FILES])]
    if len(files) > _SHOWN_FILES:
        rows[-1] = ("", f"... {len(files) - _SHOWN_FILES} more, and {files[-1]}")
    return rows
