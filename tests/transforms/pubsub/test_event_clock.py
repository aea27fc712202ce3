"""The watermark from recent messages, against a twin that keeps all of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.transforms.pubsub.read_local import EventClock

SLACK = 10


class Twin:
    """Keeps every message, and looks at all of them each time."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []
        self.given: list[int] = []

    def watermark(self, now: int) -> int | None:
        if not self.seen:
            return None
        of_late = [oldest for when, oldest in self.seen if when >= now - SLACK]
        self.given.append(min(of_late, default=now - SLACK))
        return max(self.given)


# (seconds since the previous step, event time of the oldest message relative to now; None: only read the watermark)
STEPS = st.lists(st.tuples(st.integers(0, 14), st.none() | st.integers(-40, 5)), max_size=60)


@given(STEPS)
def test_it_is_that_of_a_twin_that_keeps_everything(steps: list[tuple[int, int | None]]) -> None:
    clock, twin, now = EventClock(SLACK), Twin(), 1000
    for passed, age in steps:
        now += passed
        if age is None:
            assert clock.watermark(now) == twin.watermark(now)
        else:
            clock.observe(now + age, now)
            twin.seen.append((now, now + age))
    assert clock.watermark(now) == twin.watermark(now)


@given(STEPS)
def test_it_never_goes_back(steps: list[tuple[int, int | None]]) -> None:
    clock, now, given_before = EventClock(SLACK), 1000, -1.0
    for passed, age in steps:
        now += passed
        if age is not None:
            clock.observe(now + age, now)
        found = clock.watermark(now)
        assert found is None or found >= given_before
        given_before = given_before if found is None else found


def test_nothing_is_known_before_the_first_message() -> None:
    clock = EventClock(SLACK)
    assert [clock.watermark(now) for now in (0, 5, 1000)] == [None] * 3
    clock.observe(-86_400, 1001)
    assert clock.watermark(1001) == -86_400, "a backlog of a day is not late"


@pytest.mark.parametrize(
    "observed,now,expected",
    [
        ([(100, 95)], 100, 95),
        ([(100, 95)], 110, 95),
        ([(100, 95)], 111, 101),
        ([(100, 95)], 500, 490),
        ([(100, 95), (104, 90)], 110, 90),
        ([(100, 95), (101, 94), (102, 94.5)], 110, 94),
        ([(100, 95), (101, 94), (102, 94.5)], 112, 94.5),
        ([(100, 90), (104, 95)], 110, 90),
        ([(100, 90), (104, 95)], 111, 95),
        ([(100, 95), (100, 95)], 110, 95),
        ([(100, 120)], 100, 120),
    ],
    ids=[
        "one",
        "one that is just young enough",
        "none of late",
        "none for long",
        "an older one came later",
        "the oldest one came in the middle",
        "the oldest one is forgotten, and those before it",
        "a younger one came later",
        "the older one is forgotten",
        "two alike",
        "of the future",
    ],
)
def test_cases(observed: list[tuple[float, float]], now: float, expected: float) -> None:
    clock = EventClock(SLACK)
    for when, oldest in observed:
        clock.observe(oldest, when)
    assert clock.watermark(now) == expected


def test_a_late_message_does_not_take_it_back() -> None:
    clock = EventClock(SLACK)
    clock.observe(95, 100)
    assert clock.watermark(100) == 95
    clock.observe(20, 101)
    assert clock.watermark(101) == 95
    assert clock.watermark(120) == 110


def test_it_is_known_though_nobody_asked_while_the_message_was_young() -> None:
    clock = EventClock(SLACK)
    clock.observe(95, 100)
    assert clock.watermark(200) == 190
