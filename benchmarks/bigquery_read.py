"""Three ways to read a BigQuery table: Sluice's ReadTable, and Beam's ReadFromBigQuery(DIRECT_READ) in both formats.

A job reads all columns of natality's rows, counts the rows and sums their ids.
"""

from typing import Any

import apache_beam as beam
import pyarrow.compute as pc

from benchmarks.bigquery_jobs import Contender

_seen = [0, 0]


class _Count(beam.DoFn):
    """Counts rows in this process and sums their ids; an element is one row or a RecordBatch."""

    def process(self, element: Any) -> None:
        if isinstance(element, dict):
            _seen[0] += 1
            _seen[1] += element["id"]
        elif element.num_rows:
            _seen[0] += element.num_rows
            _seen[1] += pc.sum(element.column("id")).as_py()


def sluice(table: str, rows: int) -> None:
    from sluice.transforms.bigquery.find_table import find_table
    from sluice.transforms.bigquery.read import ReadSession
    from sluice.transforms.core.formats import BIGQUERY
    from sluice.transforms.decode.spec import InputSpec

    found = find_table(table)
    spec = InputSpec(BIGQUERY, tuple(found.source.types.items()))
    _run(ReadSession(found.table, spec), rows, "rows")


def beam_avro(table: str, rows: int) -> None:
    """Beam's default format."""
    _run_beam(table, rows, use_native_datetime=False)


def beam_arrow(table: str, rows: int) -> None:
    _run_beam(table, rows, use_native_datetime=True)


SLUICE = "Sluice ReadTable"
CONTENDERS = {
    SLUICE: Contender(sluice, scale=10),
    "Beam DIRECT_READ (Avro, its default)": Contender(beam_avro),
    "Beam DIRECT_READ (Arrow)": Contender(beam_arrow),
}


def _run_beam(table: str, rows: int, **options: Any) -> None:
    from apache_beam.io.gcp.bigquery import ReadFromBigQuery

    method = ReadFromBigQuery.Method.DIRECT_READ
    _run(ReadFromBigQuery(table=table.replace(".", ":", 1), method=method, **options), rows)


def _run(read: beam.PTransform, rows: int, output: str = "") -> None:
    """Reads a table whose ids are 0 to rows - 1; raises if other rows come."""
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner

    _seen[:] = 0, 0
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        found = pipeline | "Read" >> read
        (getattr(found, output) if output else found) | "Count" >> beam.ParDo(_Count())
    if _seen != [rows, rows * (rows - 1) // 2]:
        raise RuntimeError(f"{_seen[0]} of {rows} rows were read, or not those: their ids add up to {_seen[1]}")
