"""When a bundle is due and what it holds; nothing is lost, whatever threads do.

Times are ticks of about a microsecond: `take` really waits for them, and the clock advances each time it checks again.
"""

import dataclasses
import threading
import time
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.transforms.pubsub.message_buffer import BundleOptions, MessageBuffer
from sluice.transforms.pubsub.subscription import Received
from tests.support.fakes import PATIENCE_SECS
from tests.support.pubsub.fakes_stream import received
from tests.support.sizes import examples

TICK_SECS = 2.0**-20  # so that sums of them are exact


def ticks(
    gather: int = 0, interval: int = 0, idle: int = 1000, messages: int = 10, size: int = 100, pulled: int = 50
) -> BundleOptions:
    """Returns options with times in ticks, and 1,000 bytes pulled ahead."""
    return BundleOptions(
        max_messages=messages,
        max_bytes=size,
        gather_secs=gather * TICK_SECS,
        interval_secs=interval * TICK_SECS,
        idle_secs=idle * TICK_SECS,
        buffer_messages=pulled,
        buffer_bytes=1000,
    )


class Ticking:
    """A buffer, and a clock that advances by a tick each time `take` has waited."""

    def __init__(self, options: BundleOptions) -> None:
        self.now = 0
        self.buffer = MessageBuffer(options, lambda: self.now * TICK_SECS)
        self._added = 0

    def add(self, *sizes: int) -> None:
        """Adds messages of these sizes, with consecutive numbers."""
        messages = [received(self._added + number, size) for number, size in enumerate(sizes)]
        self._added += len(sizes)
        self.buffer.add(messages)

    def take(self) -> tuple[int, list[int]]:
        """Returns after how many ticks `take` returned, and the numbers of its messages."""
        began, looks = self.now, 0

        def tick() -> bool:
            nonlocal looks
            self.now = began + looks
            looks += 1
            return False

        taken = self.buffer.take(tick)
        return self.now - began, [int(message.id) for message in taken]


@pytest.mark.parametrize(
    "options,sizes,expected",
    [
        (ticks(), [], (1000, [])),
        (ticks(idle=7), [], (7, [])),
        (ticks(), [1], (0, [0])),
        (ticks(gather=20), [1], (20, [0])),
        (ticks(gather=20, idle=7), [1], (20, [0])),
        (ticks(gather=20), [1] * 9, (20, list(range(9)))),
        (ticks(gather=20), [1] * 10, (0, list(range(10)))),
        (ticks(gather=20), [1] * 25, (0, list(range(10)))),
        (ticks(gather=20), [50, 49], (20, [0, 1])),
        (ticks(gather=20), [50, 50], (0, [0, 1])),
        (ticks(gather=20), [50, 51], (0, [0])),
        (ticks(gather=20), [100, 1], (0, [0])),
        (ticks(gather=20), [101], (0, [0])),
        (ticks(gather=20), [900, 1], (0, [0])),
        (ticks(gather=20), [1, 900, 1], (0, [0])),
        (ticks(gather=20), [0] * 10, (0, list(range(10)))),
        (ticks(gather=20, pulled=3), [1] * 3, (0, [0, 1, 2])),
        (ticks(gather=20, size=5000), [999], (20, [0])),
        (ticks(gather=20, size=5000), [1000], (0, [0])),
        (ticks(interval=30), [1], (0, [0])),
    ],
    ids=[
        "nothing",
        "nothing, for a shorter time",
        "one, at once",
        "one, gathered",
        "gathered for longer than it may be idle",
        "one short of full",
        "full",
        "more than full",
        "one byte short of full",
        "full of bytes",
        "bytes of more than one",
        "full of bytes with one",
        "larger than a bundle",
        "much larger than a bundle",
        "something before what is larger than a bundle",
        "empty messages",
        "no more can be pulled",
        "one byte before no more can be pulled",
        "no more bytes can be pulled",
        "the first has no interval",
    ],
)
def test_when_the_first_bundle_is_due(
    options: BundleOptions, sizes: list[int], expected: tuple[int, list[int]]
) -> None:
    ticking = Ticking(options)
    ticking.add(*sizes)
    assert ticking.take() == expected


