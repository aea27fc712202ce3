"""Census income (UCI Adult), in its classic columns: does a person earn over 50,000 dollars a year?"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from sluice.models.saved_model.tensorflow_import import tensorflow
from sluice.models.zoo.base import Trained, ZooModel, draw, feature_arrays, pick, strings
from sluice.models.zoo.training import dense, fit, signature

if TYPE_CHECKING:
    from tensorflow import Tensor

LABEL = "income_bracket"
CLASSES = ["<=50K", ">50K"]

# In order: education_num is the index plus one.
EDUCATIONS = [
    "Preschool", "1st-4th", "5th-6th", "7th-8th", "9th", "10th", "11th", "12th", "HS-grad", "Some-college",
    "Assoc-voc", "Assoc-acdm", "Bachelors", "Masters", "Prof-school", "Doctorate",
]  # fmt: skip
EDUCATION_SHARES = [0.2, 0.5, 1, 2, 1.6, 2.9, 3.6, 1.3, 32, 22, 4, 3.3, 16.5, 5.3, 1.8, 1.3]

# Column -> values, their shares in percent, and what each adds to the logit.
Choice = tuple[list[str], list[float], list[float]]
CHOICES: dict[str, Choice] = {
    "workclass": (
        ["Private", "Self-emp-not-inc", "Self-emp-inc", "Federal-gov", "Local-gov", "State-gov", "Without-pay", "?"],
        [70, 8, 3.5, 3, 6.5, 4, 0.2, 4.8],
        [0, -0.4, 0.4, 0.5, 0, -0.1, -2, -0.6],
    ),
    "marital_status": (
        ["Married-civ-spouse", "Never-married", "Divorced", "Separated", "Widowed", "Married-spouse-absent"],
        [46, 33, 13.6, 3.1, 3, 1.3],
        [1.6, -0.9, -0.6, -0.8, -0.5, -0.6],
    ),
    "occupation": (
        ["Prof-specialty", "Craft-repair", "Exec-managerial", "Adm-clerical", "Sales", "Other-service",
         "Machine-op-inspct", "Transport-moving", "Handlers-cleaners", "Farming-fishing", "Tech-support",
         "Protective-serv", "Priv-house-serv", "Armed-Forces", "?"],
        [12.7, 12.6, 12.5, 11.6, 11.2, 10.1, 6.1, 4.9, 4.2, 3.1, 2.9, 2, 0.5, 0.1, 5.5],
        [0.6, 0, 0.9, -0.1, 0.2, -1, -0.4, -0.2, -0.8, -1, 0.6, 0.5, -2, 0, -0.5],
    ),
    "relationship": (
        ["Husband", "Not-in-family", "Own-child", "Unmarried", "Wife", "Other-relative"],
        [40.5, 25.5, 15.6, 10.6, 4.8, 3],
        [0.3, -0.2, -1, -0.3, 0.8, -0.8],
    ),
    "race": (
        ["White", "Black", "Asian-Pac-Islander", "Amer-Indian-Eskimo", "Other"],
        [85.4, 9.6, 3.2, 1, 0.8],
        [0, 0, 0, 0, 0],
    ),
    "sex": (["Male", "Female"], [67, 33], [0.2, -0.2]),
    "native_country": (
        ["United-States", "Mexico", "Philippines", "Germany", "Canada", "Puerto-Rico", "India", "Cuba", "England",
         "Jamaica", "China", "Vietnam", "Hong", "Holand-Netherlands", "?"],
        [89.6, 2, 0.6, 0.5, 0.4, 0.4, 0.3, 0.3, 0.3, 0.3, 0.2, 0.2, 0.1, 0.1, 1.8],
        [0, -0.5, 0.1, 0.1, 0.1, -0.3, 0.2, 0, 0.2, -0.2, 0, -0.2, 0, 0, 0],
    ),
}  # fmt: skip

STRINGS = ("workclass", "education", "marital_status", "occupation", "relationship", "race", "sex", "native_country")
NUMBERS = ("age", "education_num", "capital_gain", "capital_loss", "hours_per_week")
COLUMNS = (
    "age", "workclass", "education", "education_num", "marital_status", "occupation", "relationship", "race", "sex",
    "capital_gain", "capital_loss", "hours_per_week", "native_country",
)  # fmt: skip
BUCKETS = 64  # of every string column


def make_block(generator: np.random.Generator, rows: int) -> pa.RecordBatch:
    """Returns people whose income depends on schooling, age, hours, capital, marriage and occupation."""
    age = np.clip(np.round(17 + generator.gamma(2.3, 9.5, rows)), 17, 90).astype(np.int64)
    education = pick(generator, EDUCATIONS, EDUCATION_SHARES, rows)
    hours = np.clip(np.round(generator.normal(40.5, 11, rows)), 1, 99).astype(np.int64)
    gain = np.where(generator.random(rows) < 0.08, np.exp(generator.normal(8.4, 1, rows)), 0).astype(np.int64)
    loss = np.where(generator.random(rows) < 0.05, generator.normal(1850, 350, rows), 0).clip(0).astype(np.int64)
    logits = -2.6 + 0.33 * (education - 9) + 0.03 * (hours - 40) - 0.0018 * (age - 48.0) ** 2
    logits += 0.6 * (np.log1p(gain) - 7).clip(0) + 0.5 * (loss > 1800)
    columns = {
        "age": pa.array(age),
        "education": strings(EDUCATIONS, education),
        "education_num": pa.array(education + 1),
        "capital_gain": pa.array(gain),
        "capital_loss": pa.array(loss),
        "hours_per_week": pa.array(hours),
    }
    for name, (values, shares, effects) in CHOICES.items():
        chosen = pick(generator, values, shares, rows)
        logits += np.asarray(effects)[chosen]
        columns[name] = strings(values, chosen)
    columns[LABEL] = strings(CLASSES, draw(generator, logits))
    return pa.RecordBatch.from_pydict({name: columns[name] for name in (*COLUMNS, LABEL)})


def train(batch: pa.RecordBatch, seed: int) -> Trained:
    """Trains an MLP over one hashed embedding per string column and scaled numbers."""
    tf = tensorflow()

    generator = np.random.default_rng(seed)
    module = tf.Module(name="census")
    table = generator.normal(0, 0.05, (len(STRINGS) * BUCKETS, 4)).astype(np.float32)
    module.table = tf.Variable(table, name="embeddings")
    width = len(NUMBERS) + 1 + len(STRINGS) * 4
    module.layers = [dense(generator, width, 32, "hidden"), dense(generator, 32, len(CLASSES), "logits")]
    offsets = np.arange(len(STRINGS), dtype=np.int64) * BUCKETS

    def encode(features: Mapping[str, "Tensor"]) -> tuple["Tensor", "Tensor"]:
        ids = tf.strings.to_hash_bucket_fast(tf.stack([features[name] for name in STRINGS], axis=1), BUCKETS)
        age, school, gain, loss, hours = (tf.cast(features[name], tf.float32) for name in NUMBERS)
        scaled_age = (age - 40) / 14
        money = [tf.math.log1p(tf.maximum(gain, 0)) / 4, tf.math.log1p(tf.maximum(loss, 0)) / 4]
        numbers = [scaled_age, tf.square(scaled_age), (school - 10) / 2.5, (hours - 40) / 12, *money]
        return ids + offsets, tf.stack(numbers, axis=1)

    def logits(ids: "Tensor", numbers: "Tensor") -> "Tensor":
        (kernel, bias), (last_kernel, last_bias) = module.layers
        embedded = tf.reshape(tf.gather(module.table, ids), [-1, len(STRINGS) * 4])
        hidden = tf.nn.relu(tf.matmul(tf.concat([numbers, embedded], axis=1), kernel) + bias)
        return tf.matmul(hidden, last_kernel) + last_bias

    def loss(ids: "Tensor", numbers: "Tensor", classes: "Tensor") -> "Tensor":
        return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(classes, logits(ids, numbers)))

    ids, numbers = encode({k: tf.constant(v) for k, v in feature_arrays(batch, LABEL).items()})
    over = (batch.column(LABEL).to_numpy(zero_copy_only=False) == CLASSES[1]).astype(np.int64)
    fit(loss, module.trainable_variables, (ids, numbers, over), epochs=4, learning_rate=0.01, seed=seed)

    def classify(features: Mapping[str, "Tensor"]) -> dict[str, "Tensor"]:
        probabilities = tf.nn.softmax(logits(*encode(features)))
        class_id = tf.argmax(probabilities, axis=1)
        return {"classes": tf.gather(CLASSES, class_id), "class_id": class_id, "probabilities": probabilities}

    inputs = {name: (tf.string if name in STRINGS else tf.int64, [None]) for name in COLUMNS}
    return Trained(module, {"serving_default": signature(classify, inputs)})


MODEL = ZooModel(
    name="census",
    description="census income: thirteen mixed columns in; the class as text, its number and probabilities out",
    label=LABEL,
    make_block=make_block,
    train=train,
    metric="auc",
    score=lambda outputs: outputs["probabilities"][:, 1],
)
