"""Signatures of a SavedModel, or of a served model, read from protobufs without TensorFlow."""

import dataclasses
import difflib
import re
from typing import Any

from sluice.models.errors import SignatureError
from sluice.models.signature import DEFAULT_SIGNATURE, UNSERVED, Signature, TensorSpec, tensor_spec
from sluice.models.tensors.example_features import example_features

# How TF 2 exports mark the op that initialises the model; nothing to serve.
_HIDDEN = "__saved_model_init_op"
# Signatures of these methods take tf.Examples. https://www.tensorflow.org/tfx/serving/signature_defs
_EXAMPLE_METHODS = ("tensorflow/serving/classify", "tensorflow/serving/regress")
# What their tensors are called: input_example_tensor by Estimators, serving_default_examples by TFX, and the like; an
# example_text is no such.
_EXAMPLE_TENSOR = re.compile(r"(^|[_/])examples?(_tensor)?(_\d+)?:\d+$")


def read_signatures(meta_graph: Any) -> dict[str, Signature]:
    """Returns the signatures of a `tensorflow.MetaGraphDef`, unchecked, by name."""
    return {
        name: _read(name, definition, meta_graph.graph_def)
        for name, definition in sorted(meta_graph.signature_def.items())
        if name != _HIDDEN
    }


def read_served_signatures(definitions: Any) -> dict[str, Signature]:
    """Returns the signatures of a `tensorflow.serving.SignatureDefMap`, as GetModelMetadata gives it, unchecked.

    A server shows no graph, so what features a parser of tf.Examples reads is not known, and that there is one is told
    by the signature's method, or by the name of its tensor.
    """
    return {
        name: _read_served(name, definition)
        for name, definition in sorted(definitions.signature_def.items())
        if name != _HIDDEN
    }


def _read_served(name: str, definition: Any) -> Signature:
    signature = _read(name, definition, None)
    outputs = tuple(
        spec if spec.kind == "dense" else dataclasses.replace(spec, kind=UNSERVED) for spec in signature.outputs
    )
    tensors = [tensor for spec in signature.inputs for tensor in spec.tensors]
    parses = definition.method_name in _EXAMPLE_METHODS or any(map(_EXAMPLE_TENSOR.search, tensors))
    features = () if parses and _may_take_examples(signature.inputs) else None
    return dataclasses.replace(signature, outputs=outputs, features=features)


def pick_signature(signatures: dict[str, Signature], name: str, outputs: tuple[str, ...] = ()) -> Signature:
    """Returns the signature of this name, checked.

    Args:
      outputs: those to keep; empty: all.

    Raises:
      SignatureError: there is none of this name, it lacks an output, or it cannot be served from columns.
    """
    if name in signatures:
        signature = signatures[name]
        return (signature.with_outputs(outputs) if outputs else signature).checked()
    have = ", ".join(signatures) or "none"
    near = difflib.get_close_matches(name, signatures, 1)
    remedy = f"did you mean --signature {near[0]}?" if near else "name one with --signature"
    if name == DEFAULT_SIGNATURE and len(signatures) == 1:
        remedy = f"give --signature {have}"
    raise SignatureError(f"the model has no signature '{name}'; it has {have}; {remedy}")


def _read(name: str, definition: Any, graph_def: Any) -> Signature:
    inputs = tuple(tensor_spec(key, info) for key, info in sorted(definition.inputs.items()))
    outputs = tuple(tensor_spec(key, info) for key, info in sorted(definition.outputs.items()))
    features = None
    if graph_def is not None and _may_take_examples(inputs):
        features = example_features(graph_def, inputs[0].tensors[0])
    return Signature(name, definition.method_name, inputs, outputs, features)


def _may_take_examples(inputs: tuple[TensorSpec, ...]) -> bool:
    return len(inputs) == 1 and inputs[0].dtype == "string" and inputs[0].is_scalar and len(inputs[0].tensors) == 1
