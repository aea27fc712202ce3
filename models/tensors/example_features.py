"""Finds in a model's graph the tf.Example features that a string input is parsed into.

A signature for serialized tf.Examples has one string input. The features are in the graph, as constant inputs of the
ParseExample op that reads it. Ops: tensorflow/core/ops/parsing_ops.cc.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from sluice.models.protos import ConstantProto, FunctionDef, GraphDef, NodeDef
from sluice.models.signature import ColumnSpec, dtype_name

_PARSERS = {"ParseExample", "ParseExampleV2", "ParseSingleExample", "ParseSequenceExample", "ParseSequenceExampleV2"}
_FORWARDS = {"Identity", "Reshape", "ExpandDims", "Squeeze", "PlaceholderWithDefault", "EnsureShape"}
_CALLS = {"PartitionedCall", "StatefulPartitionedCall"}


class _Scope:
    """Nodes that can refer to each other: the graph, or the body of a function as one node calls it."""

    def __init__(self, nodes: Sequence[NodeDef], arguments: "Mapping[str, tuple[_Scope, str]] | None" = None) -> None:
        self.nodes = {node.name: node for node in nodes}
        self.arguments = arguments or {}
        self.followed: set[str] = set()
        self.consumers: dict[str, list[tuple[NodeDef, int]]] = {}
        for node in nodes:
            for index, name in enumerate(node.input):
                if not name.startswith("^"):  # it orders ops and passes no data
                    self.consumers.setdefault(_base(name), []).append((node, index))

    def constant(self, name: str) -> np.ndarray | None:
        """Returns the value of this input if it comes from a Const op; None if it is computed."""
        name = _base(name)
        if name in self.arguments:
            caller, name = self.arguments[name]
            return caller.constant(name)
        node = self.nodes.get(name)
        if node is not None and node.op == "Identity":
            return self.constant(node.input[0])
        return _constant_value(node.attr["value"].tensor) if node is not None and node.op == "Const" else None

    def enter(self, call: NodeDef, function: FunctionDef) -> "_Scope":
        """Returns the scope of the function's body, as the node `call` of this scope calls it."""
        names = [argument.name for argument in function.signature.input_arg]
        return _Scope(
            function.node_def, {name: (self, tensor) for name, tensor in zip(names, call.input, strict=False)}
        )


def example_features(graph_def: GraphDef, tensor_name: str) -> tuple[ColumnSpec, ...] | None:
    """Returns the features that are parsed out of this tensor.

    Args:
      tensor_name: of the string input, e.g. "serving_default_examples:0".

    Returns:
      None if no ParseExample op reads the tensor; an empty tuple if one does whose features cannot be read.
    """
    functions = {function.signature.name: function for function in graph_def.library.function}
    for scope, node in _parsers(_Scope(graph_def.node), _base(tensor_name), functions):
        return _features(scope, node) or ()
    return None


def _parsers(scope: _Scope, name: str, functions: dict[str, FunctionDef]) -> Iterator[tuple[_Scope, NodeDef]]:
    """Yields the parsing ops that read this tensor, directly or through ops and functions that forward it."""
    if name in scope.followed:
        return
    scope.followed.add(name)
    for node, index in scope.consumers.get(name, ()):
        if node.op in _PARSERS and index == 0:
            yield scope, node
        elif node.op in _FORWARDS and index == 0:
            yield from _parsers(scope, node.name, functions)
        elif node.op in _CALLS and node.attr["f"].func.name in functions:
            function = functions[node.attr["f"].func.name]
            yield from _parsers(scope.enter(node, function), function.signature.input_arg[index].name, functions)


def _features(scope: _Scope, node: NodeDef) -> tuple[ColumnSpec, ...] | None:
    if node.op == "ParseExampleV2":
        return _features_v2(scope, node)
    if node.op == "ParseExample":
        return _features_v1(scope, node)
    return None


def _features_v2(scope: _Scope, node: NodeDef) -> tuple[ColumnSpec, ...] | None:
    # inputs: serialized, names, sparse_keys, dense_keys, ragged_keys, dense_defaults...
    keys = [scope.constant(name) for name in node.input[2:5]]
    if any(key is None for key in keys):
        return None
    sparse, dense, ragged = ([key.decode() for key in np.ravel(array)] for array in keys if array is not None)
    features = _dense(scope, node, dense, list(node.input[5 : 5 + len(dense)]))
    features += _variable(sparse, node.attr["sparse_types"].list.type)
    features += _variable(ragged, node.attr["ragged_value_types"].list.type)
    return tuple(features)


def _features_v1(scope: _Scope, node: NodeDef) -> tuple[ColumnSpec, ...] | None:
    # inputs: serialized, names, Nsparse sparse_keys, Ndense dense_keys, Ndense dense_defaults
    sparse_count, dense_count = node.attr["Nsparse"].i, node.attr["Ndense"].i
    keys = [scope.constant(name) for name in node.input[2 : 2 + sparse_count + dense_count]]
    if any(key is None for key in keys):
        return None
    names = [np.ravel(key)[0].decode() for key in keys if key is not None]
    defaults = list(node.input[2 + sparse_count + dense_count :][:dense_count])
    features = _dense(scope, node, names[sparse_count:], defaults)
    return tuple(features + _variable(names[:sparse_count], node.attr["sparse_types"].list.type))


def _dense(scope: _Scope, node: NodeDef, names: list[str], defaults: list[str]) -> list[ColumnSpec]:
    features = []
    for name, dtype, shape, default in zip(
        names, node.attr["Tdense"].list.type, node.attr["dense_shapes"].list.shape, defaults, strict=True
    ):
        value = scope.constant(default)
        # A feature without a default has an empty constant as its default; a computed default is one.
        sizes = tuple(None if dim.size < 0 else dim.size for dim in shape.dim)
        features.append(ColumnSpec(name, dtype_name(dtype), sizes, required=value is not None and value.size == 0))
    return features


def _variable(names: list[str], dtypes: Sequence[int]) -> list[ColumnSpec]:
    return [
        ColumnSpec(name, dtype_name(dtype), (None,), required=False) for name, dtype in zip(names, dtypes, strict=True)
    ]


def _base(name: str) -> str:
    return name.split(":")[0]


def _constant_value(tensor: ConstantProto) -> np.ndarray | None:
    """Returns strings, or zeros in place of numbers: only their count matters. None for strings in packed form."""
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    if tensor.string_val:
        return np.array(list(tensor.string_val), object)
    value = np.zeros(shape)
    return None if dtype_name(tensor.dtype) == "string" and value.size else value
