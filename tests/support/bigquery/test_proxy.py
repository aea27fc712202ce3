"""Tests of the proxy in front of the BigQuery emulator: it passes calls on, and fails those it is told to."""

import contextlib
import itertools
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pyarrow as pa
import pytest
from google.api_core.exceptions import Aborted, NotFound, ResourceExhausted, ServiceUnavailable
from google.cloud.bigquery_storage_v1 import types
from google.cloud.bigquery_storage_v1.services.big_query_read import BigQueryReadClient

from sluice.transforms.bigquery.clients import close, read_client, write_client
from tests.support.bigquery.proxy import NEVER_SECS, BigQueryProxy
from tests.support.pubsub.streams import wait_until
from tests.support.servers import BigQuery

ROWS = pa.record_batch({"id": pa.array(range(10), pa.int64())})


@pytest.fixture(scope="module")
def table(bigquery: BigQuery) -> str:
    table = bigquery.make_table([{"name": "id", "type": "INTEGER"}])
    assert bigquery.client.insert_rows_json(table, ROWS.to_pylist()) == []
    return table


@pytest.fixture
def proxy(bigquery: BigQuery) -> Iterator[BigQueryProxy]:
    with contextlib.closing(BigQueryProxy(bigquery)) as proxy:
        yield proxy


@pytest.fixture
def reader(proxy: BigQueryProxy) -> Iterator[BigQueryReadClient]:
    client = read_client(proxy.url)
    yield client
    close(client)


def path(table: str) -> str:
    return "projects/{}/datasets/{}/tables/{}".format(*table.split("."))


def session(client: BigQueryReadClient, table: str) -> types.ReadSession:
    wanted = types.ReadSession(table=path(table), data_format=types.DataFormat.ARROW)
    return client.create_read_session(parent="projects/proj1", read_session=wanted, retry=None)


def read(client: BigQueryReadClient, stream: str, offset: int = 0) -> Iterator[list[int]]:
    """Yields the ids of each answer."""
    for answer in client.read_rows(request={"read_stream": stream, "offset": offset}, retry=None):
        schema = pa.ipc.read_schema(pa.py_buffer(answer.arrow_schema.serialized_schema))
        rows = pa.py_buffer(answer.arrow_record_batch.serialized_record_batch)
        yield pa.ipc.read_record_batch(rows, schema)["id"].to_pylist()


def append(proxy: BigQueryProxy, stream: str, batches: int) -> Iterator[types.AppendRowsResponse]:
    """Yields the answers to appends of ten rows each, at their offsets."""
    client = write_client(proxy.url)

    def request(number: int) -> types.AppendRowsRequest:
        arrow: Any = types.AppendRowsRequest.ArrowData(
            writer_schema=types.ArrowSchema(serialized_schema=ROWS.schema.serialize().to_pybytes()),
            rows=types.ArrowRecordBatch(serialized_record_batch=ROWS.serialize().to_pybytes()),
        )
        return types.AppendRowsRequest(write_stream=stream, offset=10 * number, arrow_rows=arrow)

    try:
        yield from client.append_rows(map(request, range(batches)), retry=None)
    finally:
        close(client)


def pending_stream(proxy: BigQueryProxy, table: str) -> str:
    client = write_client(proxy.url)
    stream = types.WriteStream(type_=types.WriteStream.Type.PENDING)
    name = client.create_write_stream(parent=path(table), write_stream=stream, retry=None).name
    close(client)
    return name


@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
def test_reads_are_passed_on_in_pieces_of_the_size_asked_for(
    proxy: BigQueryProxy, reader: BigQueryReadClient, table: str, compression: str | None
) -> None:
    (stream,) = session(reader, table).streams
    assert list(read(reader, stream.name)) == [list(range(10))]
    proxy.rows_per_answer, proxy.compression = 4, compression
    assert list(read(reader, stream.name)) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert list(read(reader, stream.name, 7)) == [[7, 8, 9]]
    assert [len(proxy.requests[name]) for name in ("CreateReadSession", "ReadRows")] == [1, 3]
    assert types.CreateReadSessionRequest.deserialize(proxy.requests["CreateReadSession"][0]).parent == "projects/proj1"


