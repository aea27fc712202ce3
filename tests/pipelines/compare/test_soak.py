"""Whole comparisons. They take minutes, and a machine of their own."""

from __future__ import annotations

import json
import os
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
from tests.support.paths import ROOT
from tests.support.saved_models.case import save_function

pytestmark = [pytest.mark.soak, pytest.mark.soak_only, pytest.mark.quiet]

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
        # What is multiplied by zero would be left out of the graph.
        return {"y": x * 2.0 + 1e-12 * tf.reduce_sum(turned)}

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


# Memory of a stream's workers is dear, and a server costs 0.45 an hour, whatever its memory: less than 400 MB more in
# a worker, and more than what else the worker takes beyond a client.
MEMORY_PRICES = {
    **dict.fromkeys(("stream_vcpu_hour", "server_gb_hour"), 0.001),
    "stream_gb_hour": 1.0,
    "server_vcpu_hour": 0.45 / len(os.sched_getaffinity(0)),
}


def save_sample(directory: Path) -> str:
    sample = directory / "x.csv"
    sample.write_text("x\n" + "".join(f"{number % 997}.5\n" for number in range(ROWS)))
    return str(sample)


def highest(way: dict[str, Any], mini_batches: bool) -> float:
    """The highest rate of a stream at which all was answered in time."""
    streams = (each for each in way["streams"] if each["load"]["mini_batches"] is mini_batches and each["complete"])
    return max(each["load"]["rate"] for each in streams)


def by_way(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {each["way"]: each for each in found["ways"]}


def test_a_slow_model_needs_larger_batches_and_mini_batches_in_a_stream(tmp_path: Path) -> None:
    """A call takes 5 ms, whatever its rows."""
    sample = save_sample(tmp_path)
    save_function(str(tmp_path / "small"), _loop(1))
    save_slow(str(tmp_path / "slow"))
    small, slow = (by_way(compared(str(tmp_path / name), sample, tmp_path)) for name in ("small", "slow"))
    alone, together = ([highest(each["worker"], mini) for each in (small, slow)] for mini in (False, True))
    assert alone[1] < 1000 / 5 * len(os.sched_getaffinity(0)) * 1.1 and alone[1] < alone[0] / 2
    assert together[1] > 2 * alone[1], "mini-batches are recommended"
    assert together[1] / alone[1] > together[0] / alone[0], "and they matter more than for a fast model"
    batches = [each["grpc"]["max_batch_size"] or each["grpc"]["loaded"]["batch"] for each in (small, slow)]
    assert batches[1] >= batches[0] or batches[1] > slow["grpc"]["loaded"]["batch"]
    calls = [each["worker"]["stages_cpu_us"]["call"] for each in (small, slow)]
    assert calls[1] > calls[0]


def test_a_large_model_goes_behind_an_endpoint_where_memory_is_what_is_paid_for(tmp_path: Path) -> None:
    """400 MB of weights, and a load that one worker holds: a copy in it costs more than a server for all of them."""
    sample, prices = save_sample(tmp_path), tmp_path / "prices.json"
    named = {name: {"value": value, "date": "2030-01-01", "source": "test"} for name, value in MEMORY_PRICES.items()}
    prices.write_text(json.dumps({"prices": named}))
    save_function(str(tmp_path / "small"), _loop(1))
    save_large(str(tmp_path / "large"))
    flags = (f"--prices={prices}", "--target_qps=50")
    small, large = (compared(str(tmp_path / name), sample, tmp_path, *flags) for name in ("small", "large"))
    ways = by_way(small), by_way(large)
    copies = [each["worker"]["loaded"]["copy_mb"] for each in ways]
    assert copies[1] - copies[0] > 350
    jobs = [{name: each[name]["peak_mb"] for name in ("worker", "grpc")} for each in ways]
    assert jobs[1]["worker"] - jobs[0]["worker"] > 350 and abs(jobs[1]["grpc"] - jobs[0]["grpc"]) < 100
    assert (small["in_stream"], large["in_stream"] != "worker") == ("worker", True), jobs
