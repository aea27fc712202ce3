"""Follows a portable job to its end: through a lost connection, a cancellation and ctrl-C.

A SIGTERM, by which Kubernetes ends a pod, is taken like ctrl-C: a job that nobody follows would go on unseen.
"""

import atexit
import contextlib
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import grpc
from apache_beam.portability.api import beam_job_api_pb2 as api
from apache_beam.runners.runner import PipelineResult
from apache_beam.runners.worker import sdk_worker

from sluice.models.errors import SluiceError
from sluice.pipelines.logs import tell, tell_in_handler
from sluice.pipelines.portable.words import grpc_words
from sluice.pipelines.signals import handling
from sluice.transforms.core.commit_gate import CommitGate, CommitState

_LOG = logging.getLogger(__name__)

# How long a job server may not answer until it is given up, and how long a job may take to end once it is cancelled.
_LOST_SECS = _CANCEL_SECS = 60.0
_ASK_SECS = 2.0  # between two questions
_CALL_SECS = 10.0  # for one answer

Wait = Callable[[threading.Event, float], bool]


class JobServerLost(SluiceError):
    """The job server does not answer any more: what becomes of the job is not known."""


class JobCancelled(SluiceError):
    """Somebody else cancelled the job."""


class Following:
    """A portable job, from its submission to its end.

    Attributes:
      ended: the job server has said so. Otherwise the job may live on.
      job_id: the job server's name for it; "": it has none yet.
    """

    def __init__(
        self,
        gate: CommitGate | None = None,
        clock: Callable[[], float] = time.monotonic,
        wait: Wait = threading.Event.wait,
    ) -> None:
        """Follows a job.

        Args:
          gate: of a job whose worker is this process, which can refuse to commit; None: its workers are others.
          wait: `(event, seconds) -> whether it is set`.
        """
        self.ended = False
        self.job_id = ""
        self._gate, self._clock, self._wait = gate, clock, wait
        self._interrupted_at: float | None = None
        self._never = threading.Event()

    def follow(self, result: PipelineResult) -> None:
        """Waits until the job ends well.

        Raises:
          KeyboardInterrupt: the user cancelled it, and it ended, or did not end in time.
          JobCancelled, JobServerLost: see there.
          RuntimeError: it failed; the text is that of the worker's error, or of the runner's.
        """
        self._service, self.job_id = result._job_service, result._job_id
        if self._gate is not None:
            atexit.register(_hide_lost_workers)  # runs before the end of a job server that Beam has started
        with handling(self._interrupt, signal.SIGINT, signal.SIGTERM), _worker_errors_once():
            error = self._wait_until_told(result)
            state = api.JobState.DONE if error is None else self._last_state(result, error)
        self.ended = state in _ENDS
        if state == api.JobState.DONE:
            return
        if self._interrupted_at is not None:
            raise KeyboardInterrupt
        if state == api.JobState.CANCELLED:
            raise JobCancelled(f"the job {self.job_id} was cancelled where it runs")
        if isinstance(error, grpc.RpcError):
            raise RuntimeError(
                f"the job {self.job_id} failed, and the connection that tells why was lost: see the job server's log"
            )
        raise error or RuntimeError(f"the job {self.job_id} did not end")

    def _wait_until_told(self, result: PipelineResult) -> BaseException | None:
        """Returns the error that ended the wait; None: the job ended well."""
        told, errors = threading.Event(), list[BaseException]()

        def wait() -> None:
            try:
                result.wait_until_finish()
            except Exception as error:  # noqa: BLE001  it is told by the main thread, which ctrl-C reaches
                errors.append(error)
            told.set()

        threading.Thread(target=wait, name="sluice-portable-job", daemon=True).start()
        while not self._wait(told, _ASK_SECS):
            if self._overdue():
                return KeyboardInterrupt()
        return errors[0] if errors else None

    def _overdue(self) -> bool:
        """Whether a job that was cancelled should have ended by now."""
        since = self._interrupted_at
        if since is None or self._clock() - since <= _CANCEL_SECS:  # a signal handler may not find the gate locked
            return False
        return self._gate is None or self._gate.state is not CommitState.UNDER_WAY

    def _last_state(self, result: PipelineResult, error: BaseException) -> int | None:
        """Returns the job's last state; None: it has not ended. Where the connection broke, asks until the job ends.

        Raises:
          JobServerLost: the job server does not answer.
        """
        if not isinstance(error, grpc.RpcError):
            state: str = result._state
            return None if self._overdue() else api.JobState.Enum.Value(state) if state in _NAMES else None
        _LOG.info("The connection to the job server is lost: %s; asking it again", grpc_words(error))
        answered = self._clock()
        while not self._overdue():
            try:
                state_now = self._call("GetState", api.GetJobStateRequest(job_id=self.job_id)).state
            except grpc.RpcError as problem:
                error = problem
                if self._clock() - answered > _LOST_SECS or _is_final(problem):
                    break
            else:
                answered = self._clock()
                if state_now in _ENDS:
                    return int(state_now)
            self._wait(self._never, _ASK_SECS)
        else:
            return None
        raise JobServerLost(
            f"the job server is lost: {grpc_words(error)}; whether the job {self.job_id} goes on is not known"
        )

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._interrupted_at is not None:
            signal.default_int_handler(number, frame)
        self._interrupted_at = self._clock()
        if self._gate is not None:
            self._gate.close()
            if self._gate.state is CommitState.UNDER_WAY:
                tell_in_handler("waiting until the output is published; press ctrl-C again to abort")
                return
        tell_in_handler("cancelling the job; press ctrl-C again not to wait for its end")
        threading.Thread(target=self._cancel, name="sluice-cancel", daemon=True).start()

    def _cancel(self) -> None:
        try:
            self._call("Cancel", api.CancelJobRequest(job_id=self.job_id))
        except grpc.RpcError as error:
            tell(f"sluice: the job cannot be cancelled: {grpc_words(error)}\n", logging.WARNING)
        except Exception as error:  # noqa: BLE001  a job server within this process raises what it likes
            tell(f"sluice: the job cannot be cancelled: {error}\n", logging.WARNING)

    def _call(self, name: str, request: object) -> Any:
        call = getattr(self._service, name)
        remote = isinstance(call, grpc.UnaryUnaryMultiCallable)
        return call(request, timeout=_CALL_SECS) if remote else call(request)


