"""`MessageSource` hands out each message once, holds it until it is done, else gives it back; segments take turns."""

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.transforms.pubsub import message_source
from sluice.transforms.pubsub.message_buffer import BundleOptions
from sluice.transforms.pubsub.message_source import MessageSource
from sluice.transforms.pubsub.source_parts import Bundle, Segment, SourceOptions
from sluice.transforms.pubsub.subscription import Received, SubscriptionLost
from tests.support.fakes import PATIENCE_SECS
from tests.support.pubsub.memory_subscription import MemorySubscription
from tests.support.sizes import examples

QUICK = BundleOptions(max_messages=10, interval_secs=0.0, idle_secs=0.01)


@contextlib.contextmanager
def opened(
    subscription: MemorySubscription,
    options: SourceOptions | None = None,
    on_done: Callable[[object], None] = lambda messages: None,
) -> Iterator[MessageSource]:
    source = MessageSource(subscription, options or SourceOptions(QUICK, pull_threads=2), on_done)
    try:
        yield source
    finally:
        source.close()


FIRST = Segment()  # shared by the tests: a source learns of it at `take`


@pytest.fixture(autouse=True)
def _anew(monkeypatch: pytest.MonkeyPatch) -> None:
    FIRST.over = False
    monkeypatch.setattr(message_source, "_LATE_SECS", 0.01)  # a pull of an empty subscription waits to be broken off


def take(source: MessageSource, segment: Segment = FIRST, reader: str = "") -> Bundle:
    """Returns the next bundle that holds messages."""
    while True:
        bundle = source.take(segment, reader)
        assert bundle is not None
        if bundle.messages:
            return bundle


def ids_of(bundle: Bundle) -> list[str]:
    return [message.id for message in bundle.messages]


def take_all(source: MessageSource, count: int) -> list[Bundle]:
    bundles: list[Bundle] = []
    while sum(len(bundle.messages) for bundle in bundles) < count:
        bundles.append(take(source))
    return bundles


def test_every_message_is_handed_out_once_and_acknowledged_when_it_is_done() -> None:
    subscription = MemorySubscription()
    done: list[Received] = []
    with opened(subscription, on_done=done.extend) as source:
        ids = subscription.publish([b"%d" % number for number in range(95)])
        bundles = take_all(source, 95)
        assert max(len(bundle.messages) for bundle in bundles) <= 10
        assert subscription.acknowledged == []
        for bundle in bundles:
            bundle.acknowledge()
            bundle.acknowledge()  # a second call does nothing
        assert source.in_work == 0
    assert sorted(subscription.acknowledged, key=int) == ids
    assert sorted((message.id for message in done), key=int) == ids
    assert subscription.returned == []
    assert source.stats.pulled == source.stats.acknowledged == 95


def test_what_failed_is_given_back_and_comes_again() -> None:
    subscription = MemorySubscription()
    with opened(subscription) as source:
        ids = subscription.publish([b"x"] * 8)
        first = take_all(source, 8)
        source.release()
        again = take_all(source, 8)
        assert sorted(id_ for bundle in again for id_ in ids_of(bundle)) == ids
        assert {message.delivery_attempt for bundle in again for message in bundle.messages} == {2}
        for bundle in first:
            bundle.acknowledge()  # too late: somebody else may have them by now
        assert subscription.acknowledged == []
        for bundle in again:
            bundle.acknowledge()
    assert sorted(subscription.acknowledged) == ids
    assert source.stats.returned == 8


def test_a_drain_gives_back_what_waits_and_lets_what_is_in_work_be_finished() -> None:
    subscription = MemorySubscription()
    with opened(subscription) as source:
        subscription.publish([b"x"] * 25)
        bundle = take(source)
        source.drain()
        assert source.take(FIRST) is None
        bundle.acknowledge()
    assert sorted(subscription.acknowledged) == sorted(ids_of(bundle))
    assert subscription.outstanding == 25 - len(bundle.messages)
    assert subscription.closed
    assert not subscription.extended


def test_what_is_in_work_at_the_end_is_given_back() -> None:
    subscription = MemorySubscription()
    with opened(subscription) as source:
        subscription.publish([b"x"] * 7)
        take_all(source, 7)
    assert sorted(subscription.returned) == [str(number) for number in range(7)]
    assert subscription.acknowledged == []


def test_no_more_is_pulled_than_there_is_room_for() -> None:
    subscription = MemorySubscription(a_pull=5)
    bundles = BundleOptions(max_messages=5, buffer_messages=20, interval_secs=0.0, idle_secs=0.01)
    with opened(subscription, SourceOptions(bundles, pull_threads=2)) as source:
        subscription.publish([b"x"] * 500)
        seen = 0
        while seen < 500:
            bundle = take(source)
            assert source.buffered <= 20 + 2 * 5  # each thread may be about to add a pull
            seen += len(bundle.messages)
            bundle.acknowledge()


