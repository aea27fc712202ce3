"""Finding the tf.Example features in graphs that are built by hand, as TensorFlow writes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from sluice.models.protos import message_class
from sluice.models.signature import ColumnSpec
from sluice.models.tensors.example_features import example_features

TYPES = {"float32": 1, "string": 7, "int64": 9}
INPUT = "examples:0"


class Graph:
    """A GraphDef, or the body of a function, built node by node."""

    def __init__(self, *arguments: str, name: str = "") -> None:
        self.definition = message_class("tensorflow.FunctionDef" if name else "tensorflow.GraphDef")()
        self.nodes = self.definition.node_def if name else self.definition.node
        if name:
            self.definition.signature.name = name
            for argument in arguments:
                self.definition.signature.input_arg.add(name=argument)
        else:
            self.add("examples", "Placeholder")

    def add(self, name: str, op: str, *inputs: str) -> Any:
        node = self.nodes.add(name=name, op=op)
        node.input.extend(inputs)
        return node

    def strings(self, name: str, values: Sequence[str], scalar: bool = False) -> str:
        tensor = self.add(name, "Const").attr["value"].tensor
        tensor.dtype = TYPES["string"]
        tensor.string_val.extend(value.encode() for value in values)
        if not scalar:
            tensor.tensor_shape.dim.add(size=len(values))
        return name

    def default(self, name: str, dtype: str, size: int | None) -> str:
        """Adds a constant of this size: 0 means that there is no default; None is a single value."""
        tensor = self.add(name, "Const").attr["value"].tensor
        tensor.dtype = TYPES[dtype]
        if size is not None:
            tensor.tensor_shape.dim.add(size=size)
        if dtype == "string" and size != 0:
            tensor.string_val.append(b"")
        return name

    def call(self, function: str, *inputs: str, op: str = "StatefulPartitionedCall") -> None:
        self.add(f"call_{function}", op, *inputs).attr["f"].func.name = function

    def parse_v2(self, serialized: str, keys: str = "keys") -> None:
        """Adds a parser of one sparse, two dense and one ragged feature; their names are in tensors named `keys`..."""
        node = self.add(
            f"parse_{self.nodes[-1].name}",
            "ParseExampleV2",
            serialized,
            "names",
            f"{keys}_sparse",
            f"{keys}_dense",
            f"{keys}_ragged",
            "no_default",
            "with_default",
            "^order",
        )
        node.attr["sparse_types"].list.type.append(TYPES["string"])
        node.attr["ragged_value_types"].list.type.append(TYPES["int64"])
        self.dense(node)

    def dense(self, node: Any) -> None:
        node.attr["Tdense"].list.type.extend([TYPES["float32"], TYPES["int64"]])
        node.attr["dense_shapes"].list.shape.add()
        shape = node.attr["dense_shapes"].list.shape.add()
        shape.dim.add(size=-1)
        shape.dim.add(size=2)

    def keys(self) -> None:
        self.strings("keys_sparse", ["tags"])
        self.strings("keys_dense", ["age", "pairs"])
        self.strings("keys_ragged", ["clicks"])

    def defaults(self) -> None:
        self.default("no_default", "float32", 0)
        self.default("with_default", "int64", None)


FEATURES = (
    ColumnSpec("age", "float32"),
    ColumnSpec("pairs", "int64", (None, 2), required=False),
    ColumnSpec("tags", "string", (None,), required=False),
    ColumnSpec("clicks", "int64", (None,), required=False),
)


def whole(graph: Graph, *functions: Graph) -> Any:
    graph.definition.library.function.extend(function.definition for function in functions)
    return graph.definition


def body(name: str, *arguments: str) -> Graph:
    return Graph(*arguments, name=name)


def test_a_parser_in_the_graph() -> None:
    graph = Graph()
    graph.keys()
    graph.defaults()
    graph.add("flat", "Reshape", "examples", "shape")
    graph.add("same", "Identity", "flat:0")
    graph.parse_v2("same")
    assert example_features(whole(graph), INPUT) == FEATURES


def test_a_parser_in_a_function_of_a_function_that_is_given_its_constants() -> None:
    """As in TensorFlow 2 exports of Keras and tf.Transform models: constants are captured, and passed as arguments."""
    inner = body("inner", "serialized", "dense", "names_of_sparse")
    inner.add("keys_dense", "Identity", "dense")
    inner.add("keys_sparse", "Identity", "names_of_sparse")
    inner.strings("keys_ragged", ["clicks"])
    inner.defaults()
    inner.parse_v2("serialized")
    outer = body("outer", "examples", "captured")
    outer.strings("sparse", ["tags"])
    outer.add("copy", "Identity", "examples")
    outer.call("inner", "copy:output:0", "captured", "sparse:output:0", "^order", op="PartitionedCall")
    graph = Graph()
    graph.strings("constant", ["age", "pairs"])
    graph.call("outer", "examples", "constant:0", "^examples")
    assert example_features(whole(graph, inner, outer), INPUT) == FEATURES


def test_a_function_without_a_parser_does_not_hide_the_one_behind_it() -> None:
    fruitless = [body(f"log{number}", "serialized") for number in range(20)]
    parser = body("parser", "serialized")
    parser.keys()
    parser.defaults()
    parser.parse_v2("serialized")
    graph = Graph()
    for function in fruitless:
        function.add("print", "PrintV2", "serialized")
        graph.call(function.definition.signature.name, "examples")
    graph.call("parser", "examples")
    assert example_features(whole(graph, *fruitless, parser), INPUT) == FEATURES


def test_one_function_called_twice_is_read_as_each_call_has_it() -> None:
    shared = body("shared", "serialized", "dense")
    shared.strings("keys_sparse", ["tags"])
    shared.strings("keys_ragged", ["clicks"])
    shared.add("keys_dense", "Identity", "dense")
    shared.defaults()
    shared.parse_v2("serialized")
    graph = Graph()
    graph.strings("other_keys", ["not", "these"])
    graph.strings("our_keys", ["age", "pairs"])
    graph.add("other_input", "Placeholder")
    graph.call("shared", "other_input", "other_keys")
    graph.call("shared", "examples", "our_keys")
    assert example_features(whole(graph, shared), INPUT) == FEATURES
    assert [spec.name for spec in example_features(whole(graph, shared), "other_input:0") or ()][:2] == ["not", "these"]


def test_the_parser_of_tensorflow_1() -> None:
    graph = Graph()
    keys = [graph.strings(f"key{name}", [name], scalar=True) for name in ("tags", "age", "pairs")]
    graph.defaults()
    node = graph.add("parse", "ParseExample", "examples", "names", *keys, "no_default", "with_default", "^order")
    node.attr["Nsparse"].i, node.attr["Ndense"].i = 1, 2
    node.attr["sparse_types"].list.type.append(TYPES["string"])
    graph.dense(node)
    assert example_features(whole(graph), INPUT) == FEATURES[:3]


@pytest.mark.parametrize(
    ("dtype", "size", "required"),
    [("float32", 0, True), ("string", 0, True), ("float32", None, False), ("string", None, False), ("int64", 3, False)],
)
def test_a_feature_without_a_default_is_required(dtype: str, size: int | None, required: bool) -> None:
    graph = Graph()
    graph.keys()
    graph.default("no_default", dtype, size)
    graph.default("with_default", "int64", 1)
    graph.parse_v2("examples")
    features = example_features(whole(graph), INPUT) or ()
    assert features[0].required is required


def test_a_default_that_is_computed_is_a_default() -> None:
    graph = Graph()
    graph.keys()
    graph.default("with_default", "int64", 1)
    graph.add("no_default", "Mul", "a", "b")
    graph.parse_v2("examples")
    features = example_features(whole(graph), INPUT) or ()
    assert not features[0].required


def _packed(graph: Graph) -> None:
    graph.keys()
    graph.nodes[-1].attr["value"].tensor.ClearField("string_val")


@pytest.mark.parametrize(
    "write_keys", [lambda graph: graph.add("keys_dense", "Fill", "a"), lambda graph: None, _packed]
)
def test_features_whose_names_cannot_be_read(write_keys: Any) -> None:
    graph = Graph()
    write_keys(graph)
    graph.defaults()
    graph.parse_v2("examples")
    assert example_features(whole(graph), INPUT) == ()


def test_sequence_examples_are_recognised_and_not_read() -> None:
    graph = Graph()
    graph.add("parse", "ParseSequenceExampleV2", "examples", "names")
    assert example_features(whole(graph), INPUT) == ()


@pytest.mark.parametrize(
    ("op", "inputs"),
    [
        ("StringLower", ["examples"]),
        ("ParseExampleV2", ["other", "examples"]),
        ("ParseExampleV2", ["other", "^examples"]),
    ],
)
def test_a_string_that_is_not_parsed(op: str, inputs: list[str]) -> None:
    graph = Graph()
    graph.add("node", op, *inputs)
    assert example_features(whole(graph), INPUT) is None