def test_a_read_breaks_off_where_it_is_told_to(proxy: BigQueryProxy, reader: BigQueryReadClient, table: str) -> None:
    (stream,) = session(reader, table).streams
    proxy.rows_per_answer = 3
    proxy.fail("ReadRows", after=2)
    proxy.fail("ReadRows", grpc.StatusCode.RESOURCE_EXHAUSTED)
    with pytest.raises(ResourceExhausted, match="the proxy says so"):
        next(read(reader, stream.name))
    answers = read(reader, stream.name)
    assert list(itertools.islice(answers, 2)) == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(ServiceUnavailable):
        next(answers)
    assert list(read(reader, stream.name, 6)) == [[6, 7, 8], [9]]
    assert proxy.happened == 2


def test_unary_calls_fail_as_often_as_told_and_with_the_servers_own_errors(
    proxy: BigQueryProxy, reader: BigQueryReadClient, table: str
) -> None:
    proxy.fail("CreateReadSession", times=2)
    for _ in range(2):
        with pytest.raises(ServiceUnavailable):
            session(reader, table)
    assert session(reader, table).streams
    with pytest.raises(NotFound, match=r"proj1:no\.such"):
        session(reader, "proj1.no.such")
    proxy.fail_always("CreateReadSession")
    with pytest.raises(ServiceUnavailable):
        session(reader, table)
    proxy.recover()
    proxy.fail("CreateReadSession", None, delay_secs=0.2)
    begun = time.monotonic()
    assert session(reader, table).streams
    assert time.monotonic() - begun >= 0.2


def test_connections_break_while_it_is_away(proxy: BigQueryProxy, reader: BigQueryReadClient, table: str) -> None:
    (stream,) = session(reader, table).streams
    proxy.rows_per_answer = 1
    proxy.fail("ReadRows", None, after=1, delay_secs=NEVER_SECS)
    answers = read(reader, stream.name)
    assert next(answers) == [0]
    proxy.stop()
    with pytest.raises(ServiceUnavailable):
        list(answers)
    proxy.start()
    assert read_all_later(reader, stream.name) == list(range(10))


def read_all_later(client: BigQueryReadClient, stream: str) -> list[int]:
    """Reads a stream as soon as the server answers again."""
    rows: list[int] = []

    def done() -> bool:
        with contextlib.suppress(ServiceUnavailable):
            rows.extend(itertools.chain.from_iterable(read(client, stream)))
            return True
        return False

    wait_until(done, "the server")
    return rows


def test_appends_are_passed_on(bigquery: BigQuery, proxy: BigQueryProxy) -> None:
    table = bigquery.make_table([{"name": "id", "type": "INTEGER"}])
    (answer,) = append(proxy, f"{path(table)}/streams/_default", 1)
    assert "append_result" in answer
    stream = pending_stream(proxy, table)
    assert [answer.append_result.offset for answer in append(proxy, stream, 3)] == [0, 10, 20]
    assert len(proxy.requests["AppendRows"]) == 4
    assert len(bigquery.rows(table)) == 10


def test_an_append_fails_before_or_after_it_is_passed_on(bigquery: BigQuery, proxy: BigQueryProxy) -> None:
    table = bigquery.make_table([{"name": "id", "type": "INTEGER"}])
    proxy.fail("AppendRows", grpc.StatusCode.ABORTED, after=1)
    answers = append(proxy, pending_stream(proxy, table), 2)
    assert next(answers).append_result.offset == 0
    with pytest.raises(Aborted):
        next(answers)
    default = f"{path(table)}/streams/_default"
    for passed_on, rows in ((False, 0), (True, 10)):
        proxy.fail("AppendRows", passed_on=passed_on)
        with pytest.raises(ServiceUnavailable):
            list(append(proxy, default, 1))
        assert len(bigquery.rows(table)) == rows


def test_an_append_is_answered_with_an_error(bigquery: BigQuery, proxy: BigQueryProxy) -> None:
    table = bigquery.make_table([{"name": "id", "type": "INTEGER"}])
    proxy.fail("AppendRows", grpc.StatusCode.ALREADY_EXISTS, after=1, in_answer=True, passed_on=True)
    first, second, third = append(proxy, pending_stream(proxy, table), 3)
    assert (first.append_result.offset, second.error.code, third.append_result.offset) == (0, 6, 20)
    assert second.error.message == "the proxy says so"
