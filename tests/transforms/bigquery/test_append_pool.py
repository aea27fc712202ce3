"""How many connections writers of a process open, and that none takes the fault of another."""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from google.api_core.exceptions import GoogleAPICallError, ServiceUnavailable
from google.cloud.bigquery_storage_v1.types import AppendRowsRequest
from grpc import StatusCode

from sluice.models.errors import SluiceError
from sluice.transforms.bigquery import append_connection, append_pool
from sluice.transforms.bigquery.append_connection import Connection
from sluice.transforms.bigquery.append_lane import Lane
from sluice.transforms.bigquery.append_pool import AppendPool
from sluice.transforms.bigquery.append_rows import AppendOptions, AppendStream
from sluice.transforms.bigquery.clients import STORAGE_EMULATOR_VARIABLE
from tests.support.bigquery.fakes_append import AppendService, AppendServices
from tests.support.fakes import PATIENCE_SECS
from tests.transforms.bigquery.test_append_rows import SCHEMA, Clock, doubling, ids

NAME = "projects/p/streams/s"
# As long as a mistake may stay unseen; what is right never waits for it.
_MOMENT_SECS = 0.1


def stream_of(pool: AppendPool, name: str = NAME, offsets: bool = False, **options: Any) -> AppendStream:
    clock = Clock()
    return AppendStream(
        pool, name, SCHEMA, AppendOptions(**options), offsets=offsets, clock=clock, pause=clock.pause, backoff=doubling
    )


def at_once(calls: int, call: Callable[[int], Any]) -> list[Any]:
    """Returns what the calls return, each in a thread of its own; they begin together."""
    start = threading.Barrier(calls)

    def begin(number: int) -> Any:
        start.wait(PATIENCE_SECS)
        return call(number)

    with ThreadPoolExecutor(calls) as pool:
        return list(pool.map(begin, range(calls)))


def wait_for_load(pool: AppendPool, requests: int) -> None:
    """Returns when so many requests are under way on shared connections."""
    done = threading.Event()
    for _ in range(round(PATIENCE_SECS / 0.01)):
        under_way = sum(len(each._owed) for shared in pool._shared.values() for each in shared)
        if under_way >= requests:
            return
        done.wait(0.01)
    raise AssertionError(f"{requests} requests never were under way")


def test_threads_share_a_connection_to_a_default_stream() -> None:
    service = AppendService()
    pool = AppendPool(service)  # type: ignore[arg-type]

    def write(thread: int) -> list[Any]:
        stream = stream_of(pool)
        refused = []
        for number in range(10):  # each is a bundle
            refused += stream.append(ids(100 * thread + number, -1), number)
            refused += stream.flush()
        stream.close()
        return refused

    refused = at_once(16, write)
    assert [[each.source for each in some] for some in refused] == [list(range(10))] * 16
    assert sorted(service.ids) == [100 * thread + number for thread in range(16) for number in range(10)]
    assert service.connections == 1
    pool.close()
    assert service.calls == []


def test_busy_connections_get_company_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(append_connection, "MAX_REQUESTS", 2)
    monkeypatch.setattr(append_pool, "MAX_SHARED", 3)
    service = AppendService()
    service.gate.clear()
    pool = AppendPool(service)  # type: ignore[arg-type]

    def write(thread: int) -> None:
        stream = stream_of(pool)
        stream.append(ids(thread), "a")
        assert stream.flush() == []

    with ThreadPoolExecutor(10) as threads:
        writes = []
        for thread in range(10):
            writes.append(threads.submit(write, thread))
            wait_for_load(pool, min(thread + 1, 6))  # all that may be under way is
        service.gate.set()
    assert [each.result() for each in writes] == [None] * 10
    assert sorted(service.ids) == list(range(10))
    assert service.connections == 3
    pool.close()


