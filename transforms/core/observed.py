"""What a process sees of the rows that pass, for a report: columns of numbers, rows over time, versions.

Its memory is fixed, whatever the number of rows, and so is the time for a row: batches are left out as soon as the
others have taken what the rows have earned.
"""

import collections
import dataclasses
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from sluice.models.tensors.columns import column_or_nulls
from sluice.transforms.core.outputs import VERSION_COLUMN
from sluice.transforms.core.sketch import Sketch, is_number

# So many columns of inputs, and of outputs, are sketched.
MAX_COLUMNS = 40
# Of a column of lists, at most so many values of a batch.
_MAX_VALUES = 16_384
# What a process may take at once, so that all rows of a small job are seen, and what each further row earns.
_FIRST_SECS = 0.03
_SECS_PER_ROW = 0.02e-6
# A batch of fewer rows comes from a stream that waits for messages. There a share of the time that passes pays.
_FEW_ROWS = 256
_SHARE_OF_TIME = 0.003
# Steps of the timeline, and how long one is at first.
_MAX_STEPS = 240
_FIRST_STEP_SECS = 0.25


class Budget:
    """Decides which batches are looked at.

    Args:
      clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._left_secs = _FIRST_SECS
        self._last = clock()

    def allows(self, rows: int) -> bool:
        """Earns what the rows of a batch bring; returns whether it may be looked at."""
        now = self._clock()
        earned = _SECS_PER_ROW * rows if rows >= _FEW_ROWS else _SHARE_OF_TIME * (now - self._last)
        self._last = now
        self._left_secs = min(self._left_secs + earned, _FIRST_SECS)
        return self._left_secs > 0

    def spend(self, secs: float) -> None:
        """Takes what a look has cost."""
        self._left_secs -= secs


class Timeline:
    """Rows over time, in steps that grow with it. Steps begin at whole multiples of their length since the epoch."""

    def __init__(self, step_secs: float = _FIRST_STEP_SECS, rows: dict[int, int] | None = None) -> None:
        self.step_secs = step_secs
        self.rows = rows or {}  # by step

    def add(self, seconds: float, rows: int) -> None:
        """Counts rows at a time, in seconds since the epoch."""
        step = int(seconds / self.step_secs)
        is_new = step not in self.rows
        self.rows[step] = self.rows.get(step, 0) + rows
        while is_new and max(self.rows) - min(self.rows) >= _MAX_STEPS:
            self._double()

    def merge(self, other: "Timeline") -> None:
        """Adds what another timeline has counted."""
        while self.step_secs < other.step_secs:
            self._double()
        for step, rows in other.rows.items():
            self.add((step + 0.5) * other.step_secs, rows)

    def points(self) -> list[tuple[float, int]]:
        """Returns (seconds since the first step began, rows) of each step, also of those without rows."""
        if not self.rows:
            return []
        first, last = min(self.rows), max(self.rows)
        return [((step - first) * self.step_secs, self.rows.get(step, 0)) for step in range(first, last + 1)]

    def coarser(self, most: int) -> "Timeline":
        """Returns the same in so many steps at most."""
        coarse = Timeline(self.step_secs, dict(self.rows))
        while coarse.rows and max(coarse.rows) - min(coarse.rows) >= most:
            coarse._double()
        return coarse

    def _double(self) -> None:
        rows: dict[int, int] = {}
        for step, count in self.rows.items():
            rows[step // 2] = rows.get(step // 2, 0) + count
        self.rows, self.step_secs = rows, 2 * self.step_secs


@dataclasses.dataclass
class Columns:
    """The sketches of some columns.

    Attributes:
      rows: that have passed; `sketched` of them were looked at.
      shortened: of columns of long lists, fewer were.
    """

    sketches: dict[str, Sketch] = dataclasses.field(default_factory=dict)
    rows: int = 0
    sketched: int = 0
    shortened: bool = False

    def add(self, columns: Iterable[tuple[str, pa.Array]], rows: int) -> None:
        """Looks at a batch of so many rows."""
        for name, array in columns:
            self.sketches.setdefault(name, Sketch()).add(array)
            self.shortened = self.shortened or len(array) < rows
        self.sketched += rows

    def merge(self, other: "Columns") -> None:
        """Adds what has been seen elsewhere."""
        self.rows, self.sketched = self.rows + other.rows, self.sketched + other.sketched
        self.shortened = self.shortened or other.shortened
        for name, sketch in other.sketches.items():
            self.sketches.setdefault(name, Sketch()).merge(sketch)


@dataclasses.dataclass
class Record:
    """What has been seen of some rows: of a bundle, of a process, or of a job. Picklable.

    Attributes:
      versions: rows by the version of the model; None: it has none.
    """

    inputs: Columns = dataclasses.field(default_factory=Columns)
    outputs: Columns = dataclasses.field(default_factory=Columns)
    timeline: Timeline = dataclasses.field(default_factory=Timeline)
    versions: collections.Counter[int | None] = dataclasses.field(default_factory=collections.Counter)

    def merge(self, other: "Record") -> None:
        """Adds what has been seen elsewhere."""
        self.inputs.merge(other.inputs)
        self.outputs.merge(other.outputs)
        self.timeline.merge(other.timeline)
        self.versions.update(other.versions)


class Observed:
    """What a process sees. Thread-safe, but for what is read from its record.

    Args:
      clock: seconds, monotonic.
      wall: seconds since the epoch.
      cpu: seconds that this thread has run.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        cpu: Callable[[], float] = time.thread_time,
    ) -> None:
        self.record = Record()
        self._wall, self._cpu = wall, cpu
        self._inputs_budget, self._outputs_budget = Budget(clock), Budget(clock)
        self._lock = threading.Lock()

    def see_inputs(self, batch: pa.RecordBatch, names: Sequence[str]) -> None:
        """Looks at what the model is fed; `names` are columns of numbers."""
        with self._lock:
            self._see(self.record.inputs, self._inputs_budget, batch, names)

    def see_outputs(self, batch: pa.RecordBatch, names: Sequence[str]) -> None:
        """Looks at what the model has answered, with the version of each row."""
        with self._lock:
            self.record.timeline.add(self._wall(), batch.num_rows)
            self._count_versions(batch)
            self._see(self.record.outputs, self._outputs_budget, batch, names)

    def take(self) -> Record:
        """Returns what has been seen since the last call, and forgets it."""
        with self._lock:
            taken, self.record = self.record, Record()
            return taken

    def _see(self, side: Columns, budget: Budget, batch: pa.RecordBatch, names: Sequence[str]) -> None:
        side.rows += batch.num_rows
        if not (names and batch.num_rows and budget.allows(batch.num_rows)):
            return
        started = self._cpu()
        side.add(_numbers(batch, names), batch.num_rows)
        budget.spend(self._cpu() - started)

    def _count_versions(self, batch: pa.RecordBatch) -> None:
        index = batch.schema.get_field_index(VERSION_COLUMN)
        if index < 0 or not batch.num_rows:
            return
        column = batch.column(index)
        if not column.null_count and (numbers := column.to_numpy()).min() == numbers.max():  # much faster than to count
            self.record.versions[int(numbers[0])] += len(numbers)
            return
        for each in pc.value_counts(column).to_pylist():
            self.record.versions[each["values"]] += each["counts"]


def _numbers(batch: pa.RecordBatch, names: Sequence[str]) -> Iterator[tuple[str, pa.Array]]:
    """Yields the columns that are numbers here too: a reader may carry the text of one that is bound as a number."""
    for name in names:
        array = column_or_nulls(batch, name)
        if is_number(array.type):
            yield name, _limited(array)


def _limited(array: pa.Array) -> pa.Array:
    """Returns the first rows of lists, so that they have not too many values."""
    if not hasattr(array, "values"):
        return array
    values = pc.sum(pc.list_value_length(array)).as_py() or 0  # `array.values` has those before and after a slice, too
    return array if values <= _MAX_VALUES else array.slice(0, max(1, len(array) * _MAX_VALUES // values))


_observed: Observed | None = None
_guard = threading.Lock()


def observed() -> Observed:
    """Returns what this process has seen since `forget`."""
    global _observed
    with _guard:
        if _observed is None:
            _observed = Observed()
        return _observed


def forget() -> None:
    """Begins anew, before a job."""
    global _observed
    with _guard:
        _observed = None
