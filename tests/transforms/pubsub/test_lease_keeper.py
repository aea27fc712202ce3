"""Leases are extended in time and as long as needed; messages are acknowledged when done, else given back."""

import contextlib
import itertools
import logging
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.transforms.pubsub import lease_keeper
from sluice.transforms.pubsub.lease_keeper import LeaseKeeper
from sluice.transforms.pubsub.subscription import MAX_REQUEST_IDS
from tests.support.fakes import FakeClock
from tests.support.pubsub.fakes_stream import Leases
from tests.support.sizes import examples

LEASE_SECS = 30
EXTEND = f"extend by {LEASE_SECS}"


class Kept:
    """A LeaseKeeper and its clock.

    Args:
      alone: ends the keeper's own threads, so that only the test extends.
    """

    def __init__(self, subscription: Leases, alone: bool = False) -> None:
        self.subscription = subscription
        self.clock = FakeClock()
        # Requests that fail are tried again at once.
        self.keeper = LeaseKeeper(subscription, LEASE_SECS, self.clock, backoff=lambda: itertools.repeat(0.0))
        if alone:
            self.keeper.close()

    def after(self, secs: float) -> list[str]:
        """Returns the ids whose leases are extended after this time, sorted; the keeper's thread may do it first."""
        before = len(self.subscription.sent(EXTEND))
        self.clock.advance(secs)
        self.keeper.extend_due()
        return sorted(set(self.subscription.sent(EXTEND)[before:]))


@contextlib.contextmanager
def kept(subscription: Leases | None = None) -> Iterator[Kept]:
    made = Kept(subscription or Leases())
    try:
        yield made
    finally:
        made.keeper.close()


def test_leases_are_extended_before_they_end_and_not_much_earlier() -> None:
    job = Kept(Leases(), alone=True)
    job.keeper.hold(["a", "b"])
    assert job.after(3.9) == []
    assert job.after(0.1) == ["a", "b"]  # at 4 s of 10
    assert job.after(0) == []
    assert job.after(23.9) == []
    assert job.after(0.1) == ["a", "b"]  # at 24 s of 30
    assert len(job.keeper) == 2


def test_each_message_has_a_lease_of_its_own() -> None:
    job = Kept(Leases(), alone=True)
    job.keeper.hold(["a"])
    assert job.after(3) == []
    job.keeper.hold(["b"])
    assert job.after(1) == ["a"]
    assert job.after(3) == ["b"]
    assert job.after(21) == ["a"]


def test_a_message_that_is_held_again_has_a_first_lease() -> None:
    job = Kept(Leases(), alone=True)
    job.keeper.hold(["a"])
    assert job.after(4) == ["a"]
    job.keeper.give_back(["a"])
    job.keeper.hold(["a"])
    assert job.after(4) == ["a"]


def test_a_lease_counts_from_the_answer_to_its_request() -> None:
    job = Kept(Leases(), alone=True)
    job.keeper.hold(["a"])
    job.subscription.on_request = lambda what, ids: job.clock.advance(5)
    assert job.after(4) == ["a"]
    job.subscription.on_request = lambda what, ids: None
    assert job.after(23.9) == []
    assert job.after(0.1) == ["a"]


def test_an_extension_that_fails_is_tried_again_at_the_next_tick() -> None:
    job = Kept(Leases(failing=2), alone=True)
    job.keeper.hold(["a"])
    assert [job.after(secs) for secs in (4, 2, 2, 2)] == [[], [], ["a"], []]


def test_an_extension_that_fails_is_told_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    """Its messages may come again, and the cause may be that this process has no time: whoever is on call must see."""
    job = Kept(Leases(failing=2), alone=True)
    job.keeper.hold(["a", "b"])
    with caplog.at_level(logging.WARNING, "sluice"):
        for secs in (4, 2, 2):
            job.after(secs)
    assert caplog.messages == [f"{Leases.name}: 2 leases were not extended: the service is away"] * 2
    assert (job.keeper.extensions_failed, job.keeper.acknowledgements_failed) == (4, 0)


def test_one_request_that_fails_does_not_keep_back_the_others() -> None:
    ids = [f"{number:04d}" for number in range(2 * MAX_REQUEST_IDS + 1)]
    job = Kept(Leases(failing=1), alone=True)
    job.keeper.hold(ids)
    assert job.after(4) == ids[MAX_REQUEST_IDS:]
    assert job.after(1) == ids[:MAX_REQUEST_IDS]


def test_the_keepers_own_thread_extends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_keeper, "_TICK_SECS", 0.01)
    with kept() as job:
        job.keeper.hold(["a"])
        job.clock.advance(4)
        job.subscription.await_request(EXTEND)
    assert job.subscription.requests == [(EXTEND, ["a"])]


def test_requests_are_of_bounded_size() -> None:
    with kept() as job:
        ids = [str(number) for number in range(2 * MAX_REQUEST_IDS + 5)]
        job.keeper.hold(ids)
        job.after(4)
        job.keeper.give_back(ids)
        job.keeper.acknowledge(ids)
    for what in (EXTEND, "give back", "acknowledge"):
        sizes = [len(requested) for kind, requested in job.subscription.requests if kind == what]
        assert sizes == [MAX_REQUEST_IDS, MAX_REQUEST_IDS, 5]
        assert job.subscription.sent(what) == ids


