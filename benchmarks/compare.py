"""`sluice compare` on the models of the zoo: what it recommends, and whether it measures what benchmarks/batch.py does.

`python -m benchmarks.compare` takes --minutes (4) for each of three models, and writes benchmarks/COMPARE.md.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import batch
from benchmarks.checkouts import ROOT, checkouts, prepare
from benchmarks.header import written_by
from sluice.models import zoo
from sluice.models.zoo.export import export_model
from sluice.models.zoo.sample import write_samples
from sluice.pipelines.compare.spread import Spread

RESULTS = os.path.join(ROOT, "benchmarks", "COMPARE.md")
FORMATS = {"criteo": "csv", "natality": "csv", "mnist": "jsonl"}
SAMPLE_ROWS = 20_000
SMALL, LARGE, ROUNDS = 200_000, 1_000_000, 3

Figures = Mapping[str, Any]


def compare(name: str, directory: str, minutes: float) -> Figures:
    """Returns the figures that `sluice compare` finds for a model of the zoo."""
    model, summary = zoo.get(name), os.path.join(directory, "summary.json")
    export_model(model, os.path.join(directory, "model"))
    (sample,) = write_samples(model, directory, SAMPLE_ROWS, (FORMATS[name],))
    flags = [f"--model={directory}/model", f"--input={sample}", f"--minutes={minutes:g}", f"--summary_file={summary}"]
    subprocess.run([sys.executable, "-m", "sluice", "compare", "--progress=none", *flags], cwd=ROOT, check=True)
    found: Figures = json.loads(Path(summary).read_text())
    return found


def batch_marginal_us(rounds: int) -> list[float]:
    """Returns microseconds of a row more of Criteo's CSV, as benchmarks/batch.py measures it."""
    prepare((SMALL, LARGE), ("csv",))
    sluice = batch.contenders("csv", checkouts(None), (SMALL, LARGE), quick=True)[0]
    pairs = [(batch.run(sluice, "csv", SMALL), batch.run(sluice, "csv", LARGE)) for _ in range(rounds)]
    return [1e6 * (much.secs - less.secs) / (LARGE - SMALL) for less, much in pairs]


def table(found: Figures) -> list[str]:
    """Returns a table of the ways, the fastest first."""
    head = ("", "way", "rows/s", "a row more, us", f"{found['currency']} a million rows", "messages/s", "one a call")
    lines = [f"| {' | '.join(head)} |", "|---|---|" + "---:|" * (len(head) - 2)]
    for way in found["ways"]:
        cells = (
            "" if way["rank"] is None else f"{way['rank']}{'=' if way['tied'] else ''}",
            way["way"],
            _spread(way["rows_per_second"], 0),
            _spread(way["marginal_us"], 2),
            "" if way["cost_per_million_rows"] is None else f"{way['cost_per_million_rows']:.3g}",
            *(_highest(way["streams"], mini_batches) for mini_batches in (True, False)),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _spread(values: Sequence[float] | None, digits: int) -> str:
    if not values:
        return ""
    return f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def _highest(streams: Sequence[Figures], mini_batches: bool) -> str:
    """The highest rate at which all messages were answered in time."""
    rates = [
        each["load"]["rate"] for each in streams if each["load"]["mini_batches"] is mini_batches and each["complete"]
    ]
    return f"{max(rates):,.0f}" if rates else ""


def agreement(found: Figures, other_us: Sequence[float]) -> str:
    """Returns a sentence on whether the worker's rows cost what benchmarks/batch.py says."""
    (worker,) = (way for way in found["ways"] if way["way"] == "worker")
    ours, other = Spread(tuple(worker["marginal_us"])), Spread(tuple(other_us))
    verdict = "the two overlap" if ours.overlaps(other) else "**the two do not overlap**"
    return (
        f"A row more in the worker takes {_spread(ours.values, 2)} us here, and {_spread(other.values, 2)} us in "
        f"`benchmarks/batch.py`, measured right after it: {verdict}."
    )


def report(found: Mapping[str, Figures], other_us: Sequence[float], secs: float) -> list[str]:
    """Returns the lines of COMPARE.md."""
    lines = [
        "# What `sluice compare` says of the zoo's models",
        "",
        f"{written_by('compare')}, in {secs:,.0f} s. The endpoint is the reference server in Python, on the same "
        "cores. `messages/s` and `one a call` are the highest rates that were answered in time, with mini-batches and "
        "with one message a call.",
    ]
    for name, each in found.items():
        lines += ["", f"## {name}", "", *table(each), ""]
        lines += [f"- Recommended: at rest {each['at_rest']}, in a stream {each['in_stream']}."]
        lines += [f"- {claim['text']}: {claim['verdict']} ({claim['reason']})." for claim in each["claims"]]
        if name == "criteo":
            lines += ["", agreement(each, other_us)]
    return lines


def main() -> None:
    """Runs all of it, and writes COMPARE.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=4.0, help="of each model")
    arguments = parser.parse_args()
    started = time.perf_counter()
    found = {}
    for name in FORMATS:
        with tempfile.TemporaryDirectory() as directory:
            found[name] = compare(name, directory, arguments.minutes)
        if name == "criteo":
            other_us = batch_marginal_us(ROUNDS)
    text = "\n".join(report(found, other_us, time.perf_counter() - started)) + "\n"
    with open(RESULTS, "w", encoding="utf-8") as file:
        file.write(text)
    print(text)


if __name__ == "__main__":
    main()
