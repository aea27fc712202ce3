"""The model in the worker, behind gRPC and behind REST: throughput, the client's CPU, latency, concurrency.

`python -m benchmarks.serving` runs `sluice serve`, the project's reference server (Python, not TF Serving), on the same
machine as the client, calls the zoo's Criteo model through every backend, each in its own process, and writes
benchmarks/SERVING.md.
"""

import argparse
import concurrent.futures
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from benchmarks.checkouts import MODEL, prepare, source
from benchmarks.header import written_by
from sluice.pipelines.compare.drive import REQUEST_ROWS, Driven, drive
from sluice.pipelines.compare.server import serve
from sluice.pipelines.compare.stream import Load, send

RESULTS = os.path.join(os.path.dirname(__file__), "SERVING.md")
ROWS = 200_000  # of the sample data
SECS, RUNS = 2.0, 3
MODES = {"one row a call": 1, "16 rows": 16, "128 rows": 128, "512 rows": 512, "natural": 0}
THREADS = 12
LIMITS = (1, 2, 4, 6, 8, 12)
SLOW_MS = 20
LATENCY_ROWS, ROWS_PER_SECOND = 300, 50


def open_client(uri: str, **options: Any) -> Any:
    """Returns the scheduler of a model, as a worker has one."""
    from sluice.models.batching.options import SchedulerOptions
    from sluice.models.cache import ModelRecipe, open_scheduler
    from sluice.models.uri import parse_model_uri

    return open_scheduler(ModelRecipe(parse_model_uri(uri), scheduler=SchedulerOptions(**options)))


def batches(rows: int) -> list[Any]:
    """Returns the sample data as RecordBatches of this many rows, with the types of the model's inputs."""
    import pyarrow as pa
    import pyarrow.csv as pa_csv

    from benchmarks.contenders import CATEGORIES, INTEGERS

    types = dict.fromkeys(INTEGERS, pa.int64()) | dict.fromkeys(CATEGORIES, pa.string())
    table = pa_csv.read_csv(
        source(ROWS, "csv"),
        convert_options=pa_csv.ConvertOptions(column_types=types, include_columns=list(types)),
    ).combine_chunks()
    return [batch for batch in table.to_batches(rows) if batch.num_rows == rows]


def throughput(uri: str, max_batch_size: int) -> dict[str, float]:
    """Binds and scores requests for some seconds; returns rows/s and the process's CPU per row."""
    scheduler = open_client(uri, max_batch_size=max_batch_size)
    source = batches(REQUEST_ROWS if max_batch_size != 1 else 64)
    rates, costs, sizes = [], [], []
    for _ in range(RUNS):
        drive(scheduler, source, SECS / 4)
        done = drive(scheduler, source, SECS)
        rates.append(done.rows_per_second)
        costs.append(1e6 * done.cpu_secs / done.rows)
        sizes.append(done.batch)
    scheduler.close()
    return {name: statistics.median(x) for name, x in (("rows_s", rates), ("cpu_us", costs), ("batch", sizes))}


