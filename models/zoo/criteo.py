"""Click prediction in the columns of the Criteo Kaggle data: 13 counts, 26 hashed categories, a click or none."""

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from sluice.models.saved_model.tensorflow_import import tensorflow
from sluice.models.zoo.base import Trained, ZooModel, draw, feature_arrays
from sluice.models.zoo.training import dense, fit, signature

if TYPE_CHECKING:
    from tensorflow import Tensor, Variable
    from tensorflow.types.experimental import ConcreteFunction

LABEL = "label"
INTEGERS = tuple(f"I{number}" for number in range(1, 14))
CATEGORIES = tuple(f"C{number}" for number in range(1, 27))

# Distinct values per category: few in most columns and thousands in some, as in the data.
CARDINALITIES = tuple(round(4 * 1.35**place) for place in range(len(CATEGORIES)))
BUCKETS = 2048  # of every category, in one shared table
EMBEDDING = 8  # numbers per bucket, the last of them its weight in the wide part
HIDDEN = (64, 32)


@functools.cache
def planted() -> tuple[list[pa.Array], list[np.ndarray], np.ndarray]:
    """Returns the planted signal, the same for every seed.

    Returns:
      For each category its values (string [cardinality]) and their weights (float64 [cardinality]); and the weights of
      the integers (float64 [13]).
    """
    generator = np.random.default_rng(20140)
    values = [
        pa.array([f"{code:08x}" for code in generator.choice(2**32, size, replace=False)]) for size in CARDINALITIES
    ]
    weights = [generator.normal(0, 0.45, size) for size in CARDINALITIES]
    return values, weights, generator.normal(0, 0.35, len(INTEGERS))


def make_block(generator: np.random.Generator, rows: int) -> pa.RecordBatch:
    """Returns rows whose click depends on every column and on one product of two."""
    values, weights, integer_weights = planted()
    normal = generator.standard_normal((len(INTEGERS), rows))
    counts = np.maximum(np.exp(1.5 + 1.2 * normal).astype(np.int64) - 1, 0)
    logits = integer_weights @ normal + 0.5 * normal[0] * normal[1] - 2.5
    uniform = generator.random((len(CATEGORIES), rows))
    columns = list(counts)
    for place, size in enumerate(CARDINALITIES):
        # Log-uniform: a few values occur in most rows, most values in a few.
        indices = (size ** uniform[place]).astype(np.int64) - 1
        logits += weights[place][indices]
        columns.append(values[place].take(pa.array(indices)))
    columns.append(draw(generator, logits))
    return pa.RecordBatch.from_arrays([pa.array(c) for c in columns], names=[*INTEGERS, *CATEGORIES, LABEL])


def train(batch: pa.RecordBatch, seed: int) -> Trained:
    """Trains wide & deep: per hashed category an embedding and a linear weight, log-scaled integers, and an MLP."""
    tf = tensorflow()

    generator = np.random.default_rng(seed)
    module = tf.Module(name="criteo")
    table = generator.normal(0, 0.05, (len(CATEGORIES) * BUCKETS, EMBEDDING)).astype(np.float32)
    module.table = tf.Variable(table, name="embeddings")
    module.wide = tf.Variable(np.zeros((len(INTEGERS), 1), np.float32), name="wide/integers")
    width = len(CATEGORIES) * EMBEDDING
    module.categories = dense(generator, width, HIDDEN[0], "deep/categories")
    module.integers = dense(generator, len(INTEGERS), HIDDEN[0], "deep/integers")
    sizes = (*HIDDEN, 1)
    module.layers = [dense(generator, sizes[i], sizes[i + 1], f"deep/{i}") for i in range(len(sizes) - 1)]
    offsets = np.arange(len(CATEGORIES), dtype=np.int64) * BUCKETS

    def encode(features: Mapping[str, "Tensor"]) -> tuple["Tensor", "Tensor"]:
        text = tf.stack([features[name] for name in CATEGORIES], axis=1)
        ids = tf.strings.to_hash_bucket_fast(text, BUCKETS) + offsets
        integers = tf.cast(tf.stack([features[name] for name in INTEGERS], axis=1), tf.float32)
        return ids, tf.math.log1p(tf.maximum(integers, 0.0)) * 0.7 - 1.0

    def logits(ids: "Tensor", integers: "Tensor") -> "Tensor":
        # One gather serves both parts, and its result is multiplied whole: slicing the wide weights off and joining
        # integers takes longer than hashing. So the deep part sees the wide weights too, which does no harm.
        rows = tf.gather(module.table, ids)
        hidden = _affine(tf.reshape(rows, [-1, width]), module.categories) + _affine(integers, module.integers)
        for layer in module.layers:
            hidden = _affine(tf.nn.relu(hidden), layer)
        wide = tf.matmul(integers, module.wide)[:, 0] + tf.reduce_sum(rows[:, :, -1], axis=1)
        return hidden[:, 0] + wide

    def loss(ids: "Tensor", integers: "Tensor", clicks: "Tensor") -> "Tensor":
        return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(clicks, logits(ids, integers)))

    ids, integers = encode({k: tf.constant(v) for k, v in feature_arrays(batch, LABEL).items()})
    clicks = batch.column(LABEL).to_numpy().astype(np.float32)
    fit(loss, module.trainable_variables, (ids, integers, clicks), epochs=3, learning_rate=0.01, seed=seed)

    def score(features: Mapping[str, "Tensor"]) -> dict[str, "Tensor"]:
        return {"score": tf.sigmoid(logits(*encode(features)))}

    return Trained(module, signatures(score))


def _affine(inputs: "Tensor", layer: tuple["Variable", "Variable"]) -> "Tensor":
    kernel, bias = layer
    return inputs @ kernel + bias


def signatures(score: "Callable[[Mapping[str, Tensor]], dict[str, Tensor]]") -> "dict[str, ConcreteFunction]":
    """Returns `serving_default` for columns, and `serving_examples` for serialized tf.Examples."""
    tf = tensorflow()
    integers = {name: tf.io.FixedLenFeature([], tf.int64, 0) for name in INTEGERS}
    categories = {name: tf.io.FixedLenFeature([], tf.string, "") for name in CATEGORIES}

    def score_examples(features: Mapping[str, "Tensor"]) -> dict[str, "Tensor"]:
        return score(tf.io.parse_example(features["examples"], {**integers, **categories}))

    inputs = {name: (tf.int64, [None]) for name in INTEGERS} | {name: (tf.string, [None]) for name in CATEGORIES}
    return {
        "serving_default": signature(score, inputs),
        "serving_examples": signature(score_examples, {"examples": (tf.string, [None])}),
    }


MODEL = ZooModel(
    name="criteo",
    description="wide & deep click prediction: 13 integer and 26 string columns in, one probability out",
    label=LABEL,
    make_block=make_block,
    train=train,
    metric="auc",
    score=lambda outputs: outputs["score"],
    warmup_rows=8,
)
