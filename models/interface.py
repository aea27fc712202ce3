"""The contract of every backend: Model, its options, and the Outputs of a call."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import pyarrow as pa

from sluice.models.devices import DeviceOptions
from sluice.models.errors import BadOutput
from sluice.models.signature import DEFAULT_SIGNATURE, Default, Signature, TensorSpec
from sluice.models.tensors.binding import Bound, Feeds
from sluice.models.tensors.strings import Strings, Tensor, concatenate

DEFAULT_RPC_TIMEOUT_SECS = 60.0


@dataclasses.dataclass(frozen=True)
class EndpointOptions:
    """How to call a served model. Hashable and picklable: it is sent to the workers.

    Attributes:
      rpc_timeout_secs: the deadline of one call.
      ca_certificates: PEM text of the certificates to trust for TLS; empty: those of the machine.
      headers: (name, value) pairs to send with every call. Not in the repr, because they may be secret.
      token_file: a file with a bearer token, read again when it changes; empty: none.
      google_auth: send an access token from Google's application default credentials.
      google_auth_hosts: hosts besides Google's that may have the access token; a leading dot: all under it.
      google_audience: send a Google ID token for this audience; empty: none.
      google_account: the service account whose access token is sent, by impersonation; as Beam's
        --impersonate_service_account, delegates before it, separated by commas. Empty: the credentials' own.
      rest_format: "columns": `inputs`, a list for each input; "rows": `instances`, an object for each row.
      rest_gzip: compress REST requests. Responses may be compressed in any case.
      vertex_endpoint: the base URL in place of Vertex AI's own; empty: Google's.
      signature_from: where the signatures of a model of Vertex AI are, in place of its artifact; empty: there.
      own_timeout: rpc_timeout_secs is a default: an endpoint of Vertex AI has a deadline of its own.
    """

    rpc_timeout_secs: float = DEFAULT_RPC_TIMEOUT_SECS
    ca_certificates: str = ""
    headers: tuple[tuple[str, str], ...] = dataclasses.field(default=(), repr=False)
    token_file: str = ""
    google_auth: bool = False
    google_auth_hosts: tuple[str, ...] = ()
    google_audience: str = ""
    google_account: str = ""
    rest_format: str = "columns"
    rest_gzip: bool = False
    vertex_endpoint: str = ""
    signature_from: str = ""
    own_timeout: bool = False


@dataclasses.dataclass(frozen=True)
class ModelOptions:
    """How to open a model. Hashable: part of the key of the process's model cache.

    Attributes:
      outputs: names of the outputs to compute; empty: all.
      defaults: (column, value) pairs: the values that replace nulls in input columns.
      intra_op_threads, inter_op_threads: of TensorFlow; 0: one per core.
      warm_up: replay assets.extra/tf_serving_warmup_requests after loading.
      op_libraries: shared libraries of ops that the model uses beside TensorFlow's own, such as TF Text's.
      devices: where a model in this process runs.
      time_limit_secs: of a call of a model in this process; 0: none.
      poll_secs: how often to look for a newer version under a base path; 0: keep the version found first.
      private: the log tells of errors only what quotes no row.
      endpoint: how to call the model if it is served.
    """

    signature: str = DEFAULT_SIGNATURE
    outputs: tuple[str, ...] = ()
    defaults: tuple[tuple[str, Default], ...] = ()
    intra_op_threads: int = 0
    inter_op_threads: int = 0
    warm_up: bool = True
    op_libraries: tuple[str, ...] = ()
    devices: DeviceOptions = dataclasses.field(default_factory=DeviceOptions)
    time_limit_secs: float = 0.0
    poll_secs: float = 0.0
    private: bool = False
    endpoint: EndpointOptions = dataclasses.field(default_factory=EndpointOptions)


@dataclasses.dataclass(frozen=True)
class Outputs:
    """The result of one call.

    Attributes:
      arrays: by output name, each [rows, ...]; an Arrow list array if ragged.
      version: of the model that answered; None if it has none.
    """

    arrays: Mapping[str, Tensor | pa.Array]
    version: int | None = None

    def slice(self, start: int, stop: int) -> "Outputs":
        """Returns rows [start, stop), without a copy."""
        return Outputs({name: array[start:stop] for name, array in self.arrays.items()}, self.version)


class Model(Protocol):
    """A model that can be called, wherever it runs. Thread-safe.

    Attributes:
      remote: whether calls go to a server, which may be unavailable for a while, or busy with other clients.
      uri: the model's name in messages.
      version: of the model, if it is loaded here or pinned; None if each answer may come from another version.
      signature: its inputs and outputs.
    """

    remote: bool
    uri: str
    version: int | None
    signature: Signature

    def bind(self, batch: pa.RecordBatch) -> Bound:
        """Returns the batch as the model's input tensors."""

    def call(self, feeds: Feeds) -> Outputs:
        """Returns the model's outputs for these tensors, which all have the same number of rows.

        Raises:
          CallError: see models.errors for its kinds.
        """

    def close(self) -> None:
        """Frees the model's resources. No call may follow."""


