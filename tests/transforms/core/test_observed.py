"""What a process notes of the rows that pass: each column, how many rows when, and at what price."""

import pickle

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.models.reserved import FED
from sluice.models.signature import Signature, TensorSpec
from sluice.transforms.core.observe import Watched, watched_columns
from sluice.transforms.core.observed import MAX_COLUMNS, Budget, Columns, Observed, Timeline
from sluice.transforms.core.outputs import MODEL_COLUMN, VERSION_COLUMN


class Clock:
    """Seconds that go on by so many with each look."""

    def __init__(self, step: float = 0.0, start: float = 0.0) -> None:
        self.now, self.step = start, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def rows(count: int) -> pa.RecordBatch:
    numbers = list(range(count))
    return pa.RecordBatch.from_pydict(
        {
            "age": [str(number) for number in numbers],
            FED + "age": numbers,
            "name": ["x"] * count,
            "score": [0.5] * count,
            MODEL_COLUMN: ["m"] * count,
            VERSION_COLUMN: pa.array([3] * count, pa.int64()),
        }
    )


def test_inputs_are_what_the_model_is_fed_and_outputs_have_their_versions() -> None:
    seen = Observed(Clock(), Clock(start=1000.0), Clock())
    seen.see_inputs(rows(5), ["age", "name", "missing"])
    seen.see_outputs(rows(4), ["score"])
    assert {name: sketch.values for name, sketch in seen.record.inputs.sketches.items()} == {
        "age": dict.fromkeys(range(5), 1)
    }
    assert {name: sketch.values for name, sketch in seen.record.outputs.sketches.items()} == {"score": {0.5: 4}}
    assert (seen.record.inputs.rows, seen.record.outputs.rows, seen.record.versions) == (5, 4, {3: 4})
    assert seen.record.timeline.points() == [(0.0, 4)]


def test_batches_are_left_out_when_they_have_cost_what_the_rows_have_earned() -> None:
    """A look takes 10 ms here; 0.02 us a row pays for one in 500,000 rows, once the first looks are paid for."""
    seen = Observed(Clock(), Clock(), Clock(step=0.01))
    batch = rows(1000)
    looked = []
    for _ in range(700):
        before = seen.record.inputs.sketched
        seen.see_inputs(batch, ["age"])
        looked.append(seen.record.inputs.sketched > before)
    assert all(looked[:4]) and not any(looked[4:300])
    assert seen.record.inputs.rows == 700_000
    assert sum(looked) * 0.01 <= 0.04 + 700_000 * 0.03e-6


def test_a_stream_pays_with_a_share_of_its_time() -> None:
    clock = Clock()
    budget = Budget(clock)
    budget.spend(1.0)
    assert not budget.allows(1)
    clock.now += 100
    assert not budget.allows(1)
    clock.now += 1000
    assert budget.allows(1)


def test_of_long_lists_some_rows_are_looked_at() -> None:
    seen = Observed(Clock(), Clock(), Clock())
    pixels = pa.RecordBatch.from_pydict({"pixels": [[1.0] * 1000] * 100})
    seen.see_inputs(pixels, ["pixels"])
    assert seen.record.inputs.sketches["pixels"].count == 16_000
    assert seen.record.inputs.shortened


def test_of_a_slice_of_lists_only_its_own_values_count() -> None:
    seen = Observed(Clock(), Clock(), Clock())
    many = pa.RecordBatch.from_pydict({"pixels": [[1.0] * 10] * 10_000})
    seen.see_inputs(many.slice(0, 1000), ["pixels"])
    assert seen.record.inputs.sketches["pixels"].count == 10_000
    assert not seen.record.inputs.shortened


def test_an_empty_batch_is_no_harm() -> None:
    seen = Observed(Clock(), Clock(), Clock())
    seen.see_inputs(rows(0), ["age"])
    seen.see_outputs(rows(0), ["score"])
    assert not seen.record.inputs.sketches and not seen.record.outputs.sketches


def test_columns_are_merged() -> None:
    def columns(*values: int) -> Columns:
        made = Columns(rows=10)
        made.add([("a", pa.array(values))], len(values))
        return made

    merged = columns(1, 2)
    merged.merge(pickle.loads(pickle.dumps(columns(2, 3, 4))))
    assert (merged.rows, merged.sketched, merged.sketches["a"].values) == (20, 5, {1.0: 1, 2.0: 2, 3.0: 1, 4.0: 1})


EVENTS = st.lists(st.tuples(st.floats(0, 1e6), st.integers(0, 1000)), max_size=60)


@given(EVENTS, EVENTS)
def test_a_timeline_keeps_every_row_in_few_steps(one: list[tuple[float, int]], other: list[tuple[float, int]]) -> None:
    def timeline(events: list[tuple[float, int]]) -> Timeline:
        made = Timeline()
        for seconds, count in events:
            made.add(1.7e9 + seconds, count)
        return made

    merged = timeline(one)
    merged.merge(timeline(other))
    assert sum(count for _, count in merged.points()) == sum(count for _, count in one + other)
    assert len(merged.points()) <= 240
    at_once = timeline(one + other)
    if merged.step_secs == at_once.step_secs:
        assert merged.points() == at_once.points()


def test_steps_without_rows_are_zero() -> None:
    timeline = Timeline()
    timeline.add(100.0, 5)
    timeline.add(100.6, 7)
    assert timeline.points() == [(0.0, 5), (0.25, 0), (0.5, 7)]


def test_what_is_watched_are_numbers_under_their_names_in_batches() -> None:
    inputs = (TensorSpec("age", "int64", (None,)), TensorSpec("name", "string", (None,)))
    outputs = (TensorSpec("score", "float32", (None, 1)), TensorSpec("label", "string", (None,)))
    signature = Signature("serving_default", "predict", inputs, outputs)
    assert watched_columns(signature, "p_") == Watched(("age",), ("p_score",))
    many = tuple(TensorSpec(f"x{number}", "bool", (None,)) for number in range(2 * MAX_COLUMNS))
    assert len(watched_columns(Signature("s", "predict", many, outputs), "").inputs) == MAX_COLUMNS


@pytest.mark.parametrize("count", [1, 3])
def test_versions_are_counted_also_where_a_model_has_none(count: int) -> None:
    seen = Observed(Clock(), Clock(), Clock())
    batch = rows(count)
    index = batch.schema.get_field_index(VERSION_COLUMN)
    seen.see_outputs(batch.set_column(index, VERSION_COLUMN, pa.nulls(count, pa.int64())), ["score"])
    seen.see_outputs(batch, ["score"])
    assert seen.record.versions == {None: count, 3: count}
