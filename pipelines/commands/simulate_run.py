"""Publishes rows to a topic at a steady rate, for a streaming job to score."""

import contextlib
import itertools
import logging
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence, Sized
from typing import Protocol

import numpy as np

from sluice.models import zoo
from sluice.models.errors import SluiceError, UsageError
from sluice.models.zoo.base import BLOCK_ROWS
from sluice.models.zoo.sample import sample_chunks
from sluice.pipelines.logs import tell
from sluice.pipelines.options.stream_tools import SimulateOptions
from sluice.pipelines.outcome import EXIT_FAILED, EXIT_OK
from sluice.pipelines.progress.display import Display, TextLines
from sluice.transforms.core.prefetch import prefetch
from sluice.transforms.encode.base import OutputSpec
from sluice.transforms.encode.json import json_objects
from sluice.transforms.pubsub.publish import Messages, Publisher
from sluice.transforms.pubsub.publish_sender import PublishOptions
from sluice.transforms.pubsub.resources import check_topic, create_topic

_LOG = logging.getLogger(__name__)

# How often due rows are sent, together: each time costs a request.
_TICK_SECS = 0.01
_MAX_ROWS_A_TICK = 1000
# A machine that is further behind cannot keep up.
_BEHIND_SECS = 1.0
# At most, for the attributes and the frame of a message.
_OVERHEAD_BYTES = 200
_LINES_A_CHUNK = 1000


def simulate(options: SimulateOptions) -> int:
    """Publishes rows; returns the exit code.

    Raises:
      UsageError: the topic cannot be published to, or the rows cannot be read; nothing has been sent.
    """
    if options.create and create_topic(options.topic):
        _LOG.info("Created %s", options.topic)
    check_topic(options.topic)
    rows = prefetch(_source(options))
    publisher: Publisher[int] = Publisher(options.topic, PublishOptions())
    simulation = Simulation(options, publisher, rows)
    lines = TextLines(lambda: f"{simulation.sent:,} rows sent  {simulation.rate:,.0f} rows/s")
    error: SluiceError | None = None
    with contextlib.closing(publisher), contextlib.closing(rows), Display(lines, options.progress):
        try:
            with contextlib.suppress(KeyboardInterrupt):
                simulation.run()
            simulation.finish()
        except UsageError:
            raise
        except SluiceError as raised:
            error = raised
    print(simulation.report())
    if error is not None:
        tell(f"sluice simulate: {error}\n", logging.ERROR)
    return EXIT_OK if error is None and not simulation.refused else EXIT_FAILED


class Sender(Protocol):
    """What a simulation needs of a transforms.pubsub.publish.Publisher."""

    def add(self, messages: Messages, tags: Sequence[int]) -> None:
        """Takes messages; sends full requests."""

    def send(self) -> None:
        """Sends the messages that do not fill a request yet."""

    def refused(self) -> Sized:
        """Returns the messages that the service has refused since the last call."""

    def flush(self) -> Sized:
        """Waits until all messages are published; returns those that were refused."""


