"""SavedModels that keep what they are fed beyond the call, or answer with the memory that they were fed."""

from __future__ import annotations

from typing import Any

from tests.support.saved_models.case import save_function


def build_variables(directory: str) -> None:
    """Answers with what the call before was fed: strings and floats."""
    import tensorflow as tf

    texts = tf.Variable([b"first"], shape=[None], dtype=tf.string)
    numbers = tf.Variable([1.0], shape=[None], dtype=tf.float32)

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.float32, name="number"),
            tf.TensorSpec([None], tf.string, name="text"),
        ]
    )
    def serve(number: Any, text: Any) -> dict[str, Any]:
        before = {"text": tf.identity(texts), "number": tf.identity(numbers)}
        with tf.control_dependencies(list(before.values())):
            texts.assign(text)
            numbers.assign(number)
        return before

    save_function(directory, serve, texts=texts, numbers=numbers)


def build_table(directory: str, dense: bool) -> None:
    """Keeps all texts that it was fed, with the numbers beside them, and answers with those of the texts `asked`."""
    import tensorflow as tf

    lookup = tf.lookup.experimental
    if dense:
        table = lookup.DenseHashTable(tf.string, tf.float32, -1.0, empty_key="\1", deleted_key="\2")
    else:
        table = lookup.MutableHashTable(tf.string, tf.float32, -1.0)

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.string, name="asked"),
            tf.TensorSpec([None], tf.float32, name="number"),
            tf.TensorSpec([None], tf.string, name="text"),
        ]
    )
    def serve(asked: Any, number: Any, text: Any) -> dict[str, Any]:
        found = table.lookup(asked)
        with tf.control_dependencies([found]):
            table.insert(text, number)
        return {"found": found}

    save_function(directory, serve, table=table)


def build_mutable_table(directory: str) -> None:
    build_table(directory, dense=False)


def build_dense_table(directory: str) -> None:
    build_table(directory, dense=True)


def build_echo(directory: str) -> None:
    """Ops whose outputs point into their inputs, or may; and a check of the numbers."""
    import tensorflow as tf

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, 3], tf.float32, name="number"),
            tf.TensorSpec([None], tf.string, name="text"),
        ]
    )
    def serve(number: Any, text: Any) -> dict[str, Any]:
        with tf.control_dependencies([tf.debugging.assert_non_negative(number, message="negative")]):
            same = tf.identity(text)
        backwards = tf.gather(text, tf.range(tf.shape(text)[0] - 1, -1, -1))
        return {
            "same": same,
            "backwards": backwards,
            "twice": tf.tile(text[:, tf.newaxis], [1, 2]),
            "either": tf.where(number[:, 0] > 1.0, text, backwards),
            "column": tf.reshape(text, [-1, 1]),
            "numbers": tf.identity(number),
            "flat": tf.reshape(number, [-1]),
            "joined": tf.strings.join([text, backwards]),
        }

    save_function(directory, serve)


# By name: what builds them, and whether they keep what they are fed.
STATEFUL = {
    "variables": (build_variables, True),
    "mutable_table": (build_mutable_table, True),
    "dense_table": (build_dense_table, True),
    "echo": (build_echo, False),
}
