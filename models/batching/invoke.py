"""Calls a model, each call until its deadline."""

import logging
import threading
from collections.abc import Callable

from sluice.models.batching.mini_batch import row_count
from sluice.models.batching.watchdog import Watchdog, give_up_after
from sluice.models.errors import ModelHangs, OutOfMemory, TimedOut
from sluice.models.interface import LocalModel, Model, Outputs
from sluice.models.signature import shape_text
from sluice.models.tensors.binding import Feeds
from sluice.models.wording import log_text

_LOG = logging.getLogger(__name__)


def call_once(model: Model, feeds: Feeds, limit_secs: float) -> Outputs:
    """Returns what the model answers, outside of a scheduler.

    Args:
      limit_secs: of the call; 0: none. A model whose call goes on for longer is abandoned.

    Raises:
      CallError: from the model; TimedOut if its call has not ended.
    """
    if not limit_secs:
        return model.call(feeds)
    watchdog: Watchdog[Outputs] = Watchdog()
    try:
        return watchdog.run(lambda: model.call(feeds), give_up_after(limit_secs))
    finally:
        if watchdog.abandoned and isinstance(model, LocalModel):
            model.abandon()
        watchdog.close()


class _NotRenewed(Exception):
    """No fresh session could be opened."""


class Invoker:
    """Calls a model from several threads, each with a Watchdog of its own.

    A call of a model in this process that does not end is abandoned, with its thread and its buffers, because
    TensorFlow cannot end a kernel. Its rows are tried once more, in a fresh session. If that does not end either, the
    model is lost for the process.

    Args:
      timeout_secs: of a call; 0: none.
      clock: seconds, monotonic.
      private: the log tells of errors only what quotes no row.
    """

    def __init__(self, model: Model, timeout_secs: float, clock: Callable[[], float], private: bool = False) -> None:
        self._model, self._timeout_secs, self._clock, self._private = model, timeout_secs, clock, private
        self._lock = threading.Lock()  # guards all that follows
        self._renewals = 0
        self._lost = ""

    def __call__(self, feeds: Feeds, watchdog: Watchdog[Outputs]) -> Outputs:
        """Returns what the model answers.

        Raises:
          CallError: from the model; TimedOut only from one that is served, else ModelHangs.
        """
        with self._lock:
            renewals = self._renewals
            if self._lost:
                raise ModelHangs(self._lost)
        began, abandoned = self._clock(), watchdog.abandoned
        try:
            return self._run(feeds, watchdog)
        except TimedOut as error:
            # An op may have a deadline of its own, for something that it waits for.
            ours = watchdog.abandoned > abandoned or 2 * (self._clock() - began) >= self._timeout_secs > 0
            if not ours or not isinstance(self._model, LocalModel):
                raise
            said = log_text(error, self._private)
            _LOG.warning("%s; it is tried once more (%s)", self._words(feeds), said)
        try:
            if watchdog.abandoned > abandoned:
                self._renew(self._model, renewals)
            return self._run(feeds, watchdog)
        except TimedOut as error:
            raise self._give_up(self._model, f"{self._words(feeds)}, nor when it was tried once more") from error
        except _NotRenewed as error:  # no row is at fault
            text = f"{self._words(feeds)}, and the model cannot be loaded anew: {error}"
            raise self._give_up(self._model, text) from error.__cause__

    def _give_up(self, model: LocalModel, text: str) -> ModelHangs:
        """Abandons the model; returns the error of this call and of all that follow."""
        model.abandon()
        with self._lock:
            self._lost = self._lost or (
                f"{text}. Such a call cannot be ended, so this process has to be replaced. If the model only needs "
                "longer, give a larger --model_timeout_secs or a smaller --max_batch_size"
            )
            return ModelHangs(self._lost)

    def _run(self, feeds: Feeds, watchdog: Watchdog[Outputs]) -> Outputs:
        try:
            if self._timeout_secs:
                return watchdog.run(lambda: self._model.call(feeds), self._timeout_secs)
            return self._model.call(feeds)
        except MemoryError as error:
            raise OutOfMemory(f"no memory for a call of {row_count(feeds)} rows: {error}") from error

    def _renew(self, model: LocalModel, renewals: int) -> None:
        """Opens a fresh session, unless another thread has done so meanwhile.

        Raises:
          TimedOut, _NotRenewed: it cannot.
        """
        with self._lock:
            if self._renewals == renewals:
                watchdog: Watchdog[None] = Watchdog()
                try:
                    watchdog.run(model.renew, self._timeout_secs)
                except TimedOut:
                    raise
                except Exception as error:
                    raise _NotRenewed(str(error)) from error
                finally:
                    watchdog.close()
                self._renewals += 1

    def _words(self, feeds: Feeds) -> str:
        tensors = ", ".join(f"{name} {array.dtype} {shape_text(array.shape)}" for name, array in feeds.items())
        name = self._model.signature.name
        return f"model {self._model.uri}, signature '{name}': a call of [{tensors}] has not ended in time"
