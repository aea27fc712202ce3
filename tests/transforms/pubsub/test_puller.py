"""Pulls that fail: when a subscription counts as away, and how long to wait."""

import itertools

import pytest

from sluice.transforms.pubsub.puller import Reachability, pull_backoff


def test_it_is_away_after_some_failures_in_a_row_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    reachability = Reachability("projects/p/subscriptions/s")
    for number in range(2000):
        assert reachability.away == (number >= 3)
        reachability.failed(ConnectionError(f"refused {number}"))
    assert [record.message for record in caplog.records] == [
        "projects/p/subscriptions/s cannot be pulled; trying again: refused 2"
    ]
    reachability.answered()
    reachability.answered()
    assert not reachability.away
    assert [record.message for record in caplog.records][1:] == ["projects/p/subscriptions/s can be pulled again"]


def test_one_thread_of_several_that_fails_is_no_outage(caplog: pytest.LogCaptureFixture) -> None:
    reachability = Reachability("s")
    for _ in range(100):
        reachability.failed(ConnectionError("broken"))
        reachability.failed(ConnectionError("broken"))
        reachability.answered()
    assert not reachability.away
    assert not caplog.records


def test_pauses_between_pulls_grow_up_to_ten_seconds() -> None:
    pauses = list(itertools.islice(pull_backoff(), 10_000))
    assert all(0 <= pause <= min(0.2 * 2**number, 10.0) for number, pause in enumerate(pauses[:20]))
    assert 9.9 < max(pauses) <= 10.0
