"""`python -m tests.support.loadgen LOAD REPEATS FLAGS`: latency beside MLPerf's load generator, in one process.

LOAD is that of pipelines.compare.stream as JSON, FLAGS are those of `sluice batch`. The two take turns over one open
model: what slows the machine for a while slows both. Prints {"ours": [[ms, ...], ...], "theirs": [[p50, p99], ...]}.
"""

import dataclasses
import functools
import json
import queue
import re
import sys
import tempfile
import threading
from pathlib import Path

from sluice.pipelines.compare.probe import parse_job
from sluice.pipelines.compare.senders import RowSender
from sluice.pipelines.compare.stream import Load
from sluice.pipelines.compare.subject import Point, Subject
from sluice.pipelines.end import end_process

# Messages before anything is measured: first calls of one row make what later ones find.
_WARM_UP = 200
_PERCENTILES = (50, 99)


def run_loadgen(sender: RowSender, rows: int, load: Load) -> list[float]:
    """Sends a load as MLPerf's load generator does, in its Server scenario; returns its p50 and p99 in ms."""
    import mlperf_loadgen as lg  # of the extra `bench`, for this alone

    waiting: queue.SimpleQueue[int | None] = queue.SimpleQueue()

    def issue(samples: list[lg.QuerySample]) -> None:
        for sample in samples:
            waiting.put(sample.id)

    def answer(identities: list[int], first: int, start: int, stop: int) -> None:
        answered = identities[start - first : stop - first]
        lg.QuerySamplesComplete([lg.QuerySampleResponse(identity, 0, 0) for identity in answered])

    def work() -> None:
        sent = 0
        while identities := _take(waiting, load.mini_batches):
            stop = sent + len(identities)
            sender(sent, stop, functools.partial(answer, identities, sent))
            sent = stop

    worker = threading.Thread(target=work)
    worker.start()
    settings = lg.TestSettings()
    settings.scenario, settings.mode = lg.TestScenario.Server, lg.TestMode.PerformanceOnly
    settings.server_target_qps = load.rate
    settings.server_target_latency_ns = 10**9
    settings.server_target_latency_percentile = 0.99
    settings.min_query_count = settings.max_query_count = load.queries
    settings.min_duration_ms = 0
    settings.schedule_rng_seed = load.seed
    sut, qsl = lg.ConstructSUT(issue, lambda: None), lg.ConstructQSL(rows, rows, lambda _: None, lambda _: None)
    with tempfile.TemporaryDirectory() as directory:
        log = lg.LogSettings()
        log.log_output = lg.LogOutputSettings()
        log.log_output.outdir = directory
        lg.StartTestWithLogSettings(sut, qsl, settings, log)
        text = Path(directory, "mlperf_log_summary.txt").read_text()
    waiting.put(None)
    worker.join()
    lg.DestroyQSL(qsl)
    lg.DestroySUT(sut)
    if sender.error:
        raise sender.error
    return [_percentile(text, share) for share in _PERCENTILES]


def _take(waiting: "queue.SimpleQueue[int | None]", all_of_them: bool) -> list[int]:
    """Waits for a message; returns it, or all that wait, as a stream takes them; none at the end."""
    taken: list[int] = []
    while not taken or (all_of_them and not waiting.empty()):
        identity = waiting.get()
        if identity is None:
            break
        taken.append(identity)
    return taken


def _percentile(summary: str, share: int) -> float:
    found = re.search(rf"^{share}\.00 percentile latency \(ns\)\s*:\s*(\d+)", summary, re.MULTILINE)
    if found is None:
        raise ValueError(f"no percentile {share} in {summary}")
    return int(found[1]) / 1e6


def main() -> int:
    """Runs the two in turn, each first as often as second; returns the exit code."""
    load, repeats = Load(**json.loads(sys.argv[1])), int(sys.argv[2])
    subject = Subject(parse_job(sys.argv[3:]))
    subject.latency(dataclasses.replace(load, queries=_WARM_UP), Point())
    ours, theirs = [], []
    for seed in range(1, 1 + repeats):
        each = dataclasses.replace(load, seed=seed)
        turns = [
            lambda each=each: ours.append(subject.latency(each, Point()).latencies_ms),
            lambda each=each: theirs.append(run_loadgen(subject.sender(each, Point()), subject.rows.num_rows, each)),
        ]
        for turn in turns[:: 1 if seed % 2 else -1]:
            turn()
    subject.close()
    print(json.dumps({"ours": ours, "theirs": theirs}), flush=True)
    return 0


if __name__ == "__main__":
    end_process(main())
