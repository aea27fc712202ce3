"""A streaming job for ten minutes at a steady rate: does it grow, does it slow down, does it lose anything?

`make soak` (`python -m benchmarks.soak`) runs `sluice streaming` in its own process against Google's Pub/Sub emulator,
publishes rows to it and reads its predictions from this process, samples the job every few seconds, and writes
benchmarks/SOAK.md. Exit code 1: a rule does not hold.
"""

import argparse
import os
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.checkouts import DATA
from benchmarks.soak_report import LOOK_SECS, SAMPLE_SECS, Run, report
from benchmarks.soak_verdict import Counts, Sample, verdict
from sluice.models.errors import SluiceError
from sluice.pipelines.commands import demo_pubsub as demo
from sluice.pipelines.commands.demo import make_model
from sluice.pipelines.commands.demo_streaming_run import figures_line
from sluice.pipelines.commands.job_process import JobProcess
from sluice.pipelines.commands.latency_run import read
from sluice.pipelines.options.stream_tools import LatencyOptions, SimulateOptions
from sluice.pipelines.progress.latency_report import Tally, begin_us
from sluice.transforms.pubsub.clients import subscriber
from sluice.transforms.pubsub.google_subscription import GoogleSubscription

RESULTS = os.path.join(os.path.dirname(__file__), "SOAK.md")

PRINT_SECS = 30.0
REST_SECS = 60.0


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
