"""`Predict` on dicts, NamedTuples and beam.Rows."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms.window import FixedWindows, TimestampedValue

from sluice.models.batching.options import SchedulerOptions
from sluice.models.cache import ModelRecipe
from sluice.models.errors import UsageError
from sluice.models.files import LocalFiles
from sluice.models.uri import parse_model_uri
from sluice.transforms.predict.batches import Work
from sluice.transforms.predict.rows import PredictRows
from sluice.transforms.predict.transform import Predict


class Point(NamedTuple):
    x: float
    k: str


@pytest.fixture
def model(cases: Callable[[str], str]) -> str:
    """Takes the root of x, and raises on any batch with a negative x."""
    return cases("picky")


def started(model: str, **options: int) -> PredictRows:
    recipe = ModelRecipe(parse_model_uri(model), scheduler=SchedulerOptions(**options))
    fn = PredictRows(recipe, "", LocalFiles(), False)
    fn.setup()
    fn.start_bundle()
    return fn


def outcome(fn: PredictRows, rows: list[Any]) -> tuple[list[Any], list[Any]]:
    """Returns the predictions and the failures of a bundle."""
    made = [value for row in rows for value in fn.process(row, "window", 0)] + list(fn.finish_bundle())
    failures = [each.value.value for each in made if isinstance(each, beam.pvalue.TaggedOutput)]
    return [each.value for each in made if not isinstance(each, beam.pvalue.TaggedOutput)], failures


def test_rows_of_every_kind_in_a_pipeline(model: str) -> None:
    """Each row keeps its window, and what it is."""
    rows = [{"x": 4.0, "k": "a"}, Point(9.0, "b"), beam.Row(x=16.0, k="c"), {"x": -1.0, "k": "d"}, {"k": "e"}]
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        result = (
            pipeline
            | beam.Create(list(enumerate(rows)))
            | beam.MapTuple(lambda place, row: TimestampedValue(row, 10 * place))
            | beam.WindowInto(FixedWindows(10))
            | Predict(model)
        )

        def seen(row, window=beam.DoFn.WindowParam, time=beam.DoFn.TimestampParam):  # type: ignore[no-untyped-def]
            fields = row if isinstance(row, dict) else row.as_dict()
            return type(row).__name__, fields["k"], fields["root"], "_version" in fields, int(window.start), int(time)

        wanted = [
            ("dict", "a", 2.0, True, 0, 0),
            ("Row", "b", 3.0, True, 10, 10),
            ("Row", "c", 4.0, True, 20, 20),
        ]
        assert_that(result.rows | beam.Map(seen), equal_to(wanted), label="rows")
        failed = result.failures | "Failed" >> beam.Map(
            lambda failure, window=beam.DoFn.WindowParam: (failure.stage, failure.payload, int(window.start))
        )
        bad = [("predict", b'{"x":-1.0,"k":"d"}', 30), ("bind", b'{"k":"e"}', 40)]
        assert_that(failed, equal_to(bad), label="failures")


def test_a_bundle_goes_in_few_calls_and_leaves_nothing_to_the_next(model: str) -> None:
    fn = started(model, max_batch_size=64)
    good, bad = outcome(fn, [{"x": float(x)} for x in range(200)])
    assert [row["x"] for row in good] == list(range(200)) and not bad
    list(fn.process({"x": 1.0}, "window", 0))
    fn.start_bundle()  # the bundle before failed
    assert [row["x"] for row in outcome(fn, [{"x": 2.0}])[0]] == [2.0]


def test_large_rows_do_not_gather(model: str) -> None:
    fn = started(model, max_batch_bytes=1000)
    assert not list(fn.process({"x": 1.0, "more": b"x" * 900}, "window", 0)) and len(fn._gathered) == 1
    list(fn.process({"x": 2.0, "more": np.zeros(100)}, "window", 0))
    assert not fn._gathered


def test_all_fields_of_rows_count_towards_what_may_wait(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fn = started(model, max_batch_bytes=1000)
    works: list[Work] = []

    def add(work: Work) -> Iterator[Any]:
        works.append(work)
        yield from ()

    monkeypatch.setattr(fn, "_add", add)
    assert not list(fn.process({"x": 1.0, "more": b"x" * 1000}, "window", 0))
    assert [work.nbytes > 1000 for work in works] == [True]


def test_rows_that_are_no_columns_fail_alone(model: str) -> None:
    good, bad = outcome(started(model), [{"x": "one"}, {"x": 4.0}, {"x": [1.0, 2.0]}, 9.0])
    assert [(row["x"], row["root"]) for row in good] == [(4.0, 2.0), (9.0, 3.0)]
    assert [failure.payload for failure in bad] == [b'{"x":"one"}', b'{"x":[1.0,2.0]}']
    assert {failure.stage for failure in bad} == {"bind"}
    assert bad[0].model == model and "column 'x'" in bad[0].error_message


def test_a_field_of_the_name_of_an_output_needs_a_prefix(model: str) -> None:
    with pytest.raises(UsageError, match=r"names of the model's outputs \(root\): give output_prefix"):
        outcome(started(model), [{"x": 1.0, "root": 1.0}])
    with pytest.raises(UsageError, match=r"\(_version\): rename them, or leave them out; output_prefix does not"):
        outcome(started(model), [{"x": 1.0, "_version": 1}])


def test_batches_whose_type_nobody_told_are_taken_as_they_are(model: str) -> None:
    good, bad = outcome(started(model), [pa.RecordBatch.from_pydict({"x": [4.0, -1.0]})])
    assert [batch["root"].to_pylist() for batch in good] == [[2.0]]
    assert [failure.stage for failure in bad] == ["predict"]
