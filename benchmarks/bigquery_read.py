"""What it costs to read a BigQuery table: Sluice's ReadTable and Beam's ReadFromBigQuery(DIRECT_READ), side by side.

`python -m benchmarks.bigquery_read` runs both on the same tables of the emulator, whose own time is not what is
measured: that is the processor time of the reading process, each contender in a process of its own. Two sizes tell a
job's fixed cost from that of a row. A job reads all columns and counts the rows.

The emulator sends 100,000 rows in one answer, and nothing compressed. BigQuery sends some thousands, by LZ4 where they
are Arrow and the client has asked for it, as both do; so does a proxy in between, in yet another process.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import apache_beam as beam

# By contender, since a row costs one of them so little that only many of them can be told from the noise.
SIZES = {"Sluice ReadTable": (200_000, 2_000_000)}
OTHER_SIZES = (20_000, 200_000)
RUNS = 3
ROWS_PER_ANSWER = 4_000

_counted = 0


class _Count(beam.DoFn):
    """Counts rows in this process: one an element, or those of a RecordBatch."""

    def process(self, element: Any) -> None:
        global _counted
        _counted += 1 if isinstance(element, dict) else element.num_rows


def sluice(table: str) -> None:
    from transforms.decode import BIGQUERY, InputSpec
    from transforms.find_table import find_table
    from transforms.read_bigquery import ReadTable

    found = find_table(table)
    spec = InputSpec(BIGQUERY, tuple(found.source.types.items()))
    _run(ReadTable(found.table, spec), "rows")


def beam_avro(table: str) -> None:
    """What Beam does unless told otherwise."""
    _run_beam(table, use_native_datetime=False)


def beam_arrow(table: str) -> None:
    _run_beam(table, use_native_datetime=True)


CONTENDERS: dict[str, Callable[[str], None]] = {
    "Sluice ReadTable": sluice,
    "Beam DIRECT_READ (Avro, its default)": beam_avro,
    "Beam DIRECT_READ (Arrow)": beam_arrow,
}


def _run_beam(table: str, **options: Any) -> None:
    from apache_beam.io.gcp.bigquery import ReadFromBigQuery

    method = ReadFromBigQuery.Method.DIRECT_READ
    _run(ReadFromBigQuery(table=table.replace(".", ":", 1), method=method, **options))


def _run(read: beam.PTransform, output: str = "") -> None:
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner

    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        rows = pipeline | "Read" >> read
        (getattr(rows, output) if output else rows) | "Count" >> beam.ParDo(_Count())


def send_beam_to_emulator(url: str) -> None:
    """Makes Beam's clients of BigQuery in this process go to the emulator, for which they have no option.

    Args:
      url: of its REST API; that of the Storage API is where transforms.bigquery_clients finds it.
    """
    import google.cloud.bigquery_storage_v1 as storage
    from apache_beam.internal.gcp.auth import _ApitoolsCredentialsAdapter, _Credentials
    from apache_beam.io.gcp.internal.clients.bigquery import BigqueryV2
    from google.auth.credentials import AnonymousCredentials

    from transforms.bigquery_clients import read_client

    # There are none. Beam would look for them for minutes, and then ask the user.
    _Credentials._credentials = _ApitoolsCredentialsAdapter(AnonymousCredentials())
    _Credentials._credentials_init = True
    BigqueryV2.BASE_URL = f"{url}/bigquery/v2/"
    original = storage.BigQueryReadClient
    storage.BigQueryReadClient = lambda: original(transport=read_client().transport)


def cpu_seconds(contender: str, tables: dict[int, str], runs: int = RUNS) -> dict[int, float]:
    """Returns the processor time of a job, by the rows of its table; in a new process, of several runs the median."""
    # Not as __main__: the DoFn of a main module is pickled with a copy of the module.
    program = "import sys; from benchmarks.bigquery_read import child; child(*sys.argv[1:])"
    command = [sys.executable, "-c", program, contender, json.dumps(tables), str(runs)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{contender} failed:\n{done.stderr[-3000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    return {int(rows): statistics.median(seconds) for rows, seconds in found.items()}


def child(contender: str, tables_json: str, runs: str) -> None:
    """Reads each table in turn, `runs` times; prints the processor seconds, by rows. The first round does not count."""
    send_beam_to_emulator(os.environ["BIGQUERY_EMULATOR_HOST"])
    tables = {int(rows): table for rows, table in json.loads(tables_json).items()}
    seconds: dict[int, list[float]] = {rows: [] for rows in tables}
    for attempt in range(int(runs) + 1):
        for rows, table in tables.items():
            before, counted = _cpu(), _counted
            CONTENDERS[contender](table)
            if attempt:
                seconds[rows].append(_cpu() - before)
            if _counted - counted != rows:
                raise RuntimeError(f"{contender} read {_counted - counted} of {rows} rows")
    print(json.dumps(seconds))


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def us_per_row(seconds: dict[int, float]) -> float:
    """Returns what one more row costs, in microseconds."""
    small, large = min(seconds), max(seconds)
    return (seconds[large] - seconds[small]) / (large - small) * 1e6


def compare(runs: int = RUNS) -> dict[str, dict[int, float]]:
    """Returns the processor seconds of each contender, by rows, on natality's columns."""
    from tests.bigquery_proxy import bigquery_proxy
    from tests.servers import BigQuery, bigquery_clients_use, bigquery_emulator
    from tests.transforms.bigquery_cases import load, make_births

    with bigquery_emulator() as server, bigquery_proxy(server) as proxy:
        proxy.rows_per_answer, proxy.compression = ROWS_PER_ANSWER, "lz4"
        sizes = {contender: SIZES.get(contender, OTHER_SIZES) for contender in CONTENDERS}
        tables = {
            rows: load(server, make_births(rows)) for rows in sorted({each for pair in sizes.values() for each in pair})
        }
        with bigquery_clients_use(BigQuery(server.url, proxy.url)):
            return {
                contender: cpu_seconds(contender, {rows: tables[rows] for rows in sizes[contender]}, runs)
                for contender in CONTENDERS
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=RUNS)
    options = parser.parse_args()
    found = compare(options.runs)
    ours = us_per_row(found["Sluice ReadTable"])
    for contender, seconds in found.items():
        cost = us_per_row(seconds)
        figures = ", ".join(f"{rows} rows {each:.2f} s" for rows, each in seconds.items())
        print(f"{contender}: {cost:.2f} us a row, {cost / ours:.1f} x Sluice's ({figures})")


if __name__ == "__main__":
    main()
