"""The zoo: its rows, and the models it exports, as a TF1 session sees them."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from sluice.models import zoo
from sluice.models.errors import UsageError
from sluice.models.protos import message_class
from sluice.models.tensors import tfrecord
from sluice.models.zoo.base import BLOCK_ROWS, ZooModel, feature_arrays, to_numpy
from sluice.models.zoo.export import WARMUP_FILE, export_model
from sluice.models.zoo.quality import area_under_curve, held_out_score, run_signature
from sluice.models.zoo.sample import write_samples
from tests.support.saved_models.zoo import ZooSample

# Model -> signature -> (inputs, outputs), each name -> (dtype, shape without the batch dimension).
Tensors = dict[str, tuple[str, tuple[int, ...]]]
CRITEO_COLUMNS: Tensors = {f"I{i}": ("int64", ()) for i in range(1, 14)} | {
    f"C{i}": ("string", ()) for i in range(1, 27)
}
CENSUS_NUMBERS = ("age", "education_num", "capital_gain", "capital_loss", "hours_per_week")
CENSUS_STRINGS = (
    "workclass", "education", "marital_status", "occupation", "relationship", "race", "sex", "native_country",
)  # fmt: skip
SIGNATURES: dict[str, dict[str, tuple[Tensors, Tensors]]] = {
    "criteo": {
        "serving_default": (CRITEO_COLUMNS, {"score": ("float32", ())}),
        "serving_examples": ({"examples": ("string", ())}, {"score": ("float32", ())}),
    },
    "natality": {
        "serving_default": (
            {
                "is_male": ("string", ()),
                "mother_age": ("float32", ()),
                "plurality": ("string", ()),
                "gestation_weeks": ("float32", ()),
            },
            {"weight_pounds": ("float32", (1,))},
        )
    },
    "census": {
        "serving_default": (
            dict.fromkeys(CENSUS_NUMBERS, ("int64", ())) | dict.fromkeys(CENSUS_STRINGS, ("string", ())),
            {"classes": ("string", ()), "class_id": ("int64", ()), "probabilities": ("float32", (2,))},
        )
    },
    "mnist": {
        "serving_default": (
            {"image": ("float32", (28, 28, 1))},
            {"probabilities": ("float32", (10,)), "class_id": ("int64", ())},
        )
    },
}
# Model -> what its metric must reach on held-out rows.
FLOORS = {"criteo": 0.72, "natality": 0.5, "census": 0.78, "mnist": 0.8}


@pytest.fixture(scope="session")
def exported(zoo_samples: Mapping[str, ZooSample]) -> Mapping[str, str]:
    """Every model, trained and exported."""
    return {name: f"{sample.model}/1" for name, sample in zoo_samples.items()}


@pytest.fixture(params=zoo.NAMES)
def model(request: pytest.FixtureRequest) -> ZooModel:
    return zoo.get(request.param)


def test_get_refuses_a_name_it_does_not_have() -> None:
    with pytest.raises(UsageError, match=r"'titanic'.*criteo, natality, census, mnist"):
        zoo.get("titanic")


# Rows


def test_rows_are_the_same_for_a_seed_and_others_for_another(model: ZooModel) -> None:
    assert model.make_rows(50, seed=3).equals(model.make_rows(50, seed=3))
    assert not model.make_rows(50, seed=3).equals(model.make_rows(50, seed=4))


@pytest.mark.parametrize("start,rows", [(0, 1), (7, 30), (BLOCK_ROWS - 2, 5), (BLOCK_ROWS, 3), (1, 2 * BLOCK_ROWS)])
def test_rows_do_not_depend_on_where_one_begins(start: int, rows: int) -> None:
    model = zoo.get("natality")
    table = model.make_rows(3 * BLOCK_ROWS, seed=3)
    part = model.make_rows(rows, seed=3, start=start)
    assert part.num_rows == rows
    assert part.equals(table.slice(start, rows))


def test_rows_have_every_feature_and_no_null(model: ZooModel) -> None:
    batch = model.make_rows(500, seed=3)
    inputs = SIGNATURES[model.name]["serving_default"][0]
    assert sorted(batch.schema.names) == sorted([*inputs, model.label])
    assert [column.null_count for column in batch.columns] == [0] * batch.num_columns
    assert model.make_rows(0, seed=3).schema == model.schema() == batch.schema


def test_a_passthrough_label_is_not_named_like_an_output(model: ZooModel) -> None:
    for _, outputs in SIGNATURES[model.name].values():
        assert model.label not in outputs


def test_criteo_rows_look_like_the_data() -> None:
    batch = zoo.get("criteo").make_rows(4000, seed=3)
    assert 0.15 < to_numpy(batch.column("label")).mean() < 0.4
    assert all(len(value) == 8 for value in batch.column("C9").to_pylist())
    distinct = [len(batch.column(f"C{i}").unique()) for i in (1, 13, 26)]
    assert distinct[0] < 10 < distinct[1] < distinct[2]


# Exported models


def declared(infos: Any) -> Tensors:
    import tensorflow as tf

    tensors = {}
    for name, info in infos.items():
        batch, *rest = [dim.size for dim in info.tensor_shape.dim]
        assert batch == -1
        tensors[name] = (tf.dtypes.as_dtype(info.dtype).name, tuple(rest))
    return tensors


def test_signatures_are_exactly_these(model: ZooModel, exported: Mapping[str, str]) -> None:
    saved = message_class("tensorflow.SavedModel").FromString(Path(exported[model.name], "saved_model.pb").read_bytes())
    signatures = {k: v for k, v in saved.meta_graphs[0].signature_def.items() if not k.startswith("__")}
    found = {name: (declared(s.inputs), declared(s.outputs)) for name, s in signatures.items()}
    assert found == SIGNATURES[model.name]


def test_held_out_rows_are_predicted_far_better_than_by_guessing(model: ZooModel, exported: Mapping[str, str]) -> None:
    quality = held_out_score(model, exported[model.name], rows=4096)
    assert quality.score > FLOORS[model.name]
    assert quality.score > quality.baseline + 0.1


def test_outputs_are_what_the_signature_says(model: ZooModel, exported: Mapping[str, str]) -> None:
    outputs = run_signature(exported[model.name], model.make_rows(5, seed=8))
    _, expected = SIGNATURES[model.name]["serving_default"]
    assert {name: array.shape for name, array in outputs.items()} == {k: (5, *s) for k, (_, s) in expected.items()}


def test_outputs_agree_with_each_other(exported: Mapping[str, str]) -> None:
    for name in ("census", "mnist"):
        outputs = run_signature(exported[name], zoo.get(name).make_rows(200, seed=8))
        np.testing.assert_allclose(outputs["probabilities"].sum(axis=1), 1, atol=1e-5)
        np.testing.assert_array_equal(outputs["probabilities"].argmax(axis=1), outputs["class_id"])
        if name == "census":
            assert set(zip(outputs["class_id"], outputs["classes"], strict=True)) == {(0, b"<=50K"), (1, b">50K")}


def test_criteo_scores_examples_like_columns(exported: Mapping[str, str], tmp_path: Path) -> None:
    (path,) = write_samples(zoo.get("criteo"), str(tmp_path), 60, ("tfrecord",), seed=2)
    with open(path, "rb") as file:
        examples = pa.array([record for _, record in tfrecord.read_records(file)])
    rows = zoo.get("criteo").make_rows(60, seed=2)
    by_columns = run_signature(exported["criteo"], rows)["score"]
    by_examples = run_signature(
        exported["criteo"], pa.RecordBatch.from_arrays([examples], names=["examples"]), "serving_examples"
    )["score"]
    np.testing.assert_allclose(by_examples, by_columns, rtol=1e-5)
    assert 0 <= by_columns.min() < by_columns.max() <= 1


def test_values_never_seen_are_scored(exported: Mapping[str, str]) -> None:
    rows = zoo.get("natality").make_rows(3, seed=8)
    odd = rows.set_column(2, "plurality", pa.array(["Octuplets(8)", "", "Single(1)"]))
    assert np.isfinite(run_signature(exported["natality"], odd)["weight_pounds"]).all()


def test_the_warm_up_request_is_one_that_the_model_serves(exported: Mapping[str, str]) -> None:
    import tensorflow as tf

    with open(os.path.join(exported["criteo"], WARMUP_FILE), "rb") as file:
        ((_, record),) = tfrecord.read_records(file)
    request = message_class("tensorflow.serving.PredictionLog").FromString(record).predict_log.request
    assert (request.model_spec.name, request.model_spec.signature_name) == ("criteo", "serving_default")
    arrays = {name: tf.make_ndarray(proto) for name, proto in request.inputs.items()}
    expected = feature_arrays(zoo.get("criteo").make_rows(8, seed=1), "label")
    assert {k: v.shape for k, v in arrays.items()} == dict.fromkeys(CRITEO_COLUMNS, (8,))
    for name, values in expected.items():
        text = values.dtype == object
        np.testing.assert_array_equal(arrays[name].astype(str) if text else arrays[name], values)


@pytest.mark.job
def test_a_second_export_is_the_next_version_and_leaves_nothing_else(tmp_path: Path) -> None:
    model = zoo.get("natality")
    first = export_model(model, str(tmp_path), rows=300)
    assert export_model(model, str(tmp_path), rows=300) == str(tmp_path / "2")
    (tmp_path / "7").mkdir()
    assert export_model(model, str(tmp_path), rows=300) == str(tmp_path / "8")
    assert first == str(tmp_path / "1")
    assert sorted(os.listdir(tmp_path)) == ["1", "2", "7", "8"]


@pytest.mark.job
def test_a_failed_export_leaves_no_version(tmp_path: Path) -> None:
    def no_signature(batch: pa.RecordBatch, seed: int) -> Any:
        return dataclasses.replace(model.train(batch, seed), signatures={"serving_default": "not a function"})

    model = zoo.get("natality")
    with pytest.raises(ValueError, match="signature"):
        export_model(dataclasses.replace(model, train=no_signature), str(tmp_path), rows=300)
    assert os.listdir(tmp_path) == []


@pytest.mark.job
def test_training_again_gives_the_same_model(tmp_path: Path) -> None:
    model = zoo.get("natality")
    rows = model.make_rows(100, seed=8)
    versions = [export_model(model, str(tmp_path), rows=1000, seed=seed) for seed in (5, 5, 6)]
    pounds = [run_signature(version, rows)["weight_pounds"] for version in versions]
    np.testing.assert_allclose(pounds[0], pounds[1], rtol=1e-4)
    assert np.abs(pounds[0] - pounds[2]).max() > 1e-3


# Quality


def test_area_under_curve_counts_pairs() -> None:
    generator = np.random.default_rng(0)
    positive = generator.random(60) < 0.4
    scores = generator.integers(0, 9, 60)
    above, below = scores[positive][:, None], scores[~positive][None, :]
    brute_force = ((above > below) + 0.5 * (above == below)).mean()
    assert area_under_curve(positive, scores) == pytest.approx(brute_force)
