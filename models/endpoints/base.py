"""What the clients of served models share, whatever their protocol."""

from typing import Protocol

import pyarrow as pa

from sluice.models.interface import EndpointOptions, ModelOptions
from sluice.models.saved_model.signature_reader import pick_signature
from sluice.models.signature import Signature
from sluice.models.tensors.binding import Bound, bind
from sluice.models.uri import ModelSpec


class FetchSignatures(Protocol):
    """Asks a server for a model's signatures, over one protocol."""

    def __call__(
        self, spec: ModelSpec, options: EndpointOptions, timeout_secs: float
    ) -> tuple[dict[str, Signature], int | None]:
        """Returns the model's signatures by name, unchecked, and the version that the server serves now.

        Raises:
          UsageError: the options do not fit this endpoint.
          ModelNotFound: no TF Serving answers, or it does not serve this model, or it refuses the credentials.
        """


class ServedModel:
    """A client of a served model; see models.interface.Model.

    Args:
      signature: one that `fetch` returned earlier, reduced to the wanted outputs; None: asks the server.

    Attributes:
      timeout_secs: the deadline of a call.
      max_tensor_bytes: calls with more bytes of tensors are never tried; 0: there is no such limit.

    Raises:
      UsageError: the options do not fit this endpoint.
      ModelNotFound: there is no such model. Only raised without a signature.
      SignatureError: no such signature, or one that cannot be served from columns. Only raised without a signature.
    """

    remote = True

    def __init__(
        self, spec: ModelSpec, options: ModelOptions, signature: Signature | None, fetch: FetchSignatures | None = None
    ) -> None:
        self.uri = spec.uri
        self.version = spec.version
        self.timeout_secs = options.endpoint.rpc_timeout_secs
        self.max_tensor_bytes = 0
        if signature is None:
            assert fetch is not None, "how to ask for the signature that is not given"
            signatures, _ = fetch(spec, options.endpoint, options.endpoint.rpc_timeout_secs)
            signature = pick_signature(signatures, options.signature, options.outputs)
        self.signature = signature
        self._defaults = dict(options.defaults)

    def bind(self, batch: pa.RecordBatch) -> Bound:
        """Returns the batch as tensors of the signature's inputs."""
        return bind(batch, self.signature, self._defaults)
