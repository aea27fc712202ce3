"""`WriteFailureTable` and `WriteFailureRows`, on the emulator of BigQuery, and what a failure's row holds."""

import base64
import dataclasses
import datetime
import hashlib
import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from sluice.models.errors import SluiceError, UsageError
from sluice.models.wording import Message
from sluice.transforms.bigquery import write_failures
from sluice.transforms.bigquery.append_rows import Refused
from sluice.transforms.bigquery.table import MAX_ROW_BYTES
from sluice.transforms.bigquery.table_target import TableTarget
from sluice.transforms.bigquery.write_failures import (
    FIELDS,
    SCHEMA,
    WriteFailureRows,
    WriteFailureTable,
    ensure_failure_table,
    failure_row,
)
from sluice.transforms.core.failures import PAYLOAD_MODES, Failure
from tests.support.servers import BigQuery, free_port
from tests.support.serving.http_proxy import Proxy

FAILURE = Failure(
    stage="predict",
    error_type="InvalidRow",
    error_message="column 'age': 'é' is not int64",
    origin="projects/p/subscriptions/s#message_id=7",
    payload=b'{"age":"\xc3\xa9"}',
    attributes=(("k", "v"), ("l", "")),
    model="gs://m",
    version=3,
    attempt=2,
    timestamp=1_700_000_000.123456,
)
ROW = {
    "timestamp": "2023-11-14T22:13:20.123456Z",
    "payloadString": '{"age":"é"}',
    "payloadBytes": "eyJhZ2UiOiLDqSJ9",
    "attributes": [{"key": "k", "value": "v"}, {"key": "l", "value": ""}],
    "errorMessage": "column 'age': 'é' is not int64",
    "stage": "predict",
    "errorType": "InvalidRow",
    "origin": "projects/p/subscriptions/s#message_id=7",
    "model": "gs://m",
    "version": 3,
    "attempt": 2,
}


def like(**changes: Any) -> Failure:
    return dataclasses.replace(FAILURE, **changes)


def size(row: dict[str, Any]) -> int:
    return len(json.dumps(row))


def sink(table: str, mode: str = "full", **options: Any) -> Any:
    """Returns the DoFn of WriteFailureTable, set up and in a bundle."""
    fn = WriteFailureTable(table, mode, **options)._fn
    fn.setup()
    fn.start_bundle()
    return fn


def write(table: str, *failures: Failure, mode: str = "full", **options: Any) -> None:
    """Writes failures in one bundle."""
    fn = sink(table, mode, **options)
    try:
        assert [output for failure in failures for output in fn.process(failure)] == []
        assert list(fn.finish_bundle()) == []
    finally:
        fn.teardown()


def changed(name: str, **changes: Any) -> list[dict[str, Any]]:
    """Returns FIELDS with one of them changed."""
    return [field | (changes if field["name"] == name else {}) for field in FIELDS]


@pytest.fixture
def table(bigquery: BigQuery) -> str:
    name = f"{bigquery.make_dataset()}.failures"
    ensure_failure_table(name)
    return name


@pytest.fixture
def proxy(bigquery: BigQuery) -> Iterator[Proxy]:
    with closing(Proxy(bigquery.url)) as server:
        yield server


def test_the_columns_of_the_table() -> None:
    """The columns are an interface for readers of the table."""
    found = [(field["name"], field["type"], field["mode"]) for field in FIELDS]
    assert found == [
        ("timestamp", "TIMESTAMP", "REQUIRED"),
        ("payloadString", "STRING", "NULLABLE"),
        ("payloadBytes", "BYTES", "NULLABLE"),
        ("attributes", "RECORD", "REPEATED"),
        ("errorMessage", "STRING", "NULLABLE"),
        ("stacktrace", "STRING", "NULLABLE"),
        ("stage", "STRING", "NULLABLE"),
        ("errorType", "STRING", "NULLABLE"),
        ("origin", "STRING", "NULLABLE"),
        ("model", "STRING", "NULLABLE"),
        ("version", "INTEGER", "NULLABLE"),
        ("attempt", "INTEGER", "NULLABLE"),
    ]
    assert FIELDS[3]["fields"] == [
        {"name": "key", "type": "STRING", "mode": "NULLABLE"},
        {"name": "value", "type": "STRING", "mode": "NULLABLE"},
    ]


