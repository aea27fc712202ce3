"""The summary of a batch job: rows in, predictions, failures by kind, speed, files."""

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from sluice.pipelines.plan.batch_job import BatchPlan
from sluice.pipelines.progress.phases import MODEL_LOAD, RUN, Phases, rounded_phases
from sluice.pipelines.progress.summary import (
    Count,
    failure_counts,
    failures_by_stage,
    render_table,
    retry_counts,
    rows_by_version,
    version_counts,
)
from sluice.pipelines.progress.told import Figures
from sluice.pipelines.progress.why import reason_records
from sluice.transforms.core import metrics
from sluice.transforms.core.reasons import Group

# Stages at which rows fail that have been predicted.
_WRITING = ("encode", "write")

# Keys of the JSON that are null if nothing was counted.
_COUNTS = (
    "rows_in",
    "predictions",
    "failures",
    "failures_by_stage",
    "rows_per_second",
    "versions",
    "rpc_retries",
    "throttled_seconds",
)
NOT_KNOWN = "not known"

# How many files of each kind the text names; the JSON names all.
_SHOWN_FILES = 3


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a batch job did.

    Attributes:
      predictions: that are written; with the failures, they are the rows in.
      failures_by: by stage and error type, e.g. {"decode": {"InvalidRow": 2}}.
      output_table, failures_table: PROJECT.DATASET.TABLE; "": none has been written to.
      version: of the model; None if it has none.
      versions: rows by the version of a served model that answered.
      model_load_msec, batch_size, predict_latency_msec: None: not known. The last two are means over calls.
      rpc_retries: calls of a served model that were repeated.
      throttled_seconds: how long bundles waited for a server that was unavailable or overloaded.
      phases: the seconds of each phase; see Phases.
      options, beam_options: of the job, with its defaults; of Beam, those that are no defaults. Without secrets.
      reasons: the most frequent ones for which rows failed.
      counted: False: the runner has told no counts; those above are 0 and mean nothing.
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
    phases: Mapping[str, float | None] = dataclasses.field(default_factory=dict)
    versions: Mapping[str, int] = dataclasses.field(default_factory=dict)
    options: Mapping[str, object] = dataclasses.field(default_factory=dict)
    beam_options: Mapping[str, object] = dataclasses.field(default_factory=dict)
    reasons: Sequence[Group] = ()
    counted: bool = True

    @property
    def rows_per_second(self) -> float:
        return self.rows_in / self.seconds if self.seconds else 0.0


def summarise(plan: BatchPlan, figures: Figures | None, phases: Phases, done: bool, judged: bool) -> Summary:
    """Returns the summary of a finished job; for a failed one, of what has been counted so far.

    Args:
      figures: None: they are not known, because the job ran elsewhere and its runner does not tell.
      phases: with the run; the time to load the model is added to them.
      done: the job succeeded; otherwise files at its output are not its own.
      judged: the job got as far as publishing its failures; otherwise likewise.
    """
    counters, means = figures or ({}, {})
    phases.note(MODEL_LOAD, _seconds(means.get(metrics.MODEL_LOAD_MSEC)))
    failures = plan.failures if judged else ()
    return from_counters(
        counters,
        means,
        counted=figures is not None,
        phases=phases.seconds(),
        output_files=plan.output.files() if done else (),
        failure_files=tuple(itertools.chain.from_iterable(sink.files() for sink in failures)),
        output_table=plan.output.table if done else "",
        failures_table="".join(sink.table for sink in failures),
        model=plan.recipe.spec.uri,
        version=plan.version,
    )


