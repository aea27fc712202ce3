"""`WriteTable` on the emulator of BigQuery: values that come back, rows that are refused, and none that is lost."""

import datetime
import decimal
import math
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms.window import FixedWindows, GlobalWindow, TimestampedValue
from apache_beam.utils.timestamp import Timestamp
from apache_beam.utils.windowed_value import WindowedValue

from sluice.models.errors import SluiceError, UsageError
from sluice.models.reserved import MESSAGE_ID
from sluice.transforms.bigquery import write_inserts
from sluice.transforms.bigquery.table import ensure_table
from sluice.transforms.bigquery.write_inserts import WriteTable
from sluice.transforms.core.failures import ENCODE, WRITE, Failure
from sluice.transforms.core.messages import message_batch
from sluice.transforms.core.outputs import MODEL_COLUMN, VERSION_COLUMN
from tests.support.servers import BigQuery
from tests.support.serving.http_proxy import Proxy

UTC = datetime.UTC
NOW = 1_750_000_000.25
SCHEMA = pa.schema([("id", pa.int64()), ("text", pa.string())])
# A table for SCHEMA that refuses some texts.
DATES = [
    {"name": "id", "type": "INTEGER"},
    {"name": "text", "type": "DATE"},
    {"name": "_predicted_at", "type": "TIMESTAMP"},
]
D = decimal.Decimal
# By column: its type, values for three rows, and the values that come back where they differ.
EVERY_TYPE: dict[str, tuple[Any, ...]] = {
    "id": (pa.int64(), [0, 1, 2]),
    "i": (pa.int64(), [-(1 << 63), (1 << 63) - 1, None]),
    "small": (pa.int8(), [-128, 127, None]),
    "unsigned": (pa.uint64(), [0, (1 << 64) - 1, None]),
    "f": (pa.float64(), [0.1, -math.inf, None]),
    "f4": (pa.float32(), [0.1, math.nan, None]),
    "b": (pa.bool_(), [True, False, None]),
    "s": (pa.string(), ['é"\\\n\x00, 𝄞', "NaN", None]),
    "word": (pa.dictionary(pa.int32(), pa.string()), ["a", "", None]),
    "y": (pa.binary(), [b"\x00\xff", b"", None]),
    "n": (pa.decimal128(38, 9), [D("0.000000001"), D("-12345678901234567890123456789.5"), None]),
    "d": (pa.date32(), [datetime.date(2024, 2, 29), datetime.date(9999, 12, 31), None]),
    "t": (pa.time64("us"), [datetime.time(1, 2, 3, 4), datetime.time(0), None]),
    "dt": (pa.timestamp("us"), [datetime.datetime(2024, 2, 29, 1, 2, 3, 4), datetime.datetime(1969, 12, 31), None]),
    "ts": (
        pa.timestamp("ms", "Europe/Oslo"),
        [datetime.datetime(2024, 2, 29, 1, 2, 3, 4000, UTC), datetime.datetime(1970, 1, 1, tzinfo=UTC), None],
    ),
    "ints": (pa.list_(pa.int64()), [[1, 1 << 60], [], None], [[1, 1 << 60], [], []]),
    "floats": (pa.list_(pa.float32(), 2), [[1.5, math.nan], [0.1, 0.0], None], [[1.5, math.nan], [0.1, 0.0], []]),
    "texts": (pa.list_(pa.string()), [["a", "é"], [""], None], [["a", "é"], [""], []]),
    "record": (
        pa.struct([("x", pa.int64()), ("z", pa.list_(pa.string()))]),
        [{"x": 1, "z": ["a"]}, {"x": None, "z": None}, None],
        [{"x": 1, "z": ["a"]}, {"x": None, "z": []}, None],
    ),
    "records": (
        pa.list_(pa.struct([("x", pa.int64())])),
        [[{"x": 1}, {"x": None}], [], None],
        [[{"x": 1}, {"x": None}], [], []],
    ),
}  # fmt: skip


def batch_of(ids: list[int], texts: list[str | None] | None = None, message_ids: list[str] | None = None) -> Any:
    """Returns a batch of SCHEMA, of messages if their ids are given."""
    rows = pa.record_batch([pa.array(ids), pa.array(texts or ["x"] * len(ids), pa.string())], schema=SCHEMA)
    return rows if message_ids is None else rows.append_column(MESSAGE_ID, pa.array(message_ids))


