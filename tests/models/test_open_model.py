"""Every kind of SavedModel, from its URI to its predictions: open_model, bind, Scheduler."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from sluice.models.batching.options import SchedulerOptions
from sluice.models.batching.scheduler import Scheduler
from sluice.models.cache import open_model
from sluice.models.errors import BadInput, ModelNotFound, SignatureError
from sluice.models.interface import Model, ModelOptions
from sluice.models.protos import message_class
from sluice.models.signature import ColumnSpec
from sluice.models.tensors import tfrecord
from tests.support.fakes import PATIENCE_SECS
from tests.support.saved_models.cases import CASES, ModelCase
from tests.support.saved_models.rows import batch_of
from tests.support.serving.backends import BACKENDS, Uris, is_refused, servable_outputs

BY_NAME = {case.name: case for case in CASES}
Directories = Callable[[str], str]


@contextmanager
def opened(directory: str, **options: Any) -> Iterator[Model]:
    model = open_model(directory, ModelOptions(**options))
    try:
        yield model
    finally:
        model.close()


def options_of(case: ModelCase, backend: str, cases: Directories) -> dict[str, Any]:
    """Returns options that name the outputs if the model has some that the backend cannot serve."""
    return {"signature": case.signature, "outputs": servable_outputs(case, backend, cases(case.name))}


def predict(
    model: Model, batch: pa.RecordBatch, options: SchedulerOptions | None = None
) -> tuple[dict[int, dict[str, Any]], dict[int, str]]:
    """Returns the outputs of each predicted row, and the reasons of the failed ones."""
    scheduler = Scheduler(model, options or SchedulerOptions())
    bound = model.bind(batch)
    failures, answers = dict(bound.errors), {}
    tickets = [(group, scheduler.submit(group.feeds)) for group in bound.groups]
    for group, ticket in tickets:
        prediction = ticket.future.result(PATIENCE_SECS)
        numbers = np.arange(group.size) if group.rows is None else group.rows
        failures |= {int(numbers[row]): failure.message for row, failure in prediction.failures.items()}
        good = numbers if prediction.rows is None else numbers[prediction.rows]
        lists = {name: _to_list(array) for name, array in prediction.arrays.items()}
        answers |= {int(row): {n: values[k] for n, values in lists.items()} for k, row in enumerate(good)}
        assert sum(count for count, _ in prediction.versions) == len(good)
    scheduler.close()
    return answers, failures


def _to_list(array: Any) -> list[Any]:
    return array.to_pylist() if isinstance(array, pa.Array) else array.tolist()


def differs(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, list):
        return len(found) != len(wanted) or any(differs(a, b) for a, b in zip(found, wanted, strict=True))
    return not math.isclose(found, wanted, rel_tol=1e-6) if isinstance(wanted, float) else found != wanted


def check(
    case: ModelCase, answers: dict[int, dict[str, Any]], rows: list[dict[str, Any]], outputs: Sequence[str] = ()
) -> None:
    wanted = case.expected(rows)
    for name in outputs or wanted:
        found = [answers[row][name] for row in range(len(rows))]
        assert not differs(found, wanted[name]), (name, found, wanted[name])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_kind_of_model_is_opened_bound_and_called(
    case: ModelCase, backend: str, cases: Directories, uris: Uris
) -> None:
    options = options_of(case, backend, cases)
    if is_refused(case.name, backend):
        with pytest.raises(SignatureError, match=r"REST.*use grpc://"):
            open_model(uris(backend, case.name), ModelOptions(**options))
        return
    with opened(uris(backend, case.name), **options) as model:
        rows = case.rows[::-1] + case.rows
        answers, failures = predict(model, batch_of(case, rows, model.signature))
        assert failures == {}
        check(case, answers, rows, options["outputs"])
        assert all(set(row) == {spec.name for spec in model.signature.outputs} for row in answers.values())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", [case for case in CASES if case.poison], ids=lambda case: case.name)
def test_a_poisoned_row_fails_alone(case: ModelCase, backend: str, cases: Directories, uris: Uris) -> None:
    assert case.poison is not None
    options = options_of(case, backend, cases)
    with opened(uris(backend, case.name), **options) as model:
        rows = [*case.rows, case.poison, *case.rows]
        answers, failures = predict(model, batch_of(case, rows, model.signature))
        assert failures.keys() == {len(case.rows)}
        del rows[len(case.rows)]
        check(case, dict(enumerate(answers[row] for row in sorted(answers))), rows, options["outputs"])


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_reason_of_a_failure_is_what_the_model_says(backend: str, cases: Directories, uris: Uris) -> None:
    with opened(uris(backend, "picky")) as model:
        with pytest.raises(BadInput):  # and no error of the caller's thread
            model.call({"x": np.array([b"one"], object)})
        _, failures = predict(model, pa.RecordBatch.from_pydict({"x": [1.0, -1.0]}))
        assert "assertion failed: [x must not be negative" in failures[1] and "\n" not in failures[1]
    with opened(uris(backend, "tf1_estimator")) as model:
        _, failures = predict(model, pa.RecordBatch.from_pydict({"inputs": [b"no example", b""]}))
        assert "Could not parse example input" in failures[0]
        assert "Feature: plan (data type: string) is required but could not be found" in failures[1]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["fixed_batch", "ragged_input", "tf2_function"])
def test_small_calls_give_the_same_answers(name: str, backend: str, uris: Uris) -> None:
    case = BY_NAME[name]
    with opened(uris(backend, name)) as model:
        answers, failures = predict(
            model, batch_of(case, case.rows, model.signature), SchedulerOptions(max_batch_size=2)
        )
        assert failures == {}
        check(case, answers, case.rows)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("ragged_output", {}, "output '(letters|spans)' is (a composite tensor of 3 parts|ragged).*--exclude_columns"),
        ("scalar_output", {}, "output 'threshold' has rank 0.*--exclude_columns"),
        ("picky", {"outputs": ("rot",)}, "has no output rot; it has root"),
        ("picky", {"signature": "predict"}, "no signature 'predict'; it has serving_default"),
        ("tf1_predict", {}, "give --signature predict"),
    ],
)
def test_what_cannot_be_served_is_refused(name: str, options: Any, words: str, backend: str, uris: Uris) -> None:
    with pytest.raises(SignatureError, match=words):
        open_model(uris(backend, name), ModelOptions(**options))


@pytest.mark.parametrize("backend", BACKENDS)
def test_outputs_that_are_not_asked_for_are_not_given(backend: str, uris: Uris) -> None:
    case = BY_NAME["tf2_function"]
    with opened(uris(backend, "tf2_function"), outputs=("points",)) as model:
        answers, _ = predict(model, batch_of(case, case.rows, model.signature))
        assert set(answers[0]) == {"points"}


def test_the_features_of_an_estimators_examples_are_columns(cases: Directories) -> None:
    with opened(cases("tf1_estimator")) as model:
        assert model.signature.columns == (
            ColumnSpec("monthly_charge", "float32", (1,), required=False),
            ColumnSpec("plan", "string", (1,)),
            ColumnSpec("tenure_months", "int64", (1,)),
            ColumnSpec("complaints", "string", (None,), required=False),
        )
        batch = pa.RecordBatch.from_pydict({"plan": ["pro", None], "tenure_months": [2, 3]})
        answers, failures = predict(model, batch)
        assert answers.keys() == {0} and "column 'plan' is null" in failures[1]


def test_the_features_of_a_nested_parser_are_columns(tmp_path: Path, cases: Directories) -> None:
    shutil.copytree(cases("parser"), tmp_path / "1")
    columns = {
        "age": pa.array([1, 2, 3]),
        "income": pa.array([None, 5.0, 0.0]),
        "pair": pa.array([[1.0, 2.0], [0.5, 0.5], None]),
        "tags": pa.array([["a", "b"], None, []]),
        "clicks": pa.array([[100], [200, 300], []]),
        "steps": pa.array([[], [[1.0, 2.0], [3.0, 4.0]], None], pa.list_(pa.list_(pa.float32()))),
    }
    with opened(str(tmp_path)) as model:
        assert model.version == 1
        assert {spec.name: (spec.dtype, spec.shape, spec.required) for spec in model.signature.columns} == {
            "age": ("int64", (), True),
            "income": ("float32", (), False),
            "pair": ("float32", (2,), True),
            "tags": ("string", (None,), False),
            "clicks": ("int64", (None,), False),
            "steps": ("float32", (None, 2), False),
        }
        answers, failures = predict(model, pa.RecordBatch.from_pydict(columns))
        assert answers == {0: {"count": 103, "sum": 13.0}, 1: {"count": 502, "sum": 16.0}}
        assert failures.keys() == {2} and "column 'pair' is null" in failures[2]


def test_warm_up_requests_are_replayed(tmp_path: Path, cases: Directories) -> None:
    shutil.copytree(cases("picky"), tmp_path / "3")
    log = message_class("tensorflow.serving.PredictionLog")()
    request = log.predict_log.request
    request.model_spec.signature_name = "serving_default"
    request.inputs["x"].dtype = 1
    request.inputs["x"].tensor_shape.dim.add(size=2)
    request.inputs["x"].float_val.extend([1.0, 4.0])
    other = message_class("tensorflow.serving.PredictionLog").FromString(log.SerializeToString())
    other.predict_log.request.model_spec.signature_name = "other"
    poison = message_class("tensorflow.serving.PredictionLog").FromString(log.SerializeToString())
    poison.predict_log.request.inputs["x"].float_val[0] = -1.0
    (tmp_path / "3/assets.extra").mkdir()
    with open(tmp_path / "3/assets.extra/tf_serving_warmup_requests", "wb") as file:
        tfrecord.write_records(file, [each.SerializeToString() for each in (log, other, log, poison, log)])
    with opened(str(tmp_path)) as model:
        assert model.warmed_up == 2  # type: ignore[attr-defined]  # the poison ends it, and does not end the job
    with opened(str(tmp_path), warm_up=False) as model:
        assert model.call({"x": np.array([4.0], np.float32)}).version == 3


def test_a_file_that_tensorflow_cannot_load(tmp_path: Path, cases: Directories) -> None:
    (tmp_path / "saved_model.pb").write_bytes(
        Path(cases("no_variables"), "saved_model.pb").read_bytes().replace(b"AddV2", b"AddV9")
    )
    with pytest.raises(ModelNotFound, match=r"TensorFlow cannot load the SavedModel.*AddV9"):
        open_model(str(tmp_path))