@pytest.mark.parametrize(
    "options,passed,expected",
    [
        (ticks(), 0, 0),
        (ticks(interval=30), 0, 30),
        (ticks(interval=30), 12, 18),
        (ticks(interval=30), 30, 0),
        (ticks(interval=30), 99, 0),
        (ticks(interval=30, gather=50), 12, 50),
        (ticks(interval=30, gather=20), 12, 20),
        (ticks(interval=30, gather=5), 12, 18),
    ],
)
def test_when_the_next_one_is_due(options: BundleOptions, passed: int, expected: int) -> None:
    ticking = Ticking(options)
    ticking.add(1)
    ticking.take()
    ticking.now += passed
    ticking.add(1)
    assert ticking.take() == (expected, [1])


def test_a_full_one_waits_for_no_interval() -> None:
    ticking = Ticking(ticks(interval=30, gather=20))
    ticking.add(*[1] * 20)
    assert [ticking.take()[0], ticking.take()[0]] == [0, 0]


def test_a_take_that_gave_nothing_begins_no_interval() -> None:
    ticking = Ticking(ticks(interval=30, idle=5))
    assert ticking.take() == (5, [])
    ticking.add(1)
    assert ticking.take() == (0, [0])


def test_what_a_bundle_leaves_is_gathered_anew() -> None:
    ticking = Ticking(ticks(gather=20))
    ticking.add(*[1] * 12)
    ticking.now += 9
    assert ticking.take() == (0, list(range(10)))
    ticking.now += 5
    ticking.add(1)
    assert ticking.take() == (15, [10, 11, 12])


def test_what_is_cleared_counts_no_more() -> None:
    ticking = Ticking(ticks(gather=20))
    ticking.add(*[10] * 9)
    assert len(ticking.buffer.clear()) == 9
    ticking.now += 5
    ticking.add(10)
    assert ticking.take() == (20, [9])


class Twin:
    """The documented rules, on plain lists."""

    def __init__(self, options: BundleOptions) -> None:
        self.options = options
        self.waiting: list[tuple[int, int]] = []  # (number, size)
        self.gathering_since = 0
        self.last_bundle: int | None = None

    def add(self, numbers: range, sizes: Sequence[int], now: int) -> None:
        if not self.waiting:
            self.gathering_since = now
        self.waiting += zip(numbers, sizes, strict=True)

    def take(self, now: int) -> tuple[int, list[int]]:
        options = self.options
        idle, gather, interval = (
            round(secs / TICK_SECS) for secs in (options.idle_secs, options.gather_secs, options.interval_secs)
        )
        if not self.waiting:
            return idle, []
        count, size = len(self.waiting), sum(size for _, size in self.waiting)
        due = self.gathering_since + gather
        if self.last_bundle is not None:
            due = max(due, self.last_bundle + interval)
        if count >= min(options.max_messages, options.buffer_messages) or size >= min(
            options.max_bytes, options.buffer_bytes
        ):
            due = now
        fitting = [
            length
            for length in range(1, count + 1)
            if length == 1
            or (length <= options.max_messages and sum(size for _, size in self.waiting[:length]) <= options.max_bytes)
        ]
        taken, self.waiting = self.waiting[: max(fitting)], self.waiting[max(fitting) :]
        waited = max(0, due - now)
        self.last_bundle = self.gathering_since = now + waited
        return waited, [number for number, _ in taken]


OPTIONS = st.builds(
    ticks,
    gather=st.integers(0, 30),
    interval=st.integers(0, 30),
    idle=st.integers(0, 30),
    messages=st.integers(1, 12),
    size=st.integers(1, 200),
    pulled=st.integers(1, 30),
)
# Ticks that pass, sizes of messages that are added, or None: take a bundle.
STEPS = st.lists(st.none() | st.integers(0, 40) | st.lists(st.integers(0, 120), max_size=15), max_size=25)


@examples(120)
@given(OPTIONS, STEPS)
def test_it_does_as_a_twin_of_plain_lists(options: BundleOptions, steps: list[int | list[int] | None]) -> None:
    ticking, twin, added = Ticking(options), Twin(options), 0
    for step in [*steps, None]:
        if isinstance(step, int):
            ticking.now += step
        elif step is not None:
            ticking.add(*step)
            twin.add(range(added, added + len(step)), step, ticking.now)
            added += len(step)
        else:
            now = ticking.now
            assert ticking.take() == twin.take(now)
        assert len(ticking.buffer) == len(twin.waiting)
    assert [int(message.id) for message in ticking.buffer.clear()] == [number for number, _ in twin.waiting]
    assert len(ticking.buffer) == 0


