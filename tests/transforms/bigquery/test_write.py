"""Rows to a table by the Storage Write API, on the emulator, and through a proxy that injects faults."""

import collections
import datetime
import json
import os
import signal
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms.window import FixedWindows, GlobalWindow, TimestampedValue
from apache_beam.utils.timestamp import Timestamp
from apache_beam.utils.windowed_value import WindowedValue
from google.api_core import exceptions
from google.api_core.exceptions import InvalidArgument
from google.cloud.bigquery_storage_v1.types import (
    BatchCommitWriteStreamsResponse,
    FinalizeWriteStreamResponse,
    StorageError,
    WriteStream,
)
from grpc import StatusCode

from sluice.models.errors import SluiceError, UsageError
from sluice.transforms.bigquery import append_requests, append_rows
from sluice.transforms.bigquery import clients as bigquery_clients
from sluice.transforms.bigquery import commit as commit_table
from sluice.transforms.bigquery import write as write_bigquery
from sluice.transforms.bigquery.commit import TableCommitter, commit_groups
from sluice.transforms.bigquery.table import ensure_table, table_path
from sluice.transforms.bigquery.table_columns import append_schema
from sluice.transforms.bigquery.table_target import TableTarget, has_rows, plan_table
from sluice.transforms.bigquery.write import Pace, RowStream, WriteStreamTable, WriteTableRows, make_stream
from sluice.transforms.core.commit import Commit, Committed, FailurePolicy
from sluice.transforms.core.failures import ENCODE, WRITE, Failure
from sluice.transforms.core.messages import message_batch
from sluice.transforms.files.commit import FilesCommitter
from sluice.transforms.files.write import Target, WriteFailureShards
from tests.support.bigquery.proxy import NEVER_SECS, BigQueryProxy
from tests.support.fakes import PATIENCE_SECS
from tests.support.processes import Forked
from tests.support.servers import BigQuery
from tests.transforms.bigquery.test_write_inserts import EVERY_TYPE, comparable

UTC = datetime.UTC
NOW = 1_750_000_000.25
SCHEMA = pa.schema([("id", pa.int64()), ("text", pa.string())])
# A table for SCHEMA that refuses some texts.
DATES = [
    {"name": "id", "type": "INTEGER"},
    {"name": "text", "type": "DATE"},
    {"name": "_predicted_at", "type": "TIMESTAMP"},
]
# How its rows are appended: the table's column is a DATE, and BigQuery accepts a date's text.
TEXTS = append_schema(
    SCHEMA, [{**field, "mode": "NULLABLE"} | ({"type": "STRING"} if field["name"] == "text" else {}) for field in DATES]
)


def plan(table: str, schema: pa.Schema = SCHEMA, disposition: str = "append") -> TableTarget:
    """Returns the target of a new job."""
    return plan_table(table, schema, f"job-{uuid.uuid4().hex[:8]}", disposition)


def batch_of(ids: list[int], texts: list[str | None] | None = None) -> pa.RecordBatch:
    return pa.record_batch([pa.array(ids), pa.array(texts or ["x"] * len(ids), pa.string())], schema=SCHEMA)


def sink(target: TableTarget, endpoint: str | None = None, retry_secs: float = 5.0) -> Any:
    """Returns the DoFn of WriteTableRows, set up and in a bundle."""
    fn = WriteTableRows(target.rows_table, target.schema, retry_secs, endpoint, lambda: NOW)._fn
    fn.setup()
    fn.start_bundle()
    return fn


def stream_sink(table: str, schema: pa.Schema = TEXTS, endpoint: str | None = None, retry_secs: float = 5.0) -> Any:
    """Returns the DoFn of WriteStreamTable, likewise."""
    fn = WriteStreamTable(table, schema, retry_secs, endpoint, lambda: NOW)._fn
    fn.setup()
    fn.start_bundle()
    return fn


def process(fn: Any, batch: pa.RecordBatch) -> list[Any]:
    return [given(each) for each in fn.process(batch, GlobalWindow(), Timestamp(0))]


def finish(fn: Any) -> list[Any]:
    return [given(each) for each in fn.finish_bundle()]


def given(output: Any) -> Any:
    output = output.value if isinstance(output, beam.pvalue.TaggedOutput) else output
    return output.value if isinstance(output, WindowedValue) else output


