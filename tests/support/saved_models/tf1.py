"""SavedModels made the TF1 way: a graph, a Session, SavedModelBuilder."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from typing import Any

from tests.support.saved_models.case import Columns, ModelCase, Row, write_lines

# Churn, as a tf.estimator classifier exports it. All values are multiples of 1/16, so float32 holds all sums exactly.
PLANS = [b"basic", b"family", b"pro"]
CLASSES = [b"leave", b"stay", b"unsure"]
PLAN_WEIGHTS = [[1.0, -0.5, 0.25], [-0.25, 0.75, 0.5], [-1.0, 1.5, 0.0], [0.125, 0.125, 0.125]]  # last: not in PLANS
TENURE_WEIGHTS = [-0.0625, 0.0625, 0.0]
CHARGE_WEIGHTS = [0.125, -0.125, 0.0625]
COMPLAINT_WEIGHTS = [0.5, -0.25, 0.25]

CHURN_SPEC = {"plan": "bytes", "tenure_months": "int64", "monthly_charge": "float", "complaints": "bytes"}
CHURN_ROWS: list[Row] = [
    {"plan": [b"basic"], "tenure_months": [3], "monthly_charge": [12.5], "complaints": [b"late", b"rude"]},
    {"plan": [b"pro"], "tenure_months": [48], "monthly_charge": [40.0], "complaints": []},
    {"plan": [b"family"], "tenure_months": [0], "monthly_charge": [0.0], "complaints": [b"price"]},
    {"plan": [b"retired plan"], "tenure_months": [10], "monthly_charge": [6.25], "complaints": []},
    {"plan": [b"pro"], "tenure_months": [2], "monthly_charge": [30.0], "complaints": [b"a", b"b", b"c", b"d"]},
]


def build_churn(directory: str) -> None:
    """Builds the signatures of an Estimator's export, all fed by serialized tf.Examples."""
    import tensorflow as tf

    v1 = tf.compat.v1
    with tempfile.TemporaryDirectory() as scratch, tf.Graph().as_default(), v1.Session() as session:
        vocabulary = os.path.join(scratch, "plans.txt")
        write_lines(vocabulary, PLANS)
        v1.train.get_or_create_global_step()
        serialized = v1.placeholder(tf.string, [None], name="input_example_tensor")
        logits = _churn_logits(serialized, vocabulary)
        probabilities = tf.nn.softmax(logits)
        class_ids = tf.argmax(logits, axis=1)[:, tf.newaxis]
        all_classes = tf.tile(tf.constant([CLASSES]), [tf.shape(logits)[0], 1])
        utils = v1.saved_model.signature_def_utils
        classify = utils.classification_signature_def(serialized, all_classes, probabilities)
        regress = utils.regression_signature_def(serialized, logits[:, :1])
        predict = utils.predict_signature_def(
            {"examples": serialized},
            {"probabilities": probabilities, "class_ids": class_ids, "classes": tf.gather(CLASSES, class_ids)},
        )
        session.run(v1.global_variables_initializer())
        # Where TF 1 put it. Today's builder stores its argument `legacy_init_op` as `saved_model_main_op`.
        v1.add_to_collection("legacy_init_op", v1.tables_initializer())
        builder = v1.saved_model.builder.SavedModelBuilder(directory)
        builder.add_meta_graph_and_variables(
            session,
            ["serve"],
            {"serving_default": classify, "classification": classify, "regression": regress, "predict": predict},
            assets_collection=v1.get_collection(v1.GraphKeys.ASSET_FILEPATHS),
        )
        builder.save()


def _churn_logits(serialized: Any, vocabulary: str) -> Any:
    import tensorflow as tf

    v1 = tf.compat.v1
    features = v1.io.parse_example(
        serialized,
        {
            "plan": v1.io.FixedLenFeature([1], tf.string),
            "tenure_months": v1.io.FixedLenFeature([1], tf.int64),
            "monthly_charge": v1.io.FixedLenFeature([1], tf.float32, default_value=[0.0]),
            "complaints": v1.io.VarLenFeature(tf.string),
        },
    )
    table = v1.lookup.StaticHashTable(
        v1.lookup.TextFileInitializer(
            vocabulary,
            tf.string,
            v1.lookup.TextFileIndex.WHOLE_LINE,
            tf.int64,
            v1.lookup.TextFileIndex.LINE_NUMBER,
        ),
        default_value=len(PLANS),
    )
    ones = features["complaints"].with_values(tf.ones_like(features["complaints"].values, tf.float32))
    complaints = tf.reduce_sum(tf.sparse.to_dense(ones), axis=1)
    with v1.variable_scope("linear", use_resource=False):  # Reference variables, as TF1 wrote them.
        return (
            tf.gather(_variable("plan", PLAN_WEIGHTS), table.lookup(features["plan"][:, 0]))
            + tf.cast(features["tenure_months"], tf.float32) * _variable("tenure", TENURE_WEIGHTS)
            + features["monthly_charge"] * _variable("charge", CHARGE_WEIGHTS)
            + complaints[:, tf.newaxis] * _variable("complaints", COMPLAINT_WEIGHTS)
        )


