"""A Sluice model inside Beam's RunInference."""

from __future__ import annotations

import gc
import importlib.util
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.ml.inference.base import KeyedModelHandler, ModelMetadata, PredictionResult, RunInference
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.utils.multi_process_shared import MultiProcessShared

from sluice.models.batching.mini_batch import RowFailure
from sluice.models.batching.options import SchedulerOptions
from sluice.models.batching.scheduler import Scheduler
from sluice.models.cache import ModelRecipe, clear_cache
from sluice.models.errors import Cancelled, ModelLost, ModelNotFound, RowsFailed, UsageError
from sluice.models.interface import ModelOptions, Outputs
from sluice.models.tensors.binding import Feeds
from sluice.models.uri import parse_model_uri
from sluice.transforms import model_handler
from sluice.transforms.model_handler import LoadedModel, SluiceModelHandler, predict_rows
from tests.support.fakes import FakeModel, x_feeds
from tests.support.saved_models.cases import CASES
from tests.support.serving.backends import BACKENDS, Uris

PLAIN = [case for case in CASES if case.example_spec is None and case.name not in ("ragged_output", "scalar_output")]


def recipe_of(case: Any, directory: str) -> ModelRecipe:
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
    with pytest.raises(RowsFailed, match=r"2 of 3 rows cannot be predicted: 1, 2. The first is row 1: Inv") as caught:
        handler.run_inference([{"x": 1}, {}, {}], LoadedModel(model))
    assert [(failure.row, failure.stage) for failure in caught.value.failures] == [(1, "bind"), (2, "bind")]
    model.close()


def test_the_process_of_a_model_that_is_lost_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each further batch of a worker would fail likewise, for as long as it lives."""
    ended: list[tuple[str, bool]] = []
    monkeypatch.setattr(model_handler, "replace_worker", lambda error, private: ended.append((str(error), private)))

    def lose(feeds: Feeds) -> Outputs:
        raise ModelLost("its session is closed")

    model = Scheduler(FakeModel(lose), SchedulerOptions())
    handler = SluiceModelHandler(ModelRecipe(parse_model_uri("m")), on_failure="return")
    with pytest.raises(ModelLost, match="session is closed"):
        handler.run_inference([{"x": 1}], LoadedModel(model, private=True))
    assert ended == [("its session is closed", True)]
    model.close()


def test_nothing_that_a_row_has_is_a_column() -> None:
    model = scheduler()
    assert all(isinstance(result, RowFailure) for result in predict_rows([{"z": 1}, {}], model))
    model.close()


def test_what_cannot_be() -> None:
    recipe = ModelRecipe(parse_model_uri("m"))
    with pytest.raises(UsageError, match="on_failure is 'ignore'"):
        SluiceModelHandler(recipe, on_failure="ignore")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="ftp"):
        SluiceModelHandler("ftp://m")
    with pytest.raises(UsageError, match="ftp"):
        SluiceModelHandler(recipe).update_model_path("ftp://m")


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


class Tensor:
    """A tensor as TensorFlow's are: with a method that returns its array."""

    def __init__(self, *values: float) -> None:
        self._array = np.array(values)

    def numpy(self) -> np.ndarray:
        return self._array


class Point(NamedTuple):
    x: int


EXAMPLES: dict[str, list[Any]] = {
    "arrays": [np.array([1]), np.array([10]), np.array([100])],
    "tensors": [Tensor(1), Tensor(10), Tensor(100)],
    "values": [1, np.int64(10), 100.0],
    "dicts": [{"x": Tensor(1)}, {"x": np.array(10)}, {"x": 100}],
    "NamedTuples": [Point(1), Point(10), Point(100)],
    "Rows": [beam.Row(x=1), beam.Row(x=10), beam.Row(x=np.array([100]))],
}


@pytest.mark.parametrize("examples", EXAMPLES.values(), ids=EXAMPLES)
def test_examples_of_every_kind(examples: list[Any]) -> None:
    model = scheduler()
    results = list(SluiceModelHandler("m").run_inference(examples, LoadedModel(model)))
    assert [result.inference["y"] for result in results] == [2, 20, 200]
    assert all(result.example is example for result, example in zip(results, examples, strict=True))
    assert SluiceModelHandler("m").get_num_bytes(examples) == 24
    model.close()


@pytest.mark.parametrize("examples", EXAMPLES.values(), ids=EXAMPLES)
def test_keyed_examples(examples: list[Any]) -> None:
    model = scheduler()
    keyed = [(f"k{place}", example) for place, example in enumerate(examples)]
    results = list(KeyedModelHandler(SluiceModelHandler("m")).run_inference(keyed, LoadedModel(model)))
    assert [(key, result.inference["y"]) for key, result in results] == [("k0", 2), ("k1", 20), ("k2", 200)]
    model.close()


class OfTwo(SluiceModelHandler):
    """Accepts batches of two examples, in the environment that it asked for."""

    def run_inference(
        self, batch: Sequence[Any], model: LoadedModel, inference_args: dict[str, Any] | None = None
    ) -> Iterable[PredictionResult]:
        assert len(batch) == 2, batch
        assert os.environ["SLUICE_TEST"] == "bar"
        return super().run_inference(batch, model, inference_args)


