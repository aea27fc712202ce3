"""What every backend is: a Model. And what a call of one gives."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from sluice.models.errors import BadOutput
from sluice.models.signature import DEFAULT_SIGNATURE, Signature, TensorSpec
from sluice.models.tensors.binding import Bound, Feeds


@dataclasses.dataclass(frozen=True)
class EndpointOptions:
    """How a served model is called. Hashable and picklable: it travels to the workers.

    Attributes:
      rpc_timeout_secs: the deadline of one call.
      ca_certificates: PEM text to trust for TLS, instead of the machine's own; empty: the machine's.
      headers: (name, value) pairs that go with every call; not in the repr, for they may be secrets.
      token_file: holds a bearer token; read again when it changes. Empty: none.
      google_auth: send an access token of Google's application default credentials.
      google_audience: send an ID token of Google's for this audience instead; empty: none.
      rest_format: "columns": `inputs`, a list for each input; "rows": `instances`, an object for each row.
      rest_gzip: compress REST requests. Answers may be compressed in any case.
    """

    rpc_timeout_secs: float = 60.0
    ca_certificates: str = ""
    headers: tuple[tuple[str, str], ...] = dataclasses.field(default=(), repr=False)
    token_file: str = ""
    google_auth: bool = False
    google_audience: str = ""
    rest_format: str = "columns"
    rest_gzip: bool = False


@dataclasses.dataclass(frozen=True)
class ModelOptions:
    """How a model is opened. Hashable: it is part of the key of the process's model cache.

    Attributes:
      outputs: names of the outputs to compute; empty: all.
      defaults: (column, value) pairs: what stands for a null in a column that the model takes.
      intra_op_threads, inter_op_threads: of TensorFlow; 0: one per core.
      warm_up: replay assets.extra/tf_serving_warmup_requests after loading.
      poll_secs: how often a base path of versions is looked at for a newer one; 0: the version that was found first is
        kept.
      endpoint: how to call it, where it is served and not loaded here.
    """

    signature: str = DEFAULT_SIGNATURE
    outputs: tuple[str, ...] = ()
    defaults: tuple[tuple[str, Any], ...] = ()
    intra_op_threads: int = 0
    inter_op_threads: int = 0
    warm_up: bool = True
    poll_secs: float = 0.0
    endpoint: EndpointOptions = dataclasses.field(default_factory=EndpointOptions)


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
    """A model that can be called, wherever it runs. Thread-safe.

    Attributes:
      remote: whether calls go to a server, which may be away for a while, or busy with others.
      version: of the model, where it is loaded here or pinned; None where each answer may come from another one.
    """

    remote: bool
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
        return pa.concat_arrays([arrow_values(array) for array in arrays])
    return np.concatenate(arrays)


def arrow_values(array: np.ndarray) -> pa.Array:
    """Returns [rows, ...] as Arrow values, in lists for each further dimension.

    Strings are binary, whatever they hold; half floats are float32.
    """
    flat = array.reshape(-1)
    if array.dtype == object:
        values = pa.array(flat, pa.binary())
    else:
        values = pa.array(flat.astype(np.float32) if array.dtype.name in ("float16", "bfloat16") else flat)
    for axis in range(array.ndim - 1, 0, -1):
        offsets = np.arange(math.prod(array.shape[:axis]) + 1, dtype=np.int32) * np.int32(array.shape[axis])
        values = pa.ListArray.from_arrays(pa.array(offsets), values)
    return values


def check_outputs(outputs: Outputs, specs: Sequence[TensorSpec], rows: int) -> Outputs:
    """Returns those outputs that the signature names, if they are what it promises.

    Raises:
      BadOutput: an output is missing, or has another row count, shape or dtype.
    """
    for spec in specs:
        array = outputs.arrays.get(spec.name)
        if array is None:
            raise BadOutput(f"the answer lacks output '{spec.name}'; it has {sorted(outputs.arrays)}")
        if not isinstance(array, np.ndarray | pa.Array) or (isinstance(array, np.ndarray) and not array.ndim):
            raise BadOutput(f"output '{spec.name}': no batch dimension for a batch of {rows} rows")
        if len(array) != rows:
            raise BadOutput(f"output '{spec.name}': {len(array)} rows for a batch of {rows} rows")
        if isinstance(array, np.ndarray):
            _check_tensor(array, spec)
    if len(outputs.arrays) > len(specs):
        return Outputs({spec.name: outputs.arrays[spec.name] for spec in specs}, outputs.version)
    return outputs


def _check_tensor(array: np.ndarray, spec: TensorSpec) -> None:
    if array.dtype != spec.numpy_dtype:
        raise BadOutput(f"output '{spec.name}' is {array.dtype}, and the signature says {spec.dtype}")
    sizes = array.shape[1:]
    if spec.shape is None:
        if any(size != 1 for size in sizes):
            raise BadOutput(
                f"output '{spec.name}' has shape {list(array.shape)}, and the signature says no rank, which is "
                "taken for one value a row; export the model with a known rank"
            )
        return
    fits = len(sizes) == len(spec.row_shape) and all(
        wanted in (None, size) for wanted, size in zip(spec.row_shape, sizes, strict=True)
    )
    if not fits:
        raise BadOutput(f"output '{spec.name}' has shape {list(array.shape)}, and the signature says {spec}")
