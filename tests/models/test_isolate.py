"""isolate: every item has one outcome, in order, with a bounded number of attempts."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.models.isolate import isolate


class Trial:
    """Rejects parts that contain a bad item, and counts attempts."""

    def __init__(self, bad: set[int]) -> None:
        self.bad = bad
        self.attempts = 0

    def __call__(self, start: int, stop: int) -> list[int]:
        self.attempts += 1
        found = sorted(self.bad & set(range(start, stop)))
        if found:
            raise ValueError(f"bad: {found}")
        return list(range(start, stop))


@given(st.integers(0, 200), st.sets(st.integers(0, 199), max_size=8))
def test_the_items_at_fault_are_alone(count: int, bad: set[int]) -> None:
    trial = Trial({each for each in bad if each < count})
    parts = list(isolate(count, trial, ValueError))
    assert [each for part in parts for each in range(part.start, part.stop)] == list(range(count))
    assert {part.start for part in parts if part.error} == trial.bad
    assert all(part.stop - part.start == 1 for part in parts if part.error)
    assert [part.result for part in parts if not part.error] == [
        list(range(part.start, part.stop)) for part in parts if not part.error
    ]
    assert trial.attempts <= 1 + 2 * len(trial.bad) * math.ceil(math.log2(max(count, 2)))


@given(st.integers(1, 200), st.sets(st.integers(0, 199)), st.integers(0, 40))
def test_attempts_are_bounded(count: int, bad: set[int], extra: int) -> None:
    trial = Trial({each for each in bad if each < count})
    parts = list(isolate(count, trial, ValueError, extra))
    assert trial.attempts <= 1 + extra
    assert [each for part in parts for each in range(part.start, part.stop)] == list(range(count))
    for part in parts:
        assert bool(part.error) == bool(trial.bad & set(range(part.start, part.stop)))


def test_other_errors_end_it() -> None:
    with pytest.raises(ValueError, match="bad"):
        list(isolate(4, Trial({2}), KeyError))


def test_parts_are_yielded_as_soon_as_they_are_known() -> None:
    parts = isolate(8, Trial({7}), ValueError)
    assert next(parts).result == [0, 1, 2, 3]


class TooLong(ValueError):
    """A part has too many items."""


@given(st.integers(1, 200), st.integers(1, 50), st.sets(st.integers(0, 199), max_size=8), st.integers(0, 40))
def test_free_halves_do_not_count(count: int, longest: int, bad: set[int], extra: int) -> None:
    trial = Trial({each for each in bad if each < count})
    free = 0

    def attempt(start: int, stop: int) -> list[int]:
        nonlocal free
        if stop - start > longest:
            free += 1
            raise TooLong
        return trial(start, stop)

    parts = list(isolate(count, attempt, ValueError, extra, free=TooLong))
    assert [each for part in parts for each in range(part.start, part.stop)] == list(range(count))
    assert all(part.stop - part.start <= longest for part in parts)
    assert trial.attempts <= 1 + free + extra
    if extra == 0 and not trial.bad:
        assert trial.attempts == 1 + free
