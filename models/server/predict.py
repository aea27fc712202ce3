"""A predict call, over gRPC or REST: TF Serving's checks, the session, the answer.

Checks, their order, codes and texts: tensorflow_serving/servables/tensorflow/predict_util.cc and, for inputs by name,
tensorflow/cc/saved_model/util.cc (since 2.13, where inputs may have defaults).
"""

import dataclasses
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from sluice.models.server.faults import Faults, Gate
from sluice.models.server.servable import Input, Servable
from sluice.models.server.status import StatusError, invalid
from sluice.models.server.store import Spec, Store
from sluice.models.server.tensors import read_tensor
from sluice.models.signature import DEFAULT_SIGNATURE
from sluice.models.tensors.strings import Tensor

if TYPE_CHECKING:
    from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef

T = TypeVar("T")

_METHODS = ("tensorflow/serving/predict", "tensorflow/serving/classify", "tensorflow/serving/regress")


@dataclasses.dataclass(frozen=True)
class Answer:
    """The outputs of a model by name, and which model it was."""

    version: int
    signature: str
    outputs: Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Call:
    """A predict call that has passed the gate."""

    store: Store
    gate: Gate
    faults: Faults

    def predict(
        self,
        spec: Spec,
        signature_name: str,
        inputs: Mapping[str, T],
        decode: Callable[[str, T], Tensor],
        outputs: Sequence[str] = (),
    ) -> Answer:
        """Returns the outputs of the model for these inputs.

        Args:
          signature_name: empty: serving_default.
          decode: turns the name and value of an input into an array.
          outputs: the ones to compute; empty: all.

        Raises:
          StatusError: the one that TF Serving would return.
        """
        with self.store.use(spec) as servable:
            name = signature_name or DEFAULT_SIGNATURE
            signature = servable.signatures.get(name)
            if signature is None:
                raise StatusError("FAILED_PRECONDITION", f'Serving signature key "{name}" not found.')
            feeds = _feeds(signature, servable.inputs[name], inputs, decode)
            fetches = _fetches(signature, outputs)
            rows = next((len(array) for array in feeds.values() if array.ndim), 0)
            self._check_size(rows)
            arrays = servable.run(feeds, list(fetches.values()))
            if self.faults.wrong_rows:
                arrays = [array[:-1] if array.ndim else array for array in arrays]
            self.gate.answered(servable.name, servable.version, rows)
            return Answer(servable.version, name, dict(zip(fetches, arrays, strict=True)))

    def _check_size(self, rows: int) -> None:
        # tensorflow/core/kernels/batching_util/shared_batch_scheduler.h, ValidateBatchTaskQueueCapacity
        limit = self.faults.max_rows
        if limit and rows > limit:
            raise invalid(f"Task size {rows} is larger than maximum input batch size {limit}")


@dataclasses.dataclass(frozen=True)
class Predictor:
    """Runs predict calls for both servers."""

    store: Store
    gate: Gate

    @contextmanager
    def call(self, gone: threading.Event) -> Iterator[Call]:
        """Admits one predict call.

        Args:
          gone: the caller sets it when nobody waits for the answer any longer.

        Raises:
          StatusError: the faults refuse the call.
        """
        with self.gate.call(gone) as faults:
            yield Call(self.store, self.gate, faults)


def input_dtypes(servable: Servable, signature_name: str) -> dict[str, int]:
    """Returns the DataTypes of a signature's inputs, which REST needs before it can read a request.

    Raises:
      StatusError: no such signature; model_servers/http_rest_api_handler.cc, GetInfoMap.
    """
    name = signature_name or DEFAULT_SIGNATURE
    if name not in servable.inputs:
        raise invalid(f'Serving signature name: "{name}" not found in signature def')
    return {each.alias: each.dtype for each in servable.inputs[name]}


def _feeds(
    signature: "SignatureDef",
    wanted: Sequence[Input],
    inputs: Mapping[str, T],
    decode: Callable[[str, T], Tensor],
) -> dict[str, Tensor]:
    """Returns the arrays to feed, by the name of their tensor in the graph."""
    if signature.method_name not in _METHODS:
        expected = ", ".join(_METHODS)
        raise StatusError(
            "INTERNAL",
            f"Expected prediction signature method_name to be one of {{{expected}}}. Was: {signature.method_name}",
        )
    defaults = signature.defaults
    if len(inputs) > len(wanted) or (len(inputs) < len(wanted) and not defaults):
        raise _wrong_number([each.alias for each in wanted], inputs.keys())
    feeds, used = {}, []
    for alias, tensor, _ in wanted:
        if alias in inputs:
            feeds[tensor] = decode(alias, inputs[alias])
            used.append(alias)
        elif alias in defaults:
            feeds[tensor] = read_tensor(alias, defaults[alias])
        else:
            raise invalid(
                f"Signature input alias: {alias}(feed name: {tensor}) not found in request and no default value "
                f"provided. Inputs expected to be in the request {{{_set(inputs)}}}, or default input alias set: "
                f"{_set(defaults)}"
            )
    if len(used) != len(inputs):
        raise invalid(f"Inputs contains invalid name. Used request inputs: {_set(used)}, request input: {_set(inputs)}")
    return feeds


def _wrong_number(wanted: Collection[str], given: Collection[str]) -> StatusError:
    extra, missing = set(given) - set(wanted), set(wanted) - set(given)
    return invalid(
        f"input size does not match signature: {len(given)}!={len(wanted)} len({{{_set(given)}}}) != "
        f"len({{{_set(wanted)}}}). Sent extra: {{{_set(extra)}}}. Missing but required: {{{_set(missing)}}}."
    )


def _fetches(signature: "SignatureDef", outputs: Sequence[str]) -> dict[str, str]:
    """Returns the names of the graph's tensors to fetch, by output."""
    fetches: dict[str, str] = {}
    for alias in outputs or sorted(signature.outputs):
        if alias not in signature.outputs:
            raise invalid(
                f"output tensor alias not found in signature: {alias} Outputs expected to be in the set "
                f"{{{_set(signature.outputs)}}}."
            )
        if alias in fetches:
            raise invalid(f"duplicate output tensor alias: {alias}")
        fetches[alias] = signature.outputs[alias].name
    return fetches


def _set(names: Collection[str]) -> str:
    return ",".join(sorted(names))
