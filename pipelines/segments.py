"""Runs an endless local job as a sequence of pipelines over one source."""

import gc
import logging
import threading
from collections.abc import Callable, Iterator
from typing import NoReturn

from google.api_core.retry import exponential_sleep_generator

from sluice.pipelines.outcome import is_about_server, is_doubtful, is_final, reason
from sluice.transforms.pubsub.message_source import MessageSource

_LOG = logging.getLogger(__name__)

# How often to check the running segment.
_TICK_SECS = 0.1
# The longest wait between a segment that failed and the next one.
_MAX_BACKOFF_SECS = 30.0
# The wait after rows failed before any row had passed.
_DOUBT_SECS = 1.0


class _Segment(threading.Thread):
    """One run of the pipeline."""

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


def backoffs() -> Iterator[float]:
    """Yields the seconds to wait after each failure in a row, with full jitter."""
    waits: Iterator[float] = exponential_sleep_generator(0.5, _MAX_BACKOFF_SECS)
    return waits


def run_segments(
    run: Callable[[], None],
    source: MessageSource,
    max_restarts: int,
    on_restart: Callable[[], None] = lambda: None,
    wait: Callable[[float], object] | None = None,
    backoffs: Callable[[], Iterator[float]] = backoffs,
    answers: Callable[[], bool] = lambda: True,
    say: Callable[[BaseException], str] = reason,
) -> int:
    """Runs segments until the source is drained; returns how many failed and were followed by another.

    When a segment fails, its messages are returned to the subscription, and another one begins after a wait; if the
    model has ceased to answer, when it answers again.

    Args:
      run: runs the pipeline of a segment to its end.
      max_restarts: how many segments in a row may fail without acknowledging a bundle, and how many with one message.
      wait: waits for so many seconds; by default, it stops waiting when the source is drained.
      backoffs: returns the waits of a row of failures.
      answers: whether the model answers a row that it has answered before.
      say: returns what the log tells of an error.

    Raises:
      Exception: the error of the last segment.
    """
    return _Segments(run, source, max_restarts, on_restart, wait or source.pause, backoffs, answers, say).run()


class _Segments:
    """The segment that runs, and the one that waits for its turn, if any. For the arguments see `run_segments`."""

    def __init__(
        self,
        run: Callable[[], None],
        source: MessageSource,
        max_restarts: int,
        on_restart: Callable[[], None],
        wait: Callable[[float], object],
        backoffs: Callable[[], Iterator[float]],
        answers: Callable[[], bool],
        say: Callable[[BaseException], str],
    ) -> None:
        self._answers = answers
        self._run, self._source, self._max_restarts = run, source, max_restarts
        self._on_restart, self._wait, self._backoffs, self._say = on_restart, wait, backoffs, say
        self._failed = self._in_a_row = self._acknowledged = 0
        self._waits = backoffs()
        self._current = self._begin()
        self._next: _Segment | None = None

    def run(self) -> int:
        while True:
            self._current.join(_TICK_SECS)
            if self._current.is_alive():
                self._prepare_next()
                continue
            error = self._error()
            if error is not None:
                self._recover(error)
            if self._source.draining and self._next is None:
                return self._failed
            gc.collect()  # the runner keeps parts of the segment's bundles in reference cycles
            if error is not None:
                self._source.pass_turn()
            self._current, self._next = self._next or self._begin(), None

    def _begin(self) -> _Segment:
        segment = _Segment(self._run)
        segment.start()
        return segment

    def _prepare_next(self) -> None:
        """Begins the next segment when the source asks for it, so that no message waits for it to start."""
        if self._next is not None and not self._next.is_alive():
            _LOG.warning("The next segment could not begin, and is tried again: %s", self._words(self._next.error))
            self._wait(_MAX_BACKOFF_SECS)
            self._next = None
        elif self._next is None and self._source.wants_next and not self._source.draining:
            self._next = self._begin()

    def _error(self) -> Exception | None:
        """Returns why the current segment, which has ended, failed; None if it did not."""
        if self._current.error is None and self._next is None and not self._source.draining:
            return RuntimeError("the pipeline ended by itself")
        return self._current.error

    def _recover(self, error: Exception) -> None:
        """Returns the messages in work and waits; raises the error if the job cannot go on."""
        doubtful = is_doubtful(error)
        answer = self._ask() if is_about_server(error) and not self._source.draining else True
        paused = answer is False
        error = answer if isinstance(answer, Exception) else error
        self._source.release(tried=not (doubtful or paused))
        if not doubtful and not paused:
            self._count()
        if self._source.draining or is_final(error) or self._is_over():
            self._end(error)
        self._failed += 1
        self._on_restart()
        if paused:
            self._await_model(error)
        else:
            self._pause(error, _DOUBT_SECS if doubtful else next(self._waits))

    def _ask(self) -> bool | Exception:
        """Returns whether the model answers, or why it cannot even be asked, which is no reason to pause."""
        try:
            return self._answers()
        except Exception as error:  # noqa: BLE001  the messages in work have to be returned in any case
            return error

    def _end(self, error: Exception) -> NoReturn:
        self._source.drain()
        if self._next is not None:
            self._next.join()
        raise error

    def _count(self) -> None:
        if self._source.stats.acknowledged > self._acknowledged:
            self._in_a_row, self._waits = 0, self._backoffs()
        self._in_a_row += 1
        self._acknowledged = self._source.stats.acknowledged

    def _is_over(self) -> bool:
        """Whether too many segments failed in a row, or too many with the same message."""
        return max(self._in_a_row, self._source.most_tries) > self._max_restarts

    def _pause(self, error: Exception, secs: float) -> None:
        _LOG.warning(
            "The messages in work come again in %.1f s (failure %d in a row of %d allowed): %s",
            secs,
            max(self._in_a_row, self._source.most_tries),
            self._max_restarts,
            self._words(error),
        )
        self._source.in_trouble(self._words(error))
        try:
            self._wait(secs)
        finally:
            self._source.in_trouble("")

    def _await_model(self, error: Exception) -> None:
        """Waits until the model answers again, or the source is drained. Meanwhile nothing is pulled."""
        _LOG.warning("Reading is paused until the model answers again: %s", self._words(error))
        waits = self._backoffs()
        self._source.hold_back(True)
        self._source.in_trouble(f"the model does not answer: {self._words(error)}")
        try:
            while not self._source.draining:
                self._wait(next(waits))
                answer = self._ask()
                if isinstance(answer, Exception) and is_final(answer):
                    self._end(answer)
                if answer is True:
                    _LOG.warning("The model answers again, and reading goes on")
                    break
        finally:
            self._source.in_trouble("")
            self._source.hold_back(False)

    def _words(self, error: Exception | None) -> str:
        return "it ended by itself" if error is None else self._say(error)
