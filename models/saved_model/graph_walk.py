"""What a SavedModel's graph does with what it is fed, read from its GraphDef without running it."""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

# Ops that have or use state, and keep nothing of a call in it: they read variables and tables, or call functions, whose
# bodies are looked at too. Any other stateful op may keep the very memory that was fed.
_KEEPS_NOTHING = frozenset(
    (
        "VarHandleOp",
        "Variable",
        "VariableV2",
        "ReadVariableOp",
        "_ReadVariablesOp",
        "ResourceGather",
        "ResourceGatherNd",
        "VariableShape",
        "VarIsInitializedOp",
        "HashTable",
        "HashTableV2",
        "LookupTableFind",
        "LookupTableFindV2",
        "LookupTableSizeV2",
        "PartitionedCall",
        "StatefulPartitionedCall",
        "If",
        "Case",
        "While",
        "Assert",
    )
)
# Ops that hold rows of several calls, though they are not marked stateful.
_KEEPS = frozenset(("Batch", "BatchFunction", "Unbatch"))
# Ops that write into a reference variable or table are not marked stateful: the variable that they take is.
_WRITERS = ("Assign", "Scatter", "Apply", "SparseApply", "StridedSliceAssign", "CountUpTo", "InitializeTable")
_WRITES_NOTHING = ("ScatterNd", "ScatterNdNonAliasingAdd")
_VARIABLES = ("VarHandleOp",)
# TensorFlow 2 exports the op that initialises the model as a signature of this name.
INIT_SIGNATURE = "__saved_model_init_op"


def ops_of(graph_def: Any) -> list[str]:
    """Returns the names of the ops that a `tensorflow.GraphDef` and its functions use, functions themselves apart."""
    graph = _Graph(graph_def)
    bodies = (function.node_def for function in graph.functions.values())
    used = {node.op for nodes in (graph_def.node, *bodies) for node in nodes}
    return sorted(used - graph.functions.keys())


def keeps_feeds(graph_def: Any, fetches: Sequence[str], is_stateful: Callable[[str], bool | None]) -> str:
    """Returns an op on the way to these tensors that may keep what is fed beyond the call; "" if there is none."""
    for op in sorted(_Graph(graph_def).ops_above(fetches)):
        keeps = op in _KEEPS or (op.startswith(_WRITERS) and op not in _WRITES_NOTHING)
        if op not in _KEEPS_NOTHING and (keeps or is_stateful(op) is not False):
            return op
    return ""


def called_above(graph_def: Any, fetches: Sequence[str]) -> tuple[set[str], set[str]]:
    """Returns the names of the nodes that run for these tensors, and of the functions whose bodies do."""
    graph = _Graph(graph_def)
    called: set[str] = set()
    for _ in graph.run_for(fetches, called):
        pass
    return {node.name for node in graph.above(fetches)}, called


def unrestored_variables(meta_graph: Any, fetches: Sequence[str]) -> list[str]:
    """Returns the variables that these tensors need and that the graph's own restore and init ops leave unset.

    `tf.saved_model.save` writes a Keras 3 model so: its variables are known to the object graph alone.
    """
    graph = _Graph(meta_graph.graph_def)
    set_by = [meta_graph.saver_def.restore_op_name, *_init_ops(meta_graph)]
    needed = graph.variables_above(fetches)
    return sorted(needed - graph.variables_above([name for name in set_by if name]))


def _init_ops(meta_graph: Any) -> Iterator[str]:
    if INIT_SIGNATURE in meta_graph.signature_def:
        yield meta_graph.signature_def[INIT_SIGNATURE].outputs[INIT_SIGNATURE].name
    for key in ("saved_model_main_op", "legacy_init_op"):
        if key in meta_graph.collection_def:
            yield from meta_graph.collection_def[key].node_list.value


class _Graph:
    def __init__(self, graph_def: Any) -> None:
        self._nodes = {node.name: node for node in graph_def.node}
        self.functions = {function.signature.name: function for function in graph_def.library.function}

    def ops_above(self, fetches: Sequence[str]) -> set[str]:
        """Returns the ops that run for these tensors, those in the bodies of functions included."""
        return {node.op for node in self.run_for(fetches, set()) if node.op not in self.functions}

    def run_for(self, fetches: Sequence[str], called: set[str]) -> Iterator[Any]:
        """Yields the nodes that run for these tensors, and fills `called` with the functions whose bodies do."""
        waiting: list[Any] = list(self.above(fetches))
        while waiting:
            node = waiting.pop()
            yield node
            for name in (*_called(node), node.op):
                if name in self.functions and name not in called:
                    called.add(name)
                    waiting.extend(self.functions[name].node_def)

    def variables_above(self, fetches: Sequence[str]) -> set[str]:
        """Returns the variables above these tensors, by the name that they share."""
        above = (node for node in self.above(fetches) if node.op in _VARIABLES)
        return {node.attr["shared_name"].s.decode() or node.name for node in above}

    def above(self, fetches: Iterable[str]) -> Iterator[Any]:
        """Yields the nodes of the graph itself that these tensors are made by."""
        waiting = [_node_name(name) for name in fetches]
        seen = set(waiting)
        while waiting:
            node = self._nodes.get(waiting.pop())
            if node is None:
                continue
            yield node
            for name in map(_node_name, node.input):
                if name not in seen:
                    seen.add(name)
                    waiting.append(name)


@functools.lru_cache(maxsize=4096)
def _node_name(tensor: str) -> str:
    """Returns the node of "^name", "name" or "name:0"."""
    return tensor.removeprefix("^").split(":")[0]


def _called(node: Any) -> Iterator[str]:
    for value in node.attr.values():
        if value.HasField("func"):
            yield value.func.name
        for function in value.list.func:
            yield function.name
