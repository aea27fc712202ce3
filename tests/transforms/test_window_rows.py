"""Rows in the windows of their own event times, whatever their batch."""

import collections
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from apache_beam.runners.direct.direct_runner import BundleBasedDirectRunner
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing import test_stream
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms.trigger import AccumulationMode, AfterCount, AfterWatermark
from apache_beam.transforms.window import (
    FixedWindows,
    GlobalWindows,
    Sessions,
    SlidingWindows,
    TimestampedValue,
    WindowFn,
)
from apache_beam.utils.timestamp import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from sluice.models.errors import SluiceError
from sluice.models.reserved import EVENT_TIME
from sluice.transforms.core.messages import TIME
from sluice.transforms.window_rows import ExplodeRows, WindowRows, explode_rows, split_by_window

SECOND = 1_000_000


def batch_of(*times: float) -> pa.RecordBatch:
    """Rows at these seconds; their column "n" numbers them."""
    micros = np.array([round(time * SECOND) for time in times], np.int64)
    return pa.RecordBatch.from_pydict({"n": range(len(times)), EVENT_TIME: pa.array(micros).cast(TIME)})


def windows_of(window_fn: WindowFn, time: Timestamp) -> frozenset[Any]:
    return frozenset(window_fn.assign(WindowFn.AssignContext(time)))


def parts_of(batch: pa.RecordBatch, window_fn: WindowFn) -> list[tuple[list[int], float]]:
    return [(part["n"].to_pylist(), float(time)) for part, time in split_by_window(batch, window_fn)]


@pytest.mark.parametrize(
    ("window_fn", "parts"),
    [
        (FixedWindows(10), [([2], -1.0), ([1, 3], 0.0), ([0, 4], 12.0)]),
        (FixedWindows(10, offset=3), [([1, 2], -1.0), ([0, 3, 4], 9.5)]),
        (SlidingWindows(10, 5), [([2], -1.0), ([1], 0.0), ([3], 9.5), ([0, 4], 12.0)]),
        (GlobalWindows(), [([0, 1, 2, 3, 4], -1.0)]),
        (Sessions(10), [([2], -1.0), ([1], 0.0), ([3], 9.5), ([0, 4], 12.0)]),
    ],
    ids=["fixed", "offset", "sliding", "global", "sessions"],
)
def test_rows_that_share_all_their_windows_stay_together(
    window_fn: WindowFn, parts: list[tuple[list[int], float]]
) -> None:
    assert parts_of(batch_of(12, 0, -1, 9.5, 12), window_fn) == parts


def test_a_batch_within_one_window_is_not_copied() -> None:
    batch = batch_of(3, 1, 2)
    ((part, time),) = split_by_window(batch, FixedWindows(10))
    assert part is batch and time == Timestamp(1)


def test_no_rows_have_no_parts() -> None:
    assert parts_of(batch_of(), FixedWindows(10)) == []
    assert parts_of(batch_of(), GlobalWindows()) == []


class Odd(FixedWindows):
    """Windows that only `assign` knows: even seconds, and odd ones."""

    def assign(self, context: WindowFn.AssignContext) -> list[Any]:
        return super().assign(WindowFn.AssignContext(Timestamp(int(context.timestamp) % 2)))


