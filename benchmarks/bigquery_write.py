"""What it costs to write a BigQuery table: Sluice's sinks and Beam's streaming inserts, side by side.

`python -m benchmarks.bigquery_write` has all of them write the same rows, of Criteo's columns and a score, to tables of
the emulator, whose own time is not what is measured: that is the processor time of the writing process, each contender
in a process of its own. Two sizes tell a job's fixed cost from that of a row. What a sink takes is made beforehand:
RecordBatches for Sluice's, dicts for Beam's.
"""

import argparse
import functools
import json
import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable
from typing import Any

import apache_beam as beam
import google.auth
import numpy as np
import pyarrow as pa
from google.auth.credentials import AnonymousCredentials

from benchmarks.bigquery_read import _cpu, send_beam_to_emulator, us_per_row
from benchmarks.contenders import CATEGORIES, INTEGERS

SMALL, LARGE = 2_000, 22_000
RUNS = 3
_BATCH_ROWS = 2_000

_SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        *((name, pa.int64()) for name in INTEGERS),
        *((name, pa.string()) for name in CATEGORIES),
        ("score", pa.float32()),
        ("_model", pa.string()),
        ("_version", pa.int64()),
    ]
)


@functools.cache
def scored_batch(number: int) -> pa.RecordBatch:
    """Returns 2,000 rows as they come from Predict."""
    random = np.random.default_rng(number)
    ids = np.arange(number * _BATCH_ROWS, (number + 1) * _BATCH_ROWS)
    integers = [
        pa.array(random.integers(0, 1_000, _BATCH_ROWS), mask=random.random(_BATCH_ROWS) < 0.2) for _ in INTEGERS
    ]
    words = [pa.array([f"{each:08x}" for each in random.integers(0, 1 << 32, _BATCH_ROWS)]) for _ in CATEGORIES]
    score = pa.array(random.random(_BATCH_ROWS), pa.float32())
    model = pa.DictionaryArray.from_arrays(np.zeros(_BATCH_ROWS, np.int32), pa.array(["gs://models/criteo"]))
    version = pa.array(np.ones(_BATCH_ROWS, np.int64))
    return pa.RecordBatch.from_arrays([pa.array(ids), *integers, *words, score, model, version], _SCHEMA.names)


@functools.cache
def scored_rows(number: int) -> list[dict[str, Any]]:
    """Returns the same rows as Beam's sink takes them."""
    return [row | {"_predicted_at": "2026-01-01T00:00:00+00:00"} for row in scored_batch(number).to_pylist()]


def batch(table: str, numbers: range) -> None:
    """The sinks of a batch job: pending streams, and the commit."""
    from transforms.commit_files import Judgement
    from transforms.commit_table import CommitTable
    from transforms.table_target import plan_table
    from transforms.write_bigquery import WriteTableRows
    from transforms.write_files import Target, WriteFailures

    target = plan_table(table, _SCHEMA, f"job-{uuid.uuid4().hex}")
    with tempfile.TemporaryDirectory() as directory, _pipeline() as pipeline:
        failures = Target(f"{directory}/failures", ".jsonl", f"{directory}/temp")
        batches = pipeline | beam.Create(list(numbers), reshuffle=False) | beam.Map(scored_batch)
        written = batches | WriteTableRows(target.rows_table, target.schema)
        shards = written.failures | WriteFailures(failures)
        tally = batches | "Count" >> beam.Map(lambda each: each.num_rows)
        (written.streams, shards, tally) | CommitTable(target, failures, Judgement(0))


def streaming(table: str, numbers: range) -> None:
    """The sink of a streaming job: the default stream."""
    from transforms.bigquery_table import ensure_table
    from transforms.table_columns import append_schema
    from transforms.write_bigquery import WriteStreamTable

    schema = append_schema(_SCHEMA, ensure_table(table, _SCHEMA))
    with _pipeline() as pipeline:
        batches = pipeline | beam.Create(list(numbers), reshuffle=False) | beam.Map(scored_batch)
        batches | WriteStreamTable(table, schema)


def insert_all(table: str, numbers: range) -> None:
    """Sluice's sink that inserts rows one by one."""
    from transforms.write_table import WriteTable, ensure_table

    ensure_table(table, _SCHEMA)
    with _pipeline() as pipeline:
        batches = pipeline | beam.Create(list(numbers), reshuffle=False) | beam.Map(scored_batch)
        batches | WriteTable(table, _SCHEMA)


