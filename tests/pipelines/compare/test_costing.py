"""Costs by hand, the workers that a load needs, and the load from which an endpoint is cheaper by brute force."""

import dataclasses
import math

import numpy as np
import pytest

from sluice.pipelines.compare.costing import (
    Fleet,
    Use,
    cheaper_from,
    fleets,
    hourly,
    monthly,
    per_million,
    workers_for_deadline,
    workers_for_rate,
)
from sluice.pipelines.compare.prices import read_prices

PRICES = dataclasses.replace(
    read_prices(),
    batch_vcpu_hour=0.06,
    batch_gb_hour=0.004,
    stream_vcpu_hour=0.07,
    stream_gb_hour=0.005,
    server_vcpu_hour=0.03,
    server_gb_hour=0.002,
)


def test_a_million_rows_by_hand() -> None:
    """36 s of CPU on two cores are 18 s of a worker with 2 GB: 0.005 h at 2 x 0.06 + 2 x 0.004."""
    worker = Use(cpu_us=36.0, worker_mb=2048, cores=2)
    assert worker.cpu_secs_per_million == 36.0 and worker.gb_secs_per_million == 36.0
    assert per_million(worker, PRICES) == pytest.approx(0.005 * 0.128)
    served = Use(cpu_us=36.0, worker_mb=2048, cores=2, server_us=72.0, server_mb=1024)
    assert served.cpu_secs_per_million == 108.0 and served.gb_secs_per_million == 36.0 + 36.0
    assert per_million(served, PRICES) == pytest.approx(0.005 * 0.128 + 0.01 * (2 * 0.03 + 0.002))


def test_a_month_of_a_stream_by_hand() -> None:
    """One worker does 50,000 rows/s: half of that is one worker, three times that are three."""
    found = fleets(Use(cpu_us=40.0, worker_mb=1024, cores=2), PRICES)
    assert found == [Fleet(50_000.0, pytest.approx(0.145))]
    rows = 730 * 3600 * 25_000
    assert monthly(found, rows) == pytest.approx(730 * 0.145)
    assert monthly(found, 6 * rows) == pytest.approx(3 * 730 * 0.145)


def brute(machines: list[Fleet], rates: np.ndarray) -> np.ndarray:
    return np.sum([np.maximum(1.0, rates / each.rate) * each.hour for each in machines], axis=0)


def test_the_crossing_is_where_brute_force_finds_it() -> None:
    random = np.random.default_rng(2)
    crossed = 0
    rates = np.geomspace(0.01, 1e8, 4000)
    for _ in range(200):
        copies = [Fleet(*random.uniform(1, 100, 2))]
        endpoint = [Fleet(*random.uniform(1, 100, 2)), Fleet(*random.uniform(1, 100, 2))]
        found = cheaper_from(endpoint, copies)
        cheaper = rates[brute(endpoint, rates) <= brute(copies, rates)]
        if found is None:
            assert not len(cheaper)
            continue
        crossed += 1
        assert cheaper[0] >= found * (1 - 1e-9) and cheaper[0] <= max(found, 0.01) * 1.01
        if found:
            assert hourly(endpoint, found) == pytest.approx(hourly(copies, found))
    assert 20 < crossed < 180


def test_an_endpoint_of_ones_own_is_never_cheaper_where_it_only_adds() -> None:
    worker = Use(cpu_us=5.0, worker_mb=900, cores=2)
    served = Use(cpu_us=5.0, worker_mb=600, cores=2, server_us=9.0, server_mb=600)
    assert cheaper_from(fleets(served, PRICES), fleets(worker, PRICES)) is None


def test_memory_of_copies_brings_the_crossing_nearer() -> None:
    """A server's vCPU costs less than a worker's, so a slow model is cheaper there from some load on."""
    served = Use(cpu_us=2.0, worker_mb=600, cores=2, server_us=500.0, server_mb=900)
    small = cheaper_from(fleets(served, PRICES), fleets(Use(500.0, 900, 2), PRICES))
    large = cheaper_from(fleets(served, PRICES), fleets(Use(500.0, 4900, 2), PRICES))
    fast = cheaper_from(fleets(served, PRICES), fleets(Use(100.0, 900, 2), PRICES))
    assert small is not None and large is not None and large < small
    assert fast is None or fast > small


@pytest.mark.parametrize(
    ("rows", "deadline", "rate", "start", "expected"),
    [
        (1_000_000_000, 5 * 3600, 100_000, 10, 1),  # 10,000 s of 17,990
        (1_000_000_000, 3600, 100_000, 10, 3),  # 10,000 of 3,590
        (1_000_000, 20, 100_000, 10, 1),  # just so
        (1_000_001, 20, 100_000, 10, 2),
        (1, 5, 100_000, 5, None),
    ],
)
def test_workers_for_a_deadline(rows: int, deadline: float, rate: float, start: float, expected: int | None) -> None:
    found = workers_for_deadline(rows, deadline, rate, start)
    if expected is None:
        assert found is None
        return
    assert found is not None and found.count == expected and found.measured is (expected == 1)
    assert f"{rows:,} rows / ({rate:,.0f} rows/s" in found.formula and found.formula.endswith(f"= {expected}")
    assert math.ceil(rows / expected / rate) <= deadline - start


def test_workers_for_a_rate() -> None:
    assert workers_for_rate(1000, 400).count == 3
    assert workers_for_rate(400, 400).measured
    assert workers_for_rate(1000, 400).formula == "ceil(1,000 rows/s / 400 rows/s) = 3"