@runtime_checkable
class LocalModel(Protocol):
    """What a model in this process has besides, because nothing else can end a call that hangs in it.

    Attributes:
      first_answered: a request that it answered when it was loaded; None: there is none.
    """

    first_answered: Feeds | None

    def renew(self) -> None:
        """Loads the model anew, for calls from now on. The session before is left to the calls that hang in it."""

    def abandon(self) -> None:
        """Makes `close` leave the session alone, because calls hang in it."""


def concat_outputs(parts: Sequence[Outputs]) -> dict[str, Tensor | pa.Array]:
    """Returns the arrays of several calls, concatenated."""
    if len(parts) == 1:
        return dict(parts[0].arrays)
    return {name: _concat([part.arrays[name] for part in parts]) for name in parts[0].arrays}


def _concat(arrays: Sequence[Tensor | pa.Array]) -> Tensor | pa.Array:
    if isinstance(arrays[0], pa.Array):
        return pa.concat_arrays(arrays)
    if len({array.shape[1:] for array in arrays}) > 1:  # an output of unknown size may differ between calls
        return pa.concat_arrays([arrow_values(array) for array in arrays])
    return concatenate(arrays)


def arrow_values(array: Tensor) -> pa.Array:
    """Returns an array [rows, ...] as an Arrow array, with nested lists for the further dimensions.

    Strings become binary, half floats float32.
    """
    flat = array.reshape(-1)
    if isinstance(flat, Strings) or flat.dtype == object:
        values = pa.array(flat, pa.binary())
    else:
        values = pa.array(flat.astype(np.float32) if array.dtype.name in ("float16", "bfloat16") else flat)
    for axis in range(array.ndim - 1, 0, -1):
        offsets = np.arange(math.prod(array.shape[:axis]) + 1, dtype=np.int32) * np.int32(array.shape[axis])
        values = pa.ListArray.from_arrays(pa.array(offsets), values)
    return values


def check_outputs(outputs: Outputs, specs: Sequence[TensorSpec], rows: int) -> Outputs:
    """Returns the outputs that the signature names, and drops others.

    Raises:
      BadOutput: an output is missing, or has another row count, shape or dtype than the signature says.
    """
    for spec in specs:
        array = outputs.arrays.get(spec.name)
        if array is None:
            raise BadOutput(f"the answer lacks output '{spec.name}'; it has {sorted(outputs.arrays)}")
        if not isinstance(array, Tensor | pa.Array) or (isinstance(array, Tensor) and not array.ndim):
            raise BadOutput(f"output '{spec.name}': no batch dimension for a batch of {rows} rows")
        if len(array) != rows:
            raise BadOutput(f"output '{spec.name}': {len(array)} rows for a batch of {rows} rows")
        if isinstance(array, Tensor):
            _check_tensor(array, spec)
    if len(outputs.arrays) > len(specs):
        return Outputs({spec.name: outputs.arrays[spec.name] for spec in specs}, outputs.version)
    return outputs


def _check_tensor(array: Tensor, spec: TensorSpec) -> None:
    if array.dtype != spec.numpy_dtype:
        raise BadOutput(f"output '{spec.name}' is {array.dtype}, and the signature says {spec.dtype}")
    sizes = array.shape[1:]
    if spec.shape is None:
        if any(size != 1 for size in sizes):
            raise BadOutput(
                f"output '{spec.name}' has shape {list(array.shape)}, and the signature says no rank, which Sluice "
                "reads as one value a row; export the model with a known rank"
            )
        return
    fits = len(sizes) == len(spec.row_shape) and all(
        wanted in (None, size) for wanted, size in zip(spec.row_shape, sizes, strict=True)
    )
    if not fits:
        raise BadOutput(f"output '{spec.name}' has shape {list(array.shape)}, and the signature says {spec}")
