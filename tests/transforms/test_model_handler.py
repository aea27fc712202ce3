"""A Sluice model inside Beam's RunInference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.ml.inference.base import RunInference
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.utils.multi_process_shared import MultiProcessShared

from sluice.models.batching.mini_batch import RowFailure
from sluice.models.batching.options import SchedulerOptions
from sluice.models.batching.scheduler import Scheduler
from sluice.models.cache import ModelRecipe, clear_cache
from sluice.models.errors import CallError, UsageError
from sluice.models.signature import Signature, TensorSpec
from sluice.models.tensors.binding import bind
from sluice.models.uri import parse_model_uri
from sluice.transforms.model_handler import LoadedModel, SluiceModelHandler, predict_rows, to_batch
from tests.support.fakes import FakeModel
from tests.support.saved_models.cases import CASES
from tests.support.serving.backends import BACKENDS, Uris

PLAIN = [case for case in CASES if case.example_spec is None and case.name not in ("ragged_output", "scalar_output")]


def recipe_of(case: Any, directory: str) -> ModelRecipe:
    from sluice.models.interface import ModelOptions

    return ModelRecipe(parse_model_uri(directory), ModelOptions(signature=case.signature))


def plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    return value


def same(found: Any, wanted: Any) -> bool:
    found, wanted = plain(found), plain(wanted)
    if isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(same, found, wanted))
    return bool(found == (pytest.approx(wanted, rel=1e-5, abs=1e-6) if isinstance(wanted, float) else wanted))


@pytest.mark.parametrize("case", PLAIN, ids=lambda case: case.name)
def test_rows_of_every_kind_of_model(case: Any, cases: Callable[[str], str]) -> None:
    handler = SluiceModelHandler(recipe_of(case, cases(case.name)))
    model = handler.load_model()
    results = list(handler.run_inference(case.rows, model))
    assert handler.load_model().scheduler is model.scheduler
    clear_cache()
    for name, wanted in case.expected(case.rows).items():
        for result, value in zip(results, wanted, strict=True):
            assert same(result.inference[name], value), (name, result.inference[name], value)
    assert [result.example for result in results] == case.rows
    assert {result.model_id for result in results} == {cases(case.name)}


@pytest.mark.parametrize("backend", BACKENDS)
def test_named_inputs_in_a_run_inference_pipeline(backend: str, uris: Uris) -> None:
    case = next(case for case in CASES if case.name == "tf2_function")
    wanted = case.expected(case.rows)["points"]
    handler = SluiceModelHandler(recipe_of(case, uris(backend, case.name)), min_batch_size=2, max_batch_size=2)
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        found = (
            pipeline | beam.Create(case.rows) | RunInference(handler) | beam.Map(lambda r: plain(r.inference["points"]))
        )
        assert_that(found, equal_to(wanted, equals_fn=lambda a, b: same(b, a)))


def scheduler() -> Scheduler:
    return Scheduler(FakeModel(), SchedulerOptions())


def test_a_model_of_one_column_takes_the_value_itself() -> None:
    model = scheduler()
    results = predict_rows([1, np.int64(2), {"x": 3}, [4], np.array([5])], model)
    assert [result["y"] for result in results] == [2, 4, 6, 8, 10]  # type: ignore[index]
    model.close()


def test_rows_that_do_not_fit_fail_alone_where_failures_are_returned() -> None:
    model = scheduler()
    rows = [{"x": 1}, {"x": "one"}, {}, {"x": None}, {"x": [1, 2]}, {"x": 6}]
    results = predict_rows(rows, model)
    assert [isinstance(result, RowFailure) for result in results] == [False, True, True, True, True, False]
    assert "column 'x'" in results[1].message and "int64" in results[1].message  # type: ignore[union-attr]
    handler = SluiceModelHandler(ModelRecipe(parse_model_uri("m")), on_failure="return")
    assert [result.inference for result in handler.run_inference(rows, LoadedModel(model))][1:5] == results[1:5]
    model.close()


def test_else_they_fail_the_batch() -> None:
    model = scheduler()
    handler = SluiceModelHandler(ModelRecipe(parse_model_uri("m")))
    with pytest.raises(
        CallError, match=r"2 of 3 rows cannot be predicted; the first is row 1 of the batch: InvalidRow"
    ):
        handler.run_inference([{"x": 1}, {}, {}], LoadedModel(model))
    model.close()


def test_nothing_that_a_row_has_is_a_column() -> None:
    model = scheduler()
    assert all(isinstance(result, RowFailure) for result in predict_rows([{"z": 1}, {}], model))
    model.close()


def test_what_cannot_be() -> None:
    recipe = ModelRecipe(parse_model_uri("m"))
    with pytest.raises(UsageError, match="on_failure is 'ignore'"):
        SluiceModelHandler(recipe, on_failure="ignore")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="cannot be changed to other"):
        SluiceModelHandler(recipe).update_model_path("other")
    SluiceModelHandler(recipe).update_model_path(None)


def test_bytes_are_reckoned_without_pickling() -> None:
    handler = SluiceModelHandler(ModelRecipe(parse_model_uri("m")))
    assert handler.get_num_bytes([{"x": np.zeros(10), "s": "abc"}, {"x": 1}, b"12"]) == 80 + 3 + 8 + 2


@pytest.mark.parametrize("beside", [[], [1], [0.5], ["text"]], ids=str)
@pytest.mark.parametrize(
    ("dtype", "value", "bound"),
    [
        ("int64", 2.7, None),
        ("int64", 2.0, 2),
        ("int64", (1 << 53) + 1, (1 << 53) + 1),
        ("int64", 1 << 63, None),
        ("int64", True, None),
        ("uint8", 300, None),
        ("uint64", (1 << 64) - 1, (1 << 64) - 1),
        ("float32", 1e39, None),
        ("float32", 20240101, 20240100.0),
        ("float32", (1 << 53) + 1, 9007199254740992.0),
        ("float32", float("inf"), float("inf")),
        ("float64", 53.3, 53.3),
        ("float64", 1 << 2000, None),
        ("float32", "53.3", None),
    ],
)
@pytest.mark.parametrize("length", [0, 1, 2])
def test_values_are_bound_as_in_a_batch_job(dtype: str, value: Any, bound: Any, beside: list[Any], length: int) -> None:
    """The rows beside it decide in what type pyarrow holds the column. They change nothing."""
    shape = (None, length) if length else (None,)
    signature = Signature("s", "", (TensorSpec("x", dtype, shape),), (TensorSpec("y", dtype, (None,)),))
    cells = [{"x": [each] * length if length else each} for each in (value, *beside)]
    batch, misfits = to_batch(cells, signature)
    found = bind(batch, signature)
    assert (0 in found.errors or 0 in misfits) == (bound is None)
    if bound is not None:
        assert np.asarray(found.groups[0].feeds["x"])[0].tolist() == ([bound] * length if length else bound)


def test_a_model_is_shared_with_other_processes(cases: Callable[[str], str]) -> None:
    case = next(case for case in CASES if case.name == "tf2_function")
    handler = SluiceModelHandler(recipe_of(case, cases(case.name)), large_model=True)
    shared = MultiProcessShared(handler.load_model, tag="sluice-test", always_proxy=True)
    proxy = shared.acquire()
    results = list(handler.run_inference(case.rows, proxy))
    shared.release(proxy)
    clear_cache()
    assert same([result.inference["points"] for result in results], case.expected(case.rows)["points"])
    assert {result.model_id for result in results} == {cases(case.name)}
