"""Reading ahead: the same items in order, and no thread remains."""

import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.transforms.core.prefetch import prefetch, prefetch_all
from tests.support.fakes import PATIENCE_SECS


@given(st.lists(st.integers()), st.integers(1, 4))
def test_it_yields_what_it_is_given(items: list[int], depth: int) -> None:
    assert list(prefetch(iter(items), depth)) == items


def test_what_is_raised_comes_after_what_came_before() -> None:
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise ValueError("the file ends")

    found = prefetch(items())
    assert [next(found), next(found)] == [1, 2]
    with pytest.raises(ValueError, match="the file ends"):
        next(found)


def test_it_works_ahead_but_only_so_far() -> None:
    made: list[int] = []
    third = threading.Event()

    def items() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            if number == 3:
                third.set()
            yield number

    found = prefetch(items(), depth=2)
    assert next(found) == 0
    assert third.wait(PATIENCE_SECS), "items are made though nobody asks"
    assert len(made) <= 5
    found.close()  # type: ignore[attr-defined]
    assert len(made) <= 6


def test_many_sources_share_a_few_threads() -> None:
    """As of files that are a row each: to begin a thread for each would take longer than to read it."""
    seen: set[threading.Thread] = set()

    def items(number: int) -> Iterator[int]:
        seen.add(threading.current_thread())
        yield number

    assert list(prefetch_all(map(items, range(100)), width=4)) == list(range(100))
    assert len(seen) <= 4 and not any(thread.is_alive() for thread in seen)


def test_a_consumer_that_stops_leaves_no_thread() -> None:
    found = prefetch(iter(range(1000)))
    next(found)
    found.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name == "sluice-prefetch"]
