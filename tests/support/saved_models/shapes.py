"""tf.function SavedModels with tensors of higher rank, unknown inner dimensions, and composite outputs."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.support.saved_models.case import Columns, ModelCase, Row, save_function


def _image(height: int, width: int, seed: int) -> list[Any]:
    """Returns an image. Pixels are multiples of 1/16, which float32 adds without rounding."""
    pixels = np.arange(height * width * 3).reshape(height, width, 3) * seed % 16
    return (pixels / 16.0).tolist()


def _patch_weights() -> np.ndarray:
    """Returns float32 [height 4, width 4, channels 3, filters 2], the kernel of a convolution."""
    return ((np.arange(4 * 4 * 3 * 2) * 7 % 11 - 5) / 8.0).astype(np.float32).reshape(4, 4, 3, 2)


def build_image(directory: str) -> None:
    import tensorflow as tf

    kernel = tf.Variable(_patch_weights())

    @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 3], tf.float32, name="image")])
    def serve(image):
        embedding = tf.reshape(tf.nn.conv2d(image, kernel, strides=4, padding="VALID"), [-1, 8])
        return {"embedding": embedding, "class": tf.argmax(embedding, axis=1)}

    save_function(directory, serve, kernel=kernel)


def embedded(rows: list[Row]) -> Columns:
    images = np.array([row["image"] for row in rows])
    patches = images.reshape(len(rows), 2, 4, 2, 4, 3)  # [batch, patch row, y, patch column, x, channel]
    embeddings = np.einsum("biyjxc,yxcf->bijf", patches, _patch_weights()).reshape(len(rows), 8)
    return {"embedding": embeddings.tolist(), "class": embeddings.argmax(axis=1).tolist()}


def build_image_any_size(directory: str) -> None:
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.float32, name="image")])
    def serve(image):
        return {"channel_mean": tf.reduce_mean(image, axis=[1, 2])}

    save_function(directory, serve)


def channel_mean(rows: list[Row]) -> Columns:
    return {"channel_mean": [np.mean(row["image"], axis=(0, 1)).tolist() for row in rows]}


def build_ragged_input(directory: str) -> None:
    """Builds a model of a dense tensor whose length is free, but the same for all rows of a batch."""
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.float32, name="series")])
    def serve(series):
        return {
            "sum": tf.reduce_sum(series, axis=1),
            "max": tf.reduce_max(series, axis=1),
            "running": tf.cumsum(series, axis=1),
        }

    save_function(directory, serve)


def series(rows: list[Row]) -> Columns:
    return {
        "sum": [sum(row["series"]) for row in rows],
        "max": [max(row["series"]) for row in rows],
        "running": [np.cumsum(row["series"]).tolist() for row in rows],
    }


def build_ragged_output(directory: str) -> None:
    """Builds outputs of ragged rank 1, of ragged rank 2, and of ragged rank 1 over a uniform inner dimension."""
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def serve(text):
        words = tf.strings.split(text)
        lengths = tf.strings.length(words)
        return {
            "words": words,
            "letters": tf.strings.bytes_split(words),
            "spans": words.with_values(tf.stack([lengths.values, lengths.values * 2], axis=1)),
            "count": words.row_lengths(),
        }

    save_function(directory, serve)


def words(rows: list[Row]) -> Columns:
    split = [row["text"].split() for row in rows]
    return {
        "words": split,
        "letters": [[[word[i : i + 1] for i in range(len(word))] for word in row] for row in split],
        "spans": [[[len(word), 2 * len(word)] for word in row] for row in split],
        "count": [len(row) for row in split],
    }


def build_sparse_output(directory: str) -> None:
    """Builds a SparseTensor output [rows, longest row], padded on the right; a row is the list of its values."""
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def serve(text):
        words = tf.strings.split(text)
        return {"words": words.to_sparse(), "count": words.row_lengths()}

    save_function(directory, serve)


def sparse_words(rows: list[Row]) -> Columns:
    return {name: values for name, values in words(rows).items() if name in ("words", "count")}


TOPICS = [b"sports", b"politics", b"science", b"weather"]


def build_multi_label(directory: str) -> None:
    """Builds outputs: scores, the name of each label, and the names of scores above 0.5, padded with empty strings."""
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="features")])
    def serve(features):
        a, b = tf.unstack(features, axis=1)
        scores = tf.stack([a, b, a * b, 1.0 - a], axis=1)
        labels = tf.broadcast_to(tf.constant([TOPICS]), tf.shape(scores))
        return {"scores": scores, "labels": labels, "chosen": tf.where(scores > 0.5, labels, b"")}

    save_function(directory, serve)


def topics(rows: list[Row]) -> Columns:
    scores = [[a, b, a * b, 1.0 - a] for a, b in (row["features"] for row in rows)]
    return {
        "scores": scores,
        "labels": [TOPICS for _ in rows],
        "chosen": [[name if x > 0.5 else b"" for name, x in zip(TOPICS, row, strict=True)] for row in scores],
    }


SENTENCES: list[Row] = [
    {"text": text} for text in (b"one two three", b"", b"alone", b"  spaced   out ", b"gr\xc3\xbcn", b"")
]

CASES: tuple[ModelCase, ...] = (
    ModelCase("image", build_image, "serving_default", [{"image": _image(8, 8, seed)} for seed in (3, 5, 7)], embedded),
    ModelCase(
        "image_any_size",
        build_image_any_size,
        "serving_default",
        [{"image": _image(*size, 5)} for size in ((1, 1), (2, 4), (4, 2), (2, 4), (3, 5))],
        channel_mean,
    ),
    ModelCase(
        "ragged_input",
        build_ragged_input,
        "serving_default",
        [{"series": values} for values in ([1.0, 2.0], [0.5], [-1.0, 4.0], [3.0, 0.25, 8.0, -2.0], [7.0])],
        series,
    ),
    ModelCase("ragged_output", build_ragged_output, "serving_default", SENTENCES, words),
    ModelCase("sparse_output", build_sparse_output, "serving_default", SENTENCES, sparse_words),
    ModelCase(
        "multi_label",
        build_multi_label,
        "serving_default",
        [{"features": [0.25, 0.75]}, {"features": [1.0, 1.0]}, {"features": [0.5, 0.0]}],
        topics,
    ),
)