def test_a_row() -> None:
    assert failure_row(FAILURE) == ROW
    assert list(failure_row(FAILURE)) == [field["name"] for field in FIELDS if field["name"] != "stacktrace"]


def test_what_is_not_known_is_left_out() -> None:
    assert failure_row(Failure("read", "EOFError", "cut off", "", timestamp=0.0)) == {
        "timestamp": "1970-01-01T00:00:00.000000Z",
        "payloadString": "",
        "payloadBytes": "",
        "attributes": [],
        "errorMessage": "cut off",
        "stage": "read",
        "errorType": "EOFError",
        "origin": "",
        "attempt": 1,
    }


@pytest.mark.parametrize(
    ("payload", "mode", "text", "data"),
    [
        (b"\xc3\xa9\x00", "full", "é\x00", b"\xc3\xa9\x00"),
        (b"", "full", "", b""),
        (b"\xff,1", "full", None, b"\xff,1"),
        (b"\xff,1", "hash", "sha256:" + hashlib.sha256(b"\xff,1").hexdigest(), None),
        (b"abc", "hash", "sha256:" + hashlib.sha256(b"abc").hexdigest(), None),
        (b"abc", "none", None, None),
    ],
)
def test_payloads(
    bigquery: BigQuery, table: str, payload: bytes, mode: str, text: str | None, data: bytes | None
) -> None:
    write(table, like(payload=payload), mode=mode)
    (found,) = bigquery.rows(table)
    assert (found["payloadString"], found["payloadBytes"]) == (text, data)


def test_a_failure_comes_back(bigquery: BigQuery, table: str) -> None:
    write(table, FAILURE, Failure("decode", "InvalidRow", "wrong", "f.csv#byte=7", timestamp=0.5))
    known, unknown = sorted(bigquery.rows(table), key=lambda row: -row["timestamp"].timestamp())
    when = datetime.datetime(2023, 11, 14, 22, 13, 20, 123456, datetime.UTC)
    assert known == ROW | {"timestamp": when, "payloadBytes": FAILURE.payload, "stacktrace": None}
    assert (unknown["model"], unknown["version"], unknown["attempt"]) == (None, None, 1)
    assert (unknown["attributes"], unknown["payloadBytes"]) == ([], b"")


def test_texts_that_utf_8_cannot_hold_and_large_versions(bigquery: BigQuery, table: str) -> None:
    version = (1 << 63) - 1
    write(table, like(error_message="no file \udcff", origin="\udcff.csv#byte=0", model="\udcff", version=version))
    (found,) = bigquery.rows(table)
    texts = [found[name] for name in ("errorMessage", "origin", "model")]
    assert texts == ["no file \\xff", "\\xff.csv#byte=0", "\\xff"]
    assert found["version"] == version


@pytest.mark.parametrize("payload", [b"\x00" * 4_000_000, b"\xff" * 7_000_000], ids=["text", "bytes"])
def test_a_large_payload_is_whole_in_its_bytes(payload: bytes) -> None:
    row = failure_row(like(payload=payload))
    assert base64.b64decode(row["payloadBytes"]) == payload
    assert "payloadString" not in row
    assert row["errorMessage"] == FAILURE.error_message


@pytest.mark.parametrize("payload", [b"a" * 9_990_000, bytes(range(256)) * 40_000], ids=["text", "bytes"])
def test_a_payload_that_is_too_large_is_cut_and_written(bigquery: BigQuery, table: str, payload: bytes) -> None:
    write(table, FAILURE, like(payload=payload), FAILURE)
    (found,) = [row for row in bigquery.rows(table) if row["payloadString"] is None]
    kept = found["payloadBytes"]
    assert payload.startswith(kept)
    assert 0.99 * MAX_ROW_BYTES < size(failure_row(like(payload=payload))) <= MAX_ROW_BYTES
    digest = hashlib.sha256(payload).hexdigest()
    assert found["errorMessage"] == (
        f"{FAILURE.error_message} [the payload, {len(payload):,} bytes, is cut to {len(kept):,}: BigQuery accepts "
        f"rows of {MAX_ROW_BYTES:,} bytes at most; sha256:{digest} is the hash of the whole payload]"
    )
    assert failure_row(like(payload=payload), "hash")["payloadString"] == f"sha256:{digest}"


