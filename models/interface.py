"""What every backend is: a Model. And what a call of one gives."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from models.binding import Bound, Feeds
from models.errors import BadOutput
from models.signature import DEFAULT_SIGNATURE, Signature, TensorSpec


@dataclasses.dataclass(frozen=True)
class ModelOptions:
    """How a model is opened. Hashable: it is part of the key of the process's model cache.

    Attributes:
      outputs: names of the outputs to compute; empty: all.
      defaults: (column, value) pairs: what stands for a null in a column that the model takes.
      intra_op_threads, inter_op_threads: of TensorFlow; 0: one per core.
      warm_up: replay assets.extra/tf_serving_warmup_requests after loading.
    """

    signature: str = DEFAULT_SIGNATURE
    outputs: tuple[str, ...] = ()
    defaults: tuple[tuple[str, Any], ...] = ()
    intra_op_threads: int = 0
    inter_op_threads: int = 0
    warm_up: bool = True


@dataclasses.dataclass(frozen=True)
class Outputs:
    """What one call gave.

    Attributes:
      arrays: by output name, each with one entry a row: an array [rows, ...], or an Arrow list array if ragged.
      version: of the model that answered; None if it has none.
    """

    arrays: Mapping[str, np.ndarray | pa.Array]
    version: int | None = None

    def slice(self, start: int, stop: int) -> "Outputs":
        """Returns rows [start, stop), without a copy."""
        return Outputs({name: array[start:stop] for name, array in self.arrays.items()}, self.version)


class Model(Protocol):
    """A model that can be called, wherever it runs. Thread-safe."""

    uri: str
    version: int | None
    signature: Signature

    def bind(self, batch: pa.RecordBatch) -> Bound:
        """Returns the batch as the tensors that the model takes."""

    def call(self, feeds: Feeds) -> Outputs:
        """Returns the model's answer to these tensors, all with the same number of rows.

        Raises:
          CallError: see models.errors for its kinds.
        """

    def close(self) -> None:
        """Gives back what the model holds; no call may follow."""


def concat_outputs(parts: Sequence[Outputs]) -> dict[str, np.ndarray | pa.Array]:
    """Returns the arrays of several answers, one after the other."""
    if len(parts) == 1:
        return dict(parts[0].arrays)
    return {name: _concat([part.arrays[name] for part in parts]) for name in parts[0].arrays}


def _concat(arrays: list[Any]) -> np.ndarray | pa.Array:
    if isinstance(arrays[0], pa.Array):
        return pa.concat_arrays(arrays)
    if len({array.shape[1:] for array in arrays}) > 1:  # an output of open size differs between calls
        return _as_lists(arrays)
    return np.concatenate(arrays)


def _as_lists(arrays: list[np.ndarray]) -> pa.Array:
    return pa.concat_arrays([pa.array(array.tolist()) for array in arrays])


def check_outputs(outputs: Outputs, specs: Sequence[TensorSpec], rows: int) -> Outputs:
    """Returns the answer if it is what the signature promises.

    Raises:
      BadOutput: an output is missing, or has another row count, rank or dtype.
    """
    for spec in specs:
        array = outputs.arrays.get(spec.name)
        if array is None:
            raise BadOutput(f"the answer lacks output '{spec.name}'; it has {sorted(outputs.arrays)}")
        if np.ndim(array) == 0 or len(array) != rows:
            found = "no batch dimension" if np.ndim(array) == 0 else f"{len(array)} rows"
            raise BadOutput(f"output '{spec.name}': {found} for a batch of {rows} rows")
        if isinstance(array, np.ndarray) and array.dtype != spec.numpy_dtype:
            raise BadOutput(f"output '{spec.name}' is {array.dtype}, and the signature says {spec.dtype}")
    return outputs