@given(OPTIONS, st.lists(st.integers(0, 300), max_size=60))
def test_no_bundle_is_larger_than_allowed_but_of_one_message(options: BundleOptions, sizes: list[int]) -> None:
    ticking, taken = Ticking(options), []
    ticking.add(*sizes)
    while bundle := ticking.take()[1]:
        taken += bundle
        assert len(bundle) <= options.max_messages
        assert len(bundle) == 1 or sum(sizes[number] for number in bundle) <= options.max_bytes
    assert taken == list(range(len(sizes)))


class Taker(threading.Thread):
    """Takes one bundle on a thread; `await_look` waits until it has checked once more whether to stop."""

    def __init__(self, buffer: MessageBuffer) -> None:
        super().__init__(daemon=True)
        self.bundle: list[Received] | None = None
        self.stopped = False
        self._buffer = buffer
        self._looked = threading.Semaphore(0)
        self.start()

    def run(self) -> None:
        self.bundle = self._buffer.take(self._stop)

    def await_look(self) -> None:
        assert self._looked.acquire(timeout=PATIENCE_SECS), "it did not look"

    def end(self) -> list[Received]:
        self.join(PATIENCE_SECS)
        assert self.bundle is not None, "nothing was taken"
        return self.bundle

    def _stop(self) -> bool:
        self._looked.release()
        return self.stopped


FOR_AN_HOUR = BundleOptions(max_messages=3, gather_secs=3600, idle_secs=3600, buffer_messages=5, buffer_bytes=100)