def latency(uri: str) -> dict[str, float]:
    """Sends single rows as `sluice compare` does, through the scheduler and directly in turn; returns medians in ms."""
    scheduler = open_client(uri)
    rows = [scheduler.model.bind(batch).groups[0].feeds for batch in batches(1)[:LATENCY_ROWS]]

    def through(start: int, stop: int, done: Callable[[int, int], None]) -> None:
        scheduler.submit(rows[start % len(rows)]).future.add_done_callback(lambda _: done(start, stop))

    def direct(start: int, stop: int, done: Callable[[int, int], None]) -> None:
        scheduler.model.call(rows[start % len(rows)])
        done(start, stop)

    found: dict[str, list[float]] = {"scheduler_ms": [], "model_ms": []}
    for seed in range(1, 1 + RUNS):
        load = Load(ROWS_PER_SECOND, LATENCY_ROWS // RUNS, mini_batches=False, seed=seed)
        for name, sender in (("scheduler_ms", through), ("model_ms", direct)):
            found[name] += send(load, sender).latencies_ms
    scheduler.close()
    return {name: statistics.median(values) for name, values in found.items()}


def concurrency(uri: str, **options: Any) -> dict[str, float]:
    """Runs twelve threads, each with bundles of one row; returns rows/s, the mean batch, and the limit in flight."""
    scheduler = open_client(uri, **options)
    rows = [scheduler.model.bind(batch).groups[0].feeds for batch in batches(1)[:THREADS]]
    counts = [(0, 0)] * THREADS
    over = threading.Event()

    def work(number: int) -> None:
        done = calls = 0
        while not over.is_set():
            prediction = scheduler.submit(rows[number]).future.result()
            done, calls = done + 1, calls + len(prediction.calls)
            counts[number] = (done, calls)

    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        threads = [pool.submit(work, number) for number in range(THREADS)]
        time.sleep(2 * SECS)  # lets the limit settle
        started, before = time.perf_counter(), list(counts)
        time.sleep(2 * SECS)
        wall, after = time.perf_counter() - started, list(counts)
        limit = scheduler.in_flight_limit
        over.set()
        for thread in threads:
            thread.result()
    scheduler.close()
    rows_, calls = (sum(a[place] - b[place] for a, b in zip(after, before, strict=True)) for place in (0, 1))
    done = Driven(rows_, calls, wall, 0.0)
    return {"rows_s": done.rows_per_second, "batch": done.batch, "limit": limit}


def child(uri: str, slow_uri: str) -> None:
    """Measures one backend; prints the figures as JSON."""
    found: dict[str, Any] = {name: throughput(uri, size) for name, size in MODES.items()}
    found["latency"] = latency(uri)
    found["threads"] = concurrency(uri)
    if slow_uri:
        one = {"max_in_flight": 1, "adapt_in_flight": False}
        found["slow row by row"] = concurrency(slow_uri, max_batch_size=1, **one)
        for limit in LIMITS:
            found[f"slow {limit}"] = concurrency(slow_uri, max_in_flight=limit, adapt_in_flight=False)
        found["slow adapted"] = concurrency(slow_uri)
    print(json.dumps(found))


def measure(uri: str, slow_uri: str = "") -> dict[str, Any]:
    """Measures one backend in a new process."""
    command = [sys.executable, "-m", "benchmarks.serving", "--child", uri, slow_uri]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def report(found: dict[str, dict[str, Any]], secs: float) -> list[str]:
    """Returns the lines of SERVING.md."""
    lines = [
        "# The model in the worker, behind gRPC, behind REST",
        "",
        f"{written_by('serving')}, in {secs:,.0f} s. The zoo's Criteo model (39 inputs). The server is `sluice "
        "serve`, the project's own reference server in Python; it runs on the same cores as the client, so that both "
        f"share what one has alone in the worker. Medians of {RUNS} runs of {SECS:g} s.",
        "",
        "## Rows a second, and the client's own CPU a row",
        "",
        f"Requests of {REQUEST_ROWS} rows (64 for one row a call) from Arrow columns, handed in without end; CPU of "
        "the client process alone, from the columns to the answers (in the worker that is the model's, too).",
        "",
        "| calls | in the worker, rows/s | CPU us/row | gRPC, rows/s | CPU us/row | REST, rows/s | CPU us/row |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name in MODES:
        cells = (f"{each[name]['rows_s']:,.0f} | {each[name]['cpu_us']:.1f}" for each in found.values())
        lines.append(f"| {name} | {' | '.join(cells)} |")
    best = {b: max(each[name]["rows_s"] for name in MODES if MODES[name]) for b, each in found.items()}
    share = ", ".join(f"{each['natural']['rows_s'] / best[b]:.2f} ({b})" for b, each in found.items())
    grpc, local = found["gRPC"], found["in the worker"]
    lines += [
        "",
        f"- Natural batching, told no size, to the best fixed size: {share}; its mean call had "
        + ", ".join(f"{each['natural']['batch']:,.0f}" for each in found.values())
        + " rows.",
        f"- gRPC in batches is {grpc['natural']['rows_s'] / grpc['one row a call']['rows_s']:.0f} times one row a "
        f"call, and {grpc['natural']['rows_s'] / local['natural']['rows_s']:.2f} of the worker's own.",
        "",
        f"## Latency of one row, {ROWS_PER_SECOND} rows a second",
        "",
        "| | through the scheduler, ms | the model itself, ms | added, ms |",
        "|---|---:|---:|---:|",
    ]
    for backend, each in found.items():
        through, direct = each["latency"]["scheduler_ms"], each["latency"]["model_ms"]
        lines.append(f"| {backend} | {through:.2f} | {direct:.2f} | {through - direct:.2f} |")
    lines += [
        "",
        f"## {THREADS} threads, each with one row at a time",
        "",
        "| | rows/s | rows a call |",
        "|---|---:|---:|",
        *(
            f"| {backend} | {each['threads']['rows_s']:,.0f} | {each['threads']['batch']:.1f} |"
            for backend, each in found.items()
        ),
    ]
    return [*lines, *_slow(grpc)]


def _slow(grpc: dict[str, Any]) -> list[str]:
    row, natural, adapted = grpc["slow row by row"], grpc["slow 1"], grpc["slow adapted"]
    best = max(LIMITS, key=lambda limit: grpc[f"slow {limit}"]["rows_s"])
    return [
        "",
        f"The same over gRPC, to a server that takes {SLOW_MS} ms longer a call:",
        "",
        "| calls under way | rows/s | rows a call |",
        "|---|---:|---:|",
        f"| 1, row by row | {row['rows_s']:,.0f} | {row['batch']:.1f} |",
        *(
            f"| {limit}, natural | {grpc[f'slow {limit}']['rows_s']:,.0f} | {grpc[f'slow {limit}']['batch']:.1f} |"
            for limit in LIMITS
        ),
        f"| adapted, natural | {adapted['rows_s']:,.0f} | {adapted['batch']:.1f} |",
        "",
        f"- One call under way: natural batching is {natural['rows_s'] / row['rows_s']:.1f} times row by row, with "
        f"{natural['batch']:.1f} rows a call.",
        f"- The limit that was found by itself ({adapted['limit']} at the end) gives "
        f"{adapted['rows_s'] / grpc[f'slow {best}']['rows_s']:.2f} of the best fixed one ({best}).",
    ]


def main() -> None:
    """Runs all of it and writes SERVING.md."""
    started = time.perf_counter()
    prepare([ROWS], ("csv",))
    model = MODEL
    with serve(model) as server, serve(model, "--latency_ms", str(SLOW_MS)) as slow:
        found = {
            "in the worker": measure(model),
            "gRPC": measure(server.grpc_uri, slow.grpc_uri),
            "REST": measure(server.rest_uri),
        }
    text = "\n".join(report(found, time.perf_counter() - started)) + "\n"
    with open(RESULTS, "w", encoding="utf-8") as file:
        file.write(text)
    print(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(*arguments.child)
    else:
        main()
