"""A SavedModel whose surroundings can fail: each call reads a file, which the test takes away, or which blocks."""

from __future__ import annotations

import os
from typing import Any

from tests.support.saved_models.case import save_function

# A row of this value is at fault by itself.
POISON = 13


def build_file_reader(directory: str | os.PathLike[str], path: str | os.PathLike[str], negative: str = "") -> None:
    """Saves a model of x int64 [rows] -> y = 2 x, which reads a file in each call.

    Args:
      path: the file. If it is not there, a call fails with NOT_FOUND; if it is a pipe without a writer, the kernel
        hangs.
      negative: the file that is read instead if an x is negative; "": the same.
    """
    import tensorflow as tf

    def path_of(x: Any) -> Any:
        """A path that depends on the input, or TensorFlow would read the file once."""
        return tf.where(tf.reduce_any(x < 0), tf.constant(negative or str(path)), tf.constant(str(path)))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64, name="x")])
    def serve(x: Any) -> dict[str, Any]:
        checked = tf.debugging.assert_none_equal(x, tf.constant(POISON, tf.int64), message="x must not be 13")
        with tf.control_dependencies([checked]):
            content = tf.io.read_file(path_of(x))
        nothing = tf.minimum(tf.strings.length(content), 0)  # a product with 0 would be computed without the file
        return {"y": 2 * x + tf.cast(nothing, tf.int64)}

    save_function(str(directory), serve)