def sink(table: str, schema: pa.Schema = SCHEMA, **options: Any) -> Any:
    """Returns the DoFn of WriteTable, set up and in a bundle."""
    fn = WriteTable(table, schema, clock=lambda: NOW, **options)._fn
    fn.setup()
    fn.start_bundle()
    return fn


def process(fn: Any, batch: pa.RecordBatch, window: Any = None, timestamp: float = 0.0) -> list[Failure]:
    return [failure_in(each) for each in fn.process(batch, window or GlobalWindow(), Timestamp(timestamp))]


def failure_in(output: Any) -> Failure:
    return output.value if isinstance(output, WindowedValue) else output


def write(table: str, *batches: pa.RecordBatch, schema: pa.Schema = SCHEMA, **options: Any) -> list[Failure]:
    """Writes batches in one bundle; returns the failures."""
    fn = sink(table, schema, **options)
    failures = [failure for batch in batches for failure in process(fn, batch)]
    failures += [failure_in(each) for each in fn.finish_bundle()]
    fn.teardown()
    return failures


def ids_in(bigquery: BigQuery, table: str) -> list[int]:
    return sorted(row["id"] for row in bigquery.rows(table))


def comparable(value: Any) -> Any:
    return "NaN" if value != value else [comparable(each) for each in value] if isinstance(value, list) else value


@pytest.fixture
def table(bigquery: BigQuery) -> str:
    """A table for SCHEMA."""
    name = f"{bigquery.make_dataset()}.t"
    ensure_table(name, SCHEMA)
    return name


@pytest.fixture
def proxy(bigquery: BigQuery) -> Iterator[Proxy]:
    with closing(Proxy(bigquery.url)) as server:
        yield server


def test_values_of_every_type_come_back(bigquery: BigQuery) -> None:
    schema = pa.schema([(name, column[0]) for name, column in EVERY_TYPE.items()])
    name = f"{bigquery.make_dataset()}.t"
    ensure_table(name, schema)
    arrays = [pa.array(column[1], column[0]) for column in EVERY_TYPE.values()]
    assert write(name, pa.record_batch(arrays, schema=schema), schema=schema) == []
    found = sorted(bigquery.rows(name), key=lambda row: row["id"])
    for column, wanted in EVERY_TYPE.items():
        assert comparable([row[column] for row in found]) == comparable(wanted[-1]), column
    assert {row["_predicted_at"] for row in found} == {datetime.datetime.fromtimestamp(NOW, UTC)}


def test_a_refused_row_fails_alone(bigquery: BigQuery) -> None:
    table = bigquery.make_table(DATES)
    messages = message_batch(
        "projects/p/subscriptions/s",
        [b"first", b"second", b"third"],
        ["7", "8", "9"],
        *[[0, 0, 0]] * 2,  # type: ignore[arg-type]
        [{}, {"of": "b", "sluice_attempt": "2"}, {}],
        ["", "", ""],
        [1, 1, 1],
    )
    rows = batch_of([1, 2, 3], ["2026-01-02", "no date", None])
    batch = pa.record_batch([*rows.columns, *messages.columns], [*rows.schema.names, *messages.schema.names])
    (failure,) = write(table, batch)
    assert (failure.stage, failure.error_type, failure.payload) == (WRITE, "InsertError", b"second")
    assert "column 'text': Cannot convert value to date (bad value): no date (invalid)" in failure.error_message
    assert failure.origin == "projects/p/subscriptions/s#message_id=8"
    assert (failure.attributes, failure.attempt) == ((("of", "b"),), 2)
    found = sorted((row["id"], row["text"]) for row in bigquery.rows(table))
    assert found == [(1, datetime.date(2026, 1, 2)), (3, None)]


def test_a_row_that_cannot_be_encoded_fails_alone(bigquery: BigQuery, table: str) -> None:
    texts = pa.array([b"a", b"\xff", b"c"]).view(pa.string())
    (failure,) = write(table, pa.record_batch([pa.array([1, 2, 3]), texts], schema=SCHEMA))
    assert (failure.stage, failure.error_type) == (ENCODE, "SluiceError")
    assert "not UTF-8" in failure.error_message
    assert ids_in(bigquery, table) == [1, 3]


