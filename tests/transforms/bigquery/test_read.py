"""`ReadSession` on the BigQuery emulator, and through a proxy that breaks connections."""

import datetime
import decimal
import random
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import apache_beam as beam
import grpc
import pyarrow as pa
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to
from google.cloud.bigquery_storage_v1 import types

from sluice.models.errors import SluiceError, UsageError
from sluice.models.reserved import is_reserved
from sluice.transforms.bigquery.clients import close, read_client
from sluice.transforms.bigquery.find_table import FoundTable, find_query, find_table
from sluice.transforms.bigquery.read import ReadSession, open_streams, read_sample, read_stream
from sluice.transforms.core import metrics
from sluice.transforms.core.batches import origin_of
from sluice.transforms.core.formats import BIGQUERY
from sluice.transforms.decode.spec import InputSpec
from sluice.transforms.files.read import MAX_BATCH_ROWS
from tests.support.bigquery.cases import FIELDS, SCALARS, kinds_table, read_all, spec_of
from tests.support.bigquery.proxy import NEVER_SECS, BigQueryProxy
from tests.support.servers import BigQuery
from tests.support.sizes import size


@pytest.fixture
def proxy(bigquery: BigQuery) -> Iterator[BigQueryProxy]:
    with closing(BigQueryProxy(bigquery)) as proxy:
        yield proxy


def table_of(batches: list[pa.RecordBatch]) -> pa.Table:
    """Returns the job's columns of all batches as one table, sorted by id."""
    names = [name for name in batches[0].schema.names if not is_reserved(name)]
    return pa.Table.from_batches([batch.select(names) for batch in batches]).sort_by("id")


def rows_of(found: FoundTable, *names: str) -> list[dict[str, Any]]:
    return table_of(read_all(found, spec_of(found, *names)).batches).to_pylist()


def clock_of(pauses: list[float]) -> dict[str, Any]:
    """Returns a clock that only pauses move."""
    return {"clock": lambda: sum(pauses), "pause": pauses.append}


def test_every_type_and_mode(bigquery: BigQuery) -> None:
    *values, nulls = rows_of(find_table(kinds_table(bigquery)))
    assert [(row["id"], row["many"], row["one"]) for row in values] == [
        (number, ["m", str(number)], {"x": number + 0.5, "y": f"y{number}"}) for number in range(3)
    ]
    assert [row["nested"] for row in values] == [
        [{"day": datetime.date(2026, 1, number + 1), "tags": ["t", "u"]}] for number in range(3)
    ]
    for kind, (arrow, written) in SCALARS.items():
        found = [row[f"v_{kind.lower()}"] for row in values]
        if pa.types.is_decimal(arrow):
            assert found == [decimal.Decimal(value) for value in written]
        elif kind in ("JSON", "GEOGRAPHY"):  # the spaces are the server's choice
            assert [value.replace(" ", "") for value in found] == [value.replace(" ", "") for value in written]
        elif pa.types.is_temporal(arrow):
            texts = [value.isoformat() for value in found]
            assert texts == [value.replace(" ", "T").replace("+00", "+00:00") for value in written]
        else:
            assert found == written
    assert nulls == {"id": 3, "many": [], "nested": [], **{field["name"]: None for field in FIELDS[1:-3]}, "one": None}


def test_a_large_table_in_natalitys_shape(births: pa.Table, births_table: str) -> None:
    metrics.reset_tally()
    found = find_table(births_table)
    spec = InputSpec(BIGQUERY, tuple(zip(births.schema.names, births.schema.types, strict=True)))
    batches: list[pa.RecordBatch] = []
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        read = pipeline | "Read" >> ReadSession(found.table, spec)
        sums = read.rows | beam.Map(summary)
        assert_that(read.failures, equal_to([]), label="failures")
        assert_that(read.tally | beam.CombineGlobally(sum), equal_to([births.num_rows]), label="tally")
        assert_that(sums | beam.CombineGlobally(add), equal_to([summary(births)]), label="rows")
    assert metrics.tally()["rows_read"] == births.num_rows
    assert metrics.tally()["bytes_read"] > 4 * births.num_rows
    batches = read_all(found, spec).batches
    assert table_of(batches).equals(births)
    assert origin_of(batches[0], 7) == f"{births_table}#stream=0&row=7"
    origins = {origin_of(batch, batch.num_rows - 1) for batch in batches}
    assert len(origins) == len(batches)


