"""The values of the metrics of a local streaming job, by the names of pipelines.progress.metric_table."""

import dataclasses
import functools
import importlib.metadata
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from sluice.models.batching.scheduler import Scheduler
from sluice.pipelines.progress.metric_table import STATES
from sluice.pipelines.progress.stream_stats import StreamFigures, StreamStats
from sluice.pipelines.progress.summary import failures_by_stage, rows_by_version
from sluice.transforms.core import metrics
from sluice.transforms.core.metrics import Powers
from sluice.transforms.pubsub.message_source import MessageSource

# The bounds of buckets, in seconds and in rows. Distributions of the transforms are kept by powers of 2, in ms.
_MESSAGE_SECS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0, 3600.0)
_CALL_POWERS = range(-2, 18)  # 0.25 ms to 131 s
_LOAD_POWERS = range(5, 20)  # 32 ms to 524 s
_ROW_POWERS = range(17)  # 1 to 65,536 rows
_MSEC = 1e-3

_PACKAGES = {"version": "sluice", "beam": "apache-beam", "tensorflow": "tensorflow"}


@dataclasses.dataclass(frozen=True)
class Buckets:
    """A histogram.

    Attributes:
      counts: (bound, how many values do not exceed it), rising; the last bound is infinite.
      sum: of all values.
    """

    counts: Sequence[tuple[float, int]]
    sum: float


Value: TypeAlias = float | Mapping[tuple[str, ...], float] | Buckets


@dataclasses.dataclass(frozen=True)
class Job:
    """Where the numbers of a job are.

    Attributes:
      figures: of this moment.
      scheduler: of the job's model; None while it is not open.
      model: its URI.
      version: of the model, as found at launch; None: it is not known.
      wall: seconds since the epoch.
    """

    figures: Callable[[], StreamFigures]
    stats: StreamStats
    source: MessageSource
    scheduler: Callable[[], Scheduler | None]
    model: str
    version: int | None = None
    wall: Callable[[], float] = time.time


def metric_values(job: Job) -> dict[str, Value]:
    """Returns the value of each metric of the table at this moment."""
    figures = job.figures()
    return _rows(job) | _messages(job, figures) | _model(job, figures) | _faults(job, figures) | _state(job, figures)


def _rows(job: Job) -> dict[str, Value]:
    tally = metrics.tally()
    failures: Value = {
        (stage, kind): count for stage, kinds in failures_by_stage(tally).items() for kind, count in kinds.items()
    }
    return {
        "sluice_rows_read_total": tally.get(metrics.ROWS_READ, 0),
        "sluice_read_bytes_total": tally.get(metrics.BYTES_READ, 0),
        "sluice_rows_predicted_total": _by_version(tally, _version(job)),
        "sluice_rows_failed_total": failures,
        # Series with labels that nobody knows before are no good for alerts: Prometheus does not see their first rows.
        "sluice_rows_finished_total": {
            ("predicted",): tally.get(metrics.ROWS_PREDICTED, 0),
            ("failed",): tally.get(metrics.ROWS_FAILED, 0),
        },
        "sluice_bundles_total": job.source.stats.bundles,
    }


def _by_version(tally: Mapping[str, int], version: str) -> Value:
    """Returns predicted rows by version; those that were not counted by version are of the one in use."""
    found = rows_by_version(tally)
    rest = tally.get(metrics.ROWS_PREDICTED, 0) - sum(found.values())
    if rest or not found:
        found[version] = found.get(version, 0) + rest
    return {(each,): rows for each, rows in found.items()}


def _messages(job: Job, figures: StreamFigures) -> dict[str, Value]:
    stats, oldest = job.source.stats, job.source.oldest_publish_time()
    counts, total = job.stats.latencies(_MESSAGE_SECS)
    return {
        "sluice_messages_pulled_total": stats.pulled,
        "sluice_messages_acknowledged_total": figures.messages,
        "sluice_messages_returned_total": stats.returned,
        "sluice_messages_buffered": figures.buffered,
        "sluice_messages_in_work": figures.in_work,
        "sluice_oldest_unacknowledged_message_age_seconds": 0.0
        if oldest is None
        else max(0.0, job.wall() - oldest / 1e6),
        "sluice_message_latency_seconds": Buckets(
            list(zip((*_MESSAGE_SECS, float("inf")), counts, strict=True)), total
        ),
    }


def _model(job: Job, figures: StreamFigures) -> dict[str, Value]:
    scheduler, powers = job.scheduler(), metrics.powers()
    return {
        "sluice_predict_latency_seconds": buckets(powers.get(metrics.PREDICT_LATENCY_MSEC), _CALL_POWERS, _MSEC),
        "sluice_queue_wait_seconds": buckets(powers.get(metrics.QUEUE_MSEC), _CALL_POWERS, _MSEC),
        "sluice_batch_size_rows": buckets(powers.get(metrics.BATCH_SIZE), _ROW_POWERS),
        "sluice_model_load_seconds": buckets(powers.get(metrics.MODEL_LOAD_MSEC), _LOAD_POWERS, _MSEC),
        "sluice_calls_in_flight": scheduler.in_flight if scheduler else 0,
        "sluice_calls_in_flight_limit": scheduler.in_flight_limit if scheduler else 0,
        "sluice_pending_bytes": scheduler.pending_bytes if scheduler else 0,
        "sluice_rpc_retries_total": figures.rpc_retries,
        "sluice_throttled_seconds_total": figures.throttled_seconds,
        "sluice_model_swaps_total": figures.model_swaps,
        "sluice_model_versions_rejected_total": figures.model_versions_rejected,
        "sluice_model_info": {(job.model, _version(job)): 1},
    }


def _faults(job: Job, figures: StreamFigures) -> dict[str, Value]:
    return {
        "sluice_lease_extensions_failed_total": job.source.extensions_failed,
        "sluice_acknowledgements_failed_total": job.source.acknowledgements_failed,
        "sluice_restarts_total": figures.restarts,
        "sluice_segments_total": figures.segments,
        "sluice_source_reachable": int(figures.reachable),
        "sluice_draining": int(figures.draining),
    }


def _state(job: Job, figures: StreamFigures) -> dict[str, Value]:
    return {
        "sluice_state": {(name,): int(name == figures.state.name) for name in STATES},
        "sluice_no_progress_seconds": figures.secs_since_progress,
        "sluice_start_time_seconds": job.stats.began,
        "sluice_build_info": {(*_versions().values(), platform.python_version()): 1},
    }


def _version(job: Job) -> str:
    """Returns the version that is called now, or answered last, as a label."""
    scheduler = job.scheduler()
    version = scheduler.version if scheduler else job.version
    return "" if version is None else str(version)


@functools.cache
def _versions() -> dict[str, str]:
    found = {}
    for label, package in _PACKAGES.items():
        try:
            found[label] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[label] = ""
    return found


def buckets(powers: Powers | None, exponents: range, unit: float = 1.0) -> Buckets:
    """Returns a distribution as a histogram with powers of 2 as bounds, in multiples of `unit`."""
    powers = powers or Powers({}, 0.0)
    below = [sum(count for power, count in powers.counts.items() if power <= each) for each in exponents]
    bounds = [2.0**each * unit for each in exponents]
    counts = [*zip(bounds, below, strict=True), (float("inf"), sum(powers.counts.values()))]
    return Buckets(counts, powers.sum * unit)
