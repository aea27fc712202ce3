"""Batch inference side by side: Sluice, Beam's RunInference, tfx_bsl's RunInference, and a loop without Beam.

`python -m benchmarks.batch` makes the data, runs every contender on the same files at two sizes, each in its own
process with Beam and TensorFlow already imported, and writes benchmarks/RESULTS.md. Two sizes separate a run's fixed
cost (graph, model) from the marginal cost of a row.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from typing import Any

DATA = os.path.join(os.path.dirname(__file__), "data")
RESULTS = os.path.join(os.path.dirname(__file__), "RESULTS.md")
SMALL, LARGE, HUGE = 50_000, 200_000, 2_000_000
RUNS = 3
# tfx_bsl takes minutes where the others take seconds. It gets fewer rows; its cost per row gives the rest.
_SLOW = {"tfx_bsl RunInference": 10}


def prepare() -> str:
    """Makes the model and the files unless they exist; returns the model's directory."""
    from sluice.models import zoo
    from sluice.models.zoo.export import export_model
    from sluice.models.zoo.sample import write_samples

    model = os.path.join(DATA, "model")
    criteo = zoo.get("criteo")
    if not os.path.exists(os.path.join(model, "1", "saved_model.pb")):
        export_model(criteo, model)
    sizes = {size // share for size in (SMALL, LARGE) for share in (1, *_SLOW.values())}
    wanted = [(size, ("csv", "tfrecord")) for size in sorted(sizes)] + [(HUGE, ("csv",))]
    for rows, formats in wanted:
        directory = os.path.join(DATA, str(rows))
        if not os.path.isdir(directory):
            os.makedirs(f"{directory}.partial", exist_ok=True)
            write_samples(criteo, f"{directory}.partial", rows, formats)
            os.rename(f"{directory}.partial", directory)
    return model


def measure(contender: str, format_: str, sizes: list[int], runs: int) -> dict[str, Any]:
    """Runs one contender in a new process; returns its seconds by size, and the process's peak memory."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.batch",
        "--child",
        contender,
        format_,
        ",".join(map(str, sizes)),
        str(runs),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{contender} on {format_} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def child(contender: str, format_: str, sizes: list[int], runs: int) -> None:
    """Runs one contender `runs` times at each size, in turn; prints what `measure` returns."""
    import resource

    import apache_beam  # noqa: F401  imports are not what is measured

    from benchmarks.contenders import CONTENDERS, clear, count_rows
    from sluice.models.saved_model.tensorflow_import import tensorflow

    tensorflow()
    run = CONTENDERS[format_][contender]
    model, prefix = os.path.join(DATA, "model"), os.path.join(DATA, f"out-{format_}")
    seconds: dict[int, list[float]] = {size: [] for size in sizes}
    for attempt in range(runs + 1):  # the first round warms caches and is not counted
        for size in sizes if attempt else sizes[:1]:
            clear(prefix)
            source = os.path.join(DATA, str(size), f"criteo.{format_}")
            started = time.perf_counter()
            run(source, model, prefix)
            if attempt:
                seconds[size].append(time.perf_counter() - started)
            written = count_rows(prefix)
            if written != size:
                raise RuntimeError(f"{contender} wrote {written} of {size} rows")
    clear(prefix)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "peak_mb": peak}))


def row_of(contender: str, format_: str) -> dict[str, float]:
    """Returns a contender's figures: rows/s of a run at the large size, and microseconds per row between the sizes."""
    share = _SLOW.get(contender, 1)
    small, large = SMALL // share, LARGE // share
    found = measure(contender, format_, [small, large], RUNS)["seconds"]
    low, high = (statistics.median(found[str(size)]) for size in (small, large))
    marginal = (high - low) / (large - small)
    whole = high + marginal * (LARGE - large)  # what LARGE would take a contender with fewer rows
    return {"rows_per_second": LARGE / whole, "marginal_us": 1e6 * marginal, "rows": large}


def table(format_: str, names: list[str]) -> list[str]:
    """Measures every contender on one format; returns the lines of a Markdown table."""
    figures = {}
    for name in names:
        figures[name] = row_of(name, format_)
        print(f"{format_:9} {name:28} {figures[name]}", flush=True)
    ours = figures["Sluice"]
    lines = [
        "| | whole run, rows/s | Sluice is | marginal cost of a row, us | Sluice's is |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, each in figures.items():
        faster = ours["rows_per_second"] / each["rows_per_second"]
        cheaper = each["marginal_us"] / ours["marginal_us"]
        note = "" if each["rows"] == LARGE else f" (measured to {each['rows']:,} rows)"
        lines.append(
            f"| {name}{note} | {each['rows_per_second']:,.0f} | {faster:.1f} x as fast | {each['marginal_us']:.1f} | "
            f"{cheaper:.1f} x cheaper |"
        )
    return lines


def memory() -> list[str]:
    """Measures Sluice's peak memory at two sizes; returns lines of Markdown."""
    small = measure("Sluice", "csv", [LARGE], 1)["peak_mb"]
    large = measure("Sluice", "csv", [HUGE], 1)["peak_mb"]
    return [
        f"Peak memory of the Sluice process: {small:,.0f} MB at {LARGE:,} rows, {large:,.0f} MB at {HUGE:,} rows, "
        f"a ratio of {large / small:.2f}."
    ]


def main() -> None:
    """Runs all of it and writes RESULTS.md."""
    from benchmarks.contenders import CONTENDERS

    started = time.perf_counter()
    prepare()
    cores = len(os.sched_getaffinity(0))
    lines = [
        "# Batch inference, side by side",
        "",
        f"Written by `make bench` (`python -m benchmarks.batch`) on {cores} cores, Python {platform.python_version()}. "
        f"The zoo's Criteo model, wide & deep; files on local disk; medians of {RUNS} runs; runs of {LARGE:,} rows, "
        f"marginal cost between {SMALL:,} and {LARGE:,} rows. Imports are not counted, loading the model is.",
        "",
        "Sluice carries CSV lines and tf.Examples as they stand in the source and adds the score to them; the row "
        "`columns written anew` writes every column again, as the loop does. RunInference gets batches of 4,096 rows "
        "and the same TensorFlow callable as everybody; tfx_bsl has its own batching, writes PredictionLogs, and gets "
        "a tenth of the rows: its whole run is reckoned up from them.",
    ]
    for format_, title in (("csv", "CSV in, CSV out"), ("tfrecord", "tf.Example in, tf.Example out")):
        lines += ["", f"## {title}", "", *table(format_, list(CONTENDERS[format_]))]
    lines += ["", "## Memory", "", *memory()]
    lines += ["", f"The whole benchmark took {time.perf_counter() - started:,.0f} s."]
    with open(RESULTS, "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        name, kind, rows, times = arguments.child
        child(name, kind, [int(size) for size in rows.split(",")], int(times))
    else:
        main()
