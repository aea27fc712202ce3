"""`sluice simulate`: rows published to a topic at a steady rate, for a streaming job to score."""

import argparse
import contextlib
import dataclasses
import itertools
import logging
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from sluice.models import zoo
from sluice.models.errors import SluiceError, UsageError
from sluice.pipelines.options.batch import PROGRESS
from sluice.pipelines.options.flags import add_arguments as add_flags
from sluice.pipelines.options.flags import flag, from_namespace, parse_bool
from sluice.pipelines.progress.display import Display
from sluice.pipelines.progress.outcome import EXIT_FAILED, EXIT_OK

_LOG = logging.getLogger(__name__)

DESCRIPTION = """Publishes rows as JSON to a Pub/Sub topic at a steady rate, until --rows or --seconds are reached or it
is interrupted. A row is sent when it is due by the clock, whether or not earlier ones have been taken yet, so that a
slow service does not slow the load down; where this machine cannot keep up, it says so. Each message has the attributes
`id`, unique, and `sent`, when it was handed to the service in microseconds since the epoch: see `sluice latency`."""

EPILOG = """examples:
  sluice simulate --topic projects/P/topics/input --rate 200 --seconds 60
  sluice simulate --topic projects/P/topics/input --zoo natality --rows 100000 --rate 0"""