@pytest.mark.parametrize("mode", PAYLOAD_MODES)
@pytest.mark.parametrize("payload", [b"p" * 100, b"p" * 20_000])
@pytest.mark.parametrize("message", ["é" * 100, "é" * 30_000])
def test_every_row_fits(monkeypatch: pytest.MonkeyPatch, mode: str, payload: bytes, message: str) -> None:
    limit = 80_000
    monkeypatch.setattr(write_failures, "MAX_ROW_BYTES", limit)
    row = failure_row(like(payload=payload, error_message=Message(message, message)), mode)
    assert size(row) <= limit
    assert len(message) == 30_000 or row["errorMessage"] == message
    assert row["errorMessage"].startswith(message[:10_000])
    if mode == "hash":
        assert row["payloadString"] == "sha256:" + hashlib.sha256(payload).hexdigest()
    if mode == "full":
        whole = base64.b64decode(row["payloadBytes"]) == payload
        assert whole != ("the payload, 20,000 bytes, is cut to" in row["errorMessage"])
        assert whole == (len(payload) == 100 or len(message) == 100)


def test_duplicates_of_a_messages_failure_are_dropped(bigquery: BigQuery, table: str) -> None:
    again = like(timestamp=FAILURE.timestamp + 1)
    others = [
        like(attempt=3),
        like(stage="write"),
        like(error_message="other"),
        like(origin="projects/p/subscriptions/s#message_id=8"),
        like(version=4),
    ]
    for failure in (FAILURE, again, *others):
        write(table, failure)
    assert len(bigquery.rows(table)) == 1 + len(others)
    of_file = like(origin="f.csv#byte=7")
    write(table, of_file, of_file)
    assert len(bigquery.rows(table)) == 3 + len(others)


def test_failures_gather_into_requests(bigquery: BigQuery, table: str, proxy: Proxy) -> None:
    fn = sink(table, endpoint=proxy.url)
    failures = [like(origin=f"s#message_id={number}") for number in range(520)]
    assert [output for failure in failures for output in fn.process(failure)] == []
    assert list(fn.finish_bundle()) == []
    fn.teardown()
    assert [len(each["rows"]) for each in proxy.posted] == [500, 20]
    assert len(bigquery.rows(table)) == 520


def test_failures_of_a_pipeline(bigquery: BigQuery, table: str) -> None:
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        _ = pipeline | beam.Create([FAILURE, like(attempt=3)]) | WriteFailureTable(table, "hash")
    assert sorted(row["attempt"] for row in bigquery.rows(table)) == [2, 3]
    assert {row["payloadBytes"] for row in bigquery.rows(table)} == {None}


def test_a_bundle_is_not_finished_before_its_failures_are_written(table: str, proxy: Proxy) -> None:
    fn = sink(table, endpoint=proxy.url, retry_secs=0.1)
    assert list(fn.process(FAILURE)) == []
    proxy.close()
    with pytest.raises(SluiceError, match=r"1 rows were not accepted within 0.1 s: ConnectionError"):
        list(fn.finish_bundle())
    fn.teardown()


def test_a_pipeline_fails_whose_failures_are_not_taken(table: str, proxy: Proxy) -> None:
    proxy.close()
    with (
        pytest.raises(Exception, match=r"2 rows were not accepted within 0.1 s"),
        beam.Pipeline(runner=FnApiRunner()) as pipeline,
    ):
        failures = pipeline | beam.Create([FAILURE, like(attempt=3)])
        failures | WriteFailureTable(table, retry_secs=0.1, endpoint=proxy.url)


