"""`AppendStream`: every row is in the stream, or refused; with offsets, once."""

import itertools
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
from grpc import StatusCode
from hypothesis import given
from hypothesis import strategies as st

from sluice.models.errors import SluiceError
from sluice.transforms.bigquery import append_requests, append_rows
from sluice.transforms.bigquery.append_pool import AppendPool
from sluice.transforms.bigquery.append_rows import AppendOptions, AppendStream, Refused
from tests.support.bigquery.fakes_append import AppendService
from tests.support.sizes import examples

SCHEMA = pa.schema([("id", pa.int64())])


class Clock:
    """A clock that only pauses move."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def __call__(self) -> float:
        return self.now

    def pause(self, secs: float) -> None:
        self.pauses.append(secs)
        self.now += secs


def doubling() -> Iterator[float]:
    """Pauses without jitter."""
    return (min(0.05 * 2.0**tries, 5.0) for tries in itertools.count())


def ids(*numbers: int) -> pa.RecordBatch:
    return pa.record_batch([pa.array(numbers, pa.int64())], schema=SCHEMA)


def stream_to(service: Any, clock: Clock | None = None, offsets: bool = True, **options: Any) -> AppendStream:
    clock = clock or Clock()
    return AppendStream(
        AppendPool(service), "projects/p/streams/s", SCHEMA, AppendOptions(**options),
        offsets=offsets, clock=clock, pause=clock.pause, backoff=doubling,
    )  # fmt: skip


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests hold 4 rows at most."""
    monkeypatch.setattr(append_rows, "REQUEST_BYTES", 32)
    monkeypatch.setattr(append_requests, "REQUEST_BYTES", 32)


FAULTS = st.one_of(
    st.none(),
    st.sampled_from(
        [
            StatusCode.UNAVAILABLE,
            (StatusCode.UNAVAILABLE, True),
            (StatusCode.ABORTED, True),
            (StatusCode.ABORTED,),
            (StatusCode.INTERNAL,),
        ]
    ),
)


