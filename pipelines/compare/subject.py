"""What is measured within a process: one model, reached in one way, and the rows of the sample."""

import dataclasses
import io
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pyarrow as pa

from sluice.models.batching.scheduler import Scheduler
from sluice.models.cache import open_scheduler
from sluice.models.errors import UsageError
from sluice.models.saved_model.native.library import begin_to_load
from sluice.models.wording import message
from sluice.pipelines.compare.costs import resident_mb
from sluice.pipelines.compare.drive import REQUEST_ROWS, Driven, drive, in_requests
from sluice.pipelines.compare.senders import OwnThread, RowSender
from sluice.pipelines.compare.stream import Answered, Load, send
from sluice.pipelines.options.batch import BatchOptions
from sluice.pipelines.plan.batch_job import BatchPlan, plan_batch
from sluice.transforms.core.beam_files import BeamFiles
from sluice.transforms.core.outputs import rows_of
from sluice.transforms.decode.formats import read_range, split_found
from sluice.transforms.encode.base import OutputSpec
from sluice.transforms.encode.formats import open_encoder
from sluice.transforms.files.find_files import match_all
from sluice.transforms.predict.batches import score

# The sample's first rows, which are enough to keep a model busy: so many, or those that it scores in so many seconds.
_MAX_ROWS, _MAX_SECS = 100_000, 3.0
# The rows of a sample are counted for so long at most.
_COUNT_SECS = 5.0
# A request of rows that are called in smaller batches.
_FEW_ROWS = 64
# A stage is repeated until it has taken so long.
_STAGE_SECS = 0.3

_NO_ROWS = "no row of the sample has a prediction: it has no rows"

READ, BIND, CALL, ENCODE, WRITE = "read", "bind", "call", "encode", "write"
STAGES = (READ, BIND, CALL, ENCODE, WRITE)


@dataclasses.dataclass(frozen=True)
class Point:
    """A setting of mini-batching; 0 is the default of the job's flags.

    Attributes:
      batch: --max_batch_size.
      in_flight: --max_in_flight.
    """

    batch: int = 0
    in_flight: int = 0


@dataclasses.dataclass(frozen=True)
class Loaded:
    """What opening a model took.

    Attributes:
      secs: to open it, and to score the sample for the first time.
      copy_mb: by how much the process's memory has grown since TensorFlow's library was loaded.
      rows: that are called: the first of the sample that have a prediction.
      refused: rows among the first that have none.
      sample_rows: of the whole sample, as far as they were counted.
      batch, in_flight: the defaults of --max_batch_size and --max_in_flight.
    """

    secs: float
    copy_mb: float
    rows: int
    refused: int
    sample_rows: int
    batch: int
    in_flight: int


