"""Batch inference side by side: Sluice, Beam's RunInference, tfx_bsl's RunInference, and a loop without Beam.

`python -m benchmarks.batch` measures whole processes, from their start to their exit, imports included, and writes
benchmarks/RESULTS.md: some 20 minutes on two cores. No round begins after --minutes (30), so it ends in 40 at most.
With `--against PATH` another checkout of Sluice takes part. `--quick` is CSV without tfx_bsl up to 200,000 rows, in
some 4 minutes; it prints the tables and writes no file, as `--only NAME` does, which measures the contenders whose
names begin so, and Sluice.

All contenders run once at each size, one after the other, and then again, in the opposite order. Each figure is the
median of the rounds, with the least and the most. A row's cost is the difference of two sizes within a round, so
start-up is no part of it. Nothing else may run on the machine.
"""

import argparse
import collections
import dataclasses
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from benchmarks.checkouts import COMMAND, MODEL, ROOT, Checkout, checkouts, prepare, signature, source
from benchmarks.header import written_by
from sluice.pipelines.compare.costs import Cost, ProcessFailed, run_measured

RESULTS = os.path.join(ROOT, "benchmarks", "RESULTS.md")
SIZES, QUICK_SIZES = (2, 200_000, 1_000_000), (2, 200_000)
TFX_BSL = "tfx_bsl RunInference"
# tfx_bsl takes minutes where the others take seconds: its cost of a row is measured with fewer.
_FEWER = {TFX_BSL: (2, 20_000)}
REPORTED = "Sluice, --report_file"
TITLES = {"csv": "CSV in, CSV out", "tfrecord": "tf.Example in, tf.Example out"}
ROUNDS = 3

# Returns the command for (source, prefix of the output).
MakeCommand = Callable[[str, str], list[str]]


@dataclasses.dataclass(frozen=True)
class Contender:
    """One way to do the job.

    Attributes:
      environment, directory: of its processes; Python imports what is in the directory first.
      sizes: the numbers of rows that it gets.
    """

    name: str
    command: MakeCommand
    environment: Mapping[str, str]
    directory: str
    sizes: tuple[int, ...]


# By contender and rows: the costs of each round.
Costs = Mapping[tuple[str, int], list[Cost]]


def contenders(format_: str, sides: Sequence[Checkout], sizes: tuple[int, ...], quick: bool) -> list[Contender]:
    """Returns the ways to do the job with files of a format; the first is this checkout's Sluice."""
    from benchmarks.contenders import CONTENDERS

    found = []
    for side in sides:
        name = "Sluice" if side == sides[0] else f"Sluice of {side.name}"
        found.append(Contender(name, _sluice(side, format_), side.environment, side.path, sizes))
    if format_ == "csv" and not quick:
        found.append(dataclasses.replace(found[0], name=REPORTED, command=_reported(found[0].command)))
    for name in CONTENDERS[format_]:
        if name != "Sluice" and not (quick and name == TFX_BSL):
            fewer = tuple(size for size in _FEWER.get(name, sizes) if quick is False or size in sizes)
            found.append(Contender(name, _other(format_, name), sides[0].environment, ROOT, fewer))
    return found


def named(found: Sequence[Contender], start: str) -> list[Contender]:
    """Returns the first contender, and of the others those whose names begin so."""
    return [found[0], *(each for each in found[1:] if each.name.startswith(start))]


def _sluice(side: Checkout, format_: str) -> MakeCommand:
    flags = ["batch", f"--model={MODEL}", f"--signature={signature(format_)}", "--overwrite", "--progress=none"]
    return lambda source, prefix: [
        *(side.python, "-c", COMMAND, *flags, f"--input={source}", f"--output={prefix}.{format_}")
    ]


def _reported(command: MakeCommand) -> MakeCommand:
    return lambda source, prefix: [*command(source, prefix), f"--report_file={os.path.dirname(prefix)}/report.html"]


def _other(format_: str, name: str) -> MakeCommand:
    run = [sys.executable, "-m", "benchmarks.contenders", format_, name]
    return lambda source, prefix: [*run, source, MODEL, prefix]


def run(contender: Contender, format_: str, rows: int) -> Cost:
    """Runs a process to its exit; returns its cost, and checks that it has written all rows.

    Raises:
      RuntimeError: it failed, or has written other rows.
    """
    from benchmarks.contenders import count_rows

    with tempfile.TemporaryDirectory() as directory:
        prefix = os.path.join(directory, "out")
        command = contender.command(source(rows, format_), prefix)
        try:
            cost = run_measured(command, contender.environment, contender.directory)
        except ProcessFailed as error:
            raise RuntimeError(f"{contender.name} on {format_} {error}") from error
        written = count_rows(prefix)
        if written != rows:
            raise RuntimeError(f"{contender.name} wrote {written} of {rows} rows of {format_}")
        return cost


def rounds(sets: Mapping[str, Sequence[Contender]], count: int, minutes: float) -> dict[str, Costs]:
    """Runs all contenders, by format, in rounds; returns their costs. Stops early when the minutes are over."""
    ends = time.perf_counter() + 60 * minutes
    found: dict[str, dict[tuple[str, int], list[Cost]]] = {each: collections.defaultdict(list) for each in sets}
    for number in range(count):
        if number and time.perf_counter() > ends:
            print(f"The minutes are over: {number} rounds of {count}", flush=True)
            break
        for format_, rows, contender in _in_turn(sets, backwards=bool(number % 2)):
            cost = run(contender, format_, rows)
            found[format_][contender.name, rows].append(cost)
            print(
                f"{number + 1} {format_:9} {rows:9,} rows {contender.name:32} {cost.secs:7.2f} s, "
                f"{cost.cpu_secs:7.2f} s of CPU, {cost.peak_mb:5,.0f} MB",
                flush=True,
            )
    return dict(found)