def beam_inserts(table: str, numbers: range) -> None:
    from apache_beam.io.gcp.bigquery import BigQueryDisposition, WriteToBigQuery

    from transforms.write_table import ensure_table

    ensure_table(table, _SCHEMA)
    sink = WriteToBigQuery(
        table.replace(".", ":", 1),
        method=WriteToBigQuery.Method.STREAMING_INSERTS,
        create_disposition=BigQueryDisposition.CREATE_NEVER,
    )
    with _pipeline() as pipeline:
        pipeline | beam.Create(list(numbers), reshuffle=False) | beam.FlatMap(scored_rows) | sink


def beam_unsized(table: str, numbers: range) -> None:
    """The same, had it not to size every row, for which it goes through all modules that are loaded."""
    from apache_beam.io.gcp import bigquery

    sized, bigquery.get_deep_size = bigquery.get_deep_size, lambda *_: 1_000
    try:
        beam_inserts(table, numbers)
    finally:
        bigquery.get_deep_size = sized


CONTENDERS: dict[str, Callable[[str, range], None]] = {
    "Sluice, batch (pending streams)": batch,
    "Sluice, streaming (default stream)": streaming,
    "Sluice, streaming inserts": insert_all,
    "Beam STREAMING_INSERTS": beam_inserts,
    "Beam STREAMING_INSERTS, rows not sized": beam_unsized,
}


def _pipeline() -> beam.Pipeline:
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner

    return beam.Pipeline(runner=FnApiRunner())


def cpu_seconds(contender: str, tables: dict[str, int]) -> dict[int, list[float]]:
    """Returns the processor times of writing each table, by its rows; in a new process, the first does not count."""
    # Not as __main__: the functions of a main module are pickled with a copy of the module.
    program = "import sys; from benchmarks.bigquery_write import child; child(*sys.argv[1:])"
    command = [sys.executable, "-c", program, contender, json.dumps(tables)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{contender} failed:\n{done.stderr[-3000:]}")
    return {int(rows): seconds for rows, seconds in json.loads(done.stdout.splitlines()[-1]).items()}


def child(contender: str, tables_json: str) -> None:
    """Writes each table in turn; prints the processor seconds, by rows, without the first."""
    send_beam_to_emulator(os.environ["BIGQUERY_EMULATOR_HOST"])
    google.auth.default = lambda *_, **__: (AnonymousCredentials(), "proj1")  # Beam has no option for that either
    seconds: dict[int, list[float]] = {}
    for place, (table, rows) in enumerate(json.loads(tables_json).items()):
        numbers = range(rows // _BATCH_ROWS)
        for number in numbers:
            scored_rows(number)
        before = _cpu()
        CONTENDERS[contender](table, numbers)
        if place:
            seconds.setdefault(rows, []).append(_cpu() - before)
    print(json.dumps(seconds))


def compare(runs: int = RUNS) -> dict[str, dict[int, float]]:
    """Returns the least processor seconds of each contender, by rows; raises if a table has not got its rows."""
    from tests.servers import bigquery_clients_use, bigquery_emulator

    found = {}
    with bigquery_emulator() as server, bigquery_clients_use(server):
        for contender in CONTENDERS:
            dataset = server.make_dataset()
            sizes = [SMALL, *[SMALL, LARGE] * runs]
            tables = {f"{dataset}.t{place}": rows for place, rows in enumerate(sizes)}
            found[contender] = {rows: min(each) for rows, each in cpu_seconds(contender, tables).items()}
            for table, rows in tables.items():
                written = server.client.get_table(table).num_rows
                if written != rows:
                    raise RuntimeError(f"{contender} wrote {written} of {rows} rows")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=RUNS)
    found = compare(parser.parse_args().runs)
    ours = us_per_row(found["Sluice, batch (pending streams)"])
    for contender, seconds in found.items():
        cost = us_per_row(seconds)
        figures = ", ".join(f"{rows} rows {each:.2f} s" for rows, each in seconds.items())
        print(f"{contender}: {cost:.2f} us a row, {cost / ours:.1f} x the first ({figures})")


if __name__ == "__main__":
    main()
