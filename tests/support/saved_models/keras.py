"""SavedModels of Keras 2 (tf_keras, `model.save`) and Keras 3 (`model.export`)."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path

import numpy as np

from tests.support.pages.examples import FILE, PYTHON, examples_of
from tests.support.saved_models.case import Columns, ModelCase, Row

# The page with a model of its own.
PENGUINS = "docs/keras.md"

# Multiples of 1/8 or 1/4: float32 holds every sum before the sigmoid exactly.
HIDDEN = np.array([[0.5, -1.0], [1.0, 0.25], [-0.5, 2.0]])
HIDDEN_BIAS = np.array([0.25, -0.5])
RISK = np.array([[1.0], [-0.5]])
RISK_BIAS = np.array([0.125])

CITIES = [b"oslo", b"rome"]
PRICE = np.array([[0.5, 0.25], [1.0, 0.0], [0.0, 1.0], [2.0, -2.0]])  # Rows: age, an unknown city, CITIES.
PRICE_BIAS = np.array([1.0, -1.0])


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-values))


def build_keras2(directory: str) -> None:
    """Builds a compiled and fitted model, so that Adam's slots are in the object graph; then sets known weights.

    Without tf_keras, tf.saved_model.load fails on these slots. The graph loader ignores them.
    """
    import tf_keras

    model = tf_keras.Sequential(
        [
            tf_keras.layers.Dense(2, activation="relu", input_shape=(3,), name="dense"),
            tf_keras.layers.Dense(1, activation="sigmoid", name="dense_1"),
        ]
    )
    model.compile(optimizer=tf_keras.optimizers.legacy.Adam(), loss="binary_crossentropy")
    model.fit(np.ones((4, 3), np.float32), np.ones((4, 1), np.float32), epochs=1, verbose=0)
    model.set_weights([HIDDEN, HIDDEN_BIAS, RISK, RISK_BIAS])
    model.save(directory, save_format="tf")


def risk(rows: list[Row]) -> Columns:
    x = np.array([row["dense_input"] for row in rows])
    hidden = np.maximum(x @ HIDDEN + HIDDEN_BIAS, 0.0)
    return {"dense_1": sigmoid(hidden @ RISK + RISK_BIAS).tolist()}


def build_keras3(directory: str) -> None:
    """Builds a model with two named inputs, one a string for a lookup layer; the export numbers its two outputs."""
    import keras

    age = keras.Input((1,), name="age")
    city = keras.Input((1,), dtype="string", name="city")
    lookup = keras.layers.StringLookup(vocabulary=[name.decode() for name in CITIES], output_mode="one_hot")
    features = keras.layers.Concatenate()([age, lookup(city)])
    price = keras.layers.Dense(2, name="price")
    likely = keras.layers.Activation("sigmoid", name="likely")
    model = keras.Model([age, city], [price(features), likely(price.output)])
    price.set_weights([PRICE, PRICE_BIAS])
    model.export(directory, verbose=False)


def price(rows: list[Row]) -> Columns:
    features = np.zeros((len(rows), 4))
    for i, row in enumerate(rows):
        features[i, 0] = row["age"][0]
        features[i, 2 + CITIES.index(row["city"][0]) if row["city"][0] in CITIES else 1] = 1.0
    prices = features @ PRICE + PRICE_BIAS
    return {"output_0": prices.tolist(), "output_1": sigmoid(prices).tolist()}


def build_penguins(directory: str) -> None:
    """Builds the model of docs/keras.md, by the code that stands there."""
    target = Path(directory).resolve()
    with tempfile.TemporaryDirectory() as place, contextlib.chdir(place):
        for example in examples_of(PENGUINS):
            if example.kind == FILE:
                Path(example.file).write_text(example.text)
            elif example.kind == PYTHON:
                exec(compile(example.text, example.place, "exec"), {})
        shutil.move("penguins_model", target)


def save_keras3(directory: str) -> None:
    """Written by `tf.saved_model.save`, which keeps the variables where only the object graph leads to them."""
    import keras
    import tensorflow as tf

    given = keras.Input((1,), name="x")
    dense = keras.layers.Dense(1, name="dense")
    model = keras.Model(given, dense(given))
    dense.set_weights([np.array([[2.0]]), np.array([0.5])])
    tf.saved_model.save(model, directory)


CASES: tuple[ModelCase, ...] = (
    ModelCase(
        "keras2_slots",
        build_keras2,
        "serving_default",
        [{"dense_input": values} for values in ([1.0, 2.0, 0.5], [0.0, 0.0, 0.0], [-3.0, 0.5, 4.0])],
        risk,
    ),
    ModelCase(
        "keras3_export",
        build_keras3,
        "serving_default",
        [
            {"age": [1.5], "city": [b"oslo"]},
            {"age": [-2.0], "city": [b"rome"]},
            {"age": [4.0], "city": [b"Atlantis"]},
            {"age": [0.0], "city": [b""]},
        ],
        price,
    ),
)
