"""How long `sluice batch` holds Python's lock for a row, by input format, and in which functions.

`python -m benchmarks.lock` writes benchmarks/LOCK.md; with `--against PATH` another checkout takes turns with this one.

What is measured: py-spy looks from outside, RATE times a second, which thread holds the lock (`py-spy record --gil`);
the looks at which some thread holds it, divided by RATE, are the seconds that it was held. A job reads one file of the
sample, and then several: the difference, over the rows between them, leaves out start-up, planning and the graph. Each
process begins with a loop that keeps the lock for two seconds, and the share of these that py-spy sees is printed: it
has to be near 100 %.

What was not taken: CPU time of threads less that of calls known to be free of the lock needs a list of these calls,
which is never whole. A thread within the process that measures how long it waits for the lock changes what it measures:
each of its waits makes the holder give the lock up.

A thread that holds the lock and waits for a core counts as holding it, so nothing else may run on the machine.
"""

import argparse
import collections
import contextlib
import dataclasses
import os
import signal as signals
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence

from benchmarks.checkouts import DATA, MODEL, ROOT, Checkout, checkouts, prepare, signature, source
from benchmarks.header import written_by

RESULTS = os.path.join(ROOT, "benchmarks", "LOCK.md")
ROWS, FILES = 200_000, 4
FORMATS = ("csv", "parquet", "jsonl", "tfrecord")
_CHILD = os.path.join(ROOT, "benchmarks", "lock_child.py")
_PY_SPY = os.path.join(os.path.dirname(sys.executable), "py-spy")
_WAIT_SECS = 60.0


@dataclasses.dataclass(frozen=True)
class Held:
    """What py-spy saw: by stack, from the outermost function, how often one of its threads held the lock."""

    stacks: collections.Counter[str]
    rate: int

    @property
    def secs(self) -> float:
        return sum(self.stacks.values()) / self.rate

    def __sub__(self, other: "Held") -> "Held":
        left = collections.Counter(self.stacks)
        left.subtract(other.stacks)
        return Held(left, self.rate)

    def by_function(self) -> collections.Counter[str]:
        """Returns the looks by innermost function, without its line."""
        found: collections.Counter[str] = collections.Counter()
        for stack, count in self.stacks.items():
            name, _, place = stack.rpartition(";")[2].rpartition(" (")
            found[f"{name} ({place.rpartition(':')[0]})"] += count
        return found


@dataclasses.dataclass(frozen=True)
class Turn:
    """One process.

    Attributes:
      seen: the share of a loop's lock time that py-spy saw.
      held_us, wall_us: for a row.
    """

    seen: float
    held_us: float
    wall_us: float
    held: Held


def parse(text: str, rate: int) -> Held:
    """Returns what `py-spy record --format raw` has written: a line for each stack, with its count at the end."""
    stacks: collections.Counter[str] = collections.Counter()
    for line in text.splitlines():
        stack, _, count = line.rpartition(" ")
        stacks[stack] += int(count)
    return Held(stacks, rate)


