"""`run_segments`: segments one after the other, restarts, the end."""

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence

import pytest

from sluice.models.errors import ModelHangs, ModelLost, NonePassed, TooManyFailures, Unavailable
from sluice.pipelines.segments import backoffs, run_segments
from sluice.transforms.pubsub.message_buffer import BundleOptions
from sluice.transforms.pubsub.message_source import MessageSource
from sluice.transforms.pubsub.source_parts import Segment, SourceOptions
from tests.support.pubsub.memory_subscription import MemorySubscription
from tests.support.pubsub.streams import wait_until

BUNDLES = BundleOptions(max_messages=5, interval_secs=0.0, idle_secs=0.01)


def open_source(subscription: MemorySubscription, segment_bundles: int = 3) -> MessageSource:
    return MessageSource(subscription, SourceOptions(BUNDLES, pull_threads=1, segment_bundles=segment_bundles))


def doubled() -> Iterator[float]:
    """The waits of a row of failures, without jitter."""
    return iter([0.5, 1.0, 2.0, 4.0])


class Pipelines:
    """Stands for the pipelines of segments: takes bundles to the end of its segment, and does as told with each."""

    def __init__(self, source: MessageSource, work: Callable[[int, list[bytes]], None]) -> None:
        self.source = source
        self.begun = 0
        self.at_a_time = 0
        self._work = work
        self._lock = threading.Lock()
        self._working = 0

    def run(self) -> None:
        segment, number = Segment(), self.begun
        self.begun += 1
        while (bundle := self.source.take(segment)) is not None:
            if bundle.messages:
                with self._lock:
                    self._working += 1
                    self.at_a_time = max(self.at_a_time, self._working)
                try:
                    self._work(number, [message.payload for message in bundle.messages])
                finally:
                    with self._lock:
                        self._working -= 1
                bundle.acknowledge()


def test_segments_follow_each_other_and_never_work_at_a_time() -> None:
    subscription = MemorySubscription(a_pull=5)
    subscription.publish([b"%d" % number for number in range(75)])
    seen: list[bytes] = []
    source = open_source(subscription)

    def work(segment: int, payloads: list[bytes]) -> None:
        seen.extend(payloads)
        if len(seen) == 75:
            source.drain()
        elif source.wants_next:
            wait_until(lambda: source._next is not None, "the next segment")

    pipelines = Pipelines(source, work)
    assert run_segments(pipelines.run, source, max_restarts=0) == 0
    source.close()
    assert sorted(seen, key=int) == [b"%d" % number for number in range(75)]
    assert pipelines.at_a_time == 1
    assert pipelines.begun >= 5
    assert subscription.outstanding == 0


def test_a_segment_that_fails_is_followed_by_another_with_its_messages() -> None:
    subscription = MemorySubscription()
    subscription.publish([b"x"] * 20)
    source = open_source(subscription, segment_bundles=100)
    failures = iter([True, True, False, True, False, False, False, False, False, False])
    done = 0
    restarts: list[int] = []
    waits: list[float] = []
    told: list[str] = []

    def wait(secs: float) -> None:
        waits.append(secs)
        told.append(source.trouble)

    def work(segment: int, payloads: list[bytes]) -> None:
        nonlocal done
        assert source.trouble == ""
        if next(failures):
            raise ConnectionError("the sink is away")
        done += len(payloads)
        if done == 20:
            source.drain()

    failed = run_segments(
        Pipelines(source, work).run,
        source,
        max_restarts=2,
        on_restart=lambda: restarts.append(1),
        wait=wait,
        backoffs=doubled,
    )
    source.close()
    assert failed == 3 == len(restarts)
    assert told == ["the sink is away"] * 3
    assert waits == [0.5, 1.0, 0.5]  # what was acknowledged between them ends the row
    assert subscription.outstanding == 0


def test_too_many_failures_in_a_row_end_the_job() -> None:
    subscription = MemorySubscription()
    subscription.publish([b"x"] * 3)
    source = open_source(subscription)
    waits: list[float] = []

    def work(segment: int, payloads: list[bytes]) -> None:
        raise ConnectionError(f"away in segment {segment}")

    with pytest.raises(ConnectionError, match="away in segment 4"):
        run_segments(Pipelines(source, work).run, source, max_restarts=4, wait=waits.append, backoffs=doubled)
    assert waits == [0.5, 1.0, 2.0, 4.0]
    source.close()
    assert subscription.outstanding == 3
    assert subscription.acknowledged == []