def write(target: TableTarget, *batches: pa.RecordBatch, **options: Any) -> tuple[list[RowStream], list[Failure]]:
    """Writes batches in one bundle."""
    fn = sink(target, **options)
    outputs = [each for batch in batches for each in process(fn, batch)] + finish(fn)
    fn.teardown()
    streams = [each for each in outputs if isinstance(each, RowStream)]
    return streams, [each for each in outputs if isinstance(each, Failure)]


def commit(target: TableTarget, streams: list[RowStream], endpoint: str | None = None, retry_secs: float = 5.0) -> None:
    place = TableCommitter(target, retry_secs, endpoint)
    place.commit(streams)
    place.clean_up()


def ids_in(bigquery: BigQuery, table: str) -> list[int]:
    return sorted(row["id"] for row in bigquery.rows(table))


@pytest.fixture
def table(bigquery: BigQuery) -> str:
    """A table that does not exist yet."""
    return f"{bigquery.make_dataset()}.t"


@pytest.fixture
def target(table: str) -> TableTarget:
    return plan(table)


@pytest.fixture
def proxy(bigquery: BigQuery) -> Iterator[BigQueryProxy]:
    with closing(BigQueryProxy(bigquery)) as server:
        yield server


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests hold about ten rows."""
    for module in (append_rows, append_requests):
        monkeypatch.setattr(module, "REQUEST_BYTES", 300)


# A table of every type ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("disposition", ["append", "truncate"])
def test_values_of_every_type_come_back(bigquery: BigQuery, table: str, disposition: str) -> None:
    schema = pa.schema([(name, column[0]) for name, column in EVERY_TYPE.items()])
    target = plan(table, schema, disposition)
    batch = pa.record_batch([pa.array(column[1], column[0]) for column in EVERY_TYPE.values()], schema=schema)
    streams, failures = write(target, batch)
    assert failures == []
    commit(target, streams)
    found = sorted(bigquery.rows(table), key=lambda row: row["id"])
    wanted = {name: column[-1] for name, column in EVERY_TYPE.items()}
    wanted["f4"] = pa.array(wanted["f4"], pa.float32()).to_pylist()  # the exact value, not its shortest text
    wanted["floats"] = pa.array(wanted["floats"], pa.list_(pa.float32())).to_pylist()
    for column, values in wanted.items():
        assert comparable([row[column] for row in found]) == comparable(values), column
    assert {row["_predicted_at"] for row in found} == {datetime.datetime.fromtimestamp(NOW, UTC)}


# Batch --------------------------------------------------------------------------------------------------------------


def test_rows_are_seen_once_they_are_committed(bigquery: BigQuery, target: TableTarget) -> None:
    streams, failures = write(target, batch_of([1, 2]), batch_of([3]))
    assert (len(streams), streams[0].rows, failures) == (1, 3, [])
    assert bigquery.rows(target.table) == []
    commit(target, streams)
    assert ids_in(bigquery, target.table) == [1, 2, 3]
    commit(target, streams)  # the step is tried again
    commit(target, streams * 2)
    note = json.dumps(TableCommitter(target).note(streams))
    finishing, parts = TableCommitter(plan(target.table)).noted(json.loads(note))
    finishing.commit(parts)  # by another command
    assert ids_in(bigquery, target.table) == [1, 2, 3]


def test_a_bundle_without_rows_makes_no_stream(target: TableTarget, proxy: BigQueryProxy) -> None:
    assert write(target, endpoint=proxy.url) == ([], [])
    assert write(target, batch_of([]), endpoint=proxy.url) == ([], [])
    commit(target, [], proxy.url)
    assert dict(proxy.requests) == {}


def test_a_bundle_that_failed_leaves_nothing_to_the_next(bigquery: BigQuery, target: TableTarget) -> None:
    fn = sink(target)
    process(fn, batch_of([1]))
    fn.start_bundle()
    process(fn, batch_of([2]))
    (stream,) = finish(fn)
    fn.start_bundle()
    assert finish(fn) == []
    fn.teardown()
    commit(target, [stream])
    assert ids_in(bigquery, target.table) == [2]


def test_a_row_that_cannot_be_converted_fails_alone(bigquery: BigQuery, target: TableTarget) -> None:
    texts = pa.array([b"a", b"\xff", b"c"]).view(pa.string())
    streams, (failure,) = write(target, pa.record_batch([pa.array([1, 2, 3]), texts], schema=SCHEMA))
    assert (failure.stage, failure.error_type) == (ENCODE, "SluiceError")
    assert "column 'text': string does not fit string of the table: Invalid UTF8" in failure.error_message
    commit(target, streams)
    assert ids_in(bigquery, target.table) == [1, 3]


FAULTS: list[tuple[StatusCode, dict[str, Any]]] = [
    *((code, {"after": after}) for code in (StatusCode.UNAVAILABLE, StatusCode.ABORTED) for after in (0, 2)),
    (StatusCode.UNAVAILABLE, {"after": 2, "passed_on": True}),
    (StatusCode.ABORTED, {"passed_on": True}),
    (StatusCode.ABORTED, {"after": 2, "in_answer": True}),
    (StatusCode.ABORTED, {"after": 2, "in_answer": True, "passed_on": True}),
    (StatusCode.INTERNAL, {"in_answer": True}),
    (StatusCode.OUT_OF_RANGE, {"after": 2, "in_answer": True}),
    (StatusCode.OUT_OF_RANGE, {"after": 2, "passed_on": True}),
    (StatusCode.ALREADY_EXISTS, {"after": 2, "passed_on": True}),
    (StatusCode.ALREADY_EXISTS, {"after": 2, "in_answer": True, "passed_on": True}),
]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("code", "options"), FAULTS)
def test_appends_that_break_write_every_row_once(
    bigquery: BigQuery, target: TableTarget, proxy: BigQueryProxy, code: StatusCode, options: dict[str, Any]
) -> None:
    proxy.fail("AppendRows", code, **options)
    streams, failures = write(
        target, *(batch_of(list(range(at, at + 10))) for at in range(0, 60, 10)), endpoint=proxy.url
    )
    assert (failures, proxy.happened, len(proxy.requests["AppendRows"]) >= 6) == ([], 1, True)
    commit(target, streams)
    assert ids_in(bigquery, target.table) == list(range(60))


@pytest.mark.usefixtures("small")
def test_an_append_that_is_said_to_be_in_and_is_not_is_found_out_before_the_commit(
    bigquery: BigQuery, target: TableTarget, proxy: BigQueryProxy, small: None
) -> None:
    proxy.fail("AppendRows", StatusCode.ALREADY_EXISTS, after=1, in_answer=True)
    with pytest.raises(SluiceError, match=r"OUT_OF_RANGE|holds \d+ rows, and 20 were appended to it: rows are missing"):
        streams, _ = write(target, batch_of(list(range(20))), endpoint=proxy.url, retry_secs=0.3)
        commit(target, streams)
    assert bigquery.rows(target.table) == []


def test_an_answer_that_is_late_is_waited_for_or_asked_for_again(
    bigquery: BigQuery, target: TableTarget, proxy: BigQueryProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.fail("AppendRows", None, delay_secs=0.1)
    first, _ = write(target, batch_of([1]), endpoint=proxy.url)
    assert len(proxy.requests["AppendRows"]) == 1
    # On a busy machine other answers come too late as well, and are asked for again.
    options = append_rows.AppendOptions(PATIENCE_SECS, request_secs=0.5)
    monkeypatch.setattr(write_bigquery, "AppendOptions", lambda _: options)
    proxy.fail("AppendRows", None, passed_on=True, delay_secs=NEVER_SECS)
    second, _ = write(target, batch_of([2]), endpoint=proxy.url)
    assert len(proxy.requests["AppendRows"]) >= 3
    commit(target, first + second)
    assert ids_in(bigquery, target.table) == [1, 2]


def test_a_server_that_is_started_again_is_waited_for(
    bigquery: BigQuery, target: TableTarget, proxy: BigQueryProxy
) -> None:
    fn = sink(target, proxy.url)
    process(fn, batch_of([1]))
    proxy.stop()
    proxy.start()
    (stream,) = finish(fn)
    fn.teardown()
    commit(target, [stream])
    assert ids_in(bigquery, target.table) == [1]


@pytest.mark.parametrize("method", ["CreateWriteStream", "FinalizeWriteStream"])
@pytest.mark.parametrize("passed_on", [False, True])
def test_streams_are_made_and_finalized_though_that_breaks(
    bigquery: BigQuery, target: TableTarget, proxy: BigQueryProxy, method: str, passed_on: bool
) -> None:
    proxy.fail(method, StatusCode.UNAVAILABLE, passed_on=passed_on)
    proxy.fail(method, StatusCode.RESOURCE_EXHAUSTED)
    streams, failures = write(target, batch_of([1, 2]), endpoint=proxy.url)
    commit(target, streams, endpoint=proxy.url)
    assert (len(streams), failures, len(proxy.requests[method])) == (1, [], 3)
    assert ids_in(bigquery, target.table) == [1, 2]


def test_what_stays_away_fails_the_bundle(target: TableTarget, proxy: BigQueryProxy) -> None:
    proxy.fail_always("AppendRows")
    with pytest.raises(SluiceError, match=r"UNAVAILABLE: the proxy says so \(tried \d+ times, for 0.3 s\)"):
        write(target, batch_of([1]), endpoint=proxy.url, retry_secs=0.3)
    proxy.fail_always("CreateWriteStream")
    with pytest.raises(SluiceError, match=r"a stream of projects/.* cannot be made: ServiceUnavailable: the proxy"):
        write(target, batch_of([1]), endpoint=proxy.url, retry_secs=0.3)


def test_what_is_not_allowed_fails_at_once(target: TableTarget, proxy: BigQueryProxy) -> None:
    for method, text in (("AppendRows", "PERMISSION_DENIED"), ("CreateWriteStream", "PermissionDenied")):
        proxy.fail(method, StatusCode.PERMISSION_DENIED)
        with pytest.raises(SluiceError, match=rf"{text}: .*; roles/bigquery.dataEditor allows it"):
            write(target, batch_of([1]), endpoint=proxy.url, retry_secs=60.0)


def test_a_missing_table_is_an_error(bigquery: BigQuery, target: TableTarget) -> None:
    bigquery.client.delete_table(target.table)
    with pytest.raises(SluiceError, match=r"a stream of .* cannot be made: NotFound: .*"):
        write(target, batch_of([1]), retry_secs=0.1)


def test_streams_are_made_at_a_limited_rate() -> None:
    now, pauses = [0.0], []
    pace = Pace(0.5, lambda: now[0], pauses.append)
    for _ in range(3):
        pace.wait()
    now[0] = 10.0
    pace.wait()
    assert pauses == [0.5, 1.0]

    class Client:
        def create_write_stream(self, **request: Any) -> Any:
            pauses.append(-1)
            return collections.namedtuple("Stream", "name")("s")

    assert make_stream(Client(), "t", 1.0, pace) == "s"
    assert pauses == [0.5, 1.0, 0.5, -1]


class Streams:
    """Raises these errors, one a call, and then makes a stream."""

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)

    def create_write_stream(self, **request: Any) -> Any:
        if self._errors:
            raise self._errors.pop(0)
        return collections.namedtuple("Stream", "name")("s")


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> Pace:
    """Returns a pace without pauses; those for the quota are 1 ms."""
    monkeypatch.setattr(write_bigquery, "_FIRST_QUOTA_PAUSE_SECS", 0.001)
    monkeypatch.setattr(write_bigquery, "_LAST_QUOTA_PAUSE_SECS", 0.001)
    return Pace(0.0)


def test_a_quota_that_is_used_up_is_waited_for(hasty: Pace, monkeypatch: pytest.MonkeyPatch) -> None:
    used_up = exceptions.ResourceExhausted("Exceeds 'CreateWriteStream requests' quota")
    assert make_stream(Streams(*[used_up] * 50), "t", 0.0, hasty) == "s"
    mixed = [used_up, exceptions.ServiceUnavailable("away"), used_up]
    assert make_stream(Streams(*mixed), "t", 5.0, hasty) == "s"
    monkeypatch.setattr(write_bigquery, "_QUOTA_SECS", 0.05)
    with pytest.raises(
        SluiceError, match=r"ResourceExhausted: Exceeds .* quota; --write_method file_loads makes no str"
    ):
        make_stream(Streams(*[used_up] * 100_000), "t", 0.0, hasty)


def test_what_else_keeps_streams_from_being_made_has_its_own_time(hasty: Pace) -> None:
    for error in (exceptions.ServiceUnavailable("away"), exceptions.NotFound("a new table")):
        with pytest.raises(SluiceError, match=rf"a stream of t cannot be made: {type(error).__name__}: "):
            make_stream(Streams(*[error] * 100_000), "t", 0.0, hasty)


# The commit ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("passed_on", [False, True])
def test_a_commit_that_breaks_is_tried_again(
    bigquery: BigQuery, target: TableTarget, proxy: BigQueryProxy, passed_on: bool
) -> None:
    streams = [stream for number in range(3) for stream in write(target, batch_of([number]))[0]]
    proxy.fail("BatchCommitWriteStreams", passed_on=passed_on)
    commit(target, streams, proxy.url)
    assert len(proxy.requests["BatchCommitWriteStreams"]) == 2
    assert ids_in(bigquery, target.table) == [0, 1, 2]


def test_many_streams_are_committed_in_groups_and_the_rest_the_next_time(
    bigquery: BigQuery, target: TableTarget, proxy: BigQueryProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit_groups, "__defaults__", (2, 1 << 40))
    streams = [stream for number in range(5) for stream in write(target, batch_of([number]))[0]]
    proxy.fail_always("BatchCommitWriteStreams", StatusCode.PERMISSION_DENIED)
    proxy.faults[0].times = 1
    first = commit_groups(streams, 2)
    commit(target, next(first))  # a step that dies between two commits
    with pytest.raises(SluiceError, match=r"2 streams of projects/.* cannot be committed: PermissionDenied"):
        commit(target, streams, proxy.url)
    assert len(bigquery.rows(target.table)) == 2
    commit(target, streams, proxy.url)
    commit(target, streams, proxy.url)
    assert ids_in(bigquery, target.table) == [0, 1, 2, 3, 4]


def test_streams_that_were_committed_before_are_left_out() -> None:
    """BigQuery says ALREADY_COMMITTED; the emulator says INVALID_STREAM_STATE."""

    class Client:
        asked: list[list[str]] = []

        def finalize_write_stream(self, name: str, **_: Any) -> FinalizeWriteStreamResponse:
            if name == "c":
                raise InvalidArgument("it is committed")
            return FinalizeWriteStreamResponse(row_count=1)

        def get_write_stream(self, name: str, **_: Any) -> WriteStream:
            return WriteStream(commit_time=datetime.datetime.now(UTC))

        def batch_commit_write_streams(self, request: dict[str, Any], **_: Any) -> BatchCommitWriteStreamsResponse:
            self.asked.append(list(request["write_streams"]))
            if len(self.asked) > 1:
                return BatchCommitWriteStreamsResponse(commit_time=datetime.datetime.now(UTC))
            code = StorageError.StorageErrorCode.STREAM_ALREADY_COMMITTED
            return BatchCommitWriteStreamsResponse(stream_errors=[StorageError(code=code, entity="b")])

    commit_table.commit_streams(Client(), "t", [RowStream(name, 1, 1) for name in "cba"], 1.0)
    assert Client.asked == [["a", "b", "c"], ["a", "c"]]


def test_groups_keep_within_the_limits() -> None:
    streams = [RowStream(f"s{number}", 1, number) for number in range(10)]
    names = [[stream.name for stream in group] for group in commit_groups([*reversed(streams), streams[0]], 4, 10)]
    assert names == [["s0", "s1", "s2", "s3"], ["s4", "s5"], ["s6"], ["s7"], ["s8"], ["s9"]]
    assert [len(group) for group in commit_groups([RowStream(str(number), 1, 1) for number in range(10_001)])] == [
        10_000,
        1,
    ]


def test_a_stream_that_cannot_be_committed_leaves_all_of_them(bigquery: BigQuery, target: TableTarget) -> None:
    streams, _ = write(target, batch_of([1]))
    client = bigquery_clients.write_client()
    name = make_stream(client, table_path(target.table), 5.0)  # and gets no row
    with pytest.raises(SluiceError, match="holds 0 rows, and 1 were appended to it: rows are missing or double"):
        commit(target, [*streams, RowStream(name, 1, 1)])
    bigquery_clients.close(client)
    assert bigquery.rows(target.table) == []


def test_a_partition_is_not_replaced(table: str) -> None:
    with pytest.raises(UsageError, match=r"truncate replaces whole tables, and .* names a partition"):
        plan(f"{table}$20260102", SCHEMA, "truncate")


def test_a_table_that_has_rows_is_not_empty(bigquery: BigQuery, table: str) -> None:
    target = plan(table, SCHEMA, "empty")
    assert not has_rows(table)
    streams, _ = write(target, batch_of([1]))
    other = plan(table)
    commit(other, write(other, batch_of([2]))[0])
    with pytest.raises(SluiceError, match="has got rows since the job began, and disposition empty says"):
        commit(target, streams)
    assert ids_in(bigquery, table) == [2]
    with pytest.raises(UsageError, match="has rows, and disposition empty says that it has none; give append"):
        plan(table, SCHEMA, "empty")


def test_a_commit_to_an_empty_table_may_be_tried_again(bigquery: BigQuery, table: str) -> None:
    target = plan(table, SCHEMA, "empty")
    streams, _ = write(target, batch_of([1]))
    for _ in range(2):
        commit(target, streams)
    assert ids_in(bigquery, table) == [1]


def tables_beside(bigquery: BigQuery, table: str) -> list[str]:
    return sorted(each.table_id for each in bigquery.client.list_tables(table.rsplit(".", 1)[0]))


def test_rows_are_replaced_all_at_once(bigquery: BigQuery, table: str) -> None:
    old = plan(table)
    commit(old, write(old, batch_of([1, 2]))[0])
    target = plan(table, SCHEMA, "truncate")
    assert tables_beside(bigquery, table) == [f"sluice_tmp_{target.job}".replace("-", "_"), "t"]
    assert bigquery.client.get_table(target.rows_table).expires is not None
    streams, _ = write(target, batch_of([3]))
    assert ids_in(bigquery, table) == [1, 2]
    for _ in range(2):
        commit(target, streams)
        assert ids_in(bigquery, table) == [3]
    assert tables_beside(bigquery, table) == ["t"]
    nothing = plan(table, SCHEMA, "truncate")
    commit(nothing, [])
    assert bigquery.rows(table) == []


def test_replacing_that_dies_half_way_goes_on(bigquery: BigQuery, table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    target = plan(table, SCHEMA, "truncate")
    streams, _ = write(target, batch_of([3]))
    replace = commit_table.replace_rows

    def dies_before(*_: Any) -> None:
        raise SluiceError("dead")

    def dies_after(*arguments: Any) -> None:
        replace(*arguments)
        raise SluiceError("dead")

    for death, seen in ((dies_before, []), (dies_after, [3]), (replace, [3])):
        monkeypatch.setattr(commit_table, "replace_rows", death)
        try:
            commit(target, streams)
        except SluiceError as error:
            assert str(error) == "dead"
        assert ids_in(bigquery, table) == seen
    assert tables_beside(bigquery, table) == ["t"]


# Pipelines ----------------------------------------------------------------------------------------------------------


class FailOnce(beam.DoFn):
    """Fails its bundle at the end, once."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def process(self, element: Any) -> Iterator[Any]:
        yield element

    def finish_bundle(self) -> None:
        if not self._marker.exists():
            self._marker.touch()
            raise RuntimeError("the worker is lost")