@pytest.mark.parametrize("limit", ["MAX_REQUESTS", "MAX_BYTES"])
def test_a_connection_holds_so_much_and_no_more(monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    monkeypatch.setattr(append_connection, limit, 2)
    service = AppendService()
    service.gate.clear()
    connection = Connection(service, NAME, SCHEMA.serialize().to_pybytes())  # type: ignore[arg-type]

    def send() -> bool:
        request = AppendRowsRequest.pb()()
        request.arrow_rows.rows.serialized_record_batch = ids(1).serialize().to_pybytes()
        return connection.send(request, lambda _: None, PATIENCE_SECS)

    fits = 2 if limit == "MAX_REQUESTS" else 1  # a larger one is alone
    assert all(send() for _ in range(fits))
    more = threading.Thread(target=send)
    more.start()
    more.join(_MOMENT_SECS)
    assert more.is_alive()
    service.gate.set()
    more.join(PATIENCE_SECS)
    assert not more.is_alive()


def test_a_connection_that_breaks_costs_nobody_a_row() -> None:
    service = AppendService([None, StatusCode.UNAVAILABLE, None, (StatusCode.ABORTED, True)])
    service.gate.clear()
    pool = AppendPool(service)  # type: ignore[arg-type]

    def write(thread: int) -> None:
        if thread == 8:
            wait_for_load(pool, 8)
            service.gate.set()
            return
        stream = stream_of(pool)
        stream.append(ids(thread), "a")
        assert stream.flush() == []

    at_once(9, write)
    assert set(service.ids) == set(range(8))
    assert service.connections == 3
    pool.close()


def test_what_a_request_holds_is_not_the_fault_of_others() -> None:
    service = AppendService([StatusCode.INVALID_ARGUMENT])
    service.gate.clear()
    pool = AppendPool(service)  # type: ignore[arg-type]

    def write(thread: int) -> str:
        if thread == 4:
            wait_for_load(pool, 4)
            service.gate.set()
            return ""
        stream = stream_of(pool)
        stream.append(ids(thread), "a")
        try:
            stream.flush()
        except SluiceError as error:
            return str(error)
        return ""

    (said,) = [each for each in at_once(5, write) if each]
    assert "INVALID_ARGUMENT: it is broken" in said
    assert len(set(service.ids)) == 3
    pool.close()


def test_the_text_of_a_fault_stays_with_its_writer() -> None:
    service = AppendService([StatusCode.INVALID_ARGUMENT])
    service.gate.clear()
    connection = Connection(service, NAME, SCHEMA.serialize().to_pybytes())  # type: ignore[arg-type]
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
    for _ in range(2):
        request = AppendRowsRequest.pb()()
        request.arrow_rows.rows.serialized_record_batch = ids(1).serialize().to_pybytes()
        assert connection.send(request, answers.put, PATIENCE_SECS)
    service.gate.set()
    own, other = (answers.get(timeout=PATIENCE_SECS) for _ in range(2))
    assert "it is broken" in str(own)
    assert "a request of another writer" in str(other) and "it is broken" not in str(other)


def test_a_request_that_is_sent_while_its_connection_ends_is_not_answered_before_the_ones_ahead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    service = AppendService([StatusCode.UNAVAILABLE])
    service.gate.clear()
    pool = AppendPool(service)  # type: ignore[arg-type]
    lane = pool.lane(NAME, SCHEMA.serialize().to_pybytes(), PATIENCE_SECS, is_own=False)
    second = threading.Thread(target=lane.send, args=(ids(2).serialize().to_pybytes(), None))
    take = Lane._take

    def take_later(self: Lane, answer: Any) -> None:
        if isinstance(answer, GoogleAPICallError):  # the connection is about to hand out the error that ends it
            second.start()
            second.join(_MOMENT_SECS)
        take(self, answer)

    monkeypatch.setattr(Lane, "_take", take_later)
    lane.send(ids(1).serialize().to_pybytes(), None)
    service.gate.set()
    with pytest.raises(ServiceUnavailable, match="it is broken"):
        lane.receive()
    second.join(PATIENCE_SECS)
    assert not second.is_alive()
    assert service.ids == [], "the bundle sends both again"
    pool.close()


def test_a_writer_that_gives_up_leaves_the_connection_to_others() -> None:
    service = AppendService()
    service.gate.clear()
    pool = AppendPool(service)  # type: ignore[arg-type]
    gone, stays = stream_of(pool), stream_of(pool)
    for stream, row in ((gone, 1), (stays, 2)):
        stream.append(ids(row), "a")
        stream._send()
    gone.drop()
    service.gate.set()
    assert stays.flush() == []
    gone.append(ids(3), "b")
    assert gone.flush() == []
    assert (service.ids, service.connections) == ([1, 2, 3], 1)
    pool.close()


def test_a_connection_that_hangs_is_replaced_for_all() -> None:
    service = AppendService(["silence", "silence"])
    pool = AppendPool(service)  # type: ignore[arg-type]
    first, second = (stream_of(pool, request_secs=0.01, retry_secs=1e9) for _ in range(2))
    for stream, row in ((first, 1), (second, 2)):
        stream.append(ids(row), "a")
        stream._send()
    assert (first.flush(), second.flush()) == ([], [])
    assert set(service.ids) == {1, 2}
    pool.close()


# Streams that were made for one writer -------------------------------------------------------------------------------


def test_writers_of_their_own_streams_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(append_pool, "MAX_OWN", 2)
    services = AppendServices()
    pool = AppendPool(services)  # type: ignore[arg-type]
    all_are_open = threading.Barrier(6)

    def write(thread: int) -> None:
        stream = stream_of(pool, f"projects/p/streams/{thread}", offsets=True)
        for number in range(4):
            stream.append(ids(number), "a")
            stream._send()
            all_are_open.wait(PATIENCE_SECS)  # none has finished its bundle, and none is waited for
        assert stream.flush() == []
        stream.close()

    at_once(6, write)
    assert {name: service.ids for name, service in services.streams.items()} == {
        f"projects/p/streams/{thread}": [0, 1, 2, 3] for thread in range(6)
    }
    assert services.most_calls == 2
    pool.close()


def test_a_place_that_never_becomes_free_is_not_waited_for_forever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(append_pool, "MAX_OWN", 1)
    services = AppendServices()
    services.streams["projects/p/streams/a"] = AppendService(["silence"], name="projects/p/streams/a")
    pool = AppendPool(services)  # type: ignore[arg-type]
    hung = stream_of(pool, "projects/p/streams/a", offsets=True)
    hung.append(ids(1), "a")
    hung._send()
    waits = stream_of(pool, "projects/p/streams/b", offsets=True, request_secs=0.01, retry_secs=1.0)
    waits.append(ids(2), "b")
    with pytest.raises(SluiceError, match=r"DEADLINE_EXCEEDED: .*none of 1 connections is free after 0.01"):
        waits.flush()
    hung.close()
    waits.drop()
    waits.append(ids(3), "b")
    assert waits.flush() == []
    pool.close()


class Busy:
    """A connection that always owes an answer, and gives some, until it is asked to give way for the third time."""

    def __init__(self) -> None:
        self.asked = self._answered = 0

    @property
    def has_ended(self) -> bool:
        return self.asked == 3

    @property
    def answered(self) -> int:
        self._answered += 1
        return self._answered

    def give_way(self) -> bool:
        self.asked += 1
        return self.has_ended


def test_a_place_is_waited_for_as_long_as_others_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(append_pool, "MAX_OWN", 1)
    pool = AppendPool(AppendService())  # type: ignore[arg-type]
    busy = Busy()
    pool._own = [busy]  # type: ignore[list-item]
    stream = stream_of(pool, offsets=True, request_secs=0.01, retry_secs=0.0)
    stream.append(ids(1), "a")
    stream._send()
    assert busy.has_ended, "the place was got, and nothing was given up"
    assert stream.flush() == []
    pool._own.pop(0)
    pool.close()


# Processes -----------------------------------------------------------------------------------------------------------


def test_a_process_has_one_pool_for_an_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STORAGE_EMULATOR_VARIABLE, "127.0.0.1:1")
    first, second = append_pool.join(None), append_pool.join("http://127.0.0.1:1")
    other = append_pool.join("http://127.0.0.1:2")
    assert (first is second, first is other) == (True, False)
    append_pool.leave(first)
    assert append_pool.join(None) is first
    for pool in (first, first, other):
        append_pool.leave(pool)
    last = append_pool.join(None)
    assert last is not first
    append_pool.leave(last)
