"""tf.function SavedModels over flat columns: dtypes, names, fixed lengths, and models that reject values."""

from __future__ import annotations

import os
import tempfile

from tests.support.saved_models.case import Columns, ModelCase, Row, save_function, write_lines

CURRENCIES = {b"NO": b"NOK", b"IT": b"EUR", b"US": b"USD"}


def build_order(directory: str) -> None:
    """Builds several inputs and outputs of different dtypes and ranks, and a lookup table from an asset."""
    with tempfile.TemporaryDirectory() as scratch:
        path = os.path.join(scratch, "currencies.tsv")
        write_lines(path, [country + b"\t" + currency for country, currency in CURRENCIES.items()])
        _save_order(directory, path)


def _save_order(directory: str, currencies: str) -> None:
    import tensorflow as tf

    asset = tf.saved_model.Asset(currencies)
    table = tf.lookup.StaticHashTable(
        tf.lookup.TextFileInitializer(asset, tf.string, 0, tf.string, 1), default_value=b"?"
    )
    discount = tf.Variable(0.25)

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.float32, name="amount"),
            tf.TensorSpec([None], tf.int64, name="items"),
            tf.TensorSpec([None], tf.bool, name="member"),
            tf.TensorSpec([None], tf.string, name="country"),
        ]
    )
    def serve(amount, items, member, country):
        price = tf.where(member, amount * (1.0 - discount), amount)
        points = items * tf.cast(member, tf.int64)
        return {
            "price": price,
            "points": points[:, tf.newaxis],
            "currency": table.lookup(country),
            "shares": tf.stack([price, price / 2.0, price / 4.0], axis=1),
        }

    save_function(directory, serve, table=table, asset=asset, discount=discount)


def order(rows: list[Row]) -> Columns:
    prices = [row["amount"] * (0.75 if row["member"] else 1.0) for row in rows]
    return {
        "price": prices,
        "points": [[row["items"] if row["member"] else 0] for row in rows],
        "currency": [CURRENCIES.get(row["country"], b"?") for row in rows],
        "shares": [[price, price / 2, price / 4] for price in prices],
    }


def build_string_only(directory: str) -> None:
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def serve(text):
        return {"upper": tf.strings.upper(text), "length": tf.strings.length(text)}

    save_function(directory, serve)


def upper(rows: list[Row]) -> Columns:
    """Works on bytes: letters outside ASCII keep their case and count as more than one."""
    return {"upper": [row["text"].upper() for row in rows], "length": [len(row["text"]) for row in rows]}


def build_raw_bytes(directory: str) -> None:
    """Builds a model with names that end in `_bytes`, which TF Serving's REST interface encodes in base64."""
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def serve(image_bytes):
        return {
            "framed_bytes": tf.strings.join([b"\xff\x00", image_bytes, b"\x80"]),
            "size": tf.strings.length(image_bytes, unit="BYTE"),
        }

    save_function(directory, serve)


def framed(rows: list[Row]) -> Columns:
    return {
        "framed_bytes": [b"\xff\x00" + row["image_bytes"] + b"\x80" for row in rows],
        "size": [len(row["image_bytes"]) for row in rows],
    }


# The lowest value, and the highest to which one can be added without loss. uint64 exceeds int64.
DTYPE_LIMITS: dict[str, tuple[float, float]] = {
    "int8": (-(2**7), 2**7 - 2),
    "uint8": (0, 2**8 - 2),
    "int16": (-(2**15), 2**15 - 2),
    "uint16": (0, 2**16 - 2),
    "int32": (-(2**31), 2**31 - 2),
    "uint32": (0, 2**32 - 2),
    "uint64": (0, 2**64 - 2),
    "float16": (-2048.0, 2047.0),
    "bfloat16": (-256.0, 255.0),
    "float64": (-(2.0**53), 2.0**53 - 1),
}


def build_dtypes(directory: str) -> None:
    import tensorflow as tf

    names = list(DTYPE_LIMITS)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.as_dtype(name), name=name) for name in names])
    def serve(*columns):
        return {f"{name}_plus_one": column + tf.ones_like(column) for name, column in zip(names, columns, strict=True)}

    save_function(directory, serve)


def plus_one(rows: list[Row]) -> Columns:
    return {f"{name}_plus_one": [row[name] + 1 for row in rows] for name in DTYPE_LIMITS}


def build_picky(directory: str) -> None:
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def serve(x):
        with tf.control_dependencies([tf.debugging.assert_non_negative(x, message="x must not be negative")]):
            return {"root": tf.sqrt(x)}

    save_function(directory, serve)