def run_job(
    target: TableTarget, directory: Path, batches: list[pa.RecordBatch], rate: float = 0.5, **extra: Any
) -> None:
    """Runs the sinks of a batch job, and writes what it committed to a file."""
    failures_target = Target(f"{directory}/failures", ".jsonl", f"{directory}/.temp")
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        rows = (
            pipeline
            | beam.Create(range(len(batches)), reshuffle=False)
            | beam.Map(batches.__getitem__).with_output_types(pa.RecordBatch)
        )
        tally = rows | "Count" >> beam.Map(lambda batch: batch.num_rows)
        written = rows | "Write" >> WriteTableRows(target.rows_table, target.schema, 5.0, **extra)
        shards = written.failures | "WriteFailures" >> WriteFailureShards(failures_target)
        commit = Commit(TableCommitter(target, 5.0, **extra), [FilesCommitter(failures_target)], FailurePolicy(rate))
        done = (written.streams, shards, tally) | "Commit" >> commit
        done | "Keep" >> beam.Map(_keep, f"{directory}/committed")


def _keep(committed: Committed, path: str) -> None:
    Path(path).write_text(repr(committed))


def test_a_job_writes_its_rows_and_its_failures(bigquery: BigQuery, target: TableTarget, tmp_path: Path) -> None:
    texts = pa.array([b"a", b"\xff", b"c"]).view(pa.string())
    bad = pa.record_batch([pa.array([7, 8, 9]), texts], schema=SCHEMA)
    run_job(target, tmp_path, [batch_of([1, 2]), bad, batch_of([3])])
    assert ids_in(bigquery, target.table) == [1, 2, 3, 7, 9]
    files = (f"{tmp_path}/failures-00000-of-00001.jsonl",)
    assert (tmp_path / "committed").read_text() == repr(Committed(6, 5, 1, (), files))
    assert len(Path(files[0]).read_text().splitlines()) == 1