def in_thread(call: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    return thread


def test_what_makes_a_bundle_full_ends_the_wait() -> None:
    buffer = MessageBuffer(FOR_AN_HOUR, lambda: 0.0)
    taker = Taker(buffer)
    taker.await_look()
    buffer.add([received(0), received(1)])
    taker.await_look()
    assert len(buffer) == 2
    buffer.add([received(2)])
    assert [message.id for message in taker.end()] == ["0", "1", "2"]


def test_stop_is_looked_at_when_it_is_woken() -> None:
    buffer = MessageBuffer(FOR_AN_HOUR, lambda: 0.0)
    buffer.add([received(0)])
    taker = Taker(buffer)
    taker.await_look()
    buffer.wake()
    taker.await_look()
    taker.stopped = True
    buffer.wake()
    assert taker.end() == []
    assert len(buffer) == 1


def test_stop_goes_before_a_bundle_that_is_due() -> None:
    buffer = MessageBuffer(BundleOptions(), lambda: 0.0)
    buffer.add([received(0)])
    assert buffer.take(lambda: True) == []
    assert [message.id for message in buffer.take(lambda: False)] == ["0"]


def test_a_closed_one_hands_out_nothing_and_gives_back_all() -> None:
    buffer = MessageBuffer(FOR_AN_HOUR, lambda: 0.0)
    buffer.add([received(0)])
    taker = Taker(buffer)
    taker.await_look()
    buffer.close()
    assert taker.end() == []
    buffer.add([received(number) for number in range(1, 5)])  # of a pull that was under way
    assert buffer.take(lambda: False) == []
    assert not buffer.wait_for_room()
    assert [message.id for message in buffer.clear()] == ["0", "1", "2", "3", "4"]
    assert buffer.clear() == []


@pytest.mark.parametrize(
    "sizes,has_room",
    [([], True), ([1] * 4, True), ([1] * 5, False), ([99], True), ([100], False), ([50, 50], False), ([500], False)],
)
def test_room(sizes: list[int], has_room: bool) -> None:
    buffer = MessageBuffer(FOR_AN_HOUR, lambda: 0.0)
    buffer.add([received(number, size) for number, size in enumerate(sizes)])
    found: list[bool] = []
    waiting = in_thread(lambda: found.append(buffer.wait_for_room()))
    if has_room:
        waiting.join(PATIENCE_SECS)
        assert found == [True]
        return
    assert buffer.take(lambda: bool(found)), "what fills the buffer is due"
    waiting.join(PATIENCE_SECS)
    assert found == [True]


def test_room_is_set_aside_for_pulls_that_are_under_way() -> None:
    buffer = MessageBuffer(FOR_AN_HOUR, lambda: 0.0)
    assert buffer.wait_for_room(9) == 1  # nothing is known yet
    buffer.add([received(0)], 1)
    assert buffer.wait_for_room(9) == 2
    buffer.add([received(1)], 2)
    assert [buffer.wait_for_room(1), buffer.wait_for_room(9)] == [1, 2]  # five fit
    buffer.add([], 1)  # of a pull that failed
    assert buffer.wait_for_room(9) == 1
    buffer.add([], 1)
    buffer.add([received(3)._replace(delivery_attempt=3)], 2)
    assert buffer.wait_for_room(9) == 2
    buffer.close()
    assert buffer.wait_for_room(9) == 0


@pytest.mark.parametrize(
    "attempts,bundles",
    [
        ([0] * 100, [100]),
        ([1] * 100, [100]),
        ([2] * 100, [64, 36]),
        ([3] * 20, [8, 8, 4]),
        ([4, 5, 99], [1, 1, 1]),
        ([1] * 70 + [2] * 2, [70, 2]),
        ([1] * 60 + [2] * 10, [64, 6]),
        ([1] * 5 + [3] * 5, [8, 2]),
        ([1] * 9 + [3] * 5, [9, 5]),
        ([1, 1, 4, 1, 1], [2, 1, 2]),
        ([4] + [1] * 5, [1, 5]),
        ([3] + [1] * 9, [8, 2]),
    ],
)
def test_what_was_delivered_often_has_little_company(attempts: list[int], bundles: list[int]) -> None:
    ticking = Ticking(ticks(messages=100, size=1000, pulled=1000))
    ticking.buffer.add([received(number)._replace(delivery_attempt=each) for number, each in enumerate(attempts)])
    taken = [ticking.take()[1] for _ in bundles]
    assert [len(bundle) for bundle in taken] == bundles
    assert [number for bundle in taken for number in bundle] == list(range(len(attempts)))


def test_the_end_is_told_to_those_that_wait_for_room() -> None:
    buffer = MessageBuffer(FOR_AN_HOUR, lambda: 0.0)
    buffer.add([received(number) for number in range(5)])
    found: list[bool] = []
    waiting = [in_thread(lambda: found.append(buffer.wait_for_room())) for _ in range(3)]
    buffer.close()
    for thread in waiting:
        thread.join(PATIENCE_SECS)
    assert found == [False] * 3


CHUNKS = st.lists(st.lists(st.integers(0, 60), min_size=1, max_size=8), max_size=8)


@examples(24)
@given(OPTIONS, st.lists(CHUNKS, min_size=1, max_size=4))
def test_threads_that_pull_and_one_that_takes_lose_nothing_and_keep_each_ones_order(
    options: BundleOptions, pulled: list[list[list[int]]]
) -> None:
    ticking = Ticking(dataclasses.replace(options, idle_secs=TICK_SECS))
    total = sum(len(chunk) for chunks in pulled for chunk in chunks)

    def pull(puller: int, chunks: list[list[int]]) -> None:
        number = 1000 * puller
        for chunk in chunks:
            end = number + len(chunk)
            messages = [received(number + place, size) for place, size in enumerate(chunk)]
            while number < end:
                room = ticking.buffer.wait_for_room(end - number)
                assert 0 < room <= end - number
                ticking.buffer.add(messages[number - end :][:room], room)
                number += room

    threads = [in_thread(lambda each=each: pull(*each)) for each in enumerate(pulled)]
    taken: list[int] = []
    patient_until = time.monotonic() + PATIENCE_SECS
    while len(ticking.buffer) or any(thread.is_alive() for thread in threads):
        bundle = ticking.take()[1]
        assert len(bundle) <= options.max_messages
        assert len(ticking.buffer) <= options.buffer_messages
        assert time.monotonic() < patient_until, "nobody told those that wait for room"
        taken += bundle
    assert len(taken) == total
    for puller, chunks in enumerate(pulled):
        count = sum(map(len, chunks))
        assert [number - 1000 * puller for number in taken if number // 1000 == puller] == list(range(count))