def summary(rows: Any) -> tuple[int, int, int, int]:
    """Returns what shows whether all rows came: how many, and sums of their ids."""
    assert not isinstance(rows, pa.RecordBatch) or rows.num_rows <= MAX_BATCH_ROWS
    ids = rows.column("id").to_numpy()
    return len(ids), int(ids.sum()), int((ids**2).sum()), rows.column("gestation_weeks").null_count


def add(summaries: Any) -> tuple[int, ...]:
    return tuple(sum(column) for column in zip(*(each for each in summaries if each), strict=True))


def test_only_what_is_wanted_is_asked_for(proxy: BigQueryProxy, births: pa.Table, births_table: str) -> None:
    found = find_table(births_table, "id < 1000 AND mother_age > 30", storage_endpoint=proxy.url, clock=lambda: 1e9)
    proxy.requests.clear()
    rows = rows_of(found, "mother_age", "id")
    ages = births["mother_age"].to_pylist()[:1000]
    assert rows == [{"mother_age": age, "id": row} for row, age in enumerate(ages) if age > 30]
    (sent,) = map(types.CreateReadSessionRequest.deserialize, proxy.requests["CreateReadSession"])
    session = sent.read_session
    assert list(session.read_options.selected_fields) == ["mother_age", "id"]
    assert session.read_options.row_restriction == "id < 1000 AND mother_age > 30"
    assert session.read_options.arrow_serialization_options.buffer_compression.name == "LZ4_FRAME"
    assert session.table_modifiers.snapshot_time.timestamp() == 1e9
    assert (sent.max_stream_count, sent.preferred_min_stream_count) == (0, 100)


def test_what_a_query_gives(proxy: BigQueryProxy, births_table: str) -> None:
    query = f"SELECT id, mother_age * 2 AS twice, plurality FROM `{births_table}` WHERE id < 100"
    found = find_query(query, "proj1", storage_endpoint=proxy.url)
    assert "CreateReadSession" not in proxy.requests
    assert [sorted(row) for row in rows_of(found, "id", "twice")] == [["id", "twice"]] * 100
    (sent,) = map(types.CreateReadSessionRequest.deserialize, proxy.requests["CreateReadSession"])
    assert list(sent.read_session.read_options.selected_fields) == ["id", "twice"]
    assert births_table.split(".")[1] not in sent.read_session.table
    assert not sent.read_session.table_modifiers.snapshot_time


def test_a_query_that_fails_when_it_runs(births_table: str) -> None:
    found = find_query(f"SELECT ERROR('no ' || plurality) AS x FROM `{births_table}`", "proj1")
    with pytest.raises(SluiceError, match=r"--input_query: .*no Single"):
        read_all(found, spec_of(found))


def test_an_empty_table(bigquery: BigQuery) -> None:
    found = find_table(bigquery.make_table([{"name": "id", "type": "INTEGER"}]))
    assert found.rows == 0
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        read = pipeline | "Read" >> ReadSession(found.table, spec_of(found))
        for name, values in read._asdict().items():
            assert_that(values, equal_to([]), label=name)
    assert read_sample(found.table, spec_of(found)).rows == 0


def test_rows_of_no_column(births_table: str) -> None:
    found = find_table(births_table, "id < 10")
    (batch,) = read_all(found, InputSpec(BIGQUERY, ())).batches
    assert batch.num_rows == 10


