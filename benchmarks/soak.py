"""A streaming job for ten minutes at a steady rate: does it grow, does it slow down, does it lose anything?

`make soak` (`python -m benchmarks.soak`) runs `sluice streaming` in its own process against Google's Pub/Sub emulator,
publishes rows to it and reads its predictions from this process, samples the job every few seconds, and writes
benchmarks/SOAK.md. Exit code 1: a rule does not hold.
"""

import argparse
import dataclasses
import os
import platform
import statistics
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.checkouts import DATA
from sluice.models.errors import SluiceError
from sluice.pipelines.commands import demo_pubsub as demo
from sluice.pipelines.commands.demo import make_model
from sluice.pipelines.commands.demo_streaming_run import figures_line
from sluice.pipelines.commands.job_process import JobProcess
from sluice.pipelines.commands.latency_run import read
from sluice.pipelines.options.stream_tools import LatencyOptions, SimulateOptions
from sluice.pipelines.progress.latency_report import Report, Tally, begin_us, quantiles_ms
from sluice.transforms.pubsub.clients import subscriber
from sluice.transforms.pubsub.google_subscription import GoogleSubscription

RESULTS = os.path.join(os.path.dirname(__file__), "SOAK.md")

# How long memory takes to settle, while caches and pools fill. After that it is compared minute by minute. A minute has
# several segments: within one memory grows, because the runner keeps something of every bundle; at the seam it falls.
SETTLE_SECS, WINDOW_SECS = 120.0, 60.0
SAMPLE_SECS = 5.0
# How often to check whether another segment has taken over.
LOOK_SECS = 0.5
# Rows sent this long before or after a seam was seen are taken to go through it.
SEAM_SECS = 1.0
PRINT_SECS = 30.0
REST_SECS = 60.0

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
        _flat("time of a bundle", [1000 * _each(window, "bundle_secs", "bundles") for window in cut]),
        _flat("CPU of a bundle", [1000 * _each(window, "cpu_secs", "bundles") for window in cut]),
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


def _each(window: Sequence[Sample], sum_name: str, count_name: str) -> float:
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


def near(times: np.ndarray, moments: Sequence[float]) -> np.ndarray:
    """Returns bool [times]: which times are near one of the seams. All are in seconds since the epoch."""
    found = np.zeros(len(times), bool)
    for moment in moments:
        found |= (times >= moment - LOOK_SECS - SEAM_SECS) & (times <= moment + SEAM_SECS)
    return found