def from_counters(
    counters: Mapping[str, int],
    means: Mapping[str, float],
    *,
    counted: bool = True,
    phases: Mapping[str, float | None],
    model: str,
    version: int | None = None,
    output_files: Sequence[str] = (),
    failure_files: Sequence[str] = (),
    output_table: str = "",
    failures_table: str = "",
) -> Summary:
    """Returns the summary of a finished job.

    Args:
      counters: by name, of the namespace "sluice".
      means: of the distributions, by name.
      counted: they are known.
      phases: seconds of the job's phases, by name.
    """
    failures_by = failures_by_stage(counters)
    unwritten = sum(sum(failures_by.get(stage, {}).values()) for stage in _WRITING)
    return Summary(
        rows_in=counters.get(metrics.ROWS_READ, 0),
        predictions=counters.get(metrics.ROWS_PREDICTED, 0) - unwritten,
        failures=counters.get(metrics.ROWS_FAILED, 0),
        failures_by=failures_by,
        seconds=phases.get(RUN) or 0.0,
        output_files=tuple(output_files),
        failure_files=tuple(failure_files),
        output_table=output_table,
        failures_table=failures_table,
        model=model,
        version=version,
        model_load_msec=means.get(metrics.MODEL_LOAD_MSEC),
        batch_size=means.get(metrics.BATCH_SIZE),
        predict_latency_msec=means.get(metrics.PREDICT_LATENCY_MSEC),
        rpc_retries=counters.get(metrics.RPC_RETRIES, 0),
        throttled_seconds=counters.get(metrics.THROTTLED_SECS, 0),
        phases=phases,
        versions=rows_by_version(counters),
        counted=counted,
    )


def to_json(summary: Summary) -> str:
    """Returns the summary as one JSON object. Its keys are an interface, which test_batch_summary.py holds."""
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
        "versions": dict(summary.versions),
        "model_load_msec": _tenths(summary.model_load_msec),
        "batch_size": _tenths(summary.batch_size),
        "predict_latency_msec": _tenths(summary.predict_latency_msec),
        "rpc_retries": summary.rpc_retries,
        "throttled_seconds": summary.throttled_seconds,
        "phases": rounded_phases(summary.phases),
        "options": dict(summary.options),
        "beam_options": dict(summary.beam_options),
        "reasons": reason_records(summary.reasons),
    }
    if not summary.counted:
        record |= dict.fromkeys(_COUNTS)
    return json.dumps(record, indent=2, default=str)


def _seconds(msec: float | None) -> float | None:
    return None if msec is None else msec / 1000


def _tenths(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def render(summary: Summary) -> str:
    """Returns the summary as a small table for a terminal."""
    texts = [
        ("Model", _model(summary)),
        *_names("Output", summary.output_files, summary.output_table),
        *_names("Failures in", summary.failure_files, summary.failures_table),
    ]
    return render_table(_counts(summary), texts)


def _counts(summary: Summary) -> list[Count]:
    if not summary.counted:
        unknown: list[Count] = [(name, NOT_KNOWN, "") for name in ("Rows in", "Predictions", "Failures")]
        return [*unknown, ("Seconds", f"{summary.seconds:,.1f}", "")]
    return [
        ("Rows in", f"{summary.rows_in:,}", ""),
        ("Predictions", f"{summary.predictions:,}", ""),
        *version_counts(summary.versions),
        ("Failures", f"{summary.failures:,}", _share(summary)),
        *failure_counts(summary.failures_by),
        ("Seconds", f"{summary.seconds:,.1f}", ""),
        ("Rows/s", f"{summary.rows_per_second:,.0f}", ""),
        *([("Batch size", f"{summary.batch_size:,.0f}", _call(summary))] if summary.batch_size is not None else []),
        *retry_counts(summary.rpc_retries, summary.throttled_seconds),
    ]


def _share(summary: Summary) -> str:
    share = summary.failures / summary.rows_in if summary.rows_in else 0.0
    if not share:
        return ""
    return f"{share:.1%} of the rows" if share >= 0.001 else "under 0.1% of the rows"


def _call(summary: Summary) -> str:
    latency = summary.predict_latency_msec
    return "rows per call, on average" + ("" if latency is None else f"; {latency:,.1f} ms per call")


def _model(summary: Summary) -> str:
    notes = [] if summary.version is None else [f"version {summary.version}"]
    if summary.model_load_msec is not None:
        notes.append(f"loaded in {summary.model_load_msec / 1000:,.1f} s")
    return f"{summary.model} ({', '.join(notes)})" if notes else summary.model


def _names(label: str, files: Sequence[str], table: str) -> list[tuple[str, str]]:
    """Returns the lines that name a table and files; of many files, the first ones and the last."""
    names = [*filter(None, [table]), *files]
    rows = [("" if number else label, name) for number, name in enumerate(names[:_SHOWN_FILES])]
    if len(names) > _SHOWN_FILES:
        rows[-1] = ("", f"... {len(names) - _SHOWN_FILES} more, and {names[-1]}")
    return rows
