"""Every counter and distribution that Sluice reports, named in one place.

Beam gets them for the runner's own display. A copy is tallied per process, because a local runner shows metrics only
when a bundle ends, and a local job may be one bundle: the progress line reads the tally.
"""

import threading
from collections import Counter

from apache_beam.metrics import Metrics

NAMESPACE = "sluice"

ROWS_READ = "rows_read"
ROWS_PREDICTED = "rows_predicted"
ROWS_FAILED = "rows_failed"
BYTES_READ = "bytes_read"
# Of a batch job, by its last step: how often it has begun to put predictions in place, and has done so.
COMMITS_BEGUN, COMMITS_DONE = "commits_begun", "commits_done"
# Of a stream: bundles that held messages.
BUNDLES = "bundles"
BATCH_SIZE = "batch_size"
PREDICT_LATENCY_MSEC = "predict_latency_msec"
QUEUE_MSEC = "queue_msec"
RPC_RETRIES = "rpc_retries"
MODEL_LOAD_MSEC = "model_load_msec"
MODEL_SWAPS = "model_swaps"
MODEL_REJECTED = "model_versions_rejected"
# Beam's own name, in whole seconds: Dataflow's autoscaler adds no workers where those there are wait for a server.
THROTTLED_SECS = "cumulativeThrottlingSeconds"

_lock = threading.Lock()
_tally: Counter[str] = Counter()
_sums: Counter[str] = Counter()  # of the distributions' values
_values: Counter[str] = Counter()  # how many


def count(name: str, value: int = 1) -> None:
    """Adds to a counter. Call it on the bundle's thread: Beam loses what other threads count."""
    if not value:
        return
    Metrics.counter(NAMESPACE, name).inc(value)
    with _lock:
        _tally[name] += value


def record(name: str, value: float) -> None:
    """Adds a value to a distribution (whole numbers; milliseconds are rounded). On the bundle's thread, as `count`."""
    Metrics.distribution(NAMESPACE, name).update(round(value))
    with _lock:
        _sums[name] += round(value)
        _values[name] += 1


def count_failure(stage: str, error_type: str, value: int = 1) -> None:
    """Adds to the failures, in all and by stage and type."""
    count(ROWS_FAILED, value)
    count(f"{ROWS_FAILED}/{stage}/{error_type}", value)


def tally() -> dict[str, int]:
    """Returns what this process has counted since `reset_tally`."""
    with _lock:
        return dict(_tally)


def means() -> dict[str, float]:
    """Returns the means of the distributions since then."""
    with _lock:
        return {name: _sums[name] / count for name, count in _values.items()}


def reset_tally() -> None:
    """Starts the process's tally anew, before a job."""
    with _lock:
        for counter in (_tally, _sums, _values):
            counter.clear()
