"""The quality of an exported model of the zoo, on rows that it was not trained on."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from sluice.models.saved_model.tensorflow_import import tensorflow
from sluice.models.zoo.base import ZooModel, feature_arrays, to_numpy


@dataclass(frozen=True)
class Quality:
    """A score in `metric`; the baseline is that of the best single number among the features, or of the top class."""

    metric: str
    score: float
    baseline: float


def held_out_score(model: ZooModel, directory: str, rows: int = 8192, seed: int = 1001) -> Quality:
    """Returns the score on rows of another seed than the model was trained with.

    Args:
      directory: a version that `export_model` returned.
    """
    batch = model.make_rows(rows, seed)
    actual = to_numpy(batch.column(model.label))
    predicted = model.score(run_signature(directory, batch))
    if model.metric == "accuracy":
        commonest = np.unique(actual, return_counts=True)[1].max() / rows
        return Quality("accuracy", float(np.mean(predicted == actual)), float(commonest))
    columns = feature_arrays(batch, model.label).values()
    numbers = [column.astype(np.float64) for column in columns if column.dtype != object]
    if model.metric == "r2":
        # A line through one feature explains the square of its correlation.
        baseline = max(np.corrcoef(column, actual)[0, 1] ** 2 for column in numbers)
        residual = np.mean((predicted.astype(np.float64) - actual) ** 2)
        return Quality("r2", float(1 - residual / np.var(actual, dtype=np.float64)), float(baseline))
    positive = actual == max(actual)
    scores = (area_under_curve(positive, column) for column in numbers)
    return Quality("auc", area_under_curve(positive, predicted), max(max(s, 1 - s) for s in scores))


def area_under_curve(positive: np.ndarray, scores: np.ndarray) -> float:
    """Returns the chance that a positive row scores above a negative one, ties counting half.

    Args:
      positive: bool [rows].
      scores: number [rows].
    """
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(count) - (count - 1) / 2)[place]
    positives = int(positive.sum())
    negatives = len(positive) - positives
    return float((ranks[positive].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def run_signature(directory: str, batch: pa.RecordBatch, signature: str = "serving_default") -> dict[str, np.ndarray]:
    """Returns the signature's outputs for these rows, whose other columns it ignores.

    It uses nothing of Sluice's model loading, so that tests can compare the two.
    """
    tf = tensorflow()
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        loaded = tf.compat.v1.saved_model.loader.load(session, ["serve"], directory)
        definition = loaded.signature_def[signature]
        feeds = {}
        for name, info in definition.inputs.items():
            shape = [-1, *(dim.size for dim in info.tensor_shape.dim[1:])]
            feeds[info.name] = to_numpy(batch.column(name)).reshape(shape)
        outputs: dict[str, np.ndarray] = session.run({k: v.name for k, v in definition.outputs.items()}, feeds)
        return outputs
