"""SavedModels of single tests."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sluice.models.protos import message_class
from tests.support.saved_models.case import save_function

# Quantized types by TensorFlow's name: the NumPy type of the same bytes.
QUANTIZED = {"qint8": "int8", "quint8": "uint8", "qint16": "int16", "quint16": "uint16", "qint32": "int32"}


def build_parser(directory: str) -> None:
    """Parses tf.Examples in a function that a function calls, with features of every kind."""
    import tensorflow as tf

    spec = {
        "age": tf.io.FixedLenFeature([], tf.int64),
        "income": tf.io.FixedLenFeature([], tf.float32, default_value=10.0),
        "pair": tf.io.FixedLenFeature([2], tf.float32),
        "tags": tf.io.VarLenFeature(tf.string),
        "clicks": tf.io.RaggedFeature(tf.int64),
        "steps": tf.io.FixedLenSequenceFeature([2], tf.float32, allow_missing=True),
    }

    @tf.function
    def parse(serialized):
        parsed = tf.io.parse_example(serialized, spec)
        ones = parsed["tags"].with_values(tf.ones_like(parsed["tags"].values, tf.int64))
        tags = tf.reduce_sum(tf.sparse.to_dense(ones), 1)
        return {
            "sum": parsed["income"] + tf.reduce_sum(parsed["pair"], 1) + tf.reduce_sum(parsed["steps"], [1, 2]),
            "count": parsed["age"] + tags + tf.reduce_sum(parsed["clicks"], 1),
        }

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def serve(examples):
        return parse(tf.identity(examples))

    save_function(directory, serve, parse=parse)


def _build_on_gpu(directory: str, in_body: bool) -> None:
    """A model whose exporter has named a GPU, in its graph or in a function."""
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def serve(x: Any) -> dict[str, Any]:
        with tf.device("/device:GPU:3") if in_body else contextlib.nullcontext():
            return {"y": x * 2.0}

    save_function(directory, serve)
    if not in_body:
        saved_model = _read(directory)
        for node in saved_model.meta_graphs[0].graph_def.node:
            node.device = "/device:GPU:3"
        _write(directory, saved_model)


def build_unrestored(directory: str) -> None:
    """A model like those of Keras 3 by `tf.saved_model.save`: its graph does not restore its variable."""
    import tensorflow as tf

    weight = tf.Variable(2.5)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def serve(x: Any) -> dict[str, Any]:
        return {"y": x * weight}

    save_function(directory, serve, weight=weight)
    saved_model = _read(directory)
    saved_model.meta_graphs[0].saver_def.restore_op_name = ""
    _write(directory, saved_model)


def build_counter(directory: str) -> None:
    """Two signatures of one variable: one adds to it, the other reads it."""
    import tensorflow as tf

    module = tf.Module()
    module.count = tf.Variable(0.0)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def add(x):
        return {"count": module.count.assign_add(tf.reduce_sum(x)) + tf.zeros_like(x)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def read(x):
        return {"count": module.count + tf.zeros_like(x)}

    tf.saved_model.save(module, directory, signatures={"serving_default": read, "add": add})


def build_defaults(directory: str) -> None:
    """x + y, where y may be left out and is 10 then."""
    import tensorflow as tf

    @tf.function(
        input_signature=[tf.TensorSpec([None], tf.float32, name="x"), tf.TensorSpec([None], tf.float32, name="y")]
    )
    def serve(x, y):
        return {"sum": x + y}

    save_function(directory, serve)
    saved_model = _read(directory)
    default = saved_model.meta_graphs[0].signature_def["serving_default"].defaults["y"]
    default.MergeFromString(tf.make_tensor_proto([10.0], tf.float32).SerializeToString())
    _write(directory, saved_model)


def build_loop(directory: str) -> None:
    """Adds x to itself as many times as its largest value says."""
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def serve(x: Any) -> dict[str, Any]:
        turns = tf.cast(tf.reduce_max(x), tf.int64)
        start = [tf.constant(0, tf.int64), 0.0]
        added = tf.while_loop(lambda i, _: i < turns, lambda i, s: (i + 1, s + tf.reduce_sum(x)), start)[1]
        return {"y": x + added}

    save_function(directory, serve)


def build_jpegs(directory: str) -> None:
    """Takes the bytes of JPEG files: their width, and the mean of their pixels."""
    import tensorflow as tf

    def look(data: Any) -> tuple[Any, Any]:
        pixels = tf.io.decode_jpeg(data, channels=3)
        return tf.reduce_mean(tf.cast(pixels, tf.float32)), tf.shape(pixels)[1]

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image")])
    def serve(image: Any) -> dict[str, Any]:
        brightness, width = tf.map_fn(look, image, fn_output_signature=(tf.float32, tf.int32))
        return {"brightness": brightness, "width": width}

    save_function(directory, serve)


def _build_quantized(directory: str, dtype: str) -> None:
    """Answers with what it is fed, and with the whole numbers that it is stored as."""
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        given = v1.placeholder(tf.as_dtype(dtype), [None, 3], name="given")
        outputs = {"same": tf.identity(given), "stored": tf.bitcast(given, QUANTIZED[dtype])}
        v1.saved_model.simple_save(session, directory, {"given": given}, outputs)


def _read(directory: str) -> Any:
    return message_class("tensorflow.SavedModel").FromString(Path(directory, "saved_model.pb").read_bytes())


def _write(directory: str, saved_model: Any) -> None:
    Path(directory, "saved_model.pb").write_bytes(saved_model.SerializeToString())


SPECIAL: dict[str, Callable[[str], None]] = {
    "parser": build_parser,
    "gpu_in_function": functools.partial(_build_on_gpu, in_body=True),
    "gpu_in_graph": functools.partial(_build_on_gpu, in_body=False),
    "unrestored": build_unrestored,
    "counter": build_counter,
    "defaults": build_defaults,
    "loop": build_loop,
    "jpegs": build_jpegs,
    **{dtype: functools.partial(_build_quantized, dtype=dtype) for dtype in QUANTIZED},
}