@pytest.mark.parametrize("disposition", ["append", "truncate"])
def test_a_job_with_too_many_failures_writes_only_them(
    bigquery: BigQuery, table: str, tmp_path: Path, disposition: str
) -> None:
    target = plan(table, SCHEMA, disposition)
    bad = pa.record_batch([pa.array([1, 2]), pa.array([b"a", b"\xff"]).view(pa.string())], schema=SCHEMA)
    with pytest.raises(Exception, match=r"1 of 2 rows failed .*, more than --max_failure_rate 0.1 allows"):
        run_job(target, tmp_path, [bad], rate=0.1)
    assert bigquery.rows(table) == []
    assert tables_beside(bigquery, table) == ["t"]
    assert len((tmp_path / "failures-00000-of-00001.jsonl").read_text().splitlines()) == 1


def test_bundles_and_commits_that_are_tried_again_write_every_row_once(
    bigquery: BigQuery, target: TableTarget, tmp_path: Path
) -> None:
    """The stage that appends fails after its appends, and so does the one that commits, after the commit."""
    runner = FnApiRunner()
    failures_target = Target(f"{tmp_path}/failures", ".jsonl", f"{tmp_path}/.temp")

    def job() -> None:
        with beam.Pipeline(runner=runner) as pipeline:
            rows = pipeline | beam.Create([0], reshuffle=False)
            rows = rows | beam.Map(lambda _: batch_of([1, 2, 3])).with_output_types(pa.RecordBatch)
            tally = rows | "Count" >> beam.Map(lambda batch: batch.num_rows)
            written = rows | "Write" >> WriteTableRows(target.rows_table, target.schema, 5.0)
            streams = written.streams | "FailWrite" >> beam.ParDo(FailOnce(tmp_path / "write"))
            shards = written.failures | "WriteFailures" >> WriteFailureShards(failures_target)
            commit = Commit(TableCommitter(target, 5.0), [FilesCommitter(failures_target)], FailurePolicy(0))
            done = (streams, shards, tally) | "Commit" >> commit
            done | "Keep" >> beam.Map(_keep, f"{tmp_path}/committed")

    with pytest.raises(Exception, match="the worker is lost"):
        job()
    assert bigquery.rows(target.table) == []  # its streams are there, and not committed
    job()
    assert ids_in(bigquery, target.table) == [1, 2, 3]


