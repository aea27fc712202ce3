"""`Predict` on Beam's in-process runner: rows, failures, windows, order."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.metrics import MetricsFilter
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms.window import FixedWindows, TimestampedValue

from sluice.models.batching.options import SchedulerOptions
from sluice.models.cache import ModelRecipe, clear_cache, shared_scheduler
from sluice.models.errors import ModelNotFound, NonePassed, TooManyFailures, UsageError
from sluice.models.interface import ModelOptions
from sluice.models.reserved import FILE, MESSAGE_ID
from sluice.models.saved_model.followed import Changes, FollowedModel, take_changes
from sluice.models.uri import ModelSpec, parse_model_uri
from sluice.transforms.core import metrics
from sluice.transforms.core.failures import FAILURES, Failure
from sluice.transforms.core.file_contents import FileInputs
from sluice.transforms.core.file_paths import PathRules
from sluice.transforms.predict.batches import PredictBatches
from sluice.transforms.predict.transform import Predict


def batch_of(values: list[float | None]) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array(values, pa.float32()), pa.array(range(len(values)))], names=["x", "n"])


@pytest.fixture
def recipe(cases: Callable[[str], str]) -> ModelRecipe:
    """A model that raises on any batch with a negative x; calls of at most 8 rows."""
    return ModelRecipe(parse_model_uri(cases("picky")), scheduler=SchedulerOptions(max_batch_size=8))


@pytest.fixture
def expected(cases: Callable[[str], str], recipe: ModelRecipe) -> Callable[[float], float]:
    from tests.support.saved_models.cases import CASES

    case = next(case for case in CASES if case.name == "picky")
    output = next(iter(case.expected([{"x": 1.0}])))
    return lambda x: float(case.expected([{"x": x}])[output][0])


def output_name(recipe: ModelRecipe) -> str:
    from sluice.models.cache import open_model

    return open_model(recipe.spec).signature.outputs[0].name


def test_rows_and_failures_of_many_batches(recipe: ModelRecipe, expected: Callable[[float], float]) -> None:
    batches = [batch_of([float(b), None, -1.0, *map(float, range(b))]) for b in range(12)]
    name = output_name(recipe)
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        result = pipeline | beam.Create(batches) | Predict(recipe)
        rows = (
            result.rows
            | beam.FlatMap(lambda batch: batch.to_pylist())
            | beam.Map(lambda r: (r["x"], round(r[name], 3)))
        )
        wanted = [
            (x, round(expected(x), 3)) for batch in batches for x in batch["x"].to_pylist() if x is not None and x >= 0
        ]
        assert_that(rows, equal_to(wanted), label="rows")
        stages = result.failures | beam.Map(lambda failure: failure.stage)
        assert_that(stages, equal_to(["bind"] * 12 + ["predict"] * 12), label="failures")


def test_each_batch_keeps_its_window_and_time(recipe: ModelRecipe) -> None:
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        result = (
            pipeline
            | beam.Create([1, 12, 13, 27])
            | beam.Map(lambda t: TimestampedValue(batch_of([float(t), -1.0]), t)).with_output_types(pa.RecordBatch)
            | beam.WindowInto(FixedWindows(10))
            | Predict(recipe)
        )

        def seen(element: object, window=beam.DoFn.WindowParam, time=beam.DoFn.TimestampParam):  # type: ignore[no-untyped-def]
            return int(window.start), int(time)

        wanted = [(0, 1), (10, 12), (10, 13), (20, 27)]
        assert_that(result.rows | "R" >> beam.Map(seen), equal_to(wanted), label="rows")
        assert_that(result.failures | "F" >> beam.Map(seen), equal_to(wanted), label="failures")


def test_model_and_version_stand_on_every_row(recipe: ModelRecipe) -> None:
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        result = pipeline | beam.Create([batch_of([1.0, 2.0])]) | Predict(recipe, output_prefix="p_")
        names = result.rows | beam.Map(lambda batch: batch.schema.names)
        assert_that(names, equal_to([["x", "n", f"p_{output_name(recipe)}", "_model", "_version"]]))


def test_columns_of_the_names_that_scoring_adds_are_refused(recipe: ModelRecipe) -> None:
    """A name that is there twice finds no column: nothing behind this step could take either."""
    fn = _started(recipe)
    for name, told in ((output_name(recipe), "give output_prefix"), ("_model", "rename them, or leave them out")):
        batch = batch_of([1.0]).append_column(name, pa.array(["before"]))
        with pytest.raises(UsageError, match=rf"\({name}\): {told}"):
            list(fn.process(batch, window=None, timestamp=0))
    assert fn._rows == 0


def test_rows_go_through_two_models_without_what_the_first_says_of_itself(recipe: ModelRecipe) -> None:
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        once = pipeline | beam.Create([batch_of([16.0, -1.0])]) | "First" >> Predict(recipe)
        without = beam.Map(lambda batch: batch.drop_columns(["_model", "_version"])).with_output_types(pa.RecordBatch)
        twice = once.rows | without | "Second" >> Predict(recipe, output_prefix="again_")
        name = output_name(recipe)
        names = twice.rows | beam.Map(lambda batch: batch.schema.names)
        assert_that(names, equal_to([["x", "n", name, f"again_{name}", "_model", "_version"]]))


def test_rows_come_out_in_order_and_no_more_than_some_are_in_work(recipe: ModelRecipe) -> None:
    fn = _started(recipe)
    emitted: list[pa.RecordBatch] = []
    for start in range(0, 400, 5):
        batch = pa.RecordBatch.from_pydict({"x": np.arange(start, start + 5, dtype=np.float32)})
        emitted += [value.value for value in fn.process(batch, window=None, timestamp=0)]
        assert fn._rows <= 4 * 8, "a bundle has few rows in work"
    emitted += [value.value for value in fn.finish_bundle()]
    assert [x for batch in emitted for x in batch["x"].to_pylist()] == list(range(400))


def test_a_bundle_that_fails_leaves_nothing_to_the_next(recipe: ModelRecipe) -> None:
    fn = _started(recipe)
    list(fn.process(batch_of([1.0] * 20), window=None, timestamp=0))
    fn.start_bundle()  # the bundle before failed without finish_bundle
    outputs = [*fn.process(batch_of([2.0]), window=None, timestamp=0), *fn.finish_bundle()]
    assert [output.value["x"].to_pylist() for output in outputs] == [[2.0]]
    assert fn._rows == 0


def test_failures_show_the_row(recipe: ModelRecipe) -> None:
    fn = _started(recipe)
    outputs = [*fn.process(batch_of([-5.0, 1.0]), window=None, timestamp=0), *fn.finish_bundle()]
    failure = next(each.value.value for each in outputs if isinstance(each, beam.pvalue.TaggedOutput))
    assert [each.tag for each in outputs if isinstance(each, beam.pvalue.TaggedOutput)] == [FAILURES]
    assert (failure.stage, failure.error_type, failure.payload) == ("predict", "BadInput", b'{"x":-5.0,"n":0}')
    assert failure.model == recipe.spec.uri


def test_failures_name_model_and_version(cases: Callable[[str], str], tmp_path: Path) -> None:
    """What does not fit the model, and what the model refuses."""
    base = str(tmp_path)
    shutil.copytree(cases("picky"), tmp_path / "3")
    fn = _started(ModelRecipe(ModelSpec(base, version=3)))
    outputs = [*fn.process(batch_of([-5.0, None, 1.0]), window=None, timestamp=0), *fn.finish_bundle()]
    failures = [each.value.value for each in outputs if isinstance(each, beam.pvalue.TaggedOutput)]
    assert [(each.stage, each.model, each.version) for each in failures] == [("predict", base, 3), ("bind", base, 3)]


def test_gauges_and_counters_reach_the_runner(recipe: ModelRecipe) -> None:
    pipeline = beam.Pipeline(runner=FnApiRunner())
    pipeline | beam.Create([batch_of([1.0, -1.0])]) | Predict(recipe)
    result = pipeline.run()
    result.wait_until_finish()
    found = result.metrics().query(MetricsFilter().with_namespace(metrics.NAMESPACE))
    assert {each.key.metric.name for each in found["gauges"]} >= {"calls_in_flight_limit", "pending_bytes"}
    counters = {each.key.metric.name: each.committed for each in found["counters"]}
    assert (counters["rows_predicted"], counters["rows_failed/predict/BadInput"]) == (1, 1)


def test_an_input_gets_what_is_in_files(cases: Callable[[str], str], tmp_path: Path) -> None:
    """Rows whose files cannot be read fail, in their windows; the others are scored, and what was read is not kept."""
    for number in range(100):
        (tmp_path / f"{number}.txt").write_bytes(b"a word " * (number + 1))
    names = [str(tmp_path / (f"{number}.txt" if number % 10 else "missing")) for number in range(100)]
    batch = pa.RecordBatch.from_pydict({"n": list(range(100)), "path": names})
    recipe = ModelRecipe(parse_model_uri(cases("sparse_output")))
    contents = FileInputs((("text", "path"),), PathRules(local=True), 1 << 20)
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        stamp = beam.Map(lambda time: TimestampedValue(batch, time)).with_output_types(pa.RecordBatch)
        windows = pipeline | beam.Create([12]) | stamp | beam.WindowInto(FixedWindows(10))
        result = windows | Predict(recipe, contents=contents)
        rows = result.rows | beam.FlatMap(lambda each: each.to_pylist())
        found = rows | beam.Map(lambda row: (row["n"], row["count"], sorted(row)))
        columns = sorted(["n", "path", "words", "count", "_model", "_version"])
        wanted = [(number, 2 * (number + 1), columns) for number in range(100) if number % 10]
        assert_that(found, equal_to(wanted), label="rows")

        def seen(failure: Failure, window=beam.DoFn.WindowParam):  # type: ignore[no-untyped-def]
            return failure.stage, failure.error_type, failure.payload.split(b",")[0], int(window.start)

        failed = [("read", "FileNotFoundError", b'{"n":%d' % number, 10) for number in range(0, 100, 10)]
        assert_that(result.failures | beam.Map(seen), equal_to(failed), label="failures")


def test_bad_messages_are_counted_once_each_however_often_they_come(recipe: ModelRecipe) -> None:
    """One bad message on a quiet subscription ends no stream; a thousand, without one that passes, end it."""
    clear_cache()
    fn = _started(recipe, is_endless=True)

    def deliver(message: int) -> None:
        batch = batch_of([-1.0]).append_column(FILE, pa.array(["s"]))
        fn.start_bundle()
        list(fn.process(batch.append_column(MESSAGE_ID, pa.array([str(message)])), window=None, timestamp=0))
        list(fn.finish_bundle())

    for message in (*[0] * 1100, *range(999)):
        with pytest.raises(NonePassed, match="has not answered yet"):
            deliver(message)
    with pytest.raises(TooManyFailures, match="all 1000 rows of the first"):
        deliver(999)


def test_a_model_that_is_not_there_fails_in_setup() -> None:
    with pytest.raises(ModelNotFound, match="/nowhere"):
        _started(ModelRecipe(parse_model_uri("/nowhere")))


def test_versions_that_a_model_went_to_or_rejected_are_counted(cases: Callable[[str], str], tmp_path: Path) -> None:
    from sluice.models.files import LocalFiles

    shutil.copytree(cases("picky"), tmp_path / "1")
    followed = ModelRecipe(ModelSpec(str(tmp_path)), ModelOptions(poll_secs=3600.0))
    try:
        model = shared_scheduler(followed, LocalFiles()).model
        assert isinstance(model, FollowedModel)
        for directory in (cases("picky"), cases("no_variables")):  # the latter has another signature
            shutil.copytree(directory, tmp_path / str(len(os.listdir(tmp_path)) + 1))
            for _ in range(2):
                model.poll()
        pipeline = beam.Pipeline(runner=FnApiRunner())
        result = pipeline | beam.Create([batch_of([1.0])]) | Predict(followed)
        versions = result.rows | beam.Map(lambda batch: batch["_version"].to_pylist())
        assert_that(versions, equal_to([[2]]))
        metrics = pipeline.run().metrics().query()
        counters = {each.key.metric.name: each.committed for each in metrics["counters"]}
        assert (counters["model_swaps"], counters["model_versions_rejected"]) == (1, 1)
        loads = [each for each in metrics["distributions"] if each.key.metric.name == "model_load_msec"]
        assert [each.committed.count for each in loads] == [2]  # of the first version and of the next
        assert take_changes(model) == Changes()
    finally:
        clear_cache()  # ends the thread that polls for versions


def _started(recipe: ModelRecipe, is_endless: bool = False) -> PredictBatches:
    from sluice.models.files import LocalFiles

    fn = PredictBatches(recipe, "", LocalFiles(), is_endless)
    fn.setup()
    fn.start_bundle()
    return fn