def test_a_value_that_does_not_fit_the_job_fails_its_row(births_table: str) -> None:
    found = find_table(births_table, "id >= 120 AND id < 130")
    decoded = read_all(found, InputSpec(BIGQUERY, (("id", pa.int8()),)))
    assert sorted(row for batch in decoded.batches for row in batch.column("id").to_pylist()) == list(range(120, 128))
    assert [(failure.origin, failure.payload) for failure in decoded.failures] == [
        (f"{births_table}#stream=0&row=8", b'{"id":128}'),
        (f"{births_table}#stream=0&row=9", b'{"id":129}'),
    ]


def test_a_column_that_is_gone(bigquery: BigQuery) -> None:
    table = bigquery.make_table([{"name": "id", "type": "INTEGER"}, {"name": "s", "type": "STRING"}])
    found = find_table(table)
    bigquery.client.query(f"ALTER TABLE `{table}` DROP COLUMN s").result()
    with pytest.raises(SluiceError, match=r"column 's' existed when the job was launched, and does no more"):
        read_all(found, spec_of(found))


def test_a_table_that_is_gone(bigquery: BigQuery) -> None:
    table = bigquery.make_table([{"name": "id", "type": "INTEGER"}])
    found = find_table(table)
    bigquery.client.delete_table(table)
    with pytest.raises(SluiceError, match=r"--input_table .*[nN]ot found"):
        read_all(found, spec_of(found))


def test_the_first_rows(proxy: BigQueryProxy, births: pa.Table, births_table: str) -> None:
    found = find_table(births_table, storage_endpoint=proxy.url)
    proxy.rows_per_answer = 1000
    sample = read_sample(found.table, spec_of(found))
    assert table_of(sample.batches).equals(births.slice(0, 100).cast(table_of(sample.batches).schema))
    proxy.fail("ReadRows", grpc.StatusCode.PERMISSION_DENIED, message="not you")
    with pytest.raises(UsageError, match="not you"):
        read_sample(found.table, spec_of(found))
    assert read_sample(find_query("SELECT 1 AS x", "proj1").table, InputSpec(BIGQUERY, ())).rows == 0


@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
def test_compressed_answers(proxy: BigQueryProxy, births: pa.Table, births_table: str, compression: str | None) -> None:
    found = find_table(births_table, "id < 5000", storage_endpoint=proxy.url)
    proxy.rows_per_answer, proxy.compression = 1500, compression
    rows = table_of(read_all(found, spec_of(found)).batches)
    assert rows.equals(births.slice(0, 5000).cast(rows.schema))


@pytest.mark.parametrize("seed", range(4))
def test_streams_that_are_cut_are_read_whole(
    proxy: BigQueryProxy, births: pa.Table, births_table: str, seed: int
) -> None:
    draw = random.Random(seed)
    found = find_table(births_table, storage_endpoint=proxy.url)
    proxy.rows_per_answer = draw.choice([70, 409, 999]) * size(1, soak=10)
    statuses = [
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    ]
    for _ in range(12):
        proxy.fail("ReadRows", draw.choice(statuses), after=draw.randrange(0, 9))
    decoded = read_all(found, spec_of(found), pause=lambda _: None)
    assert table_of(decoded.batches).equals(births.cast(table_of(decoded.batches).schema))
    assert len({origin_of(batch, 0) for batch in decoded.batches}) == len(decoded.batches)
    assert proxy.happened == 12 - len(proxy.faults) >= 8


def test_a_whole_job_whose_streams_are_cut(proxy: BigQueryProxy, births: pa.Table, births_table: str) -> None:
    found = find_table(births_table, storage_endpoint=proxy.url)
    proxy.rows_per_answer = births.num_rows // 40
    for after in (0, 3, 3, 7, 1):
        proxy.fail("ReadRows", after=after)
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        read = pipeline | "Read" >> ReadSession(found.table, spec_of(found, "id", "gestation_weeks"))
        assert_that(read.rows | beam.Map(summary) | beam.CombineGlobally(add), equal_to([summary(births)]))
    assert proxy.happened == 5


