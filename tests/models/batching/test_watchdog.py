"""Watchdog: calls that do not end are abandoned; others return or raise as if called directly."""

from __future__ import annotations

import gc
import threading
import weakref

import numpy as np
import pytest

from sluice.models.batching.watchdog import Watchdog
from sluice.models.errors import TimedOut
from tests.support.fakes import PATIENCE_SECS


def test_calls_run_one_after_the_other_on_one_other_thread() -> None:
    watchdog: Watchdog[threading.Thread] = Watchdog()
    threads = {watchdog.run(threading.current_thread, PATIENCE_SECS) for _ in range(3)}
    assert len(threads) == 1 and threading.current_thread() not in threads
    watchdog.close()
    threads.pop().join(PATIENCE_SECS)


def test_errors_of_a_call_are_raised() -> None:
    watchdog: Watchdog[int] = Watchdog()
    with pytest.raises(ZeroDivisionError):
        watchdog.run(lambda: 1 // 0, PATIENCE_SECS)
    assert watchdog.run(lambda: 7, PATIENCE_SECS) == 7
    watchdog.close()


def test_a_timeout_that_the_call_raises_is_its_own() -> None:
    def time_out() -> None:
        raise TimeoutError("of a socket")

    watchdog: Watchdog[None] = Watchdog()
    with pytest.raises(TimeoutError, match="of a socket"):
        watchdog.run(time_out, PATIENCE_SECS)
    watchdog.close()


def test_a_thread_that_waits_keeps_no_tensors_alive() -> None:
    freed = threading.Event()

    def call() -> np.ndarray:
        outputs = np.zeros(3)
        weakref.finalize(outputs, freed.set)
        return outputs

    watchdog: Watchdog[np.ndarray] = Watchdog()
    watchdog.run(call, PATIENCE_SECS)
    assert freed.wait(PATIENCE_SECS)
    watchdog.close()


def test_a_call_that_hangs_is_abandoned_and_the_next_one_does_not_wait() -> None:
    watchdog: Watchdog[str] = Watchdog()
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


def test_the_answer_of_an_abandoned_call_is_freed_when_it_comes() -> None:
    watchdog: Watchdog[np.ndarray] = Watchdog()
    let_go, freed = threading.Event(), threading.Event()

    def hang() -> np.ndarray:
        let_go.wait(PATIENCE_SECS)
        answer = np.zeros(3)
        weakref.finalize(answer, freed.set)
        return answer

    with pytest.raises(TimedOut):
        watchdog.run(hang, 0.01)
    gc.collect()  # the error's traceback
    let_go.set()
    assert freed.wait(PATIENCE_SECS)


def test_closing_an_unused_watchdog() -> None:
    watchdog: Watchdog[None] = Watchdog()
    watchdog.close()