def test_a_failure_while_another_segment_waits_gives_it_the_turn() -> None:
    subscription = MemorySubscription(a_pull=5)
    subscription.publish([b"x"] * 60)
    source = open_source(subscription, segment_bundles=2)
    done = 0
    failed_once = threading.Event()

    def work(segment: int, payloads: list[bytes]) -> None:
        nonlocal done
        if source._next is not None and not failed_once.is_set():
            failed_once.set()
            raise ConnectionError("away")
        done += len(payloads)
        if done == 60:
            source.drain()

    pipelines = Pipelines(source, work)
    run_segments(pipelines.run, source, max_restarts=1, wait=lambda secs: None)
    source.close()
    assert subscription.outstanding == 0


def test_a_drain_before_anything_came_ends_at_once() -> None:
    source = open_source(MemorySubscription())
    source.drain()
    assert run_segments(Pipelines(source, lambda segment, payloads: None).run, source, max_restarts=0) == 0
    source.close()


def test_an_error_during_a_drain_ends_the_job_with_it() -> None:
    subscription = MemorySubscription()
    subscription.publish([b"x"])
    source = open_source(subscription)

    def work(segment: int, payloads: list[bytes]) -> None:
        source.drain()
        raise ConnectionError("away")

    with pytest.raises(ConnectionError):
        run_segments(Pipelines(source, work).run, source, max_restarts=10, wait=lambda secs: None)
    source.close()
    assert subscription.outstanding == 1


def test_a_next_segment_that_cannot_begin_is_tried_again() -> None:
    """As one whose clients find no credentials for a moment."""
    subscription = MemorySubscription(a_pull=5)
    source = open_source(subscription)
    waits: list[float] = []
    broken = threading.Event()
    pipelines = Pipelines(source, lambda segment, payloads: None)

    def run() -> None:
        if pipelines.begun and not broken.is_set():
            broken.set()
            raise ConnectionError("no credentials")
        pipelines.run()

    def publish() -> None:
        while pipelines.begun < 3:
            subscription.publish([b"x"] * 5)
            threading.Event().wait(0.01)
        source.drain()

    threading.Thread(target=publish, daemon=True).start()
    assert run_segments(run, source, max_restarts=0, wait=waits.append) == 0
    source.close()
    assert waits == [30.0]


def test_a_segment_that_ends_by_no_exception_is_a_failed_one() -> None:
    subscription = MemorySubscription()
    subscription.publish([b"x"] * 3)
    source = open_source(subscription)

    def work(segment: int, payloads: list[bytes]) -> None:
        raise SystemExit("an extension's panic")

    with pytest.raises(RuntimeError, match="SystemExit: an extension's panic"):
        run_segments(Pipelines(source, work).run, source, max_restarts=1, wait=lambda secs: None)
    source.close()
    assert subscription.outstanding == 3


def test_a_segment_that_ends_by_itself_is_a_failed_one() -> None:
    source = open_source(MemorySubscription())
    with pytest.raises(RuntimeError, match="ended by itself"):
        run_segments(lambda: None, source, max_restarts=1, wait=lambda secs: None)
    source.close()


def test_waits_stay_finite_however_many_failures_are_allowed() -> None:
    waits = list(itertools.islice(backoffs(), 5000))
    assert waits[0] <= 0.5
    assert 20.0 < max(waits) <= 30.0


class Queue(MemorySubscription):
    """Puts messages that are given back behind all others."""

    def extend(self, ack_ids: Sequence[str], secs: int) -> None:
        super().extend(ack_ids, secs)
        with self._lock:
            self._waiting.rotate(0 if secs else -len(ack_ids))


