"""Reading and writing BigQuery: Sluice beside Beam's own transforms, on one emulator.

`python -m benchmarks.bigquery` starts the emulator, lets each contender, in its own process, read or write the same
rows by turns, and writes benchmarks/BIGQUERY.md. `--smoke` only checks that all of it works.

The emulator is slower than most of its clients, and shares the machine with them. So the first comparison is the CPU
time of the client's process.
"""

import argparse
import dataclasses
import importlib.metadata
import os
import signal
import statistics
import sys
import time
import uuid
from contextlib import closing

from benchmarks import bigquery_read, bigquery_write
from benchmarks.bigquery_jobs import Cost, Measured, Order, by_turns
from benchmarks.bigquery_read import SLUICE as READ
from benchmarks.bigquery_write import BATCH, BEAM, BEAM_UNSIZED, INSERT_ALL, STREAM
from benchmarks.header import written_by
from tests.support.bigquery.cases import load, make_births
from tests.support.bigquery.proxy import BigQueryProxy
from tests.support.servers import BigQuery, bigquery_clients_use, bigquery_emulator

RESULTS = os.path.join(os.path.dirname(__file__), "BIGQUERY.md")
# The emulator sends 100,000 rows in one answer, uncompressed. BigQuery sends some thousands, compressed by LZ4 where
# they are Arrow and the client asks for it, as both clients do.
ROWS_PER_ANSWER, COMPRESSION = 4_000, "lz4"


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
      read, write: rows of a small and of a large job; see `bigquery_jobs.Contender.scale`.
      read_runs, write_runs: turns; fewer for writes, at which the emulator is slow.
    """

    read: tuple[int, int] = (20_000, 200_000)
    write: tuple[int, int] = (2_000, 12_000)
    read_runs: int = 5
    write_runs: int = 3


SMOKE = Sizes((1_000, 5_000), (2_000, 4_000), 1, 1)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def read(server: BigQuery, sizes: Sizes) -> dict[str, Measured]:
    """Measures reading, through a proxy that cuts and compresses answers as BigQuery does."""
    contenders = bigquery_read.CONTENDERS.values()
    every = {sizes.read[0], *(sizes.read[1] * each.scale for each in contenders)}
    tables = {rows: load(server, make_births(rows)) for rows in sorted(every)}

    def do(order: Order, rows: int) -> Cost:
        return order(tables[rows], rows)

    with closing(BigQueryProxy(server)) as proxy, bigquery_clients_use(BigQuery(server.url, proxy.url)):
        proxy.rows_per_answer, proxy.compression = ROWS_PER_ANSWER, COMPRESSION
        return by_turns(bigquery_read.__name__, sizes.read, sizes.read_runs, do, say)


def write(server: BigQuery, sizes: Sizes) -> dict[str, Measured]:
    """Measures writing; every job writes its own table, which is checked afterwards."""
    dataset = server.make_dataset()

    def do(order: Order, rows: int) -> Cost:
        table = f"{dataset}.t{uuid.uuid4().hex}"
        cost = order(table, rows)
        bigquery_write.check_table(server.client, table, rows)
        server.client.delete_table(table)
        return cost

    with bigquery_clients_use(server):
        return by_turns(bigquery_write.__name__, sizes.write, sizes.write_runs, do, say)


def report(reading: dict[str, Measured], writing: dict[str, Measured], secs: float) -> list[str]:
    """Returns the lines of BIGQUERY.md."""
    read_runs, write_runs = (len(found[first].cpu_us) for found, first in ((reading, READ), (writing, BATCH)))
    return [
        "# Reading and writing BigQuery, beside Beam's own",
        "",
        f"{written_by('bigquery')}, Beam {importlib.metadata.version('apache-beam')}, in {secs:,.0f} s. All read "
        "from and write to one emulator of BigQuery, which runs on the same cores and is slower than most of its "
        "clients. So the figure to look at is the CPU time of the client's process alone, user and system; the wall "
        "time is the emulator's as well.",
        "",
        "Both are what one more row costs: the time of a large job less that of a small one, by the rows that it has "
        "more, so that starting up does not count. Each contender has a process of its own, on FnApiRunner; they take "
        f"turns. Medians of {read_runs} turns of reading and {write_runs} of writing, and in brackets the least and "
        "the most.",
        "",
        "## Reading a table",
        "",
        "All columns of natality's rows: a dict each from Beam, RecordBatches from Sluice. A job counts the rows and "
        "adds up their ids, and fails if any is missing. Answers in Arrow are of "
        f"{ROWS_PER_ANSWER:,} rows, compressed by LZ4, as BigQuery sends them: a proxy sees to that, in yet another "
        "process, which has a share in the wall time.",
        "",
        *_table(reading, READ),
        "",
        f"- Beam's cheaper way to read costs {_times(_cheapest_of_beam(reading), reading[READ])} times the CPU of "
        "Sluice's.",
        "",
        "## Writing a table",
        "",
        "Criteo's 39 columns, an id, a score, the model and its version: dicts to Beam's sink, RecordBatches to "
        "Sluice's, made beforehand. Every table was looked through afterwards: all rows were there, once. Beam takes "
        "the size of every row, for which it goes through all modules that are loaded; in the last line it is spared "
        "that.",
        "",
        *_table(writing, BATCH),
        "",
        f"- Beam's streaming inserts cost {_compared(writing, BEAM)}.",
        f"- Spared the sizes, they cost {_compared(writing, BEAM_UNSIZED)}.",
    ]


def _table(found: dict[str, Measured], first: str) -> list[str]:
    ours = found[first]
    lines = [
        "| | rows, small and large job | client's CPU us/row | times the first | wall us/row | times the first |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, each in found.items():
        cells = [
            f"{each.rows[0]:,} and {each.rows[1]:,}",
            _shown(each.cpu_us),
            _times(each, ours),
            _shown(each.wall_us),
            f"{each.wall / ours.wall:.1f}",
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _shown(turns: list[float]) -> str:
    return f"{statistics.median(turns):,.2f} ({min(turns):,.2f} to {max(turns):,.2f})"


def _times(theirs: Measured, ours: Measured) -> str:
    """Returns how many times our CPU the other costs; "?" if ours cannot be told from zero."""
    if ours.cpu <= 0:
        return "?"
    times = theirs.cpu / ours.cpu
    return f"{times:.1f}" if times < 100 else f"{times:,.0f}"


def _cheapest_of_beam(reading: dict[str, Measured]) -> Measured:
    return min((each for name, each in reading.items() if name != READ), key=lambda each: each.cpu)


def _compared(writing: dict[str, Measured], beam: str) -> str:
    batch, stream, insert_all = (_times(writing[beam], writing[name]) for name in (BATCH, STREAM, INSERT_ALL))
    return (
        f"{batch} times the CPU of Sluice's sink of a batch job, {stream} times that of its default stream, and "
        f"{insert_all} times that of its insertAll"
    )


def main(smoke: bool) -> None:
    """Runs all of it; writes BIGQUERY.md unless --smoke is given."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that no child process is left behind
    started = time.perf_counter()
    sizes = SMOKE if smoke else Sizes()
    with bigquery_emulator() as server:
        say("Reading")
        reading = read(server, sizes)
        say("Writing")
        writing = write(server, sizes)
    text = "\n".join(report(reading, writing, time.perf_counter() - started)) + "\n"
    if not smoke:
        with open(RESULTS, "w", encoding="utf-8") as file:
            file.write(text)
    print(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="measure little, and write nothing")
    main(parser.parse_args().smoke)