def test_an_outage_is_waited_out() -> None:
    subscription = MemorySubscription()
    with opened(subscription, SourceOptions(QUICK, pull_threads=1)) as source:
        subscription.fail(ConnectionError("away"))
        while source.reachable:
            assert source.take(FIRST) is not None
        subscription.publish([b"x"])
        subscription.fail(None)
        assert len(take(source).messages) == 1
        assert source.reachable


def test_a_lost_subscription_ends_the_segment_and_is_tried_again_by_the_next() -> None:
    subscription = MemorySubscription()
    with opened(subscription) as source:
        subscription.lose()
        with pytest.raises(SubscriptionLost, match="is gone"):
            take(source)
        subscription.publish([b"x"])
        subscription.fail(None)
        source.pass_turn()
        assert len(take(source, Segment()).messages) == 1


def test_the_next_segment_takes_over_when_it_waits_and_not_before() -> None:
    subscription = MemorySubscription()
    options = SourceOptions(QUICK, pull_threads=1, segment_bundles=2)
    with opened(subscription, options) as source:
        subscription.publish([b"x"] * 60)
        first = take_all(source, 40)
        assert source.wants_next, "it goes on as long as no other waits"
        taken: list[Bundle | None] = []
        thread = threading.Thread(target=lambda: taken.append(source.take(Segment())))
        thread.start()
        while (bundle := source.take(FIRST)) is not None:
            first.append(bundle)
        thread.join(PATIENCE_SECS)
        (second,) = taken
        assert second is not None
        seen = [id_ for bundle in [*first, second] for id_ in ids_of(bundle)]
        assert len(seen) == len(set(seen))
        assert not source.wants_next
        assert source.take(FIRST) is None  # it is over for good


@given(st.integers(1, 120), st.integers(1, 20), st.lists(st.booleans(), max_size=30))
@examples(10)
def test_random_work_loses_nothing(count: int, a_pull: int, fates: list[bool]) -> None:
    """Bundles succeed or fail at random. In the end every message is acknowledged, and none while it is in work."""
    subscription = MemorySubscription(a_pull=a_pull)
    fate = iter(fates)
    with opened(subscription) as source:
        ids = subscription.publish([b"x"] * count)
        seen = 0
        while seen < count:
            bundle = source.take(FIRST)
            assert bundle is not None
            if not bundle.messages:
                continue
            assert not {*ids_of(bundle)} & {*subscription.acknowledged}
            if next(fate, True):
                bundle.acknowledge()
                seen += len(bundle.messages)
            else:
                source.release()
    assert sorted(subscription.acknowledged, key=int) == ids


