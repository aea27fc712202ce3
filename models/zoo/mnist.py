"""Digits like MNIST's, without a download: seven segments, shifted, dimmed and noisy, in 28 x 28 pixels."""

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from sluice.models.saved_model.tensorflow_import import tensorflow
from sluice.models.zoo.base import Trained, ZooModel, feature_arrays
from sluice.models.zoo.training import dense, fit, signature

if TYPE_CHECKING:
    from tensorflow import Tensor, Variable

LABEL = "digit"
SIDE = 28
PIXELS = SIDE * SIDE
SHIFT = 4  # pixels, each way

# Segment -> its rows and columns of pixels; digit -> its segments (a is the top bar, then clockwise, g the middle).
SEGMENTS = {
    "a": (slice(5, 7), slice(9, 19)),
    "b": (slice(5, 14), slice(17, 19)),
    "c": (slice(14, 23), slice(17, 19)),
    "d": (slice(21, 23), slice(9, 19)),
    "e": (slice(14, 23), slice(9, 11)),
    "f": (slice(5, 14), slice(9, 11)),
    "g": (slice(13, 15), slice(9, 19)),
}
DIGITS = ("abcdef", "bc", "abged", "abgcd", "fgbc", "afgcd", "afgedc", "abc", "abcdefg", "abcdfg")


@functools.cache
def shifted_strokes() -> np.ndarray:
    """Returns float32 [10, 9, 9, 784]: every digit at every shift down and right, -4 to 4 pixels."""
    strokes = np.zeros((len(DIGITS), SIDE, SIDE), np.float32)
    for digit, segments in enumerate(DIGITS):
        for segment in segments:
            strokes[digit][SEGMENTS[segment]] = 1
    shifts = range(-SHIFT, SHIFT + 1)
    moved = [[np.roll(strokes, (down, right), axis=(1, 2)) for right in shifts] for down in shifts]
    return np.moveaxis(np.asarray(moved), 2, 0).reshape(len(DIGITS), len(shifts), len(shifts), PIXELS)


def make_block(generator: np.random.Generator, rows: int) -> pa.RecordBatch:
    """Returns images as lists of 784 pixels, row by row, in [0, 1] with two decimals."""
    digits = generator.integers(0, len(DIGITS), rows)
    down, right = generator.integers(0, 2 * SHIFT + 1, (2, rows))
    ink = generator.uniform(0.4, 1, (rows, 1)).astype(np.float32)
    images = shifted_strokes()[digits, down, right] * ink
    images += generator.standard_normal((rows, PIXELS), np.float32) * 0.3 - 0.2
    pixels = np.round(np.clip(images, 0, 1), 2).ravel()
    offsets = np.arange(0, len(pixels) + 1, PIXELS, dtype=np.int32)
    image = pa.ListArray.from_arrays(pa.array(offsets), pa.array(pixels))
    return pa.RecordBatch.from_pydict({"image": image, LABEL: pa.array(digits)})


def train(batch: pa.RecordBatch, seed: int) -> Trained:
    """Trains two strided convolutions and a dense layer."""
    tf = tensorflow()

    generator = np.random.default_rng(seed)
    module = tf.Module(name="mnist")
    module.filters = [_filters(generator, 5, 1, 8, "first"), _filters(generator, 3, 8, 16, "second")]
    module.last = dense(generator, 7 * 7 * 16, len(DIGITS), "digits")

    def logits(images: "Tensor") -> "Tensor":
        hidden = images
        for kernel, bias in module.filters:
            hidden = tf.nn.relu(tf.nn.conv2d(hidden, kernel, strides=2, padding="SAME") + bias)
        kernel, bias = module.last
        return tf.matmul(tf.reshape(hidden, [-1, 7 * 7 * 16]), kernel) + bias

    def loss(images: "Tensor", digits: "Tensor") -> "Tensor":
        return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(digits, logits(images)))

    images = feature_arrays(batch, LABEL)["image"].reshape(-1, SIDE, SIDE, 1)
    digits = batch.column(LABEL).to_numpy()
    fit(loss, module.trainable_variables, (images, digits), epochs=3, learning_rate=0.008, seed=seed)

    def classify(features: Mapping[str, "Tensor"]) -> dict[str, "Tensor"]:
        probabilities = tf.nn.softmax(logits(features["image"]))
        return {"probabilities": probabilities, "class_id": tf.argmax(probabilities, axis=1)}

    serving = signature(classify, {"image": (tf.float32, [None, SIDE, SIDE, 1])})
    return Trained(module, {"serving_default": serving})


def _filters(
    generator: np.random.Generator, side: int, inputs: int, outputs: int, name: str
) -> tuple["Variable", "Variable"]:
    """Returns the variables of a convolution: kernel float32 [side, side, inputs, outputs], bias float32 [outputs]."""
    tf = tensorflow()
    kernel, bias = dense(generator, side * side * inputs, outputs, name)
    return tf.Variable(tf.reshape(kernel, [side, side, inputs, outputs]), name=f"{name}/kernel"), bias


MODEL = ZooModel(
    name="mnist",
    description="digits: a 28 x 28 image in, ten probabilities and the digit out",
    label=LABEL,
    make_block=make_block,
    train=train,
    metric="accuracy",
    score=lambda outputs: outputs["class_id"],
)