class Child:
    """A process of a checkout that runs `sluice batch` when it is told to."""

    def __init__(self, checkout: Checkout, directory: str) -> None:
        self._directory = directory
        self._process = subprocess.Popen(
            [checkout.python, _CHILD],
            env=checkout.environment,
            cwd=directory,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=open(os.path.join(directory, "stderr"), "w"),  # noqa: SIM115  it lives as long as the process
            text=True,
        )

    def ask(self, *words: str) -> float:
        """Returns the seconds that the work took."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write("\t".join(words) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            with open(os.path.join(self._directory, "stderr")) as file:
                raise RuntimeError(f"the process ended: {file.read()[-2000:]}")
        return float(answer)

    def watch(self, rate: int, *words: str) -> tuple[Held, float]:
        """Returns what py-spy sees while the work is done, and the seconds that it took."""
        output = os.path.join(self._directory, "stacks")
        spy = subprocess.Popen(
            [
                *(_PY_SPY, "record", "--gil", "--nonblocking", "--format=raw", "--duration=3600"),
                *(f"--rate={rate}", f"--output={output}", f"--pid={self._process.pid}"),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert spy.stdout
        first = spy.stdout.readline()  # it prints one when it has found the process's interpreter
        if "Sampling" not in first:
            raise RuntimeError(f"py-spy does not start: {first}{spy.communicate()[0]}")
        secs = self.ask(*words)
        spy.send_signal(signals.SIGINT)
        spy.communicate(timeout=_WAIT_SECS)
        with open(output) as file:
            return parse(file.read(), rate), secs

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


@contextlib.contextmanager
def child(checkout: Checkout) -> Iterator[Child]:
    """Starts a process, and ends it after the block."""
    with tempfile.TemporaryDirectory() as directory:
        running = Child(checkout, directory)
        try:
            yield running
        finally:
            running.end()


def measure(checkout: Checkout, format_: str, rate: int) -> Turn:
    """Runs a new process of a checkout on one file and on several of a format."""
    with child(checkout) as process, tempfile.TemporaryDirectory() as directory:
        flags = [f"--model={MODEL}", f"--output={directory}/out.{format_}", "--overwrite", "--progress=none"]
        flags += [f"--signature={signature(format_)}"]
        process.ask("batch", *flags, f"--input={source(2, format_)}")  # imports, and loads the model
        (spun, spun_secs) = process.watch(rate, "spin")
        one, one_secs = process.watch(rate, "batch", *flags, f"--input={_links(format_, 1)}")
        several, several_secs = process.watch(rate, "batch", *flags, f"--input={_links(format_, 1 + FILES)}")
    held = several - one
    rows = FILES * ROWS
    return Turn(spun.secs / spun_secs, 1e6 * held.secs / rows, 1e6 * (several_secs - one_secs) / rows, held)


def _links(format_: str, count: int) -> str:
    """Returns a glob of so many names of the sample."""
    directory = os.path.join(DATA, f"links-{count}")
    os.makedirs(directory, exist_ok=True)
    for number in range(count):
        with contextlib.suppress(FileExistsError):
            os.link(source(ROWS, format_), os.path.join(directory, f"criteo-{number}.{format_}"))
    return os.path.join(directory, f"criteo-*.{format_}")


def table(found: dict[tuple[str, str], list[Turn]], names: Sequence[str], formats: Sequence[str]) -> list[str]:
    """Returns lines of Markdown: for each format, the lock time of a row at each checkout (median, least to most)."""
    lines = [
        f"| input | {' | '.join(f'{name}, us of lock a row' for name in names)} | share of the other's |",
        "|---|" + "---:|" * (len(names) + 1),
    ]
    for format_ in formats:
        turns = [[turn.held_us for turn in found[format_, name]] for name in names]
        cells = [f"{statistics.median(each):.2f} ({min(each):.2f} to {max(each):.2f})" for each in turns]
        share = f"{statistics.median(turns[0]) / statistics.median(turns[-1]):.2f}" if len(names) > 1 else ""
        lines.append(f"| {format_} | {' | '.join(cells)} | {share} |")
    return lines


def functions(turns: Sequence[Turn], count: int) -> list[str]:
    """Returns lines of text: the functions that hold the lock longest, with microseconds for a row."""
    looks: collections.Counter[str] = collections.Counter()
    for turn in turns:
        looks.update(turn.held.by_function())
    scale = 1e6 / turns[0].held.rate / len(turns) / (FILES * ROWS)
    return [f"  {scale * number:6.3f} us  {name}" for name, number in looks.most_common(count)]


def main() -> None:
    """Measures, prints the tables, and writes LOCK.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", help="another checkout to compare with, in turns")
    parser.add_argument("--formats", default=",".join(FORMATS), help="input formats, separated by commas")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--rate", type=int, default=250, help="looks a second")
    parser.add_argument("--functions", type=int, default=12, help="how many functions to show for each format")
    arguments = parser.parse_args()
    started, formats = time.perf_counter(), arguments.formats.split(",")
    prepare((2, ROWS), tuple(formats))
    sides = checkouts(arguments.against)
    found: dict[tuple[str, str], list[Turn]] = collections.defaultdict(list)
    for number in range(arguments.turns):
        for format_ in formats:
            for side in sides if number % 2 == 0 else sides[::-1]:
                turn = measure(side, format_, arguments.rate)
                found[format_, side.name].append(turn)
                print(
                    f"{format_:9} {side.name:14} lock {turn.held_us:6.2f} us a row, wall {turn.wall_us:6.2f} us; "
                    f"py-spy saw {turn.seen:.0%} of a loop",
                    flush=True,
                )
    lines = [
        "# How long a row holds Python's lock",
        "",
        f"{written_by('lock')}, in {time.perf_counter() - started:,.0f} s. Medians of {arguments.turns} turns, with "
        "the least and the most: what py-spy sees of a job of many rows more.",
        "",
        *table(found, [side.name for side in sides], formats),
    ]
    for format_ in formats:
        seen = functions(found[format_, sides[0].name], arguments.functions)
        lines += ["", f"The functions of {format_} that hold it longest, in this checkout:", "", "```", *seen, "```"]
    text = "\n".join(lines) + "\n"
    print(f"\n{text}")
    with open(RESULTS, "w", encoding="utf-8") as file:
        file.write(text)


if __name__ == "__main__":
    main()