def test_a_commit_step_that_is_run_twice_commits_once(bigquery: BigQuery, target: TableTarget, tmp_path: Path) -> None:
    streams, _ = write(target, batch_of([1, 2]))
    failures = FilesCommitter(Target(f"{tmp_path}/f", ".jsonl", f"{tmp_path}/.temp"))
    fn = Commit(TableCommitter(target, 5.0), [failures], FailurePolicy(0))._fn
    found = [list(fn.process(0, each, [], [2])) for each in (streams, streams * 2)]
    assert found == [[Committed(2, 2, 0, (), ())]] * 2
    assert ids_in(bigquery, target.table) == [1, 2]
    with pytest.raises(SluiceError, match="rows are missing or duplicated"):
        list(fn.process(0, streams, [], [3]))


def append_and_die(table: str) -> None:
    streams, _ = write(plan(table), batch_of(list(range(1000))))
    assert len(streams) == 1
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_job_that_is_killed_leaves_nothing(bigquery: BigQuery, target: TableTarget, tmp_path: Path) -> None:
    assert Forked(append_and_die, target.table).wait() == -signal.SIGKILL
    assert bigquery.rows(target.table) == []


# Streaming ----------------------------------------------------------------------------------------------------------


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
    fn = stream_sink(table)
    (failure,) = process(fn, batch) + finish(fn)
    fn.teardown()
    assert (failure.stage, failure.error_type, failure.payload) == (WRITE, "AppendError", b"second")
    assert "Cannot convert value to date (bad value): no date" in failure.error_message
    assert failure.origin == "projects/p/subscriptions/s#message_id=8"
    assert (failure.attributes, failure.attempt) == ((("of", "b"),), 2)
    found = sorted((row["id"], row["text"]) for row in bigquery.rows(table))
    assert found == [(1, datetime.date(2026, 1, 2)), (3, None)]


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
            | WriteStreamTable(table, TEXTS)
            | beam.Map(seen)
        )
        wanted = [(0, 1), (10, 12), (10, 13), (20, 27)]
        assert_that(failures, equal_to([(*each, "AppendError") for each in wanted]))
    assert ids_in(bigquery, table) == [101, 112, 113, 127]


