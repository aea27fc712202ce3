"""Reads the signatures of a SavedModel or a served model from protobufs, without TensorFlow."""

import dataclasses
import difflib
import re

from sluice.models.errors import SignatureError
from sluice.models.protos import GraphDef, MetaGraphDef, SignatureDef, SignatureDefMap
from sluice.models.saved_model.graph_walk import INIT_SIGNATURE
from sluice.models.signature import DEFAULT_SIGNATURE, UNSERVED, Signature, TensorSpec, tensor_spec
from sluice.models.tensors.example_features import example_features

# Signatures of these methods take tf.Examples. https://www.tensorflow.org/tfx/serving/signature_defs
_EXAMPLE_METHODS = ("tensorflow/serving/classify", "tensorflow/serving/regress")
# Names of such tensors: input_example_tensor by Estimators, serving_default_examples by TFX; not example_text.
_EXAMPLE_TENSOR = re.compile(r"(^|[_/])examples?(_tensor)?(_\d+)?:\d+$")


def read_signatures(meta_graph: MetaGraphDef) -> dict[str, Signature]:
    """Returns the signatures of a SavedModel's graph by name, unchecked."""
    return {
        name: _read(name, definition, meta_graph.graph_def)
        for name, definition in sorted(meta_graph.signature_def.items())
        if name != INIT_SIGNATURE
    }


def read_served_signatures(definitions: SignatureDefMap) -> dict[str, Signature]:
    """Returns the signatures in a GetModelMetadata response by name, unchecked.

    A server does not send the graph. So the features of tf.Examples are not known, and whether an input is tf.Examples
    follows from the signature's method, or from the name of the tensor.
    """
    return {
        name: _read_served(name, definition)
        for name, definition in sorted(definitions.signature_def.items())
        if name != INIT_SIGNATURE
    }


def _read_served(name: str, definition: SignatureDef) -> Signature:
    signature = _read(name, definition, None)
    outputs = tuple(
        spec if spec.kind == "dense" else dataclasses.replace(spec, kind=UNSERVED) for spec in signature.outputs
    )
    tensors = [tensor for spec in signature.inputs for tensor in spec.tensors]
    parses = definition.method_name in _EXAMPLE_METHODS or any(map(_EXAMPLE_TENSOR.search, tensors))
    features = () if parses and _may_take_examples(signature.inputs) else None
    return dataclasses.replace(signature, outputs=outputs, features=features)


def pick_signature(signatures: dict[str, Signature], name: str, outputs: tuple[str, ...] = ()) -> Signature:
    """Returns the signature with this name, checked.

    Args:
      outputs: the outputs to keep; empty: all that have values.

    Raises:
      SignatureError: the model has no such signature, it lacks an output, or it cannot be served from columns.
    """
    if name in signatures:
        signature = signatures[name]
        return (signature.with_outputs(outputs) if outputs else signature.without_handles()).checked()
    have = ", ".join(signatures) or "none"
    near = difflib.get_close_matches(name, signatures, 1)
    remedy = f"did you mean --signature {near[0]}?" if near else "name one with --signature"
    if name == DEFAULT_SIGNATURE and len(signatures) == 1:
        remedy = f"give --signature {have}"
    raise SignatureError(f"the model has no signature '{name}'; it has {have}; {remedy}")


def _read(name: str, definition: SignatureDef, graph_def: GraphDef | None) -> Signature:
    inputs = tuple(tensor_spec(key, info) for key, info in sorted(definition.inputs.items()))
    outputs = tuple(tensor_spec(key, info) for key, info in sorted(definition.outputs.items()))
    features = None
    if graph_def is not None and _may_take_examples(inputs):
        features = example_features(graph_def, inputs[0].tensors[0])
    return Signature(name, definition.method_name, inputs, outputs, features)


def _may_take_examples(inputs: tuple[TensorSpec, ...]) -> bool:
    return len(inputs) == 1 and inputs[0].dtype == "string" and inputs[0].is_scalar and len(inputs[0].tensors) == 1