def test_what_is_given_back_or_acknowledged_is_not_extended() -> None:
    with kept() as job:
        job.keeper.hold(["a", "b", "c"])
        job.keeper.give_back(["a"])
        assert job.subscription.requests == [("give back", ["a"])]
        job.keeper.acknowledge(["b"])
        job.subscription.await_request("acknowledge")
        job.keeper.acknowledge([])
    assert len(job.keeper) == 1  # both are forgotten once it is closed, at the latest
    assert job.after(4) == ["c"]
    assert job.after(100) == ["c"]


def test_what_is_given_back_while_others_are_extended_is_not_extended_any_more() -> None:
    subscription = Leases()
    job = Kept(subscription, alone=True)
    ids = [f"{number:04d}" for number in range(4 * MAX_REQUEST_IDS)]
    left = [*ids[:MAX_REQUEST_IDS], ids[-1]]

    def give_back(what: str, requested: Sequence[str]) -> None:
        subscription.on_request = lambda what, ids: None
        job.keeper.give_back(ids[MAX_REQUEST_IDS:-1])

    job.keeper.hold(ids)
    subscription.on_request = give_back
    assert job.after(4) == left
    assert [requested for kind, requested in subscription.requests if kind == EXTEND] == [left[:-1], left[-1:]]
    assert job.after(24) == left


def test_what_is_given_back_while_it_is_extended_is_not_held_any_more() -> None:
    job = Kept(Leases(), alone=True)

    def give_back(what: str, requested: Sequence[str]) -> None:
        job.subscription.on_request = lambda what, ids: None
        job.keeper.give_back(["a"])

    job.keeper.hold(["a", "b"])
    job.subscription.on_request = give_back
    assert job.after(4) == ["a", "b"]
    assert len(job.keeper) == 1
    assert job.after(24) == ["b"]


def test_a_message_is_held_until_its_acknowledgement_is_sent() -> None:
    sent = []
    with kept() as job:
        job.keeper.hold(["a"])

        def extend_meanwhile(what: str, ids: Sequence[str]) -> None:
            if what == "acknowledge":
                sent.append(job.after(4))

        job.subscription.on_request = extend_meanwhile
        job.keeper.acknowledge(["a"])
    assert sent == [["a"]]
    assert len(job.keeper) == 0
    assert job.after(100) == []


def test_acknowledgements_that_gather_go_together() -> None:
    with kept() as job:

        def gather(what: str, ids: Sequence[str]) -> None:
            if ids == ["a"]:
                job.keeper.acknowledge(["b"])
                job.keeper.acknowledge(["c", "d"])

        job.subscription.on_request = gather
        job.keeper.acknowledge(["a"])
    assert job.subscription.requests == [("acknowledge", ["a"]), ("acknowledge", ["b", "c", "d"])]


@pytest.mark.parametrize("failing", [1, 4])
def test_requests_that_fail_are_tried_again(failing: int, caplog: pytest.LogCaptureFixture) -> None:
    with kept(Leases(failing)) as job:
        job.keeper.give_back(["a"])
        assert job.subscription.requests == [("give back", ["a"])]
        job.subscription.failing = failing
        job.keeper.acknowledge(["b"])
        job.subscription.await_request("acknowledge")
    assert job.subscription.requests[1:] == [("acknowledge", ["b"])]
    assert caplog.records == []


def test_requests_that_fail_again_and_again_are_given_up_with_a_word(caplog: pytest.LogCaptureFixture) -> None:
    subscription = Leases(failing=5)
    with caplog.at_level(logging.WARNING, "sluice"), kept(subscription) as job:
        job.keeper.hold(["a", "b", "c", "d"])
        job.keeper.give_back(["a", "b"])
        assert subscription.requests == []
        job.keeper.give_back(["c"])
        subscription.failing = 5
        job.keeper.acknowledge(["d"])
    assert subscription.requests == [("give back", ["c"])]
    assert [record.getMessage() for record in caplog.records] == [
        "2 messages could not be given back, and come again: the service is away",
        "1 messages could not be acknowledged, and come again: the service is away",
    ]
    assert len(job.keeper) == 0, "what is given up comes again, and is not held any more"
    assert (job.keeper.extensions_failed, job.keeper.acknowledgements_failed) == (0, 1)


def test_closing_sends_what_is_left_and_ends_the_threads() -> None:
    subscription = Leases(failing=2)
    job = Kept(subscription)
    ids = [str(number) for number in range(50)]
    job.keeper.hold(ids)
    for ack_id in ids:
        job.keeper.acknowledge([ack_id])
    job.keeper.close()
    assert subscription.sent("acknowledge") == ids
    assert subscription.sent("give back") == []
    assert not any(thread.is_alive() for thread in job.keeper._threads)
    job.keeper.close()  # a second call does nothing


@examples(24)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), max_size=60), st.integers(0, 2))
def test_no_lease_ends_as_long_as_a_message_is_held(steps: list[tuple[int, int]], failing: int) -> None:
    """A step takes 2 s: so many messages come, and one of the held ones is given back (0: none)."""
    job = Kept(Leases(failing), alone=True)
    expiries: dict[str, float] = {}  # as the service knows them
    now, count = 0, 0
    for coming, going in steps:
        came = [str(count + number) for number in range(coming)]
        count += coming
        job.keeper.hold(came)
        expiries |= dict.fromkeys(came, now + 10)
        if going and len(expiries) >= going and not job.subscription.failing:
            gone = sorted(expiries)[going - 1]
            job.keeper.give_back([gone])
            del expiries[gone]
        now += 2
        extended = job.after(2)
        assert set(extended) <= set(expiries), "what was given back is extended"
        expiries |= dict.fromkeys(extended, now + LEASE_SECS)
        assert all(expiry > now for expiry in expiries.values()), "a lease has ended"
        assert len(job.keeper) == len(expiries)
