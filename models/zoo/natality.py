"""Baby weights, in the columns of the public natality table: a regression with two numbers and two strings."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from sluice.models.saved_model.tensorflow_import import tensorflow
from sluice.models.zoo.base import Trained, ZooModel, feature_arrays, pick, strings
from sluice.models.zoo.training import dense, fit, signature

if TYPE_CHECKING:
    from tensorflow import Tensor
    from tensorflow.lookup import StaticHashTable

# Not `weight_pounds`, as in the public table: that is the model's output, and one row of predictions has both.
LABEL = "actual_weight_pounds"
GENDERS = ["True", "False", "Unknown"]
PLURALITIES = ["Single(1)", "Twins(2)", "Triplets(3)", "Quadruplets(4)", "Quintuplets(5)", "Multiple(2+)"]
# Pounds relative to a boy, and to a single child.
GENDER_EFFECT = np.array([0.0, -0.3, -0.15])
PLURALITY_EFFECT = np.array([0.0, -1.4, -2.2, -2.9, -3.4, -1.5])


def make_block(generator: np.random.Generator, rows: int) -> pa.RecordBatch:
    """Returns births whose weight grows with the weeks and falls with the number of children."""
    gender = pick(generator, GENDERS, [0.44, 0.42, 0.14], rows)
    plurality = pick(generator, PLURALITIES, [0.9, 0.06, 0.01, 0.005, 0.005, 0.02], rows)
    age = np.clip(np.round(generator.normal(28, 6, rows)), 13, 50).astype(np.float32)
    early = generator.exponential(1.6, rows) + 1.5 * (plurality > 0)
    weeks = np.clip(np.round(41 - early), 22, 44).astype(np.float32)
    pounds = 7.9 + 0.28 * (weeks - 40) - 0.001 * (age - 30) ** 2 + generator.normal(0, 0.7, rows)
    pounds += GENDER_EFFECT[gender] + PLURALITY_EFFECT[plurality]
    return pa.RecordBatch.from_pydict(
        {
            "is_male": strings(GENDERS, gender),
            "mother_age": pa.array(age),
            "plurality": strings(PLURALITIES, plurality),
            "gestation_weeks": pa.array(weeks),
            LABEL: pa.array(np.clip(np.round(pounds, 2), 0.5, 16).astype(np.float32)),
        }
    )


def train(batch: pa.RecordBatch, seed: int) -> Trained:
    """Trains an MLP on scaled numbers and on strings that lookup tables turn into one-hot vectors."""
    tf = tensorflow()

    generator = np.random.default_rng(seed)
    module = tf.Module(name="natality")
    module.tables = {"is_male": _table(GENDERS), "plurality": _table(PLURALITIES)}
    width = 2 + len(GENDERS) + 1 + len(PLURALITIES) + 1
    module.layers = [dense(generator, width, 16, "hidden"), dense(generator, 16, 1, "weight")]

    def encode(features: Mapping[str, "Tensor"]) -> "Tensor":
        numbers = tf.stack([(features["mother_age"] - 28) / 6, (features["gestation_weeks"] - 38.5) / 2.5], axis=1)
        one_hot = [
            tf.one_hot(module.tables[name].lookup(features[name]), len(values) + 1)
            for name, values in (("is_male", GENDERS), ("plurality", PLURALITIES))
        ]
        return tf.concat([numbers, *one_hot], axis=1)

    def pounds(encoded: "Tensor") -> "Tensor":
        (kernel, bias), (last_kernel, last_bias) = module.layers
        return tf.matmul(tf.nn.relu(tf.matmul(encoded, kernel) + bias), last_kernel) + last_bias + 7.0

    def loss(encoded: "Tensor", actual: "Tensor") -> "Tensor":
        return tf.reduce_mean(tf.square(pounds(encoded)[:, 0] - actual))

    encoded = encode({k: tf.constant(v) for k, v in feature_arrays(batch, LABEL).items()})
    actual = batch.column(LABEL).to_numpy()
    fit(loss, module.trainable_variables, (encoded, actual), epochs=4, learning_rate=0.02, seed=seed)

    inputs = {
        "is_male": (tf.string, [None]),
        "mother_age": (tf.float32, [None]),
        "plurality": (tf.string, [None]),
        "gestation_weeks": (tf.float32, [None]),
    }
    serving = signature(lambda features: {"weight_pounds": pounds(encode(features))}, inputs)
    return Trained(module, {"serving_default": serving})


def _table(values: list[str]) -> "StaticHashTable":
    """Returns a lookup table from value to index; other strings get the index after the last."""
    tf = tensorflow()
    initializer = tf.lookup.KeyValueTensorInitializer(values, np.arange(len(values), dtype=np.int64))
    return tf.lookup.StaticHashTable(initializer, default_value=len(values))


MODEL = ZooModel(
    name="natality",
    description="baby weight: a regression from two strings and two numbers to pounds",
    label=LABEL,
    make_block=make_block,
    train=train,
    metric="r2",
    score=lambda outputs: outputs["weight_pounds"][:, 0],
)