# Rows that are due are sent together if they are so close: it costs a request each.
_TICK_SECS = 0.01
_MAX_ROWS_A_TICK = 1000
# Further behind than this, the machine cannot keep up.
_BEHIND_SECS = 1.0
# An attribute's name and value, and what surrounds a message, at most.
_OVERHEAD_BYTES = 200
_LINES_A_CHUNK = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class SimulateOptions:
    """Options of `sluice simulate`. Checks itself; a value that cannot be raises UsageError."""

    topic: str = flag("Where rows go, as projects/P/topics/T", group="Output", metavar="TOPIC")
    create: bool = flag("Make the topic if it does not exist", False, parse_bool, group="Output")
    zoo: str = flag(
        f"Rows of this model's sample input: {', '.join(zoo.NAMES)} (default: criteo)", "", choices=zoo.NAMES,
        group="Input",
    )  # fmt: skip
    input: str = flag(
        "Rows of this file, JSON Lines; with --rows or --seconds over and over", "", group="Input", metavar="FILE"
    )
    poison: int = flag(
        "Every so many-th message is not JSON, to try what becomes of it; 0: none", 0, int, group="Input"
    )
    rate: float = flag("Rows a second; 0: as fast as possible", 50.0, float, group="Run")
    rows: int = flag("End after so many rows", 0, int, group="Run")
    seconds: float = flag("End after so many seconds", 0.0, float, group="Run")
    progress: str = flag(
        "Progress: a line on a terminal, or in the log every 30 s", "auto", choices=PROGRESS, group="Run"
    )

    def __post_init__(self) -> None:
        if self.zoo and self.input:
            raise UsageError("--zoo and --input are two sources of rows; give one")
        for name in ("rate", "rows", "seconds", "poison"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise UsageError(f"--{name} is 0 or more, found {getattr(self, name):g}")

    @property
    def endless(self) -> bool:
        return not (self.rows or self.seconds)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `sluice simulate`."""
    add_flags(parser, SimulateOptions)


def run(args: argparse.Namespace) -> int:
    """Publishes rows; returns the exit code.

    Raises:
      UsageError: the topic cannot be published to, or the rows cannot be read; nothing has been sent.
    """
    options = from_namespace(SimulateOptions, args)
    from sluice.transforms.core.prefetch import prefetch
    from sluice.transforms.pubsub.publish import Publisher
    from sluice.transforms.pubsub.publish_sender import PublishOptions
    from sluice.transforms.pubsub.resources import check_topic, create_topic

    if options.create and create_topic(options.topic):
        _LOG.info("Created %s", options.topic)
    check_topic(options.topic)
    rows: Any = prefetch(_source(options))
    publisher: Publisher[int] = Publisher(options.topic, PublishOptions())
    simulation = Simulation(options, publisher, rows)
    error: SluiceError | None = None
    with contextlib.closing(publisher), contextlib.closing(rows), _Progress(options.progress, simulation):
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
        sys.stderr.write(f"sluice simulate: {error}\n")
    return EXIT_OK if error is None and not simulation.refused else EXIT_FAILED


class Simulation:
    """Publishes rows as they are due.

    Args:
      publisher: a transforms.pubsub.publish.Publisher.
      chunks: rows as JSON.
      clock: seconds, monotonic; `wall`: seconds since the epoch; `pause` waits for so many seconds.
      run_id: what ids begin with.
    """

    def __init__(
        self,
        options: SimulateOptions,
        publisher: Any,
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
        self._told = False
        self.sent = self.refused = 0
        self.most_behind_secs = 0.0

    @property
    def seconds(self) -> float:
        """From the first row until now, or until the last is published."""
        return self._ended - self._started

    @property
    def rate(self) -> float:
        """Rows a second in all."""
        return (self.sent - self.refused) / max(self.seconds, 1e-9)

    def run(self) -> None:
        """Sends rows until the end that the options name, or that of the input.

        Raises:
          SluiceError: rows could not be published.
        """
        first = list(itertools.islice(self._rows, 1))  # takes a while to make, which is not to put the others behind
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
        """Waits until what was sent is published. Raises as `run` does."""
        self.refused += len(self._publisher.flush())
        self._ended = self._clock()

    def report(self) -> str:
        """Returns what it came to."""
        lines = [f"{self.sent - self.refused:,} rows published in {self.seconds:,.1f} s, {self.rate:,.1f} rows/s"]
        if self._options.rate:
            lines.append(
                f"asked for {self._options.rate:,g} rows/s; at most {self.most_behind_secs * 1000:,.0f} ms behind"
            )
        if self.refused:
            lines.append(f"{self.refused:,} rows refused by the service")
        return "\n".join(lines)

    def _due(self) -> int | None:
        """Returns how many rows are to be sent now; None at the end."""
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
        if secs > _BEHIND_SECS and not self._told:
            self._told = True
            _LOG.warning("%g rows/s are more than can be sent from here: %.1f s behind", self._options.rate, secs)

    def _send(self, rows: list[bytes]) -> None:
        from sluice.transforms.pubsub.publish import Messages

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


class _Progress(Display):
    def __init__(self, mode: str, simulation: Simulation) -> None:
        super().__init__(mode)
        self._simulation = simulation

    def line(self, width: int) -> str:
        return self.log_line()[:width]

    def log_line(self) -> str:
        simulation = self._simulation
        return f"{simulation.sent:,} rows sent  {simulation.rate:,.0f} rows/s"


def _source(options: SimulateOptions) -> Iterator[list[bytes]]:
    if not options.input:
        return zoo_rows(options.zoo or "criteo")
    if not os.path.isfile(options.input):
        raise UsageError(f"--input {options.input}: there is no such file")
    return file_rows(options.input, again=not options.endless)


def zoo_rows(name: str) -> Iterator[list[bytes]]:
    """Yields the sample input of a model as JSON objects, without an end; no training has seen these rows."""
    from sluice.models.zoo.base import BLOCK_ROWS
    from sluice.models.zoo.sample import sample_chunks
    from sluice.transforms.encode.base import OutputSpec
    from sluice.transforms.encode.json import json_objects

    for chunk in sample_chunks(zoo.get(name), sys.maxsize, seed=2, chunk_rows=BLOCK_ROWS):
        yield json_objects(chunk, OutputSpec("jsonl", chunk.schema)).to_pylist()


def file_rows(path: str, again: bool) -> Iterator[list[bytes]]:
    """Yields the lines of a file that are not empty, as they are.

    Args:
      again: begin anew after the last.

    Raises:
      UsageError: there are none, or the file cannot be read.
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
