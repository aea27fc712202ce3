"""Whole comparisons, and latency beside MLPerf's own load generator. They take minutes, and a machine of their own."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from sluice.models import zoo
from sluice.models.zoo.export import export_model
from sluice.models.zoo.sample import write_samples
from sluice.pipelines.compare.probe import parse_job
from sluice.pipelines.compare.server import serve
from sluice.pipelines.compare.stream import Load
from sluice.pipelines.compare.subject import Point, Subject
from tests.support.paths import ROOT
from tests.support.saved_models.case import save_function

pytestmark = [pytest.mark.soak, pytest.mark.soak_only]

FORMATS = {"criteo": "csv", "natality": "csv", "mnist": "jsonl"}
ROWS, MINUTES = 20_000, 3.0


def compared(model: str, sample: str, directory: Path, *flags: str, minutes: float = MINUTES) -> dict[str, Any]:
    """Runs `sluice compare`; returns its figures."""
    summary = directory / f"{time.monotonic_ns()}.json"
    command = [sys.executable, "-m", "sluice", "compare", f"--model={model}", f"--input={sample}", "--progress=none"]
    began = time.monotonic()
    done = subprocess.run(
        [*command, f"--minutes={minutes:g}", f"--summary_file={summary}", *flags],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    assert time.monotonic() - began <= 66 * minutes + 10  # of Python's own start and end
    print(done.stdout)
    return dict(json.loads(summary.read_text()))


def made(name: str, directory: Path) -> tuple[str, str]:
    model = zoo.get(name)
    export_model(model, str(directory / "model"))
    (sample,) = write_samples(model, str(directory), ROWS, (FORMATS[name],))
    return str(directory / "model"), sample


def ranks(found: dict[str, Any]) -> dict[str, tuple[int, bool]]:
    return {way["way"]: (way["rank"], way["tied"]) for way in found["ways"]}


@pytest.mark.parametrize("name", FORMATS)
def test_known_models_get_an_answer_and_the_same_one_again(name: str, tmp_path: Path) -> None:
    model, sample = made(name, tmp_path)
    first, second = (compared(model, sample, tmp_path) for _ in range(2))
    for found in (first, second):
        assert found["at_rest"] and found["in_stream"] and all(way["streams"] for way in found["ways"])
        assert all(len(way["rows_per_second"]) >= 2 for way in found["ways"])
    one, other = ranks(first), ranks(second)
    firm = [way for way in one if not one[way][1] and not other[way][1]]
    order = [sorted(firm, key=lambda way: each[way][0]) for each in (one, other)]
    assert order[0] == order[1]


def _loop(turns: int) -> Any:
    import tensorflow as tf

    weights = tf.random.normal([48, 48], stddev=0.1)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def serve_(x: Any) -> dict[str, Any]:
        turned = tf.while_loop(lambda i, _: i < turns, lambda i, m: (i + 1, tf.tanh(m @ weights)), [0, weights])[1]
        return {"y": x * 2.0 + 0.0 * tf.reduce_sum(turned)}

    return serve_


def save_slow(directory: str, call_ms: float = 5.0) -> None:
    """A model whose call takes so long, whatever its rows: a loop that is calibrated here and now."""
    import tensorflow as tf

    turns = 100
    for _ in range(4):
        function = _loop(turns)
        took = []
        for _ in range(20):
            began = time.perf_counter()
            function(tf.zeros([1]))
            took.append(1000 * (time.perf_counter() - began))
        turns = max(1, round(turns * call_ms / statistics.median(took)))
    save_function(directory, _loop(turns))


def save_large(directory: str, megabytes: int = 400) -> None:
    """A model of so many weights, of which each row takes one."""
    import tensorflow as tf

    weights = tf.Variable(tf.zeros([megabytes << 18]))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def serve_(x: Any) -> dict[str, Any]:
        return {"y": x * 2.0 + tf.gather(weights, tf.cast(tf.abs(x), tf.int32) % 1000)}

    save_function(directory, serve_, weights=weights)


def test_a_slow_model_and_a_large_one_change_the_answer_as_they_must(tmp_path: Path) -> None:
    sample = tmp_path / "x.csv"
    sample.write_text("x\n" + "".join(f"{number % 997}.5\n" for number in range(ROWS)))
    save_function(str(tmp_path / "small"), _loop(1))
    save_slow(str(tmp_path / "slow"))
    save_large(str(tmp_path / "large"))
    found = [compared(str(tmp_path / name), str(sample), tmp_path) for name in ("small", "slow", "large")]
    small, slow, large = ({each["way"]: each for each in one["ways"]} for one in found)
    way = {"small": small, "slow": slow, "large": large}

    def batch(name: str, kind: str, default: int) -> int:
        return way[name][kind]["max_batch_size"] or default

    def alone(name: str) -> float:
        streams = way[name]["worker"]["streams"]
        return max(each["load"]["rate"] for each in streams if each["complete"] and not each["load"]["mini_batches"])

    def together(name: str) -> float:
        streams = way[name]["worker"]["streams"]
        return max(each["load"]["rate"] for each in streams if each["complete"] and each["load"]["mini_batches"])

    # A call of 5 ms: larger batches, fewer messages one by one, and the server's own time weighs less.
    assert batch("slow", "grpc", 512) > 512 or batch("slow", "grpc", 512) >= batch("small", "grpc", 512)
    assert alone("slow") < 250 < alone("small") and together("slow") > 2 * alone("slow")

    def lead(name: str) -> float:
        worker, grpc = (statistics.median(way[name][kind]["marginal_us"]) for kind in ("worker", "grpc"))
        return grpc / worker

    assert lead("slow") < lead("small")
    # 400 MB of weights: a copy costs memory in every worker, so that an endpoint is worth it sooner.
    copies = [way[name]["worker"]["loaded"]["copy_mb"] for name in ("small", "large")]
    assert copies[1] - copies[0] > 350
    prices = [each["grpc"]["cost_per_million_rows"] for each in (small, large)]
    prices = [
        price / each["worker"]["cost_per_million_rows"] for price, each in zip(prices, (small, large), strict=True)
    ]
    crossing = [one["cheaper_than_copies_from_rows_per_second"]["grpc"] or float("inf") for one in (found[0], found[2])]
    assert prices[1] < prices[0] or crossing[1] < crossing[0]


QUERIES, REPEATS = 3000, 3
_LOADGEN = """
import functools
import sys
import mlperf_loadgen as lg
from sluice.pipelines.compare.probe import parse_job
from sluice.pipelines.compare.stream import Load
from sluice.pipelines.compare.subject import Point, Subject