def test_beams_own_arguments_are_heeded_and_a_side_input_changes_the_model(
    cases: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLUICE_TEST", "")  # and takes away what the handler sets
    handler = OfTwo(cases("picky"), min_batch_size=2, max_batch_size=2, env_vars={"SLUICE_TEST": "bar"})
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        other = pipeline | "Other" >> beam.Create([ModelMetadata(model_id=cases("unknown_rank"), model_name="other")])
        results = (
            pipeline
            | beam.Create([4.0, 9.0, 16.0, 25.0], reshuffle=False)
            | RunInference(handler, model_metadata_pcoll=other)
        )
        found = results | beam.Map(lambda result: (result.example, float(result.inference["doubled"]), result.model_id))
        wanted = [(x, 2 * x, cases("unknown_rank")) for x in (4.0, 9.0, 16.0, 25.0)]
        assert_that(found, equal_to(wanted))


def test_a_model_that_a_side_input_brought_is_closed_when_beam_drops_it(cases: Callable[[str], str]) -> None:
    handler = SluiceModelHandler(ModelRecipe(parse_model_uri(cases("picky")), ModelOptions(warm_up=False)))
    for same_model in (None, "", cases("picky")):
        handler.update_model_path(same_model)
    first = handler.load_model()
    handler.update_model_path(cases("unknown_rank"))
    loaded = handler.load_model()
    assert loaded.uri() == cases("unknown_rank") and loaded.predict([2.0])[0] == {"doubled": 4.0}
    brought = loaded.scheduler
    del loaded
    gc.collect()
    with pytest.raises(Cancelled):
        brought.submit(x_feeds(1))
    assert first.predict([4.0])[0] == {"root": 2.0}, "the one that the handler was made with stays"
    clear_cache()


def test_a_model_that_is_not_there_leaves_the_handler_as_it_was(tmp_path: Path) -> None:
    handler = SluiceModelHandler(str(tmp_path))
    with pytest.raises(ModelNotFound):
        handler.load_model()
    handler.update_model_path(str(tmp_path / "other"))
    with pytest.raises(ModelNotFound, match="other"):
        handler.load_model()


def test_inference_args_are_refused() -> None:
    handler = SluiceModelHandler("m")
    model = scheduler()
    for refuse in (
        lambda: handler.run_inference([1], LoadedModel(model), {"add": True}),
        lambda: KeyedModelHandler(handler).validate_inference_args({"add": True}),
        lambda: beam.Pipeline() | beam.Create([1]) | RunInference(handler, inference_args={"add": True}),
    ):
        with pytest.raises(UsageError, match="inference_args add"):
            refuse()
    handler.validate_inference_args({})
    handler.run_inference([1], LoadedModel(model), {})
    model.close()


@pytest.mark.parametrize("argument", ["load_model_args", "custom_weights", "inference_fn", "max_batch"])
def test_what_a_model_is_loaded_with_stands_in_its_recipe(argument: str) -> None:
    """Beam's ModelHandler ignores arguments that it does not know."""
    with pytest.raises(UsageError, match=f"no argument {argument}; what a model is loaded with stands in ModelOptions"):
        SluiceModelHandler("m", **{argument: None})


def test_the_options_of_a_recipe_reach_the_model(cases: Callable[[str], str]) -> None:
    options = ModelOptions(defaults=(("x", 4.0),))
    handler = SluiceModelHandler(ModelRecipe(parse_model_uri(cases("picky")), options))
    loaded = handler.load_model()
    assert loaded.predict([{"x": None}])[0] == {"root": 2.0}
    clear_cache()


# What the tests of Beam's handlers for TensorFlow assert (apache_beam/ml/inference/tensorflow_inference_test.py, by
# their names in Beam 2.77), and which test here asserts it of ours.
OF_BEAM: dict[str, Callable[..., None]] = {
    "test_predict_numpy": test_examples_of_every_kind,
    "test_predict_tensor": test_examples_of_every_kind,
    "test_predict_tensor_with_batch_size": test_beams_own_arguments_are_heeded_and_a_side_input_changes_the_model,
    "test_predict_numpy_with_batch_size": test_beams_own_arguments_are_heeded_and_a_side_input_changes_the_model,
    "test_predict_tensor_with_large_model": test_a_model_is_shared_with_other_processes,
    "test_predict_numpy_with_large_model": test_a_model_is_shared_with_other_processes,
    "test_predict_tensor_with_args": test_inference_args_are_refused,
    "test_predict_keyed_numpy": test_keyed_examples,
    "test_predict_keyed_tensor": test_keyed_examples,
    "test_load_model_exception": test_a_model_that_is_not_there_leaves_the_handler_as_it_was,
    "test_load_model_args": test_what_a_model_is_loaded_with_stands_in_its_recipe,
    "test_load_model_with_args_and_custom_weights": test_the_options_of_a_recipe_reach_the_model,
    "test_env_vars_set_correctly_tensor": test_beams_own_arguments_are_heeded_and_a_side_input_changes_the_model,
    "test_env_vars_set_correctly_numpy": test_beams_own_arguments_are_heeded_and_a_side_input_changes_the_model,
}


def test_each_test_of_beams_has_one_here() -> None:
    found = importlib.util.find_spec("apache_beam.ml.inference")
    assert found is not None and found.submodule_search_locations
    path = Path(found.submodule_search_locations[0]) / "tensorflow_inference_test.py"
    if not path.exists():
        pytest.skip(f"this Beam comes without its tests: no {path.name}")
    assert set(re.findall(r"def (test_\w+)", path.read_text())) == set(OF_BEAM)