def test_a_row_that_is_too_large_fails_alone(bigquery: BigQuery, table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_inserts, "MAX_ROW_BYTES", 1_000)
    scored = batch_of([1, 2, 3], ["a", "b" * 1_000, "c"])
    scored = scored.append_column(MODEL_COLUMN, pa.array(["m"] * 3)).append_column(VERSION_COLUMN, pa.array([7] * 3))
    (failure,) = write(table, scored)
    assert (failure.stage, failure.error_type) == (WRITE, "RowTooLarge")
    assert (failure.model, failure.version) == ("m", 7)
    assert "bytes of JSON; BigQuery accepts 1,000 at most" in failure.error_message
    assert ids_in(bigquery, table) == [1, 3]


def test_failures_keep_the_window_and_time_of_their_batch(bigquery: BigQuery) -> None:
    table = bigquery.make_table(DATES)
    batches = [TimestampedValue(batch_of([time, 100 + time], ["bad", "2026-01-02"]), time) for time in (1, 12, 13, 27)]

    def seen(failure: Failure, window=beam.DoFn.WindowParam, time=beam.DoFn.TimestampParam):  # type: ignore[no-untyped-def]
        return int(window.start), int(time), failure.error_type

    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        failures = (
            pipeline
            | beam.Create(range(len(batches)), reshuffle=False)
            | beam.Map(batches.__getitem__).with_output_types(pa.RecordBatch)
            | beam.WindowInto(FixedWindows(10))
            | WriteTable(table, SCHEMA)
            | beam.Map(seen)
        )
        wanted = [(0, 1), (10, 12), (10, 13), (20, 27)]
        assert_that(failures, equal_to([(*each, "InsertError") for each in wanted]))
    assert ids_in(bigquery, table) == [101, 112, 113, 127]


def test_rows_gather_over_batches_into_requests_of_500(bigquery: BigQuery, table: str, proxy: Proxy) -> None:
    fn = sink(table, endpoint=proxy.url)
    for start in range(0, 1_200, 80):
        assert process(fn, batch_of(list(range(start, start + 80)))) == []
    assert [len(each["rows"]) for each in proxy.posted] == [500, 500]
    assert list(fn.finish_bundle()) == []
    assert [len(each["rows"]) for each in proxy.posted] == [500, 500, 200]
    assert ids_in(bigquery, table) == list(range(1_200))
    fn.start_bundle()
    assert list(fn.finish_bundle()) == []
    assert len(proxy.posted) == 3  # a bundle without rows asks nothing
    fn.teardown()


def test_large_rows_make_small_requests(bigquery: BigQuery, table: str, proxy: Proxy) -> None:
    assert write(table, batch_of([1, 2, 3, 4], ["é" * 300_000] * 4), endpoint=proxy.url) == []
    assert [len(each["rows"]) for each in proxy.posted] == [2, 2]  # each row is 1.8 MB as it is sent
    assert ids_in(bigquery, table) == [1, 2, 3, 4]


def test_rows_of_messages_that_come_again_are_dropped(bigquery: BigQuery, table: str) -> None:
    for _ in range(2):
        assert write(table, batch_of([1, 2], message_ids=["a", "b"])) == []
    assert ids_in(bigquery, table) == [1, 2]
    for _ in range(2):
        assert write(table, batch_of([3, 4], message_ids=["c", "c"])) == []  # who knows if they are the same row
        assert write(table, batch_of([5])) == []
    assert ids_in(bigquery, table) == [1, 2, 3, 3, 4, 4, 5, 5]


def test_a_server_that_is_away_for_a_while_is_waited_for(bigquery: BigQuery, table: str, proxy: Proxy) -> None:
    proxy.answers = [(503, {}), (429, {"error": {"errors": [{"reason": "rateLimitExceeded"}]}})]
    assert write(table, batch_of([1, 2]), endpoint=proxy.url) == []
    assert len(proxy.posted) == 3
    assert ids_in(bigquery, table) == [1, 2]


def test_a_server_that_stays_away_fails_the_bundle(table: str, proxy: Proxy) -> None:
    proxy.answers = [(503, {})] * 1_000
    with pytest.raises(SluiceError, match=r"2 rows were not accepted within 0.1 s: ServiceUnavailable"):
        write(table, batch_of([1, 2]), endpoint=proxy.url, retry_secs=0.1)


def test_a_request_that_is_refused_fails_the_bundle_at_once(table: str, proxy: Proxy) -> None:
    proxy.answers = [(400, {"error": {"message": "it is wrong", "errors": [{"reason": "invalid"}]}})]
    with pytest.raises(SluiceError, match=r"BigQuery refuses a request of 1 rows: BadRequest: .*: it is wrong"):
        write(table, batch_of([1]), endpoint=proxy.url)
    proxy.answers = [(403, {"error": {"message": "not you", "errors": [{"reason": "accessDenied"}]}})]
    with pytest.raises(SluiceError, match=r"may not be written to: Forbidden: .*: not you; roles/bigquery.dataEditor"):
        write(table, batch_of([1]), endpoint=proxy.url)
    assert len(proxy.posted) == 2


