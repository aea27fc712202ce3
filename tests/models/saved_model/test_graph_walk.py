"""What a graph is said to do with what it is fed, on graphs written by hand."""

from __future__ import annotations

from typing import Any

import pytest

from sluice.models.protos import message_class
from sluice.models.saved_model.graph_walk import keeps_feeds, ops_of, unrestored_variables

# Ops that TensorFlow calls stateful, of those below.
STATEFUL = {
    "VarHandleOp",
    "ReadVariableOp",
    "AssignVariableOp",
    "VariableV2",
    "StatefulPartitionedCall",
    "LookupTableInsertV2",
    "MutableHashTableV2",
}


def is_stateful(op: str) -> bool | None:
    return None if op == "Unknown" else op in STATEFUL


def graph(*nodes: str, **functions: list[str]) -> Any:
    """Nodes and, by name, the nodes of functions; each as "name = Op(input, input) calls function"."""
    graph_def = message_class("tensorflow.GraphDef")()
    for text in nodes:
        add(graph_def.node, text)
    for name, body in functions.items():
        function = graph_def.library.function.add()
        function.signature.name = name
        for text in body:
            add(function.node_def, text)
    return graph_def


def add(nodes: Any, text: str) -> None:
    name, _, rest = text.partition(" = ")
    op, _, rest = rest.partition("(")
    inputs, _, called = rest.partition(")")
    node = nodes.add(name=name, op=op, input=[each for each in inputs.split(", ") if each])
    if called:
        node.attr["f"].func.name = called.removeprefix(" calls ")


@pytest.mark.parametrize(
    ("nodes", "functions", "keeper"),
    [
        (["x = Placeholder()", "y = Neg(x)"], {}, ""),
        (["x = Placeholder()", "v = VarHandleOp()", "r = ReadVariableOp(v)", "y = Mul(x, r)"], {}, ""),
        (
            ["x = Placeholder()", "v = VarHandleOp()", "a = AssignVariableOp(v, x)", "y = Neg(x, ^a)"],
            {},
            "AssignVariableOp",
        ),
        (["x = Placeholder()", "v = VarHandleOp()", "a = AssignVariableOp(v, x)", "y = Neg(x)"], {}, ""),
        (["x = Placeholder()", "v = VariableV2()", "r = Identity(v)", "y = Mul(x, r)"], {}, ""),
        (["x = Placeholder()", "v = VariableV2()", "y = Assign(v, x)"], {}, "Assign"),
        (["x = Placeholder()", "y = ScatterNd(x)"], {}, ""),
        (["x = Placeholder()", "y = BatchFunction(x)"], {}, "BatchFunction"),
        (["x = Placeholder()", "y = Unknown(x)"], {}, "Unknown"),
        (["x = Placeholder()", "y = StatefulPartitionedCall(x) calls f"], {"f": ["z = Neg(x)"]}, ""),
        (
            ["x = Placeholder()", "y = StatefulPartitionedCall(x) calls f"],
            {"f": ["z = PartitionedCall(x) calls g"], "g": ["w = LookupTableInsertV2(x)"]},
            "LookupTableInsertV2",
        ),
        (["x = Placeholder()", "y = f(x)"], {"f": ["w = MutableHashTableV2()"]}, "MutableHashTableV2"),
        (
            ["x = Placeholder()", "y = StatefulPartitionedCall(x) calls f"],
            {"f": ["z = PartitionedCall(x) calls f"]},
            "",
        ),
    ],
)
def test_an_op_that_may_keep_what_is_fed_is_found(nodes: list[str], functions: Any, keeper: str) -> None:
    assert keeps_feeds(graph(*nodes, **functions), ["y:0"], is_stateful) == keeper


def test_the_ops_of_a_graph_are_those_of_its_functions_too_and_not_the_functions() -> None:
    assert ops_of(graph("x = Placeholder()", "y = f(x)", f=["z = Neg(x)"])) == ["Neg", "Placeholder"]


def meta_graph(restored: bool, initialised: bool) -> Any:
    made = message_class("tensorflow.MetaGraphDef")()
    nodes = [
        "x = Placeholder()",
        "v = VarHandleOp()",
        "w = VarHandleOp()",
        "r = ReadVariableOp(v)",
        "s = ReadVariableOp(w)",
    ]
    nodes += ["y = AddN(x, r, s)", "save/a = AssignVariableOp(v)", "save/restore_all = NoOp(^save/a)"]
    nodes += ["init_w = AssignVariableOp(w)", "init = NoOp(^init_w)"]
    made.graph_def.CopyFrom(graph(*nodes))
    if restored:
        made.saver_def.restore_op_name = "save/restore_all"
    if initialised:
        made.signature_def["__saved_model_init_op"].outputs["__saved_model_init_op"].name = "init"
    return made


@pytest.mark.parametrize(
    ("restored", "initialised", "left"),
    [(True, True, []), (True, False, ["w"]), (False, True, ["v"]), (False, False, ["v", "w"])],
)
def test_variables_that_neither_restoring_nor_initialising_sets(
    restored: bool, initialised: bool, left: list[str]
) -> None:
    assert unrestored_variables(meta_graph(restored, initialised), ["y:0"]) == left
    assert unrestored_variables(meta_graph(restored, initialised), ["x:0"]) == []