def test_bigquery_is_away_for_a_while(proxy: BigQueryProxy, births_table: str) -> None:
    found = find_table(births_table, "id < 3000", storage_endpoint=proxy.url)
    proxy.rows_per_answer = 1000
    proxy.fail("ReadRows", after=2)
    proxy.fail("ReadRows", times=6)  # of the calls that then go on from row 2000, and the first
    pauses: list[float] = []
    assert read_all(found, spec_of(found), **clock_of(pauses)).rows == 3000
    assert len(pauses) == 7
    assert all(0 < pause <= 10 for pause in pauses)


def test_an_outage_ends_with_any_answer(proxy: BigQueryProxy, births_table: str) -> None:
    found = find_table(births_table, "id < 3000", storage_endpoint=proxy.url)
    proxy.rows_per_answer = 100
    proxy.fail("ReadRows", after=1, times=29)
    pauses: list[float] = []
    assert read_all(found, spec_of(found), retry_secs=0.5, **clock_of(pauses)).rows == 3000
    assert (len(pauses), sum(pauses) > 0.5) == (29, True)


def test_the_connection_itself_breaks(proxy: BigQueryProxy, births_table: str) -> None:
    found = find_table(births_table, "id < 3000", storage_endpoint=proxy.url)
    proxy.rows_per_answer = 1000
    proxy.fail("ReadRows", None, after=2, delay_secs=NEVER_SECS)
    pauses: list[float] = []

    def pause(secs: float) -> None:
        if not pauses:
            proxy.start()
        pauses.append(secs)

    client = read_client(found.table.storage_endpoint)
    (stream,) = open_streams(client, found.table, spec_of(found), 20)
    parts = read_stream(client, stream, found.table, spec_of(found), 20, clock=lambda: 0.0, pause=pause)
    assert next(parts)[0].rows == 1000
    proxy.stop()
    assert sum(part.rows for part, _ in parts) == 2000
    assert pauses
    close(client)


def test_bigquery_is_gone_for_good(proxy: BigQueryProxy, births_table: str) -> None:
    found = find_table(births_table, storage_endpoint=proxy.url)
    proxy.rows_per_answer = 1000
    proxy.fail_always("ReadRows", message="it is gone", after=0)
    pauses: list[float] = []
    with pytest.raises(SluiceError, match=r"--input_table .*: BigQuery has sent no rows for \d+ s: it is gone"):
        read_all(found, spec_of(found), retry_secs=60, **clock_of(pauses))
    assert 60 <= sum(pauses) < 71


@pytest.mark.parametrize(
    "status", [grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.NOT_FOUND]
)
def test_a_session_that_is_over(proxy: BigQueryProxy, births_table: str, status: grpc.StatusCode) -> None:
    found = find_table(births_table, storage_endpoint=proxy.url)
    proxy.rows_per_answer = 1000
    proxy.fail("ReadRows", status, after=5, message="session expired")
    text = r"BigQuery stopped at row 5000 of stream projects/.*: session expired\. A session ends six hours"
    with pytest.raises(SluiceError, match=text):
        read_all(found, spec_of(found))
    assert len(proxy.requests["ReadRows"]) == 1


def test_a_reader_that_stops_early_leaves_no_call_behind(
    proxy: BigQueryProxy, births: pa.Table, births_table: str
) -> None:
    found = find_table(births_table, storage_endpoint=proxy.url)
    proxy.rows_per_answer = 100
    client = read_client(found.table.storage_endpoint)
    streams = open_streams(client, found.table, spec_of(found), 20)
    stream = streams[0]
    parts = read_stream(client, stream, found.table, spec_of(found), 20)
    assert next(parts)[0].rows == 100
    parts.close()  # type: ignore[attr-defined]
    proxy.fail("ReadRows", after=1)
    rows = sum(part.rows for part, _ in read_stream(client, stream, found.table, spec_of(found), 20))
    assert rows == births.num_rows // len(streams)
    close(client)