class Subject:
    """A model, opened as a batch job with these options opens it. Its schedulers share one copy.

    Raises:
      UsageError: the job does not fit, or no row of the sample has a prediction.
    """

    def __init__(self, options: BatchOptions) -> None:
        self._plan: BatchPlan = plan_batch(options)
        if self._plan.recipe.spec.is_here:
            begin_to_load().join()
        decoded = list(_first_rows(self._decode()))
        before, started = resident_mb(), time.perf_counter()
        self._first = open_scheduler(self._plan.recipe, BeamFiles())
        secs = time.perf_counter() - started
        self._schedulers: dict[Point, Scheduler] = {Point(): self._first}
        good, refused = self._keep_good(decoded)
        self.rows = pa.Table.from_batches(good).combine_chunks().to_batches()[0]
        resolved = self._first.options
        self.loaded = Loaded(
            secs,
            max(0.0, resident_mb() - before),
            self.rows.num_rows,
            refused,
            self._count(),
            resolved.max_batch_size,
            resolved.max_in_flight,
        )

    def close(self) -> None:
        self._first.close()

    def throughput(self, point: Point, secs: float) -> Driven:
        """Keeps the model busy for some seconds, after a quarter as many to warm up."""
        scheduler = self._scheduler(point)
        requests = in_requests(self.rows, _FEW_ROWS if 0 < point.batch <= _FEW_ROWS else REQUEST_ROWS)
        drive(scheduler, requests, secs / 4)
        return drive(scheduler, requests, secs)

    def latency(self, load: Load, point: Point) -> Answered:
        """Sends messages of one row; without mini-batches the point's batch is 1."""
        sender = self.sender(load, point)
        try:
            with OwnThread(sender, load.mini_batches) as thread:
                answered = send(load, thread)
            if error := thread.error or sender.error:
                raise error
            return answered
        finally:
            sender.give_up()

    def sender(self, load: Load, point: Point) -> RowSender:
        """Returns what sends the rows of the sample as messages."""
        scheduler = self._scheduler(point if load.mini_batches else dataclasses.replace(point, batch=1))
        return RowSender(scheduler, self.rows, alone=not load.mini_batches)

    def stages(self, point: Point) -> dict[str, float]:
        """Returns microseconds of CPU of a row, by stage, each stage alone. Of a server, only this client's."""
        scheduler = self._scheduler(point)
        batch = self.rows.slice(0, min(self.rows.num_rows, scheduler.ceiling))
        model, rows = scheduler.model, batch.num_rows
        bound = model.bind(batch)
        found = {
            READ: cpu_us(lambda: sum(each.num_rows for each in itertools.islice(self._decode(), 8))),
            BIND: cpu_us(lambda: rows * bool(model.bind(batch).groups)),
            CALL: cpu_us(lambda: rows * bool([model.call(group.feeds) for group in bound.groups])),
        }
        predictions = [(group, scheduler.submit(group.feeds).future.result()) for group in bound.groups]
        scored, _ = score(batch, bound.errors, predictions, model.signature, model.uri, self._plan.output_prefix)
        spec = self._plan.output.spec
        if scored is not None and spec is not None:
            text = _encoded(scored, spec)
            found[ENCODE] = cpu_us(lambda: rows * bool(_encoded(scored, spec)))
            found[WRITE] = cpu_us(lambda: rows * bool(_written(text)))
        return found

    def _scheduler(self, point: Point) -> Scheduler:
        """Returns a scheduler of the one copy; those that are not in use have idle threads only."""
        if point not in self._schedulers:
            options = self._first.options
            changed = dataclasses.replace(
                options,
                max_batch_size=point.batch or options.max_batch_size,
                max_in_flight=point.in_flight or options.max_in_flight,
            )
            self._schedulers[point] = Scheduler(self._first.model, changed)
        return self._schedulers[point]

    def _decode(self) -> Iterator[pa.RecordBatch]:
        """Yields the rows of the sample as a job reads them."""
        spec = self._plan.input.spec
        if spec is None:
            raise UsageError("--input: a sample is files")
        for file in match_all(self._plan.input.patterns):
            for part in split_found(file, spec):
                for decoded, _ in read_range(part, spec):
                    yield from decoded.batches

    def _count(self) -> int:
        """Returns the rows of the sample that can be decoded; of a large one, those that are read in some seconds."""
        started, rows = time.perf_counter(), 0
        for batch in self._decode():
            rows += batch.num_rows
            if time.perf_counter() > started + _COUNT_SECS:
                break
        return rows

    def _keep_good(self, batches: Sequence[pa.RecordBatch]) -> tuple[list[pa.RecordBatch], int]:
        """Returns the rows that have a prediction, and the number of those that have none."""
        good: list[pa.RecordBatch] = []
        refused, first, started = 0, "", time.perf_counter()
        for batch in batches:
            if good and time.perf_counter() > started + _MAX_SECS:
                break
            bound = self._first.model.bind(batch)
            asked = [(group, self._first.submit(group.feeds)) for group in bound.groups]
            answered = [(group, ticket.future.result()) for group, ticket in asked]
            kept = [rows_of(group, prediction) for group, prediction in answered]
            rows = np.sort(np.concatenate([np.empty(0, np.int64), *kept]))
            refused += batch.num_rows - len(rows)
            failures = [each for _, prediction in answered for each in prediction.failures.values()]
            first = first or next(iter(bound.errors.values()), failures[0].message if failures else "")
            good += [batch if len(rows) == batch.num_rows else batch.take(pa.array(rows))] if len(rows) else []
        if not good:
            raise UsageError(message("no row of the sample has a prediction: {}", first) if first else _NO_ROWS)
        return good, refused


def cpu_us(work: Callable[[], int], secs: float = _STAGE_SECS) -> float:
    """Returns the microseconds of CPU of a row.

    Args:
      work: returns the number of its rows. It is repeated for some seconds, once at least, after it has run once.
    """
    work()
    started, cpu, rows = time.perf_counter(), time.process_time(), 0
    while not rows or time.perf_counter() < started + secs:
        rows += max(1, work())
    return 1e6 * (time.process_time() - cpu) / rows


def _encoded(rows: pa.RecordBatch, spec: OutputSpec) -> bytes:
    text = io.BytesIO()
    encoder = open_encoder(text, spec)
    encoder.write(rows)
    encoder.close()
    return text.getvalue()


def _written(text: bytes) -> int:
    with tempfile.TemporaryFile() as file:
        return file.write(text)


def _first_rows(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    rows = 0
    for batch in batches:
        yield batch.slice(0, _MAX_ROWS - rows)
        rows += batch.num_rows
        if rows >= _MAX_ROWS:
            return