def test_a_bundle_is_finished_only_when_its_rows_are_written(bigquery: BigQuery, table: str, proxy: Proxy) -> None:
    fn = sink(table, endpoint=proxy.url, retry_secs=0.1)
    batch = batch_of(list(range(520)), message_ids=[f"m{number}" for number in range(520)])
    process(fn, batch)
    proxy.close()
    with pytest.raises(SluiceError, match=r"20 rows were not accepted within 0.1 s: ConnectionError"):
        list(fn.finish_bundle())
    fn.teardown()
    assert ids_in(bigquery, table) == list(range(500))
    assert write(table, batch) == []  # the messages come again
    assert ids_in(bigquery, table) == list(range(520))


def test_a_bundle_that_failed_leaves_nothing_to_the_next(bigquery: BigQuery, table: str) -> None:
    fn = sink(table)
    process(fn, batch_of([1]))
    fn.start_bundle()
    process(fn, batch_of([2]))
    assert list(fn.finish_bundle()) == []
    fn.teardown()
    assert ids_in(bigquery, table) == [2]


def test_a_pipeline_fails_whose_rows_are_not_taken(table: str, proxy: Proxy) -> None:
    proxy.close()
    with (
        pytest.raises(Exception, match=r"3 rows were not accepted within 0.1 s"),
        beam.Pipeline(runner=FnApiRunner()) as pipeline,
    ):
        batches = pipeline | beam.Create([batch_of([1, 2, 3])])
        batches | WriteTable(table, SCHEMA, retry_secs=0.1, endpoint=proxy.url)


def test_rows_that_may_be_taken_the_next_time_are_sent_again(bigquery: BigQuery, table: str, proxy: Proxy) -> None:
    reasons = ["stopped", "invalid", "backendError"]
    refused = [{"index": place, "errors": [{"reason": reason}]} for place, reason in enumerate(reasons)]
    proxy.answers = [(200, {"insertErrors": refused}), (200, {"insertErrors": [refused[0]]})]
    failures = write(table, batch_of([10, 11, 12, 13], list("abcd")), endpoint=proxy.url)
    assert [failure.error_message for failure in failures] == ["no reason is given (invalid)"]
    assert failures[0].payload == b'{"id":11,"text":"b"}'
    # By the answers, 13 was accepted at first and 12 at the second; the proxy has written neither.
    assert [[row["json"]["id"] for row in each["rows"]] for each in proxy.posted] == [[10, 11, 12, 13], [10, 12], [10]]
    assert ids_in(bigquery, table) == [10]


def test_rows_that_are_never_taken_fail_the_bundle(table: str, proxy: Proxy) -> None:
    stopped = {"insertErrors": [{"index": 0, "errors": [{"reason": "timeout", "message": "later"}]}]}
    proxy.answers = [(200, stopped)] * 1_000
    with pytest.raises(SluiceError, match=r"1 rows were not accepted within 0.1 s: later \(timeout\)"):
        write(table, batch_of([1]), endpoint=proxy.url, retry_secs=0.1)


def test_a_table_that_is_not_seen_yet_is_waited_for(bigquery: BigQuery, table: str, proxy: Proxy) -> None:
    proxy.answers = [(404, {"error": {"message": "Not found: Table"}})] * 2
    assert write(table, batch_of([1]), endpoint=proxy.url) == []
    assert ids_in(bigquery, table) == [1]


def test_a_table_that_is_not_there_is_named(bigquery: BigQuery) -> None:
    name = f"{bigquery.make_dataset()}.gone"
    with pytest.raises(SluiceError, match=rf"table {name} does not exist: NotFound: .*; start the job anew"):
        write(name, batch_of([1]), retry_secs=0.1)


def test_a_column_that_the_table_lacks_fails_the_bundle(bigquery: BigQuery) -> None:
    table = bigquery.make_table([DATES[0], DATES[2]])
    with pytest.raises(SluiceError, match=r"lacks a column that the job writes: column 'text': no such field: text"):
        write(table, batch_of([1]))


def test_a_wrong_table_id_is_refused_at_launch() -> None:
    with pytest.raises(UsageError, match="'table' is not a table id"):
        WriteTable("table", SCHEMA)
