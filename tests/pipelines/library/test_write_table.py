"""`WriteTable` and `WriteFailureTable` with plain arguments, on the emulator."""

from collections.abc import Callable

import apache_beam as beam
import pyarrow as pa
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms.window import FixedWindows, TimestampedValue

import sluice
from sluice.models.errors import UsageError
from tests.support.servers import BigQuery

SCHEMA = pa.schema({"x": pa.float64(), "root": pa.float64(), "tag": pa.string()})


@pytest.fixture
def table(bigquery: BigQuery) -> str:
    """A table that does not exist yet."""
    return f"{bigquery.make_dataset()}.t"


def batch_of(*values: float) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict({"x": list(values), "tag": [f"<{value}>" for value in values]})


def write(table: str, model: str, *batches: pa.RecordBatch, disposition: str = "append") -> None:
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        made = pipeline | beam.Create(batches).with_output_types(pa.RecordBatch)
        windows = made | beam.Map(lambda batch: TimestampedValue(batch, 7)).with_output_types(pa.RecordBatch)
        scored = windows | beam.WindowInto(FixedWindows(5)) | sluice.Predict(model)
        refused = scored.rows | sluice.WriteTable(table, SCHEMA, disposition=disposition)  # type: ignore[arg-type]
        scored.failures | sluice.WriteFailureTable(f"{table}_failed")
        assert_that(refused, equal_to([]))


def test_rows_and_failures_of_a_pipeline(bigquery: BigQuery, table: str, cases: Callable[[str], str]) -> None:
    model = cases("picky")
    write(table, model, batch_of(4.0, -1.0), batch_of(9.0))
    rows = sorted(bigquery.rows(table), key=lambda row: row["x"])
    assert [(row["x"], row["root"], row["tag"]) for row in rows] == [(4.0, 2.0, "<4.0>"), (9.0, 3.0, "<9.0>")]
    assert all(row["_predicted_at"] for row in rows)
    (failed,) = bigquery.rows(f"{table}_failed")
    assert (failed["stage"], failed["model"]) == ("predict", model)
    write(table, model, batch_of(16.0), disposition="truncate")
    assert [row["root"] for row in bigquery.rows(table)] == [4.0]


def test_what_cannot_be(table: str) -> None:
    with pytest.raises(UsageError, match="disposition is 'replace'"):
        sluice.WriteTable(table, SCHEMA, disposition="replace")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="payload is 'some'"):
        sluice.WriteFailureTable(table, payload="some")
    stream = beam.PCollection(beam.Pipeline(), element_type=pa.RecordBatch, is_bounded=False)
    with pytest.raises(UsageError, match="a stream does not end"):
        sluice.WriteTable(table, SCHEMA, disposition="empty").expand(stream)
