"""What the samples of a soak say: whether the job grew, slowed down, or lost something."""

import dataclasses
import statistics
from collections.abc import Sequence

import numpy as np

# How long memory takes to settle, while caches and pools fill. After that it is compared minute by minute. A minute has
# several segments: within one memory grows, because the runner keeps something of every bundle; at the seam it falls.
SETTLE_SECS, WINDOW_SECS = 120.0, 60.0
MAX_MEMORY_CHANGE = 0.05
MAX_BUNDLE_CHANGE = 0.25
# gRPC and the health port occasionally have one more thread or connection.
MAX_MORE = 1


@dataclasses.dataclass(frozen=True)
class Sample:
    """The job at one moment; counts and sums start with the job.

    Attributes:
      secs: since the load began.
      files: open file descriptors.
      bundle_secs: from handing out to acknowledging, summed over all bundles.
      p50_ms, p99_ms: of the last 10 s, from publishing to writing, as the job itself measures it.
    """

    secs: float
    rss_mb: float
    threads: int
    files: int
    cpu_secs: float
    messages: int
    bundles: int
    bundle_secs: float
    segments: int
    p50_ms: float | None = None
    p99_ms: float | None = None


@dataclasses.dataclass(frozen=True)
class Counts:
    """How many messages reached each step, from end to end."""

    published: int
    acknowledged: int
    predicted: int
    came_back: int
    failed: int
    restarts: int


@dataclasses.dataclass(frozen=True)
class Finding:
    """A rule, what was found, and whether the rule holds."""

    what: str
    rule: str
    found: str
    holds: bool


def windows(samples: Sequence[Sample]) -> list[list[Sample]]:
    """Cuts the samples after settling into windows of equal length, at least two.

    A run of less than four minutes settles for its first half; the rest is two windows.
    """
    length = samples[-1].secs
    settle = min(SETTLE_SECS, length / 2)
    count = max(2, int((length - settle) / WINDOW_SECS))
    width = (length - settle) / count
    cut: list[list[Sample]] = [[] for _ in range(count)]
    for sample in samples:
        if sample.secs >= settle:
            cut[min(count - 1, int((sample.secs - settle) / width))].append(sample)
    return cut


def verdict(samples: Sequence[Sample], counts: Counts) -> list[Finding]:
    """Returns the finding for each rule."""
    cut = windows(samples)
    return [
        _memory([statistics.median(sample.rss_mb for sample in window) for window in cut]),
        _not_more("threads", [statistics.median(sample.threads for sample in window) for window in cut]),
        _not_more("open files", [statistics.median(sample.files for sample in window) for window in cut]),
        _flat("time of a bundle", [1000 * each_mean(window, "bundle_secs", "bundles") for window in cut]),
        _flat("CPU of a bundle", [1000 * each_mean(window, "cpu_secs", "bundles") for window in cut]),
        _complete(counts),
    ]


def _memory(medians: list[float]) -> Finding:
    first = medians[0]
    worst = max(medians, key=lambda value: abs(value - first))
    return Finding(
        "memory (RSS)",
        f"the median of every window is within {MAX_MEMORY_CHANGE:.0%} of that of the first",
        f"{first:,.0f} MB in the first, {worst:,.0f} MB in the farthest from it ({worst / first - 1:+.1%})",
        abs(worst - first) <= MAX_MEMORY_CHANGE * first,
    )


def _not_more(what: str, medians: list[float]) -> Finding:
    return Finding(
        what,
        f"the median of every window is at most {MAX_MORE} above that of the first",
        f"{medians[0]:g} in the first, {max(medians):g} at most",
        max(medians) <= medians[0] + MAX_MORE,
    )


def _flat(what: str, means: list[float]) -> Finding:
    first, last = means[0], means[-1]
    return Finding(
        what,
        f"the mean of the last window is at most {MAX_BUNDLE_CHANGE:.0%} above that of the first",
        f"{first:.2f} ms in the first, {last:.2f} ms in the last ({last / first - 1:+.1%})",
        last <= first * (1 + MAX_BUNDLE_CHANGE),
    )


def each_mean(window: Sequence[Sample], sum_name: str, count_name: str) -> float:
    """Returns by how much a sum grew per counted thing within a window; nan if nothing was counted."""
    first, last = window[0], window[-1]
    count = getattr(last, count_name) - getattr(first, count_name)
    return (getattr(last, sum_name) - getattr(first, sum_name)) / count if count else float("nan")


def _complete(counts: Counts) -> Finding:
    whole = counts.published == counts.acknowledged == counts.predicted == counts.came_back
    return Finding(
        "messages",
        "as many are published, acknowledged, predicted and read back; none fails, nothing is begun anew",
        f"{counts.published:,} published, {counts.acknowledged:,} acknowledged, {counts.predicted:,} predicted, "
        f"{counts.came_back:,} read back, {counts.failed:,} failed, {counts.restarts:,} restarts",
        whole and counts.published > 0 and not (counts.failed or counts.restarts),
    )


def growth_mb_an_hour(samples: Sequence[Sample]) -> float:
    """Returns the least-squares slope of the lowest memory of each segment after settling.

    The first and last segments may have been seen in part only, and do not count; nan if fewer than two are left.
    """
    by_segment: dict[int, list[Sample]] = {}
    for sample in (sample for window in windows(samples) for sample in window):
        by_segment.setdefault(sample.segments, []).append(sample)
    least = [min(within, key=lambda sample: sample.rss_mb) for within in list(by_segment.values())[1:-1]]
    if len(least) < 2:
        return float("nan")
    slope, _ = np.polyfit([sample.secs for sample in least], [sample.rss_mb for sample in least], 1)
    return float(slope) * 3600