def test_a_message_that_fails_every_segment_cannot_hide_behind_others_that_pass() -> None:
    subscription = Queue(a_pull=1)
    subscription.publish([b"poison"])
    source = open_source(subscription)
    failed = 0

    def work(segment: int, payloads: list[bytes]) -> None:
        nonlocal failed
        if b"poison" in payloads:
            failed += 1
            subscription.publish([b"good"] * 5)  # a bundle's worth, which passes before the poison comes again
            if failed == 20:
                source.drain()
            raise ConnectionError("poison")

    with pytest.raises(ConnectionError, match="poison"):
        run_segments(Pipelines(source, work).run, source, max_restarts=3, wait=lambda secs: None)
    source.close()
    assert failed == 4
    assert len(subscription.acknowledged) >= 3 and "0" not in subscription.acknowledged


@pytest.mark.parametrize("error", [Unavailable("no GPU"), RuntimeError("sluice.models.errors.Unavailable: no GPU")])
def test_reading_is_paused_while_the_model_does_not_answer_however_long(error: Exception) -> None:
    subscription = MemorySubscription()
    subscription.publish([b"x"] * 3)
    source = open_source(subscription)
    asked = iter([False] * 50 + [True] * 9)
    held: list[bool] = []
    told: set[str] = set()
    fails = iter([True])

    def answers() -> bool:
        held.append(source._buffer._held_back)
        told.add(source.trouble)
        return next(asked)

    def work(segment: int, payloads: list[bytes]) -> None:
        if next(fails, False):
            raise error
        source.drain()

    failed = run_segments(Pipelines(source, work).run, source, max_restarts=0, wait=lambda secs: None, answers=answers)
    source.close()
    assert failed == 1 and source.most_tries == 0
    assert held == [False, *[True] * 50] and not source._buffer._held_back
    assert told == {"", f"the model does not answer: {error}"} and source.trouble == ""


def test_a_drain_ends_the_pause() -> None:
    subscription = MemorySubscription()
    subscription.publish([b"x"])
    source = open_source(subscription)

    def work(segment: int, payloads: list[bytes]) -> None:
        raise Unavailable("away")

    def wait(secs: float) -> None:
        source.drain()

    run_segments(Pipelines(source, work).run, source, max_restarts=0, wait=wait, answers=lambda: False)
    source.close()
    assert subscription.outstanding == 1


@pytest.mark.parametrize("error", [ModelHangs("hangs"), TooManyFailures("all rows"), ModelLost("closed")])
def test_what_only_another_process_can_mend_ends_the_job_at_once(error: Exception) -> None:
    subscription = MemorySubscription()
    subscription.publish([b"x"])
    source = open_source(subscription)

    def work(segment: int, payloads: list[bytes]) -> None:
        raise error

    with pytest.raises(type(error)):
        run_segments(Pipelines(source, work).run, source, max_restarts=9, wait=lambda secs: None)
    source.close()
    assert subscription.outstanding == 1


def test_rows_that_fail_before_any_has_passed_are_tried_for_longer_than_restarts_allow() -> None:
    subscription = MemorySubscription()
    subscription.publish([b"x"])
    source = open_source(subscription)
    waits: list[float] = []
    errors = iter([NonePassed("x")] * 20 + [TooManyFailures("all")])

    def work(segment: int, payloads: list[bytes]) -> None:
        raise next(errors)

    with pytest.raises(TooManyFailures):
        run_segments(Pipelines(source, work).run, source, max_restarts=1, wait=waits.append)
    source.close()
    assert waits == [1.0] * 20
    assert subscription.outstanding == 1


@pytest.mark.parametrize(("lost", "asked_before"), [(ModelLost("x"), 0), (OSError("x"), 0), (ModelLost("x"), 3)])
def test_a_model_that_cannot_be_asked_keeps_no_message(lost: Exception, asked_before: int) -> None:
    """The messages in work go back at once, and not when the process ends; what asking raised ends the job."""
    subscription = MemorySubscription()
    subscription.publish([b"x"] * 3)
    source = open_source(subscription)
    silent = iter([False] * asked_before)

    def answers() -> bool:
        for answer in silent:
            return answer
        raise lost

    def work(segment: int, payloads: list[bytes]) -> None:
        raise Unavailable("no GPU")

    with pytest.raises(type(lost)):
        run_segments(Pipelines(source, work).run, source, max_restarts=2, wait=lambda secs: None, answers=answers)
    assert (source.in_work, source.draining, source._buffer._held_back) == (0, True, False)
    source.close()
    assert (subscription.outstanding, subscription.acknowledged) == (3, [])
