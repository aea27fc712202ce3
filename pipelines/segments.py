"""An endless local job, as one pipeline after the other over the same source."""

import gc
import logging
import random
import threading
from collections.abc import Callable

from sluice.pipelines.progress.outcome import reason
from sluice.transforms.pubsub.message_source import MessageSource

_LOG = logging.getLogger(__name__)

# How often the running segment is looked at.
_TICK_SECS = 0.1
# Between a segment that failed and the next one: doubled each time in a row, up to the most.
_FIRST_BACKOFF_SECS = 0.5
_MAX_BACKOFF_SECS = 30.0
_MAX_DOUBLINGS = 10


class _Segment(threading.Thread):
    """One pipeline's run."""

    def __init__(self, run: Callable[[], None]) -> None:
        super().__init__(name="sluice-segment", daemon=True)
        self.error: Exception | None = None
        self._run_pipeline = run

    def run(self) -> None:
        try:
            self._run_pipeline()
        except Exception as error:  # noqa: BLE001  whoever waits for the segment raises it or begins another
            self.error = error
        except BaseException as error:  # noqa: BLE001  such as an extension's panic: likewise
            self.error = RuntimeError(f"{type(error).__name__}: {error}")


def run_segments(
    run: Callable[[], None],
    source: MessageSource,
    max_restarts: int,
    on_restart: Callable[[], None] = lambda: None,
    wait: Callable[[float], object] | None = None,
    uniform: Callable[[], float] = random.random,
) -> int:
    """Runs segments until the source is drained; returns how many failed and were followed by another.

    The messages of a segment that fails are given back, and a new one is begun, after a while.

    Args:
      run: runs the pipeline of a segment to its end.
      max_restarts: segments that may fail in a row, without a bundle acknowledged between them.
      wait: for so many seconds; by default until the source is drained at the latest.

    Raises:
      Exception: what the last of them raised.
    """
    wait = wait or source.pause
    failed, in_a_row, acknowledged = 0, 0, 0
    segment = _begin(run)
    following: _Segment | None = None
    while True:
        segment.join(_TICK_SECS)
        if segment.is_alive():
            if following is not None and not following.is_alive():
                _LOG.warning("The next segment could not begin, and is tried again: %s", _words(following.error))
                wait(_MAX_BACKOFF_SECS)
                following = None
            elif following is None and source.wants_next and not source.draining:
                following = _begin(run)
            continue
        if segment.error is None and following is None and not source.draining:
            segment.error = RuntimeError("the pipeline ended by itself")
        if segment.error is not None:
            source.release()
            in_a_row = 1 if source.stats.acknowledged > acknowledged else in_a_row + 1
            acknowledged = source.stats.acknowledged
            if source.draining or in_a_row > max_restarts:
                source.drain()
                _finish(following)
                raise segment.error
            failed += 1
            on_restart()
            wait(_backoff_secs(in_a_row, segment.error, max_restarts, uniform))
        if source.draining and following is None:
            return failed
        gc.collect()  # what the runner kept of the segment's bundles refers to itself
        if segment.error is not None:
            source.pass_turn()
        segment, following = following or _begin(run), None


def _begin(run: Callable[[], None]) -> _Segment:
    segment = _Segment(run)
    segment.start()
    return segment


def _words(error: Exception | None) -> str:
    return "it ended by itself" if error is None else reason(error)


def _finish(segment: _Segment | None) -> None:
    if segment is not None:
        segment.join()


def _backoff_secs(in_a_row: int, error: Exception, max_restarts: int, uniform: Callable[[], float]) -> float:
    doublings = min(in_a_row - 1, _MAX_DOUBLINGS)
    secs = min(_MAX_BACKOFF_SECS, _FIRST_BACKOFF_SECS * 2**doublings) * (0.5 + uniform() / 2)
    _LOG.warning(
        "The messages in work come again in %.1f s (failure %d in a row of %d allowed): %s",
        secs,
        in_a_row,
        max_restarts,
        _words(error),
    )
    return secs
