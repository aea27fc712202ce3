"""The page of a soak: benchmarks/SOAK.md."""

import dataclasses
import os
import platform
import statistics
from collections.abc import Sequence

import numpy as np

from benchmarks.soak_verdict import SETTLE_SECS, Counts, Finding, Sample, each_mean, growth_mb_an_hour, windows
from sluice.pipelines.progress.latency_report import Report, quantiles_ms

SAMPLE_SECS = 5.0
# How often to check whether another segment has taken over.
LOOK_SECS = 0.5
# Rows sent this long before or after a seam was seen are taken to go through it.
SEAM_SECS = 1.0


@dataclasses.dataclass(frozen=True)
class Run:
    """The results of a soak.

    Attributes:
      sent: float64 [rows], seconds since the epoch; took_us: int64 [rows].
      behind_ms: how late the latest row was sent.
    """

    minutes: float
    rate: float
    samples: list[Sample]
    seams: list[float]
    counts: Counts
    returned: Report
    sent: np.ndarray
    took_us: np.ndarray
    behind_ms: float


def report(run: Run, findings: Sequence[Finding]) -> list[str]:
    """Returns the lines of SOAK.md."""
    cores = len(os.sched_getaffinity(0))
    count = len(windows(run.samples))
    return [
        f"# A streaming job for {run.minutes:g} minutes",
        "",
        f"Written by `make soak SOAK_MINUTES={run.minutes:g}` (`python -m benchmarks.soak --minutes {run.minutes:g} "
        f"--rate {run.rate:g}`) on {cores} cores, Python {platform.python_version()}. `sluice streaming` with the "
        f"zoo's Criteo model, JSON messages, {run.rate:g} a second. Google's Pub/Sub emulator, what publishes and what "
        "reads the predictions back run on the same cores.",
        "",
        f"The process was looked at every {SAMPLE_SECS:g} s. What comes after the first "
        f"{min(SETTLE_SECS, run.samples[-1].secs / 2):.0f} s is cut into {count} windows of equal length.",
        "",
        "| | rule | found | |",
        "|---|---|---|---|",
        *(
            f"| {each.what} | {each.rule} | {each.found} | {'holds' if each.holds else '**FAILS**'} |"
            for each in findings
        ),
        "",
        f"- From segment to segment its least memory changes by {growth_mb_an_hour(run.samples):+,.0f} MB an hour.",
        f"- Rows were sent at most {run.behind_ms:,.0f} ms late; {run.returned.duplicates:,} were predicted twice, "
        f"{run.returned.redelivered:,} predictions were delivered twice.",
        "",
        "## Latency, from sending a row until Pub/Sub had its prediction",
        "",
        f"A local job is one pipeline after the other (segments); {len(run.seams)} times another took over. Through "
        f"the seam go rows that were sent at most {SEAM_SECS:g} s before or after.",
        "",
        "| rows | count | p50, ms | p95, ms | p99, ms | max, ms |",
        "|---|---:|---:|---:|---:|---:|",
        *_latencies(run),
        "",
        "## By the minute",
        "",
        f"| minute | {' | '.join(_COLUMNS)} |",
        f"|---:|{'---:|' * len(_COLUMNS)}",
        *_minutes(run.samples),
    ]


def _latencies(run: Run) -> list[str]:
    seam = near(run.sent, run.seams)
    lines = []
    for name, mask in (("all", np.ones(len(seam), bool)), ("through a seam", seam), ("all others", ~seam)):
        found = quantiles_ms(run.took_us[mask])
        cells = ("-" if found[key] is None else f"{found[key]:,.1f}" for key in ("p50", "p95", "p99", "max"))
        lines.append(f"| {name} | {mask.sum():,} | {' | '.join(cells)} |")
    return lines


_COLUMNS = (
    "segment",
    "memory, MB",
    "threads",
    "open files",
    "messages/s",
    "bundles/s",
    "bundle, ms",
    "CPU a bundle, ms",
    "p50, ms",
    "p99, ms",
)


def _minutes(samples: Sequence[Sample]) -> list[str]:
    """Returns a row per minute: medians, and what was done between its first and last sample."""
    by_minute: dict[int, list[Sample]] = {}
    for sample in samples:
        by_minute.setdefault(int(sample.secs // 60), []).append(sample)
    return [
        f"| {minute + 1} | {' | '.join(_cells(within))} |" for minute, within in by_minute.items() if len(within) > 1
    ]


def _cells(within: Sequence[Sample]) -> list[str]:
    """Returns the cells under _COLUMNS."""
    first, last = within[0], within[-1]
    secs = last.secs - first.secs

    def middle(name: str) -> float:
        values = [value for sample in within if (value := getattr(sample, name)) is not None]
        return statistics.median(values) if values else float("nan")

    return [
        str(last.segments),
        f"{middle('rss_mb'):,.0f}",
        f"{middle('threads'):g}",
        f"{middle('files'):g}",
        f"{(last.messages - first.messages) / secs:,.0f}",
        f"{(last.bundles - first.bundles) / secs:,.1f}",
        f"{1000 * each_mean(within, 'bundle_secs', 'bundles'):.2f}",
        f"{1000 * each_mean(within, 'cpu_secs', 'bundles'):.2f}",
        f"{middle('p50_ms'):,.0f}",
        f"{middle('p99_ms'):,.0f}",
    ]


def near(times: np.ndarray, moments: Sequence[float]) -> np.ndarray:
    """Returns bool [times]: which times are near one of the seams. All are in seconds since the epoch."""
    found = np.zeros(len(times), bool)
    for moment in moments:
        found |= (times >= moment - LOOK_SECS - SEAM_SECS) & (times <= moment + SEAM_SECS)
    return found