def test_a_failure_that_is_refused_fails_the_bundle(bigquery: BigQuery, table: str, proxy: Proxy) -> None:
    refused = [{"index": 1, "errors": [{"reason": "invalid", "message": "it is wrong"}]}]
    proxy.answers = [(200, {"insertErrors": refused})]
    with pytest.raises(SluiceError, match=r"failures refuses the failure of of#message_id=8: it is wrong"):
        write(table, FAILURE, like(origin="of#message_id=8"), endpoint=proxy.url)


def test_a_table_that_is_made_fits(bigquery: BigQuery, table: str) -> None:
    assert [each.to_api_repr() for each in bigquery.client.get_table(table).schema] == list(FIELDS)
    ensure_failure_table(table.replace(".", ":", 1))


def test_a_table_may_have_more_columns(bigquery: BigQuery) -> None:
    table = bigquery.make_table([{"name": "seen", "type": "BOOLEAN"}, *FIELDS])
    ensure_failure_table(table)
    write(table, FAILURE)
    assert bigquery.rows(table)[0]["seen"] is None


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (list(FIELDS[:6]), "has no column 'stage', .* as STRING: add it to the table, or name"),
        (
            changed("payloadBytes", type="BYTES", mode="REQUIRED"),  # as Google's is
            "'payloadBytes' of .* is REQUIRED, and not every row to be written has it: make it NULLABLE, or name",
        ),
        (
            changed("payloadString", type="JSON"),
            "'payloadString' of .* is JSON, and STRING is to be written: change the column in the table, or name",
        ),
        (changed("attributes", type="STRING", mode="NULLABLE"), "'attributes' of .* is STRING, and REPEATED RECORD"),
        (changed("attributes", fields=FIELDS[3]["fields"][:1]), "has no column 'attributes.value'"),
        ([*FIELDS, FIELDS[0] | {"name": "key"}], "has the REQUIRED column 'key', which is not among"),
    ],
)
def test_a_table_that_does_not_take_every_failure_is_refused(
    bigquery: BigQuery, fields: list[dict[str, Any]], text: str
) -> None:
    with pytest.raises(UsageError, match=text) as raised:
        ensure_failure_table(bigquery.make_table(fields))
    assert "--exclude_columns" not in str(raised.value)


def test_launch_without_a_server_or_a_table() -> None:
    with pytest.raises(UsageError, match=r"BigQuery does not answer: .*refused"):
        ensure_failure_table("p.d.t", f"http://127.0.0.1:{free_port()}", retry_secs=0.1)
    with pytest.raises(UsageError, match="'table' is not a table id"):
        ensure_failure_table("table")
    with pytest.raises(UsageError, match="'table' is not a table id"):
        WriteFailureTable("table")


# A batch job's failures ---------------------------------------------------------------------------------------------


class Stream:
    """Accepts every row.

    Attributes:
      batches: how many rows came at once.
    """

    def __init__(self) -> None:
        self.batches: list[int] = []

    def append(self, batch: pa.RecordBatch, source: Any) -> list[Refused]:
        self.batches.append(batch.num_rows)
        return []


def sent(*failures: Failure) -> list[int]:
    """Returns how many failures are sent at once before the bundle ends."""
    stream = Stream()
    fn = WriteFailureRows(TableTarget.appended("p.d.t", SCHEMA, "j"))._fn
    fn._open = lambda: stream
    fn.start_bundle()
    for failure in failures:
        assert list(fn.process(failure)) == []
    return stream.batches


def test_failures_gather_by_number_and_by_bytes() -> None:
    small = Failure("predict", "InvalidRow", "m", "o", b"p")
    assert sent(*[small] * 1_100) == [500, 500]
    third = write_failures._BATCH_BYTES // 3 + 1
    payloads = Failure("predict", "InvalidRow", "m", "o", b"p" * third)
    assert sent(*[payloads] * 7) == [3, 3]
    texts = Failure("predict", "InvalidRow", "m" * third, "o", b"")
    assert sent(small, *[texts] * 4) == [4]
