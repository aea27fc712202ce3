"""Every counter and distribution that Sluice reports, named in one place.

Beam gets them for the runner's own display. Each process keeps a tally of its own beside them: a local runner shows
metrics only when a bundle ends, and a local job may be one bundle, so the progress line reads the tally.
"""

import dataclasses
import math
import threading
from collections import Counter, defaultdict
from collections.abc import Mapping

from apache_beam.metrics import Metrics

from sluice.transforms.core.reasons import Reasons

NAMESPACE = "sluice"

ROWS_READ = "rows_read"
# Rows that are ready for a managed job of a service.
ROWS_PREPARED = "rows_prepared"
ROWS_PREDICTED = "rows_predicted"
ROWS_FAILED = "rows_failed"
BYTES_READ = "bytes_read"
# Commits of a batch job that have begun, and that have ended well. The last step counts them.
COMMITS_BEGUN, COMMITS_DONE = "commits_begun", "commits_done"
# Bundles of a stream that held messages.
BUNDLES = "bundles"
BATCH_SIZE = "batch_size"
PREDICT_LATENCY_MSEC = "predict_latency_msec"
QUEUE_MSEC = "queue_msec"
RPC_RETRIES = "rpc_retries"
MODEL_LOAD_MSEC = "model_load_msec"
MODEL_SWAPS = "model_swaps"
MODEL_REJECTED = "model_versions_rejected"
# Messages whose lease could not be extended, and messages that were done and could not be acknowledged.
LEASE_EXTENSIONS_FAILED = "lease_extensions_failed"
ACKNOWLEDGEMENTS_FAILED = "acknowledgements_failed"
# Gauges: they hold what was last set.
CALLS_IN_FLIGHT = "calls_in_flight"
CALLS_IN_FLIGHT_LIMIT = "calls_in_flight_limit"
PENDING_BYTES = "pending_bytes"
MODEL_VERSION = "model_version"
OLDEST_UNACKNOWLEDGED_MSEC = "oldest_unacknowledged_msec"
# Gauges are set this often at most: each costs the runner some time in every bundle that sets it.
GAUGE_SECS = 5.0
# Beam's own name, in whole seconds. Dataflow's autoscaler reads it: it adds no workers while the present ones wait for
# a server.
THROTTLED_SECS = "cumulativeThrottlingSeconds"

_lock = threading.Lock()
_tally: Counter[str] = Counter()
_sums: defaultdict[str, float] = defaultdict(float)  # of the values of each distribution
_values: Counter[str] = Counter()  # their number
_reasons = Reasons()
_powers: dict[str, Counter[int]] = {}  # of each distribution: how many values have 2**N as the least power above
_spreads: dict[str, Counter[int]] = {}  # of each distribution: how many values each bin has, by its lowest value


def count(name: str, value: int = 1) -> None:
    """Adds to a counter. Must run on the bundle's thread: Beam loses the counts of other threads."""
    if not value:
        return
    Metrics.counter(NAMESPACE, name).inc(value)
    with _lock:
        _tally[name] += value


def record(name: str, value: float) -> None:
    """Adds a value, rounded to a whole number, to a distribution. Must run on the bundle's thread, as `count`."""
    Metrics.distribution(NAMESPACE, name).update(round(value))
    with _lock:
        _sums[name] += value
        _values[name] += 1
        _powers.setdefault(name, Counter())[power_of(value)] += 1
        _spreads.setdefault(name, Counter())[spread_start(round(value))] += 1


def gauge(name: str, value: float) -> None:
    """Sets a gauge of Beam's, to a whole number. Must run on the bundle's thread, as `count`."""
    Metrics.gauge(NAMESPACE, name).set(round(value))


def count_failure(stage: str, error_type: str, value: int = 1) -> None:
    """Adds to rows_failed, in all and by stage and type."""
    count(ROWS_FAILED, value)
    count(f"{ROWS_FAILED}/{stage}/{error_type}", value)


def count_reason(stage: str, error_type: str, message: str, origin: str) -> None:
    """Notes why a row failed: for the end of a local job, which says so. Beam has no metric for it."""
    _reasons.add(stage, error_type, message, origin)


def count_version(version: int, value: int) -> None:
    """Adds to the rows that one version of a served model has predicted. `ROWS_PREDICTED` counts them too."""
    count(f"{ROWS_PREDICTED}/{version}", value)


def tally() -> dict[str, int]:
    """Returns the counters of this process since `reset_tally`."""
    with _lock:
        return dict(_tally)


def means() -> dict[str, float]:
    """Returns the means of the distributions since `reset_tally`."""
    with _lock:
        return {name: _sums[name] / count for name, count in _values.items()}


def reasons() -> Reasons:
    """Returns why rows have failed in this process since `reset_tally`."""
    return _reasons


def spreads() -> dict[str, dict[int, int]]:
    """Returns the distributions since `reset_tally`: by name, how many values each bin has, by its lowest value."""
    with _lock:
        return {name: dict(bins) for name, bins in _spreads.items()}


@dataclasses.dataclass(frozen=True)
class Powers:
    """A distribution by powers of 2.

    Attributes:
      counts: how many values have 2**N as the least power that is not below them, by N.
      sum: of all values.
    """

    counts: Mapping[int, int]
    sum: float


# The least N of Powers.counts: a value of 0 has it.
LEAST_POWER = -10


def power_of(value: float) -> int:
    """Returns the N of the least 2**N that is not below a value."""
    mantissa, exponent = math.frexp(value)
    return max(LEAST_POWER, exponent - 1 if mantissa == 0.5 else exponent) if value > 0 else LEAST_POWER


def powers() -> dict[str, Powers]:
    """Returns the distributions since `reset_tally`, by name."""
    with _lock:
        return {name: Powers(dict(counts), _sums[name]) for name, counts in _powers.items()}


# A doubling has so many bins of a distribution; smaller whole numbers have one each.
_SPREAD_BITS = 3


def spread_start(value: int) -> int:
    """Returns the lowest value of the bin that a whole number is in."""
    width = _spread_width(value)
    return value // width * width


def spread_end(start: int) -> int:
    """Returns the lowest value that is above the bin which begins at `start`."""
    return start + _spread_width(start)


def _spread_width(value: int) -> int:
    return 1 << max(0, value.bit_length() - 1 - _SPREAD_BITS)


def reset_tally() -> None:
    """Clears the tally of the process before a job. It is for display: how far a commit is, a job's CommitGate says."""
    _reasons.clear()
    with _lock:
        for kept in (_tally, _sums, _values, _powers, _spreads):
            kept.clear()