_ENDS = (api.JobState.DONE, api.JobState.DRAINED, api.JobState.FAILED, api.JobState.CANCELLED)
_NAMES = tuple(api.JobState.Enum.Name(state) for state in _ENDS)


def _is_final(error: grpc.RpcError) -> bool:
    """Whether a job server that answers does not know the job, as after a restart."""
    unknown = (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNKNOWN, grpc.StatusCode.INVALID_ARGUMENT)
    return hasattr(error, "code") and error.code() in unknown


class _WorkerErrors(logging.Filter):
    """Drops the errors that Beam passes on as it follows a job, and raises at its end once more."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.name != "root" or record.funcName != "read_messages" or record.levelno < logging.ERROR


@contextlib.contextmanager
def _worker_errors_once() -> Iterator[None]:
    """Keeps tracebacks of workers from the terminal unless the user asked for all: the error is told at the end.

    A worker in this process prints them, and does so past any logger.
    """
    if _LOG.isEnabledFor(logging.DEBUG):
        yield
        return
    root, found, worker = logging.getLogger(), _WorkerErrors(), vars(sdk_worker)
    root.addFilter(found)
    worker["print"] = lambda *_, **__: None
    try:
        yield
    finally:
        root.removeFilter(found)
        del worker["print"]


def _hide_lost_workers() -> None:
    """Keeps threads of workers, which lose their job server as this process ends, from printing tracebacks of it."""
    usual = threading.excepthook

    def hook(arguments: threading.ExceptHookArgs) -> None:
        if not isinstance(arguments.exc_value, grpc.RpcError):
            usual(arguments)

    threading.excepthook = hook
