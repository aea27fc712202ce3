"""Ways to write the same rows to a BigQuery table: Sluice's sinks, and Beam's streaming inserts.

The rows are Criteo's columns, an id and a score. A sink's input is made beforehand: RecordBatches for Sluice's, dicts
for Beam's.
"""

import functools
import math
import tempfile
import uuid
from collections.abc import Callable
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from google.cloud import bigquery

from benchmarks.bigquery_jobs import Contender
from benchmarks.contenders import CATEGORIES, INTEGERS

# Jobs write a multiple of this.
BATCH_ROWS = 2_000

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
    """Returns 2,000 rows in the form that Predict returns."""
    random = np.random.default_rng(number)
    ids = np.arange(number * BATCH_ROWS, (number + 1) * BATCH_ROWS)
    integers = [pa.array(random.integers(0, 1_000, BATCH_ROWS), mask=random.random(BATCH_ROWS) < 0.2) for _ in INTEGERS]
    words = [pa.array([f"{each:08x}" for each in random.integers(0, 1 << 32, BATCH_ROWS)]) for _ in CATEGORIES]
    score = pa.array(random.random(BATCH_ROWS), pa.float32())
    model = pa.DictionaryArray.from_arrays(np.zeros(BATCH_ROWS, np.int32), pa.array(["gs://models/criteo"]))
    version = pa.array(np.ones(BATCH_ROWS, np.int64))
    return pa.RecordBatch.from_arrays([pa.array(ids), *integers, *words, score, model, version], _SCHEMA.names)


@functools.cache
def scored_rows(number: int) -> list[dict[str, Any]]:
    """Returns the same rows in the form that Beam's sink accepts."""
    return [row | {"_predicted_at": "2026-01-01T00:00:00+00:00"} for row in scored_batch(number).to_pylist()]


def batch(table: str, rows: int) -> None:
    """The sink of a batch job: pending streams, and the commit."""
    from sluice.transforms.bigquery.table_target import plan_table
    from sluice.transforms.bigquery.write import WriteTableRows

    target = plan_table(table, _SCHEMA, f"job-{uuid.uuid4().hex}")
    with tempfile.TemporaryDirectory() as directory, _pipeline() as pipeline:
        batches = _batches(pipeline, rows)
        _commit(batches, batches | WriteTableRows(target.rows_table, target.schema), target, directory)


def _commit(batches: beam.PCollection, written: Any, target: Any, directory: str) -> None:
    from sluice.transforms.bigquery.commit import TableCommitter
    from sluice.transforms.core.commit import Commit, FailurePolicy
    from sluice.transforms.files.commit import FilesCommitter
    from sluice.transforms.files.write import Target, WriteFailureShards

    failures = Target(f"{directory}/failures", ".jsonl", f"{directory}/temp")
    shards = written.failures | WriteFailureShards(failures)
    tally = batches | "Count" >> beam.Map(lambda each: each.num_rows)
    (written.streams, shards, tally) | Commit(TableCommitter(target), [FilesCommitter(failures)], FailurePolicy(0))


def stream(table: str, rows: int) -> None:
    """The sink of a streaming job: the default stream."""
    from sluice.transforms.bigquery.table import ensure_table
    from sluice.transforms.bigquery.table_columns import append_schema
    from sluice.transforms.bigquery.write import WriteStreamTable

    schema = append_schema(_SCHEMA, ensure_table(table, _SCHEMA))
    with _pipeline() as pipeline:
        _batches(pipeline, rows) | WriteStreamTable(table, schema)


def insert_all(table: str, rows: int) -> None:
    """The sink of a streaming job that inserts rows by tabledata.insertAll, as Beam's does."""
    from sluice.transforms.bigquery.table import ensure_table
    from sluice.transforms.bigquery.write_inserts import WriteTable

    ensure_table(table, _SCHEMA)
    with _pipeline() as pipeline:
        _batches(pipeline, rows) | WriteTable(table, _SCHEMA)