def root(rows: list[Row]) -> Columns:
    return {"root": [row["x"] ** 0.5 for row in rows]}


def build_scalar_output(directory: str) -> None:
    import tensorflow as tf

    threshold = tf.Variable(0.5)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def serve(x):
        return {"above": x > threshold, "threshold": tf.identity(threshold)}

    save_function(directory, serve, threshold=threshold)


def above(rows: list[Row]) -> Columns:
    return {"above": [row["x"] > 0.5 for row in rows]}


def build_vector_inputs(directory: str) -> None:
    import tensorflow as tf

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, 4], tf.float32, name="sensors"),
            tf.TensorSpec([None, 1], tf.int64, name="machine"),
            tf.TensorSpec([None, 2], tf.string, name="place"),
        ]
    )
    def serve(sensors, machine, place):
        return {
            "mean": tf.reduce_mean(sensors, axis=1),
            "alarm": tf.reduce_any(sensors > 8.0, axis=1, keepdims=True),
            "next_machine": machine + 1,
            "address": tf.strings.reduce_join(place, axis=1, separator="/"),
        }

    save_function(directory, serve)


def sensors(rows: list[Row]) -> Columns:
    return {
        "mean": [sum(row["sensors"]) / 4 for row in rows],
        "alarm": [[max(row["sensors"]) > 8.0] for row in rows],
        "next_machine": [[row["machine"][0] + 1] for row in rows],
        "address": [b"/".join(row["place"]) for row in rows],
    }


def build_fixed_batch(directory: str) -> None:
    """Builds a model with a static batch dimension: it accepts exactly eight rows."""
    import tensorflow as tf

    weights = tf.Variable([[1.0, 0.5], [0.25, -1.0], [2.0, 0.0]])

    @tf.function(input_signature=[tf.TensorSpec([8, 3], tf.float32, name="x")])
    def serve(x):
        return {"y": tf.matmul(x, weights)}

    save_function(directory, serve, weights=weights)


def fixed_batch(rows: list[Row]) -> Columns:
    return {"y": [[a + 0.25 * b + 2.0 * c, 0.5 * a - b] for a, b, c in (row["x"] for row in rows)]}


CASES: tuple[ModelCase, ...] = (
    ModelCase(
        "tf2_function",
        build_order,
        "serving_default",
        [
            {"amount": 8.0, "items": 2, "member": True, "country": b"NO"},
            {"amount": 12.5, "items": 2**40, "member": False, "country": b"IT"},
            {"amount": 0.0, "items": -1, "member": True, "country": b""},
            {"amount": 2.25, "items": 2**62, "member": True, "country": b"\xffUS"},
        ],
        order,
    ),
    ModelCase(
        "string_only",
        build_string_only,
        "serving_default",
        [{"text": text.encode()} for text in ("", "Plain words", "gr\u00fc\u00dfe", "\u6771\u4eac a", 'a,"b"\nc')],
        upper,
    ),
    ModelCase(
        "raw_bytes",
        build_raw_bytes,
        "serving_default",
        [{"image_bytes": b"\x89PNG\r\n\x1a\n\x00"}, {"image_bytes": b""}, {"image_bytes": bytes(range(256))}],
        framed,
    ),
    ModelCase(
        "dtypes",
        build_dtypes,
        "serving_default",
        [
            {name: lowest for name, (lowest, _) in DTYPE_LIMITS.items()},
            {name: highest for name, (_, highest) in DTYPE_LIMITS.items()},
            {name: 1.5 if isinstance(lowest, float) else 1 for name, (lowest, _) in DTYPE_LIMITS.items()},
        ],
        plus_one,
    ),
    ModelCase(
        "picky",
        build_picky,
        "serving_default",
        [{"x": 0.0}, {"x": 4.0}, {"x": 2.0}, {"x": 6.25}],
        root,
        poison={"x": -1.0},
    ),
    ModelCase("scalar_output", build_scalar_output, "serving_default", [{"x": 0.25}, {"x": 0.5}, {"x": 1.0}], above),
    ModelCase(
        "vector_inputs",
        build_vector_inputs,
        "serving_default",
        [
            {"sensors": [1.0, 2.0, 3.0, 4.0], "machine": [7], "place": [b"hall 1", b"row 3"]},
            {"sensors": [0.0, -8.0, 16.0, 0.5], "machine": [-1], "place": [b"", b"x"]},
        ],
        sensors,
    ),
    ModelCase(
        "fixed_batch",
        build_fixed_batch,
        "serving_default",
        [{"x": [float(i), i / 2, -i / 4]} for i in range(11)],
        fixed_batch,
    ),
)