@examples(32)
@given(
    st.lists(st.lists(st.integers(-2, 10), max_size=12), max_size=12),
    st.lists(FAULTS, max_size=10),
    st.sampled_from([0, 1, 100]),
    st.booleans(),
)
def test_every_row_is_written_or_refused(
    batches: list[list[int]], faults: list[Any], names_rows: int, offsets: bool
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for module in (append_rows, append_requests):
            patch.setattr(module, "REQUEST_BYTES", 32)
        service = AppendService(list(faults), names_rows)
        stream = stream_to(service, offsets=offsets)
        refused: list[Refused] = []
        for number, batch in enumerate(batches):
            refused += stream.append(ids(*batch), number)
        refused += stream.flush()
        stream.close()
        stream._pool.close()
    good = [number for batch in batches for number in batch if number >= 0]
    bad = [(number, row) for number, batch in enumerate(batches) for row, each in enumerate(batch) if each < 0]
    assert sorted((each.source, each.row) for each in refused) == bad
    assert stream.rows == len(good)
    if offsets:
        assert service.ids == good  # in their order, too
    else:
        left = list(service.ids)
        for number in good:
            left.remove(number)  # at least once
        assert faults or not left


@pytest.mark.usefixtures("small")
def test_requests_are_under_way_together_and_cut_by_size() -> None:
    service = AppendService()
    stream = stream_to(service)
    assert stream.append(ids(*range(10)), "a") == []
    assert stream.append(ids(10), "b") == []
    assert stream.flush() == []
    assert [each.offset.value for each in service.requests] == [0, 2, 5, 7]
    assert (service.ids, stream.rows, service.connections) == (list(range(11)), 11, 1)
    assert service.requests[0].arrow_rows.writer_schema.serialized_schema
    assert not service.requests[1].arrow_rows.writer_schema.serialized_schema
    assert not service.requests[0].default_missing_value_interpretation  # a null stays one


def test_small_batches_share_a_request() -> None:
    service = AppendService()
    stream = stream_to(service)
    refused = [each for number in range(-1, 5) for each in stream.append(ids(number, 7), number)]
    assert (refused, service.requests) == ([], [])
    assert stream.flush() == [Refused(-1, 0, "AppendError", "-1 is negative")]
    assert len(service.requests) == 2
    assert stream.rows == 11


def test_a_row_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(append_rows, "MAX_ROW_BYTES", 7)
    stream = stream_to(AppendService())
    assert stream.append(ids(1), "a") == [
        Refused("a", 0, "RowTooLarge", "the row is 8 bytes; BigQuery accepts 7 at most")
    ]
    assert stream.flush() == []


def test_rows_that_are_not_named_are_looked_for_until_it_costs_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(append_rows, "_MAX_ISOLATION_CALLS", 4)
    service = AppendService(names_rows=0)
    stream = stream_to(service)
    assert stream.append(ids(0, -1, 2, 3, 4, 5, 6, 7), "a") == []
    refused = stream.flush()
    assert {(each.row, each.message) for each in refused} == {
        (row, "not isolated: one or more of 2 rows sent together; it is refused") for row in (0, 1)
    }
    assert service.ids == [2, 3, 4, 5, 6, 7]
    stream.append(ids(-1, 8), "b")
    assert [each.row for each in stream.flush()] == [0]  # the calls are counted anew


def test_what_stays_away_fails_after_its_time() -> None:
    clock = Clock()
    stream = stream_to(AppendService([StatusCode.UNAVAILABLE] * 1_000), clock, retry_secs=5.0)
    stream.append(ids(1), "a")
    with pytest.raises(SluiceError, match=r"appended to projects/p/streams/s: UNAVAILABLE: .*\(tried 8 times, for 5 s"):
        stream.flush()
    assert clock.pauses[:3] == [0.05, 0.1, 0.2]
    assert clock.now == 5.0


def test_every_request_that_is_taken_begins_the_time_anew() -> None:
    clock = Clock()
    faults = [fault for _ in range(30) for fault in (StatusCode.UNAVAILABLE, StatusCode.UNAVAILABLE, None)]
    stream = stream_to(AppendService(faults), clock, retry_secs=0.2)
    for number in range(30):
        stream.append(ids(number), "a")
        stream.flush()
    assert clock.now > 4


@pytest.mark.parametrize("fault", [StatusCode.PERMISSION_DENIED, (StatusCode.PERMISSION_DENIED,)])
def test_what_will_not_pass_fails_at_once(fault: Any) -> None:
    clock = Clock()
    stream = stream_to(AppendService([fault]), clock)
    stream.append(ids(1), "a")
    with pytest.raises(SluiceError, match=r"PERMISSION_DENIED: .*; roles/bigquery.dataEditor allows it"):
        stream.flush()
    assert clock.pauses == []


def test_a_column_that_bigquery_does_not_see_yet_is_waited_for() -> None:
    clock = Clock()
    service = AppendService(names_rows=0)
    service.storage_error = "SCHEMA_MISMATCH_EXTRA_FIELDS"
    stream = stream_to(service, clock, retry_secs=1.0)
    stream.append(ids(-1, 2), "a")
    with pytest.raises(
        SluiceError, match=r"INVALID_ARGUMENT: it is refused \(tried \d+ times, for 600 s\); if the table"
    ):
        stream.flush()
    assert (service.ids, clock.now) == ([], 600.0)


def test_a_column_that_bigquery_does_not_see_yet_in_rows_is_waited_for_over_the_same_connection() -> None:
    clock = Clock()
    service = AppendService()
    service.storage_error, service.row_message = "SCHEMA_MISMATCH_EXTRA_FIELDS", "no such field: x"
    stream = stream_to(service, clock, request_secs=0.5)
    stream.append(ids(-1, 2), "a")
    with pytest.raises(SluiceError, match=r"INVALID_ARGUMENT: no such field: x \(tried \d+ times, for 600 s\)"):
        stream.flush()
    assert (service.connections, service.ids) == (1, [])


def test_a_table_that_bigquery_does_not_see_yet_is_waited_for() -> None:
    clock = Clock()
    service = AppendService([StatusCode.NOT_FOUND, (StatusCode.NOT_FOUND,)] * 20)
    stream = stream_to(service, clock, retry_secs=1.0)
    stream.append(ids(1), "a")
    assert stream.flush() == []
    assert (service.ids, clock.now > 60) == ([1], True)
    service.faults = [StatusCode.NOT_FOUND] * 1_000  # it has been seen, and is gone
    stream.append(ids(2), "a")
    with pytest.raises(SluiceError, match=r"NOT_FOUND: .* \(tried \d+ times, for 1 s\); if the table is gone"):
        stream.flush()


def test_an_answer_that_does_not_come_ends_the_connection() -> None:
    service = AppendService(["silence"])
    stream = stream_to(service, request_secs=0.01, retry_secs=1e9)
    stream.append(ids(1), "a")
    assert stream.flush() == []
    assert service.ids == [1]
    assert service.connections >= 2  # on a busy machine other answers come too late as well


def test_a_connection_that_ended_while_idle_is_replaced_silently() -> None:
    clock = Clock()
    service = AppendService()
    stream = stream_to(service, clock, offsets=False)
    for _ in range(2):
        stream.append(ids(1), "a")
        assert stream.flush() == []
    service.calls[0].cancel()
    stream.append(ids(1), "a")
    assert stream.flush() == []
    assert (service.connections, clock.pauses) == (2, [])


@pytest.mark.usefixtures("small")
def test_what_is_dropped_is_not_sent_with_what_comes_next() -> None:
    service = AppendService()
    stream = stream_to(service, offsets=False)
    stream.append(ids(-1, *range(1, 8)), "a")
    stream.drop()
    stream.append(ids(100), "b")
    assert stream.flush() == []
    assert 100 in service.ids


def test_what_is_dropped_takes_its_time_with_it() -> None:
    """The next bundle has all of `retry_secs`, whenever it comes."""
    clock = Clock()
    service = AppendService([StatusCode.UNAVAILABLE] * 1_000)
    stream = stream_to(service, clock, retry_secs=5.0)
    stream.append(ids(1), "a")
    with pytest.raises(SluiceError, match="for 5 s"):
        stream.flush()
    clock.now += 100.0
    stream.drop()
    del service.faults[2:]
    stream.append(ids(2), "b")
    assert stream.flush() == []
    assert service.ids == [2]
    assert clock.pauses[-2:] == [0.05, 0.1]
