"""Follows a stream on Flink by what its readers report, until it is drained.

The job server says that a job runs as soon as it has it, and it forgets what it follows when it is started anew. So
whether the stream runs, and when it has finished its messages, is known from the readers themselves.
"""

import enum
import logging
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

import grpc
from apache_beam.portability.api import beam_job_api_pb2 as api
from apache_beam.runners.runner import PipelineResult, PipelineState

from sluice.pipelines.logs import tell_in_handler
from sluice.pipelines.portable.follow import JobCancelled, JobServerLost, Wait
from sluice.pipelines.portable.words import grpc_words
from sluice.pipelines.signals import handling
from sluice.transforms.pubsub.reader_files import ReaderFiles, Report

_LOG = logging.getLogger(__name__)

_LOOK_SECS = 1.0
# A reader that has not reported for so long is gone; it does every 5 s.
_GONE_SECS = 30.0
# A job whose job server is lost, and whose readers are gone for so long, is lost.
_LOST_SECS = 120.0
_CALL_SECS = 10.0


class End(enum.Enum):
    """How a stream ended that did not fail."""

    DRAINED = "drained"
    LATE = "not drained in time"
    ABORTED = "aborted"


class StreamJob:
    """A stream on Flink, from its submission to its end.

    Args:
      submit: gives the job to the job server. Signals count from then on: what they ask for is done once it has it.
      drain_secs: how long a drain may take.
      say: prints a line.
      wait: `(event, seconds) -> whether it is set`.

    Attributes:
      reports: the last one of each process that has read, by its name.
      ended: set once the job server says that the job has ended, or cannot say anything more.
    """

    def __init__(
        self,
        submit: Callable[[], PipelineResult],
        files: ReaderFiles,
        drain_secs: float,
        say: Callable[[str], object],
        clock: Callable[[], float] = time.monotonic,
        wait: Wait = threading.Event.wait,
    ) -> None:
        self.reports: dict[str, Report] = {}
        self.ended = threading.Event()
        self._submit, self._files, self._drain_secs = submit, files, drain_secs
        self._result: PipelineResult | None = None
        self._say, self._clock, self._wait = say, clock, wait
        self._heard: dict[str, float] = {}  # when a reader's beat last changed
        self._last_heard = clock()
        self._error: Exception | None = None
        self._signals = 0
        self._draining_since: float | None = None
        self._asked = self._told_away = self._server_lost = self._told_gone = False
        self._never = threading.Event()

    def follow(self) -> End:
        """Waits until the readers are drained, which the first signal asks them for; the second one aborts.

        Raises:
          JobCancelled, JobServerLost: see there.
          KeyboardInterrupt: a second signal came before the job server had the job.
          Exception: the job failed.
        """
        with handling(self._interrupt, signal.SIGINT, signal.SIGTERM):
            self._result = result = self._submit()
            threading.Thread(target=self._wait_for_end, args=(result,), name="sluice-portable-job", daemon=True).start()
            while True:
                over = self._wait(self._never if self._server_lost else self.ended, _LOOK_SECS) or self._server_lost
                self._look()
                end = self._end()
                if end is not None:
                    return end
                if over:
                    self._judge_end()

    def cancel(self) -> None:
        """Has the job server cancel the job.

        Raises:
          Exception: it cannot be reached.
        """
        if self._result is None:
            return
        call, request = self._result._job_service.Cancel, api.CancelJobRequest(job_id=self._result._job_id)
        if isinstance(call, grpc.UnaryUnaryMultiCallable):
            call(request, timeout=_CALL_SECS)
        else:
            call(request)

    def _wait_for_end(self, result: PipelineResult) -> None:
        try:
            result.wait_until_finish()
        except Exception as error:  # noqa: BLE001  it is told by the main thread, which signals reach
            self._error = error
        self.ended.set()

    def _judge_end(self) -> None:
        """Raises why the job has ended, unless it is only the job server that is lost."""
        if isinstance(self._error, grpc.RpcError):
            if not self._server_lost:
                _LOG.warning("The job server is lost: %s; the job goes on without it", grpc_words(self._error))
            self._server_lost = True
            if self._clock() - self._last_heard > _LOST_SECS:
                raise JobServerLost("the job server is lost, and no reader of the job reports") from self._error
            return
        if self._result is not None and self._result._state == PipelineState.CANCELLED:
            raise JobCancelled("the job was cancelled where it runs; messages that were in work come again")
        raise self._error or RuntimeError("the job ended by itself")

    def _end(self) -> End | None:
        """Asks for a drain once the user wants one; returns the end, if it has come."""
        if self._signals > 1:
            return End.ABORTED
        if self._signals and not self._asked:
            self._ask()
        if self._is_drained():
            return End.DRAINED
        if self._draining_since is not None and self._clock() - self._draining_since > self._drain_secs:
            return End.LATE
        return None

    def _ask(self) -> None:
        """Asks the readers to drain. Where the storage is away, the next look tries again."""
        if self._draining_since is None:
            self._draining_since = self._clock()
        try:
            self._files.ask_to_drain()
        except Exception as error:  # noqa: BLE001  the job goes on until it is asked
            if not self._told_away:
                _LOG.warning("The readers cannot be asked to drain; trying again: %s", error)
            self._told_away = True
        else:
            self._asked = True

    def _is_drained(self) -> bool:
        """Whether all readers that live are drained. Anybody may have asked them, by the file."""
        asked = self._asked or any(report.drained for report in self.reports.values())
        return asked and all(each.drained or not self._lives(each) for each in self.reports.values())

    def _look(self) -> None:
        now = self._clock()
        for report in self._files.reports():
            before = self.reports.get(report.reader)
            if before is None or before.beat != report.beat:
                self._heard[report.reader] = self._last_heard = now
                self.reports[report.reader] = report
                if before is None and not report.drained:
                    self._greet()
        gone = bool(self.reports) and not any(each.drained or self._lives(each) for each in self.reports.values())
        if gone and not self._told_gone:
            _LOG.warning("No reader has reported for %.0f s: Flink may be starting the job again", _GONE_SECS)
        self._told_gone = gone

    def _greet(self) -> None:
        living = sum(self._lives(report) for report in self.reports.values())
        if len(self.reports) == 1:
            self._say("the stream runs: a worker reads; SIGTERM or ctrl-C drains it")
        else:
            _LOG.info("One more worker reads; %d in all", living)

    def _lives(self, report: Report) -> bool:
        return self._clock() - self._heard[report.reader] <= _GONE_SECS

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self._signals += 1
        if self._signals > 1 and self._result is None:  # a job server may take as long as it likes
            signal.default_int_handler(number, frame)
        words = "draining: messages in work are finished; stop it again to abort"
        if self._signals > 1:
            words = "aborted; messages that were in work will come again"
        tell_in_handler(words)