rate, queries, seed, alone, directory, *flags = sys.argv[1:]
subject = Subject(parse_job(flags))
sender = subject.sender(Load(float(rate), int(queries), alone == "0"), Point())

def complete(identity, start, stop):
    lg.QuerySamplesComplete([lg.QuerySampleResponse(identity, 0, 0)])

def issue(samples):
    for sample in samples:
        sender(sample.index, sample.index + 1, functools.partial(complete, sample.id))

settings = lg.TestSettings()
settings.scenario, settings.mode = lg.TestScenario.Server, lg.TestMode.PerformanceOnly
settings.server_target_qps = float(rate)
settings.server_target_latency_ns = 10**9
settings.server_target_latency_percentile = 0.99
settings.min_query_count = settings.max_query_count = int(queries)
settings.min_duration_ms = 0
settings.schedule_rng_seed = int(seed)
output = lg.LogOutputSettings()
output.outdir = directory
log = lg.LogSettings()
log.log_output = output
sut = lg.ConstructSUT(issue, lambda: None)
qsl = lg.ConstructQSL(subject.rows.num_rows, subject.rows.num_rows, lambda samples: None, lambda samples: None)
lg.StartTestWithLogSettings(sut, qsl, settings, log)
"""


def loadgen(flags: list[str], load: Load, directory: Path) -> tuple[float, float]:
    """Returns p50 and p99 in ms, as MLPerf's load generator finds them."""
    place = directory / f"loadgen-{time.monotonic_ns()}"
    place.mkdir()
    numbers = [str(load.rate), str(load.queries), str(load.seed), "0" if load.mini_batches else "1", str(place)]
    done = subprocess.run(
        [sys.executable, "-c", _LOADGEN, *numbers, *flags], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    text = (place / "mlperf_log_summary.txt").read_text()
    found = [re.search(rf"{share}\.00 percentile latency \(ns\)\s*:\s*(\d+)", text) for share in (50, 99)]
    assert all(found), text
    p50, p99 = (int(each[1]) / 1e6 for each in found if each)
    return p50, p99


@pytest.mark.parametrize("behind", ["worker", "endpoint"])
def test_latency_is_what_mlperfs_load_generator_finds(behind: str, tmp_path: Path) -> None:
    model, sample = made("criteo", tmp_path)
    with serve(os.path.abspath(model)) as server:
        uri = model if behind == "worker" else server.grpc_uri
        flags = [f"--model={uri}", f"--input={sample}", f"--output={tmp_path}/out.csv", "--overwrite"]
        subject = Subject(parse_job(flags))
        try:
            for rate in (50.0, 100.0, 200.0):
                for mini_batches in (True, False):
                    load = Load(rate, QUERIES, mini_batches)
                    theirs, ours = [], []
                    for seed in range(REPEATS):
                        each = dataclasses.replace(load, seed=1 + seed)
                        theirs.append(loadgen(flags, each, tmp_path))
                        latencies = sorted(subject.latency(each, Point()).latencies_ms)
                        ours.append((statistics.median(latencies), latencies[int(0.99 * len(latencies))]))
                    p50 = [statistics.median(pair[0] for pair in found) for found in (ours, theirs)]
                    assert abs(p50[0] / p50[1] - 1) <= 0.1, (load, ours, theirs)
                    p99 = [sorted(pair[1] for pair in found) for found in (ours, theirs)]
                    assert p99[0][0] <= p99[1][-1] and p99[1][0] <= p99[0][-1], (load, ours, theirs)
        finally:
            subject.close()