@pytest.mark.parametrize("count", [1, 50, 3000])
def test_a_message_that_kills_its_worker_takes_hardly_any_other_with_it(count: int) -> None:
    """Each worker dies of the message, and its messages come again; after four deliveries a message is given up."""
    subscription = MemorySubscription(a_pull=100)
    ids = subscription.publish([b"good"] * (count // 2) + [b"killer"] + [b"good"] * (count - count // 2 - 1))
    given_up: list[str] = []
    deaths = 0
    while subscription.outstanding:
        with opened(subscription, SourceOptions(BundleOptions(interval_secs=0.0, idle_secs=0.01))) as source:
            while subscription.outstanding:
                bundle = take(source) if source.in_work or source.buffered else source.take(FIRST)
                assert bundle is not None
                given_up += [message.id for message in bundle.messages if message.delivery_attempt > 4]
                if any(m.payload == b"killer" and m.delivery_attempt <= 4 for m in bundle.messages):
                    deaths += 1
                    break  # as if it were dead: its messages come again
                bundle.acknowledge()
    assert deaths == 4
    assert ids[count // 2] in given_up
    assert len(given_up) <= 2
    assert sorted(subscription.acknowledged, key=int) == ids


def test_how_long_nothing_has_been_acknowledged_though_something_is_here() -> None:
    subscription = MemorySubscription()
    now = 0.0
    source = MessageSource(subscription, SourceOptions(QUICK, pull_threads=1), clock=lambda: now)
    thread = threading.Thread(target=lambda: bundles.append(take(source)))
    bundles: list[Bundle] = []
    thread.start()
    now = 5000.0  # an idle hour
    assert source.stuck_secs == 0.0
    subscription.publish([b"x"])
    thread.join(PATIENCE_SECS)
    assert source.stuck_secs == 0.0
    now = 5700.0
    assert source.stuck_secs == 700.0
    bundles[0].acknowledge()
    assert source.stuck_secs == 0.0
    now = 6000.0
    assert source.stuck_secs == 0.0
    source.close()


def test_an_outage_of_days_is_waited_out() -> None:
    """Pulls fail thousands of times in a row, here without pauses."""
    subscription = MemorySubscription()
    subscription.fail(ConnectionError("away"))
    source = MessageSource(subscription, SourceOptions(QUICK, pull_threads=1), backoff=lambda: itertools.repeat(0.0))
    threading.Thread(target=lambda: take(source), daemon=True).start()
    while subscription.failures < 3000:
        threading.Event().wait(0.001)
    assert source.away and not source.reachable
    subscription.publish([b"x"])
    subscription.fail(None)
    while not source.stats.bundles:
        threading.Event().wait(0.001)
    assert not source.away
    source.close()


def test_a_source_that_has_not_begun_to_pull_is_neither_reachable_nor_away() -> None:
    with opened(MemorySubscription()) as source:
        assert (source.reachable, source.away) == (False, False)


def test_the_oldest_message_is_that_of_those_that_wait_or_are_in_work() -> None:
    subscription = MemorySubscription()
    with opened(subscription) as source:
        assert source.oldest_publish_time() is None
        subscription.publish([b"x"])
        first = take(source)
        published = first.messages[0].publish_time
        assert source.oldest_publish_time() == published
        subscription.publish([b"y"] * 3)
        later = take_all(source, 3)
        assert source.oldest_publish_time() == published
        first.acknowledge()
        assert source.oldest_publish_time() == min(each.publish_time for bundle in later for each in bundle.messages)
        for bundle in later:
            bundle.acknowledge()
        assert source.oldest_publish_time() is None


def test_the_time_of_a_pause_is_none_in_which_it_was_stuck() -> None:
    """When the model answers again after an hour, a probe must not end the job before it has done anything."""
    now = 0.0
    subscription = MemorySubscription()
    source = MessageSource(subscription, SourceOptions(QUICK, pull_threads=1), clock=lambda: now)
    subscription.publish([b"x"])
    taken: list[Bundle] = []
    thread = threading.Thread(target=lambda: taken.append(take(source)))
    thread.start()
    while not taken:
        now += 1.0  # bundles are due by the clock
        thread.join(0.001)
    source.hold_back(True)
    now += 3600.0
    source.hold_back(False)
    assert source.stuck_secs == 0.0
    now += 700.0
    assert source.stuck_secs == 700.0
    source.close()


def test_requests_that_failed_are_taken_once() -> None:
    with opened(MemorySubscription()) as source:
        source._leases.extensions_failed = 5
        assert source.take_failed() == (5, 0)
        source._leases.extensions_failed, source._leases.acknowledgements_failed = 7, 1
        assert source.take_failed() == (2, 1)
        assert source.take_failed() == (0, 0)
        assert (source.extensions_failed, source.acknowledgements_failed) == (7, 1)


def test_a_drain_within_the_lock_does_not_wait_for_itself() -> None:
    """A signal's handler does this: it runs in the main thread, whatever lock that holds."""
    source = MessageSource(MemorySubscription(), SourceOptions(QUICK, pull_threads=1))
    with source._lock:
        source.drain()
    source.close()


@pytest.mark.parametrize(("published", "taken", "left"), [(0, 0, 0), (10, 10, 10), (25, 10, 25)])
def test_what_is_left_is_told_to_the_subscription(published: int, taken: int, left: int) -> None:
    subscription = MemorySubscription()
    with opened(subscription) as source:
        subscription.publish([b"x"] * published)
        if taken:
            take(source)
            while source.stats.pulled < published:
                threading.Event().wait(0.001)
    assert subscription.left == left


def test_nothing_is_handed_out_while_too_much_waits_to_be_acknowledged() -> None:
    subscription = MemorySubscription()
    with opened(subscription, SourceOptions(QUICK, pull_threads=1, most_in_work=20)) as source:
        subscription.publish([b"x"] * 50)
        bundles = take_all(source, 20)
        full = source.take(FIRST)
        assert full is not None
        assert full.messages == []
        bundles.pop().acknowledge()
        assert take(source).messages


def test_a_bundle_that_the_runner_has_lost_is_given_back_once() -> None:
    now = [0.0]
    subscription = MemorySubscription()
    source = MessageSource(subscription, SourceOptions(QUICK, pull_threads=1), clock=lambda: now[0])
    with contextlib.closing(source):
        subscription.publish([b"a"])
        bundle = take(source)
        source.give_back_overdue(60.0)
        assert source.in_work == 1
        now[0] = 61.0
        source.give_back_overdue(60.0)
        assert subscription.returned == ["0"]
        bundle.give_back()
        bundle.acknowledge()
        assert subscription.returned == ["0"]
        assert (source.stats.returned, source.stats.acknowledged) == (1, 0)


def test_a_bundle_has_ended_when_its_reader_takes_again() -> None:
    subscription, now = MemorySubscription(), [0.0]
    source = MessageSource(subscription, SourceOptions(QUICK, pull_threads=1), clock=lambda: now[0])
    with contextlib.closing(source):
        for reader in ("slow", "quick", "quick"):
            subscription.publish([b"a"])
            take(source, reader=reader)
        now[0] = 31.0
        source.give_back_overdue(300.0)
        assert subscription.returned == []
        subscription.publish([b"a"])
        take(source, reader="quick")  # the first of its bundles ended at 0, and not now
        source.give_back_overdue(300.0, 30.0)
        assert subscription.returned == ["1"], "the others may be at work"
