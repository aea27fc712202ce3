"""A model of the zoo: rows with a planted signal, and a recipe that trains on them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from tensorflow import Module
    from tensorflow.types.experimental import ConcreteFunction

# Each block of this many rows comes from a random stream of its own, so that row 5,000 is the same alone and among a
# million.
BLOCK_ROWS = 4096


@dataclass(frozen=True)
class Trained:
    """A trained model, ready for `tf.saved_model.save`."""

    module: "Module"
    signatures: Mapping[str, "ConcreteFunction"]


@dataclass(frozen=True)
class ZooModel:
    """One model of the zoo.

    Attributes:
      label: the column to predict. No output has this name: in sample files it is a passthrough column.
      make_block: `(generator, rows) -> RecordBatch` of features and label.
      train: `(rows, seed) -> Trained`; the only part that needs TensorFlow.
      metric: the measure of quality: area under the ROC curve, R2, or accuracy.
      score: `outputs of serving_default -> [rows]`: the values that the metric compares with the label.
      warmup_rows: rows of the request in assets.extra/tf_serving_warmup_requests; 0: no request.
    """

    name: str
    description: str
    label: str
    make_block: Callable[[np.random.Generator, int], pa.RecordBatch]
    train: Callable[[pa.RecordBatch, int], Trained]
    metric: Literal["auc", "r2", "accuracy"]
    score: Callable[[Mapping[str, np.ndarray]], np.ndarray]
    warmup_rows: int = 0

    def schema(self) -> pa.Schema:
        """Returns the columns of `make_rows`: features, then the label."""
        return self.make_rows(0, seed=0).schema

    def make_rows(self, rows: int, seed: int, start: int = 0) -> pa.RecordBatch:
        """Returns rows [start, start + rows) of the endless table of this seed."""
        first, last = start // BLOCK_ROWS, (start + max(rows, 1) - 1) // BLOCK_ROWS
        blocks = [self.make_block(np.random.default_rng([seed, block]), BLOCK_ROWS) for block in range(first, last + 1)]
        return pa.concat_batches(blocks).slice(start - first * BLOCK_ROWS, rows)


def feature_arrays(batch: pa.RecordBatch, label: str) -> dict[str, np.ndarray]:
    """Returns every column but the label: scalars as [rows], strings as object [rows], lists as [rows, length]."""
    return {name: to_numpy(batch.column(name)) for name in batch.schema.names if name != label}


def to_numpy(column: pa.Array) -> np.ndarray:
    """Returns a column without nulls as [rows], or [rows, length] where it holds lists of one length."""
    if pa.types.is_list(column.type):
        return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)
    return column.to_numpy(zero_copy_only=False)


def pick(generator: np.random.Generator, values: list[str], weights: list[float], rows: int) -> np.ndarray:
    """Returns int64 [rows]: indices into `values`, drawn with these weights."""
    shares = np.asarray(weights, np.float64)
    if len(shares) != len(values):
        raise ValueError(f"{len(values)} values but {len(shares)} weights")
    return generator.choice(len(values), rows, p=shares / shares.sum())


def strings(values: list[str], indices: np.ndarray) -> pa.Array:
    """Returns string [rows]: `values` at `indices`."""
    return pa.array(values, pa.string()).take(pa.array(indices))


def draw(generator: np.random.Generator, logits: np.ndarray) -> np.ndarray:
    """Returns int64 [rows]: 1 with the probability of each logit."""
    return (generator.random(len(logits)) < 1 / (1 + np.exp(-logits))).astype(np.int64)
