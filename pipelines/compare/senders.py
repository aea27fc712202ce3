"""What sends the messages of a load: rows of a sample, through a scheduler, from a thread of their own."""

import concurrent.futures
import functools
import queue
import threading
from collections.abc import Callable, Sequence
from types import TracebackType

import pyarrow as pa

from sluice.models.batching.scheduler import Scheduler
from sluice.models.batching.tickets import Prediction, Ticket
from sluice.pipelines.compare.drive import RowsFailed
from sluice.pipelines.compare.stream import Sender


class OwnThread:
    """Hands messages to a thread of its own, which sends them: binding delays no message that is due meanwhile.

    So a stream takes its messages too, and the load generator of MLPerf hands them over. A context manager, which
    stops at its end and waits for the thread.

    Args:
      mini_batches: all messages that wait are sent together; otherwise each is sent alone.

    Attributes:
      error: that `sender` has raised. No message after it is sent; each counts as answered, so that the load ends.
    """

    def __init__(self, sender: Sender, mini_batches: bool) -> None:
        self.error: Exception | None = None
        self._sender, self._mini_batches = sender, mini_batches
        self._waiting: queue.SimpleQueue[_Messages | None] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True, name="sluice-send")

    def __enter__(self) -> "OwnThread":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        self._thread.join()

    def stop(self) -> None:
        """Drops what the thread has not begun to send. Returns at once."""
        self._stopped.set()
        self._waiting.put(None)

    def __call__(self, start: int, stop: int, done: Callable[[int, int], None]) -> None:
        self._waiting.put((start, stop, done))

    def _work(self) -> None:
        while (messages := self._take()) and not self._stopped.is_set():
            start, stop, done = messages
            try:
                if not self.error:
                    self._sender(start, stop, done)
            except Exception as error:  # noqa: BLE001  whoever waits for the load raises it
                self.error = error
            if self.error:
                done(start, stop)

    def _take(self) -> "_Messages | None":
        """Waits for messages; returns them, with mini-batches all that wait; None at the end."""
        taken = self._waiting.get()
        while taken and self._mini_batches and not self._waiting.empty():
            following = self._waiting.get()
            taken = following and (taken[0], following[1], taken[2])
        return taken


# [start, stop), and what to call when they are answered. Those of one load follow each other.
_Messages = tuple[int, int, Callable[[int, int], None]]


class RowSender:
    """Sends rows of a sample through a scheduler, over and over again.

    Args:
      alone: each row is a call of its own.

    Attributes:
      error: of a row that has no prediction; its latency counts as that of others.
    """

    def __init__(self, scheduler: Scheduler, rows: pa.RecordBatch, alone: bool) -> None:
        self.error: Exception | None = None
        self._scheduler, self._rows, self._alone = scheduler, rows, alone
        self._waiting: set[Ticket] = set()  # those that are not answered yet; one operation of a set is atomic

    def __call__(self, start: int, stop: int, done: Callable[[int, int], None]) -> None:
        while start < stop:
            at = start % self._rows.num_rows
            count = min(stop - start, 1 if self._alone else self._rows.num_rows - at)
            self._send(self._rows.slice(at, count), start, done)
            start += count

    def give_up(self) -> None:
        """Drops what is not answered yet: it would delay the messages of the next load. `error` tells of it."""
        self._scheduler.cancel(self._waiting.copy())

    def _send(self, batch: pa.RecordBatch, start: int, done: Callable[[int, int], None]) -> None:
        for group in self._scheduler.model.bind(batch).groups:
            places = range(group.size) if group.rows is None else group.rows.tolist()
            ticket = self._scheduler.submit(group.feeds)
            self._waiting.add(ticket)
            ticket.future.add_done_callback(functools.partial(self._finish, ticket, places, start, done))

    def _finish(
        self,
        ticket: Ticket,
        places: Sequence[int],
        start: int,
        done: Callable[[int, int], None],
        future: "concurrent.futures.Future[Prediction]",
    ) -> None:
        self._waiting.discard(ticket)
        if error := future.exception():
            self.error = error if isinstance(error, Exception) else RuntimeError(str(error))
        elif future.result().failures:
            self.error = RowsFailed.by(next(iter(future.result().failures.values())))
        if len(places) == places[-1] - places[0] + 1:
            done(start + places[0], start + places[-1] + 1)
            return
        for place in places:
            done(start + place, start + place + 1)