def test_a_bundle_is_finished_only_when_its_rows_are_written(bigquery: BigQuery, proxy: BigQueryProxy) -> None:
    table = bigquery.make_table(DATES)
    fn = stream_sink(table, endpoint=proxy.url, retry_secs=0.3)
    process(fn, batch_of([1], ["2026-01-02"]))
    assert bigquery.rows(table) == []
    assert finish(fn) == []
    assert ids_in(bigquery, table) == [1]
    fn.start_bundle()
    process(fn, batch_of([2], ["2026-01-02"]))
    proxy.fail_always("AppendRows", after=1)
    proxy.fail_always("AppendRows")
    with pytest.raises(SluiceError, match=r"appended to .*/streams/_default: UNAVAILABLE: the proxy says so"):
        finish(fn)
    proxy.recover()
    fn.start_bundle()
    assert finish(fn) == []  # what failed is not written by the next
    process(fn, batch_of([3], ["2026-01-02"]))
    assert finish(fn) == []
    fn.teardown()
    assert ids_in(bigquery, table) == [1, 3]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("code", "options", "doubles"),
    [
        (StatusCode.UNAVAILABLE, {"after": 1}, 0),
        (StatusCode.ABORTED, {"in_answer": True}, 0),
        (StatusCode.UNAVAILABLE, {"passed_on": True}, 10),
    ],
)
def test_appends_that_break_write_every_row(
    bigquery: BigQuery, table: str, proxy: BigQueryProxy, code: StatusCode, options: dict[str, Any], doubles: int
) -> None:
    schema = append_schema(SCHEMA, ensure_table(table, SCHEMA))
    proxy.fail("AppendRows", code, **options)
    fn = stream_sink(table, schema, proxy.url)
    assert [each for at in range(0, 60, 10) for each in process(fn, batch_of(list(range(at, at + 10))))] == []
    assert finish(fn) == []
    fn.teardown()
    found = ids_in(bigquery, table)
    assert (sorted(set(found)), len(found)) == (list(range(60)), 60 + doubles)


