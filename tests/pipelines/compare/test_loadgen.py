"""Latency beside MLPerf's own load generator, at the same endpoint and the same model in the worker."""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sluice.pipelines.compare.early_stopping import interval
from sluice.pipelines.compare.server import serve
from sluice.pipelines.compare.stream import Load
from tests.support.paths import ROOT
from tests.support.saved_models.zoo import ZooSample

pytestmark = [pytest.mark.soak, pytest.mark.soak_only, pytest.mark.quiet]

# Many short runs in turns: a machine that is busy for ten seconds spoils a pair of them, and not the median of all. A
# p99 needs 662 messages for its interval; the runs together have six times as many.
QUERIES, REPEATS = 240, 17
# The endpoint shares two cores with what sends. From 100 messages a second on, each alone, calls wait for each other,
# and the least difference grows large: p50 of 15 and 18 ms, at 150 of 26 and 73 ms.
RATES = (40.0, 60.0, 80.0)


@pytest.fixture(scope="module")
def uris(criteo: ZooSample) -> Iterator[dict[str, str]]:
    """The same model: in the worker, and behind an endpoint."""
    with serve(os.path.abspath(criteo.model)) as server:
        yield {"worker": criteo.model, "endpoint": server.grpc_uri}


@pytest.mark.parametrize("mini_batches", [True, False], ids=["mini_batches", "one_a_call"])
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("behind", ["worker", "endpoint"])
def test_latency_is_what_mlperfs_load_generator_finds(
    behind: str, rate: float, mini_batches: bool, uris: dict[str, str], criteo: ZooSample, tmp_path: Path
) -> None:
    pytest.importorskip("mlperf_loadgen")
    load = json.dumps(dataclasses.asdict(Load(rate, QUERIES, mini_batches)))
    flags = [f"--model={uris[behind]}", f"--input={criteo.path('csv')}", f"--output={tmp_path}/out.csv"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.loadgen", load, str(REPEATS), *flags],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    pairs = [
        (statistics.median(ours), theirs) for ours, (theirs, _) in zip(found["ours"], found["theirs"], strict=True)
    ]
    ratio = statistics.median(ours / theirs for ours, theirs in pairs)
    between = interval(sorted(value for each in found["ours"] for value in each))
    p99 = sorted(each for _, each in found["theirs"])
    told = f"{behind} {rate:g}/s {'mini-batches' if mini_batches else 'one a call'}: p50 {ratio:.3f} times: "
    told += f"{', '.join(f'{ours:.2f} and {theirs:.2f}' for ours, theirs in pairs)} ms, p99 {between} and {p99} ms"
    print(told)
    assert abs(ratio - 1) <= 0.1, told
    assert between is not None and between[0] <= p99[-1] and p99[0] <= between[1], told