SECONDS = st.integers(1, 40).map(lambda tenths: tenths / 10)
WINDOW_FNS = st.one_of(
    st.builds(FixedWindows, SECONDS, SECONDS),
    st.builds(SlidingWindows, SECONDS, SECONDS, SECONDS),  # also with gaps, and where one size is no multiple
    st.builds(Sessions, SECONDS),
    st.builds(GlobalWindows),
    st.builds(Odd, st.just(1)),
)
TIMES = st.one_of(
    st.integers(-10 * SECOND, 10 * SECOND),
    st.integers(-100, 100).map(lambda tenths: tenths * SECOND // 10),  # on the edges of windows
).map(lambda micros: micros / SECOND)


@given(WINDOW_FNS, st.lists(TIMES, max_size=12))
def test_a_part_is_in_the_windows_of_each_of_its_rows(window_fn: WindowFn, times: list[float]) -> None:
    batch = batch_of(*times)
    seen, window_sets = [], []
    for part, time in split_by_window(batch, window_fn):
        rows = part["n"].to_pylist()
        own = [Timestamp(micros=micros) for micros in part[EVENT_TIME].cast(pa.int64()).to_pylist()]
        assert rows == sorted(rows)
        assert time == min(own)
        assert {windows_of(window_fn, each) for each in own} == {windows_of(window_fn, time)}
        seen += rows
        window_sets.append(windows_of(window_fn, time))
    assert sorted(seen) == list(range(len(times)))
    kept = [windows for windows in window_sets if windows]
    assert len(kept) == len(set(kept)), "no batch is split further than its windows are different"


def per_window(rows: beam.PCollection) -> beam.PCollection:
    """(start of the window, the rows' numbers in it)"""

    def started(group: tuple[None, Any], window: Any = beam.DoFn.WindowParam) -> tuple[float, list[int]]:
        return float(window.start), sorted(group[1])

    return rows | beam.Map(lambda row: (None, row["n"])) | beam.GroupByKey() | beam.Map(started)


@pytest.mark.parametrize("window_fn", [FixedWindows(10, 4), SlidingWindows(10, 4), Sessions(5)])
def test_as_if_rows_had_been_windowed_one_by_one(window_fn: WindowFn) -> None:
    batches = [batch_of(*np.random.default_rng(seed).uniform(-60, 60, 30).round(1)) for seed in range(5)]

    def one_by_one() -> list[tuple[float, list[int]]]:
        found: dict[Any, list[int]] = collections.defaultdict(list)
        times = [
            (time, n) for batch in batches for n, time in enumerate(batch[EVENT_TIME].cast(pa.int64()).to_pylist())
        ]
        if not isinstance(window_fn, Sessions):
            for time, n in times:
                for window in windows_of(window_fn, Timestamp(micros=time)):
                    found[window.start].append(n)
            return [(float(start), sorted(rows)) for start, rows in found.items()]
        start, end = None, None
        for time, n in sorted(times):
            if end is None or time >= end:
                start = Timestamp(micros=time)
            end = time + 5 * SECOND
            found[start].append(n)
        return [(float(start), sorted(rows)) for start, rows in found.items()]

    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        rows = pipeline | beam.Create(batches) | WindowRows(window_fn) | ExplodeRows()
        assert_that(per_window(rows), equal_to(one_by_one()))


@pytest.mark.parametrize(
    ("options", "late"),
    [
        ({}, []),
        (
            {
                "trigger": AfterWatermark(late=AfterCount(1)),
                "accumulation_mode": AccumulationMode.DISCARDING,
                "allowed_lateness": 100,
            },
            [(0.0, [1])],
        ),
    ],
    ids=["dropped", "allowed"],
)
def test_late_rows_are_late_and_the_others_of_their_batch_are_not(options: dict[str, Any], late: list[Any]) -> None:
    """FnApiRunner refuses TestStream; BundleBasedDirectRunner accepts it."""
    first, second = batch_of(2, 11), batch_of(14, 3, 25)
    stream = (
        test_stream.TestStream(coder=beam.coders.registry.get_coder(pa.RecordBatch))
        .advance_watermark_to(0)
        .add_elements([TimestampedValue(first, 2)])
        .advance_watermark_to(12)
        .add_elements([TimestampedValue(second, 3)])
        .advance_watermark_to_infinity()
    )
    streaming = PipelineOptions([])
    streaming.view_as(StandardOptions).streaming = True
    with beam.Pipeline(runner=BundleBasedDirectRunner(), options=streaming) as pipeline:
        rows = pipeline | stream | WindowRows(FixedWindows(10), **options) | ExplodeRows()
        assert_that(per_window(rows), equal_to([(0.0, [0]), (10.0, [0, 1]), (20.0, [2]), *late]))


def test_a_row_has_its_own_time_and_not_the_reserved_columns() -> None:
    batch = batch_of(2.5, 1).append_column("_sluice_message_id", pa.array(["a", "b"]))
    values = [(row.value, row.timestamp) for row in explode_rows(batch)]
    assert values == [({"n": 0}, Timestamp(2.5)), ({"n": 1}, Timestamp(1))]


def test_exploded_rows_keep_the_window_of_their_batch() -> None:
    def seen(row: dict[str, Any], time: Any = beam.DoFn.TimestampParam, window: Any = beam.DoFn.WindowParam) -> Any:
        return row["n"], float(time), float(window.start)

    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        rows = pipeline | beam.Create([batch_of(12, 2, 7)]) | WindowRows(FixedWindows(5)) | ExplodeRows()
        assert_that(rows | beam.Map(seen), equal_to([(0, 12.0, 10.0), (1, 2.0, 0.0), (2, 7.0, 5.0)]))


@pytest.mark.parametrize(
    ("batch", "reason"),
    [
        (pa.RecordBatch.from_pydict({"n": [1]}), "is missing"),
        (pa.RecordBatch.from_pydict({"n": [1], EVENT_TIME: pa.nulls(1, TIME)}), "is null in some"),
    ],
)
def test_rows_without_event_times_are_refused(batch: pa.RecordBatch, reason: str) -> None:
    with pytest.raises(SluiceError, match=reason):
        list(split_by_window(batch, FixedWindows(10)))
    with pytest.raises(SluiceError, match=reason):
        list(explode_rows(batch))