def test_bundles_share_a_connection(bigquery: BigQuery, table: str, proxy: BigQueryProxy) -> None:
    fn = stream_sink(table, append_schema(SCHEMA, ensure_table(table, SCHEMA)), proxy.url)
    for number in range(5):
        fn.start_bundle()
        process(fn, batch_of([number]))
        assert finish(fn) == []
    fn.teardown()
    sent = proxy.requests["AppendRows"]
    assert [b"projects/" in each for each in sent] == [True] + [False] * 4  # the first names the stream
    assert ids_in(bigquery, table) == list(range(5))


def test_threads_share_a_connection(bigquery: BigQuery, table: str, proxy: BigQueryProxy) -> None:
    schema = append_schema(SCHEMA, ensure_table(table, SCHEMA))
    together = threading.Barrier(6)

    def bundles(thread: int) -> None:
        fn = stream_sink(table, schema, proxy.url)
        for number in range(3):
            fn.start_bundle()
            process(fn, batch_of([10 * thread + number]))
            together.wait(PATIENCE_SECS)
            assert finish(fn) == []
        together.wait(PATIENCE_SECS)
        fn.teardown()

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(bundles, range(6)))
    assert proxy.append_calls == 1
    assert ids_in(bigquery, table) == [10 * thread + number for thread in range(6) for number in range(3)]


def test_a_column_that_the_table_lacks_fails_the_bundle(bigquery: BigQuery) -> None:
    table = bigquery.make_table([DATES[0], DATES[2]])
    fn = stream_sink(table)
    process(fn, batch_of([1]))
    with pytest.raises(
        SluiceError, match=r"INVALID_ARGUMENT: no such field: text.; if the table's columns were changed"
    ):
        finish(fn)
    fn.teardown()


def test_a_table_that_is_gone_is_named(bigquery: BigQuery, monkeypatch: pytest.MonkeyPatch) -> None:
    options = append_rows.AppendOptions(settle_secs=0.2)
    monkeypatch.setattr(write_bigquery, "AppendOptions", lambda _: options)
    fn = stream_sink(f"{bigquery.make_dataset()}.gone")
    process(fn, batch_of([1]))
    with pytest.raises(
        SluiceError, match=r"tables/gone/streams/_default: NOT_FOUND: .*start the job anew, which makes"
    ):
        finish(fn)
    fn.teardown()


def test_a_wrong_table_id_is_refused_at_launch() -> None:
    for transform in (WriteTableRows, WriteStreamTable):
        with pytest.raises(UsageError, match="'table' is not a table id"):
            transform("table", SCHEMA)
