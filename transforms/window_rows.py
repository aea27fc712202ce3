"""Assigns rows to windows by their own event times, and splits batches into rows.

A batch of messages has one timestamp, that of its earliest row. Each row keeps its event time in a reserved column.
`beam.WindowInto` would assign the whole batch to the window of its timestamp: use `WindowRows` instead.
"""

from collections.abc import Callable, Iterator
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.transforms.window import BoundedWindow, FixedWindows, SlidingWindows, TimestampedValue, WindowFn
from apache_beam.utils.timestamp import Timestamp
from apache_beam.utils.windowed_value import WindowedValue

from sluice.models.errors import SluiceError
from sluice.models.reserved import EVENT_TIME, is_reserved
from sluice.transforms.core.composite import Composite
from sluice.transforms.core.messages import times_us


class WindowRows(Composite):
    """`beam.WindowInto` for RecordBatches: splits each batch, so that all rows of a part share its windows.

    With Sessions the window of a row begins at the row's time, so each different time becomes a batch of its own.

    Args:
      window_fn: assigns windows by time alone.
      options: the other arguments of `beam.WindowInto`: trigger, accumulation_mode, allowed_lateness.
    """

    def __init__(self, window_fn: WindowFn, **options: object) -> None:
        super().__init__()
        self._window_fn = window_fn
        self._options = options

    def expand(self, batches: beam.PCollection[pa.RecordBatch]) -> beam.PCollection[pa.RecordBatch]:
        parts = batches | "Split" >> beam.ParDo(_Split(self._window_fn))
        return parts | "Window" >> beam.WindowInto(self._window_fn, **self._options)


@beam.typehints.with_output_types(pa.RecordBatch)
class _Split(beam.DoFn):
    def __init__(self, window_fn: WindowFn) -> None:
        self._window_fn = window_fn

    def process(self, batch: pa.RecordBatch, window: BoundedWindow = beam.DoFn.WindowParam) -> Iterator[pa.RecordBatch]:
        for part, timestamp in split_by_window(batch, self._window_fn):
            yield WindowedValue(part, timestamp, (window,))


def split_by_window(batch: pa.RecordBatch, window_fn: WindowFn) -> Iterator[tuple[pa.RecordBatch, Timestamp]]:
    """Yields parts whose rows share all windows, in the order of the rows, each with its earliest event time.

    Raises:
      SluiceError: the rows have no event times.
    """
    times = event_times(batch)
    keys = _KEYS.get(type(window_fn), _assigned)(times, window_fn)
    order = np.lexsort((times, *keys.T))
    ordered = keys[order]
    edges = np.flatnonzero((ordered[1:] != ordered[:-1]).any(axis=1)) + 1
    for rows in np.split(order, edges) if batch.num_rows else ():
        part = batch if len(rows) == batch.num_rows else batch.take(pa.array(np.sort(rows)))
        yield part, Timestamp(micros=int(times[rows[0]]))


def event_times(batch: pa.RecordBatch) -> np.ndarray:
    """Returns the event times of the rows, int64 [rows], microseconds since the epoch.

    Raises:
      SluiceError: a row has no event time.
    """
    index = batch.schema.get_field_index(EVENT_TIME)
    if index < 0 or batch.column(index).null_count:
        missing = "is null in some rows" if index >= 0 else "is missing"
        raise SluiceError(
            f"the column {EVENT_TIME} {missing}: it has the event times of messages, and rows of files have none; add "
            "it, as timestamp[us, UTC], or use beam.WindowInto"
        )
    return times_us(batch, EVENT_TIME)


def _fixed(times: np.ndarray, window_fn: FixedWindows) -> np.ndarray:
    """Returns int64 [rows, 1]: the number of the window."""
    return ((times - window_fn.offset.micros) // window_fn.size.micros)[:, None]


def _sliding(times: np.ndarray, window_fn: SlidingWindows) -> np.ndarray:
    """Returns int64 [rows, 2]: the numbers of the last window, and of the last window that has ended."""
    since = times - window_fn.offset.micros
    return np.stack([since, since - window_fn.size.micros], axis=1) // window_fn.period.micros


def _assigned(times: np.ndarray, window_fn: WindowFn) -> np.ndarray:
    """Returns int64 [rows, 1]: a number for each different set of windows."""
    different, places = np.unique(times, return_inverse=True)
    numbers: dict[Any, int] = {}
    assigned = (frozenset(window_fn.assign(WindowFn.AssignContext(Timestamp(micros=int(time))))) for time in different)
    keys = [numbers.setdefault(windows, len(numbers)) for windows in assigned]
    return np.array(keys, np.int64)[places][:, None]


_KEYS: dict[type, Callable[[np.ndarray, Any], np.ndarray]] = {FixedWindows: _fixed, SlidingWindows: _sliding}


def explode_rows(batch: pa.RecordBatch) -> Iterator[TimestampedValue]:
    """Yields each row as a dict of its columns, without the reserved ones, at its own event time.

    Raises:
      SluiceError: the rows have no event times.
    """
    rows = batch.select([name for name in batch.schema.names if not is_reserved(name)]).to_pylist()
    for row, time in zip(rows, event_times(batch).tolist(), strict=True):
        yield TimestampedValue(row, Timestamp(micros=time))


class ExplodeRows(Composite):
    """Turns RecordBatches into rows, see `explode_rows`, in the windows of their batch. Use `WindowRows` before it."""

    def expand(self, batches: beam.PCollection[pa.RecordBatch]) -> beam.PCollection[dict]:
        return batches | "Rows" >> beam.ParDo(_Explode())


@beam.typehints.with_output_types(dict[str, Any])
class _Explode(beam.DoFn):
    def process(self, batch: pa.RecordBatch, window: BoundedWindow = beam.DoFn.WindowParam) -> Iterator[dict[str, Any]]:
        for row in explode_rows(batch):
            yield WindowedValue(row.value, row.timestamp, (window,))