class Simulation:
    """Publishes each row when it is due.

    Args:
      chunks: rows as JSON.
      clock: seconds, monotonic.
      wall: seconds since the epoch.
      pause: waits for so many seconds.
      run_id: the start of the messages' ids.
    """

    def __init__(
        self,
        options: SimulateOptions,
        publisher: Sender,
        chunks: Iterator[list[bytes]],
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        pause: Callable[[float], None] = time.sleep,
        run_id: str = "",
    ) -> None:
        self._options = options
        self._publisher = publisher
        self._rows = itertools.chain.from_iterable(chunks)
        self._clock, self._wall, self._pause = clock, wall, pause
        self._run_id = run_id or uuid.uuid4().hex[:8]
        self._started = self._ended = clock()
        self._warned = False
        self.sent = self.refused = 0
        self.most_behind_secs = 0.0

    @property
    def seconds(self) -> float:
        """The seconds from the first row until now, or until the last row is published."""
        return self._ended - self._started

    @property
    def rate(self) -> float:
        """Published rows per second."""
        return (self.sent - self.refused) / max(self.seconds, 1e-9)

    def run(self) -> None:
        """Sends rows until the options or the input end it.

        Raises:
          SluiceError: rows could not be published.
        """
        first = list(itertools.islice(self._rows, 1))  # takes a while to make, which must not delay the others
        self._rows = itertools.chain(first, self._rows)
        self._started = self._clock()
        while (count := self._due()) is not None:
            if not count:
                self._pause(_TICK_SECS)
                continue
            rows = list(itertools.islice(self._rows, count))
            if not rows:
                return
            self._send(rows)

    def finish(self) -> None:
        """Waits until all rows are published. Raises as `run` does."""
        self.refused += len(self._publisher.flush())
        self._ended = self._clock()

    def report(self) -> str:
        """Returns the result as text."""
        lines = [f"{self.sent - self.refused:,} rows published in {self.seconds:,.1f} s, {self.rate:,.1f} rows/s"]
        if self._options.rate:
            lines.append(
                f"target {self._options.rate:,g} rows/s; at most {self.most_behind_secs * 1000:,.0f} ms behind"
            )
        if self.refused:
            lines.append(f"{self.refused:,} rows refused by the service")
        return "\n".join(lines)

    def _due(self) -> int | None:
        """Returns how many rows are due now; None at the end."""
        self._ended = now = self._clock()
        elapsed = now - self._started
        if self._options.rate:
            self._note_behind(elapsed - self.sent / self._options.rate)
        left = self._options.rows - self.sent if self._options.rows else _MAX_ROWS_A_TICK
        if left <= 0 or (self._options.seconds and elapsed >= self._options.seconds):
            return None
        due = int(elapsed * self._options.rate) + 1 - self.sent if self._options.rate else left  # row 0 is due at once
        return min(left, due, _MAX_ROWS_A_TICK)

    def _note_behind(self, secs: float) -> None:
        self.most_behind_secs = max(self.most_behind_secs, secs)
        if secs > _BEHIND_SECS and not self._warned:
            self._warned = True
            _LOG.warning("This machine cannot send %g rows/s: %.1f s behind", self._options.rate, secs)

    def _send(self, rows: list[bytes]) -> None:
        sent = str(round(self._wall() * 1e6))
        numbers = range(self.sent, self.sent + len(rows))
        if self._options.poison:
            rows = [self._poisoned(number, row) for number, row in zip(numbers, rows, strict=True)]
        attributes = [{"id": f"{self._run_id}-{number}", "sent": sent} for number in numbers]
        sizes = np.fromiter(map(len, rows), np.int64, len(rows)) + _OVERHEAD_BYTES
        self._publisher.add(Messages(rows, attributes, sizes), numbers)
        self._publisher.send()
        self.sent += len(rows)
        self.refused += len(self._publisher.refused())

    def _poisoned(self, number: int, row: bytes) -> bytes:
        return b"{not JSON, row %d" % number if (number + 1) % self._options.poison == 0 else row


def _source(options: SimulateOptions) -> Iterator[list[bytes]]:
    if not options.input:
        return zoo_rows(options.zoo or "criteo")
    if not os.path.isfile(options.input):
        raise UsageError(f"--input {options.input}: there is no such file")
    return file_rows(options.input, again=not options.endless)


def zoo_rows(name: str) -> Iterator[list[bytes]]:
    """Yields the sample input of a model as JSON objects, endlessly; no training has seen these rows."""
    for chunk in sample_chunks(zoo.get(name), sys.maxsize, seed=2, chunk_rows=BLOCK_ROWS):
        yield json_objects(chunk, OutputSpec("jsonl", chunk.schema)).to_pylist()


def file_rows(path: str, again: bool) -> Iterator[list[bytes]]:
    """Yields the lines of a file that are not empty, as they are.

    Args:
      again: start over after the last line.

    Raises:
      UsageError: the file has no rows, or cannot be read.
    """
    try:
        while True:
            count = 0
            with open(path, "rb") as file:
                while lines := [line.strip() for line in itertools.islice(file, _LINES_A_CHUNK)]:
                    count += len(rows := [line for line in lines if line])
                    yield rows
            if not count:
                raise UsageError(f"{path} holds no rows")
            if not again:
                return
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