class Arrivals(Tally):
    """Records when each row was sent and how long its prediction took, in microseconds."""

    def __init__(self) -> None:
        super().__init__()
        self._took: dict[str, tuple[int, int]] = {}  # by message id: a message may be delivered twice

    def add(self, messages: Sequence[Any]) -> None:
        super().add(messages)
        for message in messages:
            began = begin_us(message.attributes)
            if began is not None:
                self._took[message.id] = (began, message.publish_time - began)

    def latencies(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns float64 [rows], when each was sent, in seconds since the epoch; and int64 [rows], microseconds."""
        took = np.array(list(self._took.values()), np.int64).reshape(-1, 2)
        return took[:, 0] / 1e6, took[:, 1]


def process_figures(pid: int) -> dict[str, Any]:
    """Returns Linux's figures of a process, under the names in Sample.

    https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html
    """
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
        status = dict(line.split(":", 1) for line in file if ":" in line)
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
        ticks = file.read().rpartition(")")[2].split()[11:13]  # utime and stime
    return {
        "rss_mb": int(status["VmRSS"].split()[0]) / 1024,
        "threads": int(status["Threads"]),
        "files": len(os.listdir(f"/proc/{pid}/fd")),
        "cpu_secs": sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK"),
    }


class Watch:
    """Samples a job on its own thread while the `with` block runs."""

    def __init__(self, job: JobProcess) -> None:
        self.samples: list[Sample] = []
        self.seams: list[float] = []  # when they were seen, seconds since the epoch
        self._job = job
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="soak-watch", daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        started = time.monotonic()
        sample_due = print_due = 0.0
        segments: int | None = None
        while True:
            secs = time.monotonic() - started
            try:
                process = process_figures(self._job.pid)  # first: the health port adds a thread and a socket
            except OSError:  # it has ended, as whoever started it will see
                return
            figures = self._job.figures()
            if not figures:
                return
            if segments is not None and figures["segments"] > segments:
                self.seams.append(time.time())
            segments = figures["segments"]
            if secs >= sample_due:
                self.samples.append(_sample(secs, process, figures))
                sample_due += SAMPLE_SECS
            if secs >= print_due:
                print(f"{secs:6.0f} s  {process['rss_mb']:,.0f} MB  {figures_line(figures)}", flush=True)
                print_due += PRINT_SECS
            if self._stop.wait(LOOK_SECS):
                return


def _sample(secs: float, process: dict[str, Any], figures: dict[str, Any]) -> Sample:
    return Sample(
        secs=secs,
        **process,
        messages=figures["messages"],
        bundles=figures["bundles"],
        bundle_secs=figures["bundle_secs"],
        segments=figures["segments"],
        p50_ms=figures["latency_p50_ms"],
        p99_ms=figures["latency_p99_ms"],
    )


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


def soak(minutes: float, rate: float) -> Run:
    """Runs a job under load.

    Raises:
      RuntimeError: the emulator is not installed, or does not start.
      SluiceError: the job ends by itself, or does not end when it is drained.
    """
    model = make_model(DATA)
    rows = round(60 * minutes * rate)
    with demo.emulator():
        demo.make_ends()
        with JobProcess([f"--model={model}", *demo.END_FLAGS, "--progress=none"]) as job:
            demo.warm_up(job)
            arrivals = Arrivals()
            reading = threading.Thread(target=_read, args=(arrivals, rows, 60 * minutes + REST_SECS), daemon=True)
            reading.start()
            with Watch(job) as watch:
                load = demo.simulate(SimulateOptions(topic=demo.INPUT_TOPIC, rate=rate, rows=rows))
            job.wait_for(rows + 1, REST_SECS)  # and the row that warmed it up
            figures = job.figures()
            if code := job.drain():
                raise RuntimeError(f"the job ended with exit code {code}")
            reading.join()
    sent, took_us = arrivals.latencies()
    report = arrivals.report()
    counts = Counts(
        published=load.sent - load.refused,
        acknowledged=figures["messages"] - 1,
        predicted=figures["predictions"] - 1,
        came_back=report.distinct_ids,
        failed=figures["failures"],
        restarts=figures["restarts"],
    )
    behind_ms = 1000 * load.most_behind_secs
    return Run(minutes, rate, watch.samples, watch.seams, counts, report, sent, took_us, behind_ms)


def _read(arrivals: Arrivals, count: int, secs: float) -> None:
    subscription = GoogleSubscription(subscriber(), demo.OUTPUT)
    try:
        read(subscription, arrivals, LatencyOptions(subscription=demo.OUTPUT, count=count, seconds=secs))
    finally:
        subscription.close()


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
        f"{1000 * _each(within, 'bundle_secs', 'bundles'):.2f}",
        f"{1000 * _each(within, 'cpu_secs', 'bundles'):.2f}",
        f"{middle('p50_ms'):,.0f}",
        f"{middle('p99_ms'):,.0f}",
    ]


def main() -> int:
    """Runs the soak and writes SOAK.md; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long messages come (default: %(default)g)")
    parser.add_argument("--rate", type=float, default=200.0, help="messages a second (default: %(default)g)")
    parser.add_argument("--results", default=RESULTS, metavar="FILE", help="what is written (default: %(default)s)")
    arguments = parser.parse_args()
    try:
        run = soak(arguments.minutes, arguments.rate)
    except (RuntimeError, SluiceError) as error:  # its text says what to do
        sys.stderr.write(f"soak: {error}\n")
        return 1
    findings = verdict(run.samples, run.counts)
    text = "\n".join(report(run, findings)) + "\n"
    with open(arguments.results, "w", encoding="utf-8") as file:
        file.write(text)
    print(text)
    return 0 if all(finding.holds for finding in findings) else 1


if __name__ == "__main__":
    sys.exit(main())
