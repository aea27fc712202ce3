"""Calls that do not end are given up; all others give what they give."""

from __future__ import annotations

import threading

import pytest

from sluice.models.batching.watchdog import Watchdog
from sluice.models.errors import TimedOut
from tests.support.fakes import PATIENCE_SECS


def test_calls_run_one_after_the_other_on_one_other_thread() -> None:
    watchdog = Watchdog()
    threads = {watchdog.run(threading.current_thread, PATIENCE_SECS) for _ in range(3)}
    assert len(threads) == 1 and threading.current_thread() not in threads
    watchdog.close()
    threads.pop().join(PATIENCE_SECS)


def test_what_a_call_raises_is_raised() -> None:
    watchdog = Watchdog()
    with pytest.raises(ZeroDivisionError):
        watchdog.run(lambda: 1 // 0, PATIENCE_SECS)
    assert watchdog.run(lambda: 7, PATIENCE_SECS) == 7
    watchdog.close()


def test_a_call_that_hangs_is_given_up_and_the_next_one_is_not_kept_waiting() -> None:
    watchdog = Watchdog()
    let_go = threading.Event()
    ended: list[threading.Thread] = []

    def hang() -> str:
        let_go.wait(PATIENCE_SECS)
        ended.append(threading.current_thread())
        return "too late"

    with pytest.raises(TimedOut, match=r"no answer within 0\.01 s"):
        watchdog.run(hang, 0.01)
    assert watchdog.run(lambda: "next", PATIENCE_SECS) == "next"
    let_go.set()
    assert watchdog.run(lambda: "and the next", PATIENCE_SECS) == "and the next"
    watchdog.close()


def test_closing_what_was_never_used() -> None:
    Watchdog().close()
