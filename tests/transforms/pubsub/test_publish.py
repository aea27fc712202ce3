"""Publish requests: what they hold, what is retried or given up; nothing is lost or left over."""

import functools
import itertools
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest
from google.api_core.exceptions import DeadlineExceeded, ServiceUnavailable
from hypothesis import given
from hypothesis import strategies as st

from sluice.models.errors import SluiceError
from sluice.transforms.pubsub.publish import MAX_REQUEST_MESSAGES, Messages, Publisher
from sluice.transforms.pubsub.publish_sender import PublishOptions, publish_backoff
from tests.support.fakes import PATIENCE_SECS
from tests.support.pubsub.service import TOPIC, Gate, aborts, refuses_poison, service

TRANSIENT = [
    "UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL", "RESOURCE_EXHAUSTED", "ABORTED", "UNKNOWN", "CANCELLED",
]  # fmt: skip


class Clock:
    """A clock that advances only in pauses."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []
        self._lock = threading.Lock()

    def __call__(self) -> float:
        return self.now

    def pause(self, event: threading.Event, secs: float) -> bool:
        with self._lock:
            self.now += secs
            self.pauses.append(secs)
        return event.is_set()


def messages(data: Sequence[bytes], size: int = 100, keys: Sequence[str] | None = None) -> Messages:
    return Messages(data, [{"of": each.decode()[:9]} for each in data], np.full(len(data), size), keys)


def numbered(count: int) -> list[bytes]:
    return [b"%05d" % number for number in range(count)]


def opened(clock: Clock | None = None, **options: float) -> Publisher[Any]:
    clock = clock or Clock()
    return Publisher(TOPIC, PublishOptions(**options), clock=clock, pause=clock.pause, backoff=doubling)


def doubling() -> Iterator[float]:
    """Pauses without jitter."""
    return (min(0.05 * 2**number, 5.0) for number in itertools.count())


def publish(publisher: Publisher[Any], data: Sequence[bytes], **how: Any) -> list[Any]:
    publisher.add(messages(data, **how), data)
    return publisher.flush()


def test_all_is_published_in_requests_that_are_full() -> None:
    with service() as server:
        publisher = opened()
        for start in range(0, 3500, 700):
            publisher.add(messages(numbered(3500)[start : start + 700]), range(700))
        assert publisher.flush() == []
        assert sorted(map(len, server.requests)) == [500, 1000, 1000, 1000]
        assert server.data == numbered(3500)
        assert {message.attributes["of"] for message in server.taken} == {each.decode() for each in server.data}
        publisher.close()


def test_requests_stay_below_the_largest_size() -> None:
    with service() as server:
        publisher = opened()
        assert publish(publisher, numbered(5), size=4_000_000) == []
        assert sorted(map(len, server.requests)) == [1, 2, 2]
        assert publish(publisher, [b"larger"], size=9_900_000) == []  # allowed, if it is alone
        assert server.data == [*numbered(5), b"larger"]
        publisher.close()


@given(st.lists(st.tuples(st.integers(1, 9_999_000), st.sampled_from(["", "a", "b"])), max_size=40), st.booleans())
def test_any_messages_arrive_once_within_the_limits(rows: list[tuple[int, str]], keyed: bool) -> None:
    data = numbered(len(rows))
    client = _Client()
    publisher: Publisher[int] = Publisher(TOPIC, PublishOptions(), lambda: client)
    keys = [key for _, key in rows] if keyed else None
    for part in (slice(0, 7), slice(7, None)):
        sizes = np.array([size for size, _ in rows[part]], np.int64)
        attributes: list[dict[str, str]] = [{} for _ in rows[part]]
        publisher.add(Messages(data[part], attributes, sizes, keys and keys[part]), range(len(rows[part])))
    assert publisher.flush() == []
    publisher.close()
    sent = [(message.data, message.ordering_key) for request in client.requests for message in request]
    assert sorted(sent) == [(each, key if keyed else "") for each, (_, key) in zip(data, rows, strict=True)]
    size_of = {each: size for each, (size, _) in zip(data, rows, strict=True)}
    for request in client.requests:
        assert 0 < len(request) <= MAX_REQUEST_MESSAGES
        assert len(request) == 1 or sum(size_of[message.data] for message in request) <= 9_000_000
        assert len({message.ordering_key for message in request}) == 1


class _Client:
    """A client without a connection that accepts all requests, or none."""

    def __init__(self, error: Exception | None = None) -> None:
        self.requests: list[list[Any]] = []
        self.transport = self
        self._error = error

    def publish(self, request: Any, retry: None, timeout: float) -> Any:
        self.requests.append(list(request.messages))
        if self._error is not None:
            raise self._error
        return type("Answer", (), {"message_ids": ["1"] * len(request.messages)})

    def close(self) -> None:
        pass


def test_each_ordering_key_has_requests_of_its_own() -> None:
    with service() as server:
        publisher = opened()
        keys = [f"key-{number % 3}" for number in range(60)]
        assert publish(publisher, numbered(60), keys=keys) == []
        of_requests = [{message.ordering_key for message in request} for request in server.requests]
        assert sorted(map(sorted, of_requests)) == [["key-0"], ["key-1"], ["key-2"]]
        found = {message.data: message.ordering_key for message in server.taken}
        assert found == dict(zip(numbered(60), keys, strict=True))
        publisher.close()


def test_what_waits_for_more_is_bounded_and_not_sent_before() -> None:
    with service() as server:
        publisher = opened()
        for start in range(0, 900, 90):
            publisher.add(messages(numbered(900)[start : start + 90], size=9_000), range(90))
        assert publisher.flush() == []
        assert [len(request) for request in server.requests] == [900]
        keys = [f"key-{number}" for number in range(10)]
        publisher.add(messages(numbered(10), size=1_000_000, keys=keys), range(10))
        for _ in range(9):
            assert server.entered.acquire(timeout=PATIENCE_SECS)
        assert publisher.flush() == []
        publisher.close()


def test_flush_does_not_return_before_the_answers_are_in() -> None:
    gate = Gate()
    with service(gate) as server, ThreadPoolExecutor(1) as thread, gate:
        publisher = opened()
        flushed = thread.submit(publish, publisher, numbered(2500))
        for _ in range(3):
            assert server.entered.acquire(timeout=PATIENCE_SECS)
        assert not flushed.done()
        assert server.taken == []
        gate.open()
        assert flushed.result(PATIENCE_SECS) == []
        assert server.data == numbered(2500)
        publisher.close()


def test_what_is_under_way_is_bounded() -> None:
    gate = Gate()
    with service(gate) as server, ThreadPoolExecutor(1) as thread, gate:
        publisher = opened()
        flushed = thread.submit(publish, publisher, numbered(12), size=8_900_000)
        for _ in range(5):
            assert server.entered.acquire(timeout=PATIENCE_SECS)
        assert not server.entered.acquire(timeout=0.2)
        assert not flushed.done()
        gate.open()
        assert flushed.result(PATIENCE_SECS) == []
        assert server.data == numbered(12)
        publisher.close()


@pytest.mark.parametrize("code", TRANSIENT)
def test_what_may_pass_is_tried_again(code: str) -> None:
    clock = Clock()
    with service(aborts(code, times=4)) as server:
        publisher = opened(clock)
        assert publish(publisher, numbered(10)) == []
        assert server.data == numbered(10)
        assert len(server.requests) == 5
        publisher.close()
    assert clock.pauses == [0.05, 0.1, 0.2, 0.4]


def test_pauses_grow_up_to_ten_seconds() -> None:
    pauses = list(itertools.islice(publish_backoff(), 10_000))
    assert all(0 <= pause <= min(0.1 * 2**number, 10.0) for number, pause in enumerate(pauses[:20]))
    assert 9.9 < max(pauses) <= 10.0


def test_an_outage_that_lasts_fails_the_bundle() -> None:
    clock = Clock()
    with service(aborts("UNAVAILABLE", text="it is away")) as server:
        publisher = opened(clock, retry_secs=60)
        with pytest.raises(SluiceError, match=rf"{TOPIC} .*UNAVAILABLE: it is away \(tried \d+ times, for 60 s\)"):
            publish(publisher, numbered(10))
        assert clock.now == pytest.approx(60)
        assert max(clock.pauses) == 5.0
        assert server.taken == []
        publisher.close()


@pytest.mark.parametrize(
    ("code", "remedy"),
    [("NOT_FOUND", "topics create"), ("PERMISSION_DENIED", "roles/pubsub.publisher"), ("FAILED_PRECONDITION", "told")],
)
def test_what_will_not_pass_fails_the_bundle_at_once(code: str, remedy: str) -> None:
    clock = Clock()
    with service(aborts(code)) as server:
        publisher = opened(clock)
        with pytest.raises(SluiceError, match=f"{TOPIC} .*{code}.*{remedy}"):
            publish(publisher, numbered(10))
        assert (len(server.requests), clock.pauses) == (1, [])
        publisher.close()


def test_a_call_that_hangs_is_tried_again() -> None:
    hangs = iter([True])
    release = threading.Event()

    def answer(request: Any, context: grpc.ServicerContext) -> None:
        if next(hangs, False):
            release.wait(PATIENCE_SECS)
            context.abort(grpc.StatusCode.UNAVAILABLE, "too late")

    with service(answer) as server:
        publisher = opened(rpc_timeout_secs=0.3)
        assert publish(publisher, numbered(10)) == []
        release.set()
        assert sorted(set(server.data)) == numbered(10)
        assert len(server.requests) >= 2  # on a busy machine other answers come too late as well
        publisher.close()


def test_a_service_that_is_not_there_fails_the_bundle() -> None:
    with service():
        publisher = opened(retry_secs=5)
    with pytest.raises(SluiceError, match="UNAVAILABLE"):
        publish(publisher, numbered(1))
    publisher.close()


@pytest.mark.parametrize("bad", [(0,), (999,), (0, 1, 500), (17, 18, 700, 998)])
def test_a_message_that_is_refused_costs_itself_only(bad: tuple[int, ...]) -> None:
    data = [b"poison%d" % row if row in bad else each for row, each in enumerate(numbered(1000))]
    with service(refuses_poison) as server:
        publisher = opened()
        publisher.add(messages(data), range(1000))
        refused = publisher.flush()
        assert sorted(each.tag for each in refused) == list(bad)
        assert {each.message for each in refused} == {f"{TOPIC} does not take the message: a message is bad"}
        assert server.data == sorted(each for each in data if b"poison" not in each)
        assert publisher.flush() == []
        publisher.close()


def test_finding_many_bad_messages_ends() -> None:
    with service(refuses_poison) as server:
        publisher = opened()
        publisher.add(messages([b"poison"] * 1000), range(1000))
        refused = publisher.flush()
        assert sorted(each.tag for each in refused) == list(range(1000))
        assert any(each.message.startswith("not isolated: one or more of ") for each in refused)
        assert len(server.requests) == 257
        publisher.close()


def test_refusals_are_told_when_they_are_known_and_once() -> None:
    with service(refuses_poison) as server:
        publisher = opened()
        publisher.add(messages([b"poison"]), ["tag"])
        publisher.send()
        assert server.entered.acquire(timeout=PATIENCE_SECS)
        found: list[Any] = []
        end = time.monotonic() + PATIENCE_SECS
        while not found and time.monotonic() < end:
            found = publisher.refused()
        assert [each.tag for each in found] == ["tag"]
        assert publisher.flush() == []
        publisher.close()


def test_nothing_of_a_bundle_that_failed_goes_into_the_next() -> None:
    def denies(request: Any, context: grpc.ServicerContext) -> None:
        if len(request.messages) > 1:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "too many for you")

    with service(denies) as server:
        publisher = opened()
        publisher.add(messages([b"open"]), ["open"])
        publisher.drop()
        with pytest.raises(SluiceError, match="PERMISSION_DENIED"):
            publish(publisher, numbered(3500))
        assert publish(publisher, [b"next"]) == []
        assert server.data == [b"next"]
        publisher.close()


def test_an_error_is_told_while_the_bundle_goes_on() -> None:
    with service(aborts("NOT_FOUND")):
        publisher = opened()
        with pytest.raises(SluiceError, match="NOT_FOUND"):
            for _ in range(1000):
                publisher.add(messages(numbered(1000)), range(1000))
        publisher.close()


def test_a_bundle_that_is_given_up_tries_no_further() -> None:
    paused, resume = threading.Event(), threading.Event()
    client = _Client(ServiceUnavailable("away"))

    def pause(event: threading.Event, secs: float) -> bool:
        paused.set()
        resume.wait(PATIENCE_SECS)
        return event.is_set()

    publisher: Publisher[bytes] = Publisher(TOPIC, PublishOptions(), lambda: client, pause=pause)
    publisher.add(messages([b"x"]), [b"x"])
    publisher.send()
    assert paused.wait(PATIENCE_SECS)
    publisher.drop()
    publisher.close()
    resume.set()
    for thread in threading.enumerate():
        if thread.name.startswith("sluice-publish"):
            thread.join(PATIENCE_SECS)
    assert len(client.requests) == 1


def test_attempts_end_with_the_time_for_all_of_them() -> None:
    clock, timeouts = Clock(), []

    def hang(request: Any, retry: None, timeout: float) -> None:
        timeouts.append(timeout)
        clock.now += timeout
        raise DeadlineExceeded("no answer")

    client = _Client()
    client.publish = hang  # type: ignore[method-assign]
    options = PublishOptions(retry_secs=40, rpc_timeout_secs=30)
    at_once = functools.partial(itertools.repeat, 0.0)
    publisher: Publisher[bytes] = Publisher(TOPIC, options, lambda: client, clock, clock.pause, at_once)
    with pytest.raises(SluiceError, match=r"DEADLINE_EXCEEDED: no answer.*tried 2 times"):
        publish(publisher, numbered(1))
    assert timeouts == [30, 10]
    publisher.close()


def test_an_answer_that_is_short_of_ids_is_an_error() -> None:
    client = _Client()
    client.publish = lambda **_: type("Answer", (), {"message_ids": ["1"]})  # type: ignore[method-assign, assignment]
    publisher: Publisher[bytes] = Publisher(TOPIC, PublishOptions(), lambda: client)
    with pytest.raises(SluiceError, match="took 1 of 3 messages"):
        publish(publisher, numbered(3))
    publisher.close()