def beam_inserts(table: str, rows: int) -> None:
    from apache_beam.io.gcp.bigquery import BigQueryDisposition, WriteToBigQuery

    from sluice.transforms.bigquery.table import ensure_table

    ensure_table(table, _SCHEMA)
    sink = WriteToBigQuery(
        table.replace(".", ":", 1),
        method=WriteToBigQuery.Method.STREAMING_INSERTS,
        create_disposition=BigQueryDisposition.CREATE_NEVER,
    )
    with _pipeline() as pipeline:
        _numbers(pipeline, rows) | beam.FlatMap(scored_rows) | sink


def beam_unsized(table: str, rows: int) -> None:
    """The same without sizing every row, for which Beam goes through all loaded modules."""
    from apache_beam.io.gcp import bigquery as sink

    sized, sink.get_deep_size = sink.get_deep_size, lambda *_: 1_000
    try:
        beam_inserts(table, rows)
    finally:
        sink.get_deep_size = sized


def _pipeline() -> beam.Pipeline:
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner

    return beam.Pipeline(runner=FnApiRunner())


def _numbers(pipeline: beam.Pipeline, rows: int) -> beam.PCollection[int]:
    return pipeline | beam.Create(list(range(rows // BATCH_ROWS)), reshuffle=False)


def _batches(pipeline: beam.Pipeline, rows: int) -> beam.PCollection[pa.RecordBatch]:
    return _numbers(pipeline, rows) | beam.Map(scored_batch)


def _making(make: Callable[[int], Any]) -> Callable[[int], None]:
    """Returns a function that makes the rows of a job and keeps them."""

    def prepare(rows: int) -> None:
        for number in range(rows // BATCH_ROWS):
            make(number)

    return prepare


BATCH = "Sluice, batch (pending streams)"
STREAM = "Sluice, streaming (default stream)"
INSERT_ALL = "Sluice, streaming (insertAll)"
BEAM = "Beam STREAMING_INSERTS"
BEAM_UNSIZED = "Beam STREAMING_INSERTS, rows not sized"
CONTENDERS = {
    BATCH: Contender(batch, 8, _making(scored_batch)),
    STREAM: Contender(stream, 8, _making(scored_batch)),
    INSERT_ALL: Contender(insert_all, 1, _making(scored_batch)),
    BEAM: Contender(beam_inserts, 1, _making(scored_rows)),
    BEAM_UNSIZED: Contender(beam_unsized, 1, _making(scored_rows)),
}


def check_table(client: bigquery.Client, table: str, rows: int) -> None:
    """Raises RuntimeError unless the table has exactly the rows of a job.

    Compares the number of rows, the number of distinct ids, and per column the number of values and their sum, or the
    first and last of them in order.
    """
    wanted = _wanted(rows)
    selected = ", ".join(f"{query} AS v{place}" for place, query in enumerate(wanted))
    (found,) = client.query(f"SELECT {selected} FROM `{table}`").result()
    for place, (query, value) in enumerate(wanted.items()):
        there = found[f"v{place}"]
        same = math.isclose(there or 0, value, rel_tol=1e-6) if isinstance(value, float) else there == value
        if not same:
            raise RuntimeError(f"table {table} has not got the {rows} rows of the job: {query} is {there}, not {value}")


@functools.cache
def _wanted(rows: int) -> dict[str, Any]:
    """Returns the values of GoogleSQL expressions."""
    whole = pa.Table.from_batches([scored_batch(number) for number in range(rows // BATCH_ROWS)])
    wanted = {"COUNT(*)": rows, "COUNT(DISTINCT id)": rows, "COUNT(_predicted_at)": rows}
    for name in whole.schema.names:
        column = whole.column(name).cast(_SCHEMA.field(name).type)
        wanted[f"COUNT({name})"] = pc.count(column).as_py()
        if pa.types.is_string(column.type):
            wanted |= {f"{at}({name})": getattr(pc, at.lower())(column).as_py() for at in ("MIN", "MAX")}
        else:
            wanted[f"SUM({name})"] = pc.sum(column).as_py()
    return wanted