def _variable(name: str, value: Any) -> Any:
    import tensorflow as tf

    return tf.compat.v1.get_variable(name, initializer=tf.constant(value, tf.float32))


def churn_logits(row: Row) -> list[float]:
    plan = row["plan"][0]
    weights = PLAN_WEIGHTS[PLANS.index(plan) if plan in PLANS else len(PLANS)]
    tenure, charge, complaints = row["tenure_months"][0], row["monthly_charge"][0], len(row["complaints"])
    return [
        weights[k] + tenure * TENURE_WEIGHTS[k] + charge * CHARGE_WEIGHTS[k] + complaints * COMPLAINT_WEIGHTS[k]
        for k in range(len(CLASSES))
    ]


def softmax(logits: list[float]) -> list[float]:
    exponentials = [math.exp(value - max(logits)) for value in logits]
    return [value / sum(exponentials) for value in exponentials]


def churn_classified(rows: list[Row]) -> Columns:
    return {"classes": [CLASSES for _ in rows], "scores": [softmax(churn_logits(row)) for row in rows]}


def churn_regressed(rows: list[Row]) -> Columns:
    return {"outputs": [churn_logits(row)[:1] for row in rows]}


def churn_predicted(rows: list[Row]) -> Columns:
    logits = [churn_logits(row) for row in rows]
    best = [row.index(max(row)) for row in logits]
    return {
        "probabilities": [softmax(row) for row in logits],
        "class_ids": [[k] for k in best],
        "classes": [[CLASSES[k]] for k in best],
    }


def build_predict(directory: str) -> None:
    """Builds raw numeric placeholders, partitioned variables, a `main_op`, and no signature named serving_default."""
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        age = v1.placeholder(tf.float32, [None], name="age")
        income = v1.placeholder(tf.float32, [None, 1], name="income")
        partitioned = v1.fixed_size_partitioner(2)
        with v1.variable_scope("dnn", partitioner=partitioned, use_resource=False):
            weights = v1.get_variable("weights", [2, 1], initializer=v1.constant_initializer(0.5))
            score = tf.matmul(tf.concat([age[:, tf.newaxis], income], axis=1), weights) - 8.0
        signature = v1.saved_model.signature_def_utils.predict_signature_def(
            {"age": age, "income": income}, {"score": score, "eligible": tf.cast(score > 0.0, tf.int64)}
        )
        session.run(v1.global_variables_initializer())
        builder = v1.saved_model.builder.SavedModelBuilder(directory)
        builder.add_meta_graph_and_variables(
            session, ["serve"], {"predict": signature}, main_op=v1.saved_model.main_op.main_op()
        )
        builder.save()


def predicted(rows: list[Row]) -> Columns:
    scores = [0.5 * (row["age"] + row["income"][0]) - 8.0 for row in rows]
    return {"score": [[score] for score in scores], "eligible": [[int(score > 0)] for score in scores]}


def build_no_variables(directory: str) -> None:
    """Builds a lone saved_model.pb: an empty `variables` directory does not survive a copy to an object store."""
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        celsius = v1.placeholder(tf.float64, [None], name="celsius")
        v1.saved_model.simple_save(session, directory, {"celsius": celsius}, {"fahrenheit": celsius * 1.8 + 32.0})
    shutil.rmtree(os.path.join(directory, "variables"), ignore_errors=True)


def fahrenheit(rows: list[Row]) -> Columns:
    return {"fahrenheit": [row["celsius"] * 1.8 + 32.0 for row in rows]}


def build_unknown_rank(directory: str) -> None:
    """Builds an output of undeclared rank: shape inference gives up on many TF1 ops (py_func, sparse reductions)."""
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None], name="x")
        doubled = v1.placeholder_with_default(x * 2.0, shape=None)
        v1.saved_model.simple_save(session, directory, {"x": x}, {"doubled": doubled})


def doubled(rows: list[Row]) -> Columns:
    return {"doubled": [row["x"] * 2.0 for row in rows]}


CASES: tuple[ModelCase, ...] = (
    ModelCase("tf1_estimator", build_churn, "serving_default", CHURN_ROWS, churn_classified, example_spec=CHURN_SPEC),
    ModelCase("tf1_estimator_predict", build_churn, "predict", CHURN_ROWS, churn_predicted, example_spec=CHURN_SPEC),
    ModelCase("tf1_estimator_regress", build_churn, "regression", CHURN_ROWS, churn_regressed, example_spec=CHURN_SPEC),
    ModelCase(
        "tf1_predict",
        build_predict,
        "predict",
        [{"age": 30.0, "income": [10.0]}, {"age": 10.0, "income": [4.25]}, {"age": 0.0, "income": [100.0]}],
        predicted,
    ),
    ModelCase(
        "no_variables",
        build_no_variables,
        "serving_default",
        [{"celsius": 0.0}, {"celsius": 100.0}, {"celsius": -40.0}],
        fahrenheit,
    ),
    ModelCase("unknown_rank", build_unknown_rank, "serving_default", [{"x": 1.5}, {"x": -2.0}], doubled),
)
