"""What the soak makes of what it has seen; the run itself is `make soak`."""

from __future__ import annotations

import dataclasses
import os
import socket
import threading
from collections.abc import Callable

import numpy as np
import pytest

from benchmarks.soak import Arrivals, process_figures
from benchmarks.soak_report import Run, near, report
from benchmarks.soak_verdict import Counts, Sample, growth_mb_an_hour, verdict, windows
from sluice.transforms.pubsub.subscription import Received

COUNTS = Counts(published=100, acknowledged=100, predicted=100, came_back=100, failed=0, restarts=0)


def sample(secs: float) -> Sample:
    """Of a job that stays as it is: memory grows by 20 MB within each segment of 20 s, and falls back."""
    return Sample(
        secs=secs,
        rss_mb=750 + secs % 20,
        threads=29,
        files=11,
        cpu_secs=0.3 * secs,
        messages=int(200 * secs),
        bundles=int(30 * secs),
        bundle_secs=0.5 * secs,
        segments=1 + int(secs // 20),
        p50_ms=40.0,
        p99_ms=90.0,
    )


def samples(secs: float = 600, change: Callable[[Sample], dict[str, float]] = lambda sample: {}) -> list[Sample]:
    return [dataclasses.replace(each, **change(each)) for each in map(sample, range(0, int(secs) + 1, 5))]


@pytest.mark.parametrize(
    ("secs", "settle", "count"),
    [(600, 120, 8), (1200, 120, 18), (240, 120, 2), (310, 120, 3), (120, 60, 2), (30, 15, 2)],
)
def test_what_comes_after_settling_is_cut_into_windows(secs: float, settle: float, count: int) -> None:
    cut = windows(samples(secs))
    assert len(cut) == count
    assert [each.secs for window in cut for each in window] == list(range(int(settle), int(secs) + 1, 5))
    lengths = [len(window) for window in cut]
    assert max(lengths) - min(lengths) <= 1


def grows(by_mb_an_hour: float) -> Callable[[Sample], dict[str, float]]:
    return lambda sample: {"rss_mb": sample.rss_mb + by_mb_an_hour * sample.secs / 3600}


@pytest.mark.parametrize(
    ("change", "fails"),
    [
        (lambda sample: {}, ""),
        (grows(150), ""),
        (grows(500), "memory (RSS)"),
        (grows(-500), "memory (RSS)"),
        (lambda sample: {"rss_mb": sample.rss_mb + (300 if 300 <= sample.secs < 340 else 0)}, "memory (RSS)"),
        (lambda sample: {"rss_mb": sample.rss_mb + (300 if sample.secs < 115 else 0)}, ""),
        (lambda sample: {"threads": 29 + int(sample.secs % 10 == 0)}, ""),
        (lambda sample: {"threads": 29 + int(sample.secs // 100)}, "threads"),
        (lambda sample: {"threads": 40 if sample.secs < 100 else 29}, ""),
        (lambda sample: {"files": 11 + sample.segments}, "open files"),
        (lambda sample: {"files": 11 + 5 * int(sample.secs == 300)}, ""),
        (lambda sample: {"bundle_secs": 0.5 * sample.secs + sample.secs**2 / 10_000}, ""),
        (lambda sample: {"bundle_secs": 0.5 * sample.secs + sample.secs**2 / 2000}, "time of a bundle"),
        (lambda sample: {"bundles": 1000}, "time of a bundle, CPU of a bundle"),
        (lambda sample: {"cpu_secs": 0.3 * sample.secs + sample.secs**2 / 3000}, "CPU of a bundle"),
    ],
)
def test_a_job_that_grows_fails_its_rule(change: Callable[[Sample], dict[str, float]], fails: str) -> None:
    found = verdict(samples(change=change), COUNTS)
    assert [each.what for each in found if not each.holds] == (fails.split(", ") if fails else [])
    assert len(found) == 6


@pytest.mark.parametrize(
    ("changed", "holds"),
    [
        ({}, True),
        ({"acknowledged": 99}, False),
        ({"predicted": 101}, False),
        ({"came_back": 99}, False),
        ({"failed": 1}, False),
        ({"restarts": 1}, False),
        (dict.fromkeys(("published", "acknowledged", "predicted", "came_back"), 0), False),
    ],
)
def test_every_message_is_counted_from_end_to_end(changed: dict[str, int], holds: bool) -> None:
    (messages,) = [
        each for each in verdict(samples(), dataclasses.replace(COUNTS, **changed)) if each.what == "messages"
    ]
    assert messages.holds == holds


def test_growth_is_that_of_the_least_of_each_segment() -> None:
    assert growth_mb_an_hour(samples()) == pytest.approx(0, abs=1e-6)
    assert growth_mb_an_hour(samples(change=grows(100))) == pytest.approx(100)
    assert np.isnan(growth_mb_an_hour(samples(60)))


@pytest.mark.parametrize(
    ("moments", "expected"),
    [([], []), ([10.0], [8.5, 9.0, 11.0]), ([10.0, 20.0], [8.5, 9.0, 11.0, 20.5]), ([100.0], [])],
)
def test_rows_through_a_seam_are_those_sent_around_it(moments: list[float], expected: list[float]) -> None:
    times = np.array([0.0, 8.4, 8.5, 9.0, 11.0, 11.1, 20.5])
    assert times[near(times, moments)].tolist() == expected


def test_what_linux_tells_of_a_process() -> None:
    before = process_figures(os.getpid())
    over = threading.Event()
    threads = [threading.Thread(target=over.wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    with socket.socket(), socket.socket():
        after = process_figures(os.getpid())
    over.set()
    for thread in threads:
        thread.join()
    assert after["threads"] - before["threads"] == 3
    assert after["files"] - before["files"] == 2
    assert 10 < after["rss_mb"] < 100_000
    assert after["cpu_secs"] >= before["cpu_secs"] > 0


def arrivals() -> Arrivals:
    """Two rows, sent at seconds 1000 and 1001, that took 40 and 60 ms; one of them was delivered twice."""
    found = Arrivals()
    for number in (0, 1, 1):
        sent = (1000 + number) * 1_000_000
        took = 40_000 + 20_000 * number
        found.add([Received("ack", b"{}", f"m{number}", sent + took, {"id": str(number), "sent": str(sent)})])
    return found


def test_arrivals_keep_when_rows_were_sent() -> None:
    sent, took_us = arrivals().latencies()
    assert sent.tolist() == [1000.0, 1001.0]
    assert took_us.tolist() == [40_000, 60_000]
    assert arrivals().report().redelivered == 1
    assert [each.size for each in Arrivals().latencies()] == [0, 0]


def test_the_report_shows_rules_latencies_and_minutes() -> None:
    sent, took_us = arrivals().latencies()
    seen = samples(change=lambda sample: {"p50_ms": None, "p99_ms": None} if not sample.secs else {})
    run = Run(10, 200, seen, [1002.0], COUNTS, arrivals().report(), sent, took_us, behind_ms=12.0)
    findings = verdict(run.samples, dataclasses.replace(COUNTS, failed=3))
    lines = report(run, findings)
    assert sum(line.endswith("| holds |") for line in lines) == 5
    (failed,) = [line for line in lines if line.endswith("| **FAILS** |")]
    assert "3 failed" in failed
    assert "| all | 2 | 40.0 | 60.0 | 60.0 | 60.0 |" in lines
    assert "| through a seam | 1 | 60.0 | 60.0 | 60.0 | 60.0 |" in lines
    assert "| all others | 1 | 40.0 | 40.0 | 40.0 | 40.0 |" in lines
    assert "| 1 | 3 | 758 | 29 | 11 | 200 | 30.0 | 16.67 | 10.00 | 40 | 90 |" in lines
    assert len([line for line in lines if line.startswith("| 1") and line.count("|") == 12]) == 2  # minutes 1 and 10