def _in_turn(sets: Mapping[str, Sequence[Contender]], backwards: bool) -> Iterator[tuple[str, int, Contender]]:
    for format_, each in sets.items():
        for rows in sorted({size for contender in each for size in contender.sizes}):
            for contender in reversed(each) if backwards else each:
                if rows in contender.sizes:
                    yield format_, rows, contender


def table(costs: Costs, sizes: tuple[int, ...]) -> list[str]:
    """Returns the lines of a Markdown table: one for each contender, in the order of `costs`."""
    heads = [*(f"{rows:,} rows, s" for rows in sizes), f"rows/s at {sizes[-1]:,}"]
    lines = [
        f"| from start to exit | {' | '.join(heads)} | a row more, us | its CPU, us | peak, MB |",
        "|---|" + "---:|" * (len(sizes) + 4),
    ]
    for name in dict.fromkeys(name for name, _ in costs):
        small, *_, large = sorted(rows for other, rows in costs if other == name)
        few = [rows for rows in (200_000,) if small < rows < large and (name, rows) in costs]
        base = few[0] if few else small
        pairs = list(zip(costs[name, base], costs[name, large], strict=False))
        wall = [1e6 * (much.secs - less.secs) / (large - base) for less, much in pairs]
        cpu = [1e6 * (much.cpu_secs - less.cpu_secs) / (large - base) for less, much in pairs]
        peak = max(cost.peak_mb for cost in costs[name, large])
        cells = [_secs(costs.get((name, rows))) for rows in sizes]
        cells.append(f"{large / _median(costs[name, large]):,.0f}" if large == sizes[-1] else "")
        note = "" if large == sizes[-1] else f" (to {large:,} rows)"
        lines.append(f"| {name}{note} | {' | '.join(cells)} | {_spread(wall)} | {_spread(cpu)} | {peak:,.0f} |")
    return lines


def _median(costs: Sequence[Cost]) -> float:
    return statistics.median(cost.secs for cost in costs)


def _secs(costs: Sequence[Cost] | None) -> str:
    return _spread([cost.secs for cost in costs]) if costs else ""


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def comparisons(costs: Costs, sizes: tuple[int, ...]) -> list[str]:
    """Returns lines that compare the first contender with each other one at each size that both have."""
    first, *others = dict.fromkeys(name for name, _ in costs)
    lines = []
    for name in others:
        shares = [
            f"{_median(costs[name, rows]) / _median(costs[first, rows]):.1f} times at {rows:,} rows"
            for rows in sizes
            if (name, rows) in costs
        ]
        lines.append(f"- {name} takes as long as {first} {', '.join(shares)}.")
    return lines


def report(found: Mapping[str, Costs], sizes: tuple[int, ...], secs: float) -> list[str]:
    """Returns the lines of RESULTS.md."""
    count = min(len(costs) for each in found.values() for costs in each.values())
    lines = [
        "# Batch inference, side by side",
        "",
        f"{written_by('batch')}: whole processes from their start to their exit, imports included. The zoo's Criteo "
        f"model, wide & deep; files on local disk; medians of {count} rounds, in which the contenders alternate, with "
        "the least and the most. `a "
        "row more` is the difference of two sizes within a round.",
        "",
        "Sluice carries CSV lines and tf.Examples as they stand in the source and adds the score to them; the row "
        "`columns written anew` writes every column again, as the loop does. RunInference gets batches of 4,096 rows "
        "and the same TensorFlow callable as the loop; tfx_bsl has its own batching and writes PredictionLogs.",
    ]
    for format_, costs in found.items():
        lines += ["", f"## {TITLES[format_]}", "", *table(costs, sizes), "", *comparisons(costs, sizes)]
    return [*lines, "", f"The whole benchmark took {secs:,.0f} s."]


def main() -> None:
    """Runs all of it, prints the tables, and writes RESULTS.md unless only a part was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", help="another checkout of Sluice, which takes part")
    parser.add_argument("--quick", action="store_true", help="CSV, up to 200,000 rows, without tfx_bsl; no file")
    parser.add_argument("--only", default="", metavar="NAME", help="Sluice, and those with names like it; CSV, no file")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--minutes", type=float, default=30, help="no round begins after so many")
    arguments = parser.parse_args()
    started = time.perf_counter()
    partly = arguments.quick or bool(arguments.only)
    sizes = QUICK_SIZES if arguments.quick else SIZES
    formats = ("csv",) if partly else tuple(TITLES)
    prepare(sorted({*sizes, *(size for each in _FEWER.values() for size in each)}), formats)
    sides = checkouts(arguments.against)
    sets = {each: named(contenders(each, sides, sizes, arguments.quick), arguments.only) for each in formats}
    found = rounds(sets, arguments.rounds, arguments.minutes)
    lines = report(found, sizes, time.perf_counter() - started)
    print("\n".join(["", *lines]))
    if not partly:
        with open(RESULTS, "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
