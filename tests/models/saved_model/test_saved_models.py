"""Proves the answers in tests/support/saved_models/cases.py with TensorFlow's own graph loader and none of our code."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from sluice.models.protos import message_class
from tests.support.saved_models.cases import CASES, ModelCase
from tests.support.serving.messages import DTYPES

BY_NAME = {case.name: case for case in CASES}


class Loaded:
    """A SavedModel in a Session of its own."""

    def __init__(self, directory: str) -> None:
        import tensorflow as tf

        self.session = tf.compat.v1.Session(graph=tf.Graph())
        with self.session.graph.as_default():
            self.meta_graph = tf.compat.v1.saved_model.loader.load(self.session, ["serve"], directory)

    def predict(self, case: ModelCase, rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
        """One call for each group of rows of one shape, answers in the order of the rows."""
        signature = self.meta_graph.signature_def[case.signature]
        feeds = [feed_row(case, signature, row) for row in rows]
        groups = defaultdict(list)
        for i, feed in enumerate(feeds):
            groups[tuple(array.shape for array in feed.values())].append(i)
        answers: dict[str, list[Any]] = {name: [None] * len(rows) for name in signature.outputs}
        for members in groups.values():
            for chunk in chunked(members, fixed_batch_size(signature)):
                padded = chunk + chunk[-1:] * ((fixed_batch_size(signature) or 0) - len(chunk))
                stacked = {name: np.stack([feeds[i][name] for i in padded]) for name in signature.inputs}
                for name, values in self.call(signature, stacked).items():
                    for i, value in zip(chunk, values, strict=False):
                        answers[name][i] = value
        return answers

    def call(self, signature: Any, arrays: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        feed = {signature.inputs[name].name: array for name, array in arrays.items()}
        fetches = {name: tensor_names(info) for name, info in signature.outputs.items()}
        fetched = self.session.run(fetches, feed)
        return {name: per_row(signature.outputs[name], parts) for name, parts in fetched.items()}


def feed_row(case: ModelCase, signature: Any, row: dict[str, Any]) -> dict[str, np.ndarray]:
    if case.example_spec is not None:
        (name,) = signature.inputs
        return {name: np.array(serialized_example(case.example_spec, row), dtype=object)}
    return {name: np.array(row[name], dtype=DTYPES[info.dtype][0]) for name, info in signature.inputs.items()}


def serialized_example(spec: dict[str, str], row: dict[str, Any]) -> bytes:
    example = message_class("tensorflow.Example")()
    for name, kind in spec.items():
        if row[name]:
            getattr(example.features.feature[name], f"{kind}_list").value.extend(row[name])
    return example.SerializeToString()


def fixed_batch_size(signature: Any) -> int | None:
    sizes = {info.tensor_shape.dim[0].size for info in signature.inputs.values()} - {-1}
    return sizes.pop() if sizes else None


def chunked(items: list[int], size: int | None) -> list[list[int]]:
    step = size or len(items)
    return [items[i : i + step] for i in range(0, len(items), step)]


def tensor_names(info: Any) -> list[str]:
    match info.WhichOneof("encoding"):
        case "composite_tensor":
            return [component.name for component in info.composite_tensor.components]
        case "coo_sparse":
            sparse = info.coo_sparse
            return [sparse.indices_tensor_name, sparse.values_tensor_name, sparse.dense_shape_tensor_name]
        case _:
            return [info.name]


def per_row(info: Any, parts: list[np.ndarray]) -> list[Any]:
    match info.WhichOneof("encoding"):
        case "composite_tensor":  # Flat values, then row splits from the outermost to the innermost.
            values = parts[0].tolist()
            for splits in reversed(parts[1:]):
                values = [values[a:b] for a, b in pairwise(splits)]
            return values
        case "coo_sparse":
            indices, values, dense_shape = parts
            rows: list[list[Any]] = [[] for _ in range(dense_shape[0])]
            for (row, _), value in zip(indices, values.tolist(), strict=True):
                rows[row].append(value)
            return rows
        case _:
            return parts[0].tolist() if parts[0].ndim else []


def differs(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, list):
        return (
            not isinstance(found, list)
            or len(found) != len(wanted)
            or any(differs(a, b) for a, b in zip(found, wanted, strict=True))
        )
    if isinstance(wanted, float):
        return not math.isclose(found, wanted, rel_tol=1e-6)
    return type(found) is not type(wanted) or found != wanted


class Models:
    """Loads a case at its first use, from another directory than it was built in, which is gone: models travel."""

    def __init__(self, cases: Callable[[str], str]) -> None:
        self.cases = cases
        self.loaded: dict[str, Loaded] = {}

    def __getitem__(self, name: str) -> Loaded:
        if name not in self.loaded:
            self.loaded[name] = Loaded(self.cases(name))
        return self.loaded[name]


@pytest.fixture(scope="module")
def models(cases: Callable[[str], str]) -> Models:
    return Models(cases)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_graph_loader_gives_the_answers_worked_out_by_hand(case: ModelCase, models: Models) -> None:
    answers = models[case.name].predict(case, case.rows)
    wanted = case.expected(case.rows)
    wrong = {name: (answers[name], values) for name, values in wanted.items() if differs(answers[name], values)}
    assert not wrong
    left_out = set(answers) - set(wanted)
    assert left_out == ({"threshold"} if case.name == "scalar_output" else set())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_answer_depends_on_its_row_alone(case: ModelCase, models: Models) -> None:
    backwards = case.rows[::-1]
    answers = models[case.name].predict(case, backwards)
    assert not [name for name, values in case.expected(backwards).items() if differs(answers[name], values)]


@pytest.mark.parametrize("case", [case for case in CASES if case.poison], ids=lambda case: case.name)
def test_a_poisoned_row_fails_the_batch(case: ModelCase, models: Models) -> None:
    import tensorflow as tf

    with pytest.raises(tf.errors.InvalidArgumentError):
        models[case.name].predict(case, [*case.rows, case.poison])


def test_a_lone_file_is_a_model(cases: Callable[[str], str]) -> None:
    assert os.listdir(cases("no_variables")) == ["saved_model.pb"]


@pytest.mark.parametrize(
    ("name", "method"),
    [("tf1_estimator", "classify"), ("tf1_estimator_regress", "regress"), ("tf1_estimator_predict", "predict")],
)
def test_estimators_declare_their_method(name: str, method: str, models: Models) -> None:
    signature = models[name].meta_graph.signature_def[BY_NAME[name].signature]
    assert signature.method_name == f"tensorflow/serving/{method}"


def test_each_kind_is_the_kind_it_claims_to_be(models: Models) -> None:
    def outputs(name: str) -> Any:
        return models[name].meta_graph.signature_def["serving_default"].outputs

    assert any(node.slot_variables for node in models["keras2_slots"].meta_graph.object_graph_def.nodes)
    estimator = models["tf1_estimator"].meta_graph
    assert not estimator.asset_file_def  # TF 1 names its assets in a collection, TF 2 in this field.
    assert b"plans.txt" in estimator.collection_def["saved_model_assets"].any_list.value[0].value
    assert "legacy_init_op" in estimator.collection_def
    assert [asset.filename for asset in models["tf2_function"].meta_graph.asset_file_def] == ["currencies.tsv"]
    assert "serving_default" not in models["tf1_predict"].meta_graph.signature_def
    assert "__saved_model_init_op" in models["tf2_function"].meta_graph.signature_def
    assert outputs("unknown_rank")["doubled"].tensor_shape.unknown_rank
    assert not outputs("scalar_output")["threshold"].tensor_shape.dim
    assert outputs("sparse_output")["words"].WhichOneof("encoding") == "coo_sparse"
    ragged = outputs("ragged_output")
    assert {name: len(info.composite_tensor.components) for name, info in ragged.items()} == {
        "words": 2,
        "letters": 3,
        "spans": 2,
        "count": 0,
    }
