"""SavedModels of a few nodes, written as protobufs: forms that people publish and TensorFlow 2 no longer writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sluice.models.protos import message_class

FLOAT, DOUBLE, STRING, INT64, BOOL, RESOURCE = 1, 2, 7, 9, 10, 20
REFERENCE = 100  # to a variable of TensorFlow 1; added to its DataType

# Name: DataType, tensor, sizes; None as sizes: the shape is left out.
Tensors = dict[str, tuple[int, str, "list[int] | None"]]


class Whole(int):
    """An attribute of a node that is a number, and no DataType."""


class HandMade:
    """A SavedModel in the making.

    Args:
      device: where every node is to run.
    """

    def __init__(self, device: str = "") -> None:
        self._saved_model = message_class("tensorflow.SavedModel")(saved_model_schema_version=1)
        self._meta_graph = self._saved_model.meta_graphs.add()
        self._meta_graph.meta_info_def.tags.append("serve")
        self._device = device

    def node(self, name: str, op: str, *inputs: str, **attrs: Any) -> HandMade:
        """Adds a node; a number is a DataType, a list of sizes a shape, text a string, and an array a constant."""
        node = self._meta_graph.graph_def.node.add(name=name, op=op, device=self._device)
        node.input.extend(inputs)
        for key, value in attrs.items():
            if isinstance(value, bytes):
                node.attr[key].s = value
            elif isinstance(value, list):
                node.attr[key].shape.SetInParent()
                for size in value:
                    node.attr[key].shape.dim.add(size=size)
            elif isinstance(value, Whole):
                node.attr[key].i = value
            elif isinstance(value, int):
                node.attr[key].type = value
            else:
                node.attr[key].tensor.CopyFrom(value)
        return self

    def constant(self, name: str, value: float | bytes, number: int = FLOAT) -> HandMade:
        """Adds a scalar constant; one of numbers is FLOAT or DOUBLE."""
        dtype = STRING if isinstance(value, bytes) else number
        tensor = message_class("tensorflow.TensorProto")(dtype=dtype)
        tensor.tensor_shape.SetInParent()
        values = {STRING: tensor.string_val, FLOAT: tensor.float_val, DOUBLE: tensor.double_val}
        values[dtype].append(value)
        return self.node(name, "Const", dtype=dtype, value=tensor)

    def signature(self, inputs: Tensors, outputs: Tensors, name: str = "serving_default") -> HandMade:
        """Adds a signature for Predict, or replaces one."""
        self._meta_graph.signature_def.pop(name, None)
        signature = self._meta_graph.signature_def[name]
        signature.method_name = "tensorflow/serving/predict"
        for infos, tensors in ((signature.inputs, inputs), (signature.outputs, outputs)):
            for key, (dtype, tensor, sizes) in tensors.items():
                infos[key].name, infos[key].dtype = tensor, dtype
                if sizes is not None:
                    infos[key].tensor_shape.SetInParent()
                    for size in sizes:
                        infos[key].tensor_shape.dim.add(size=size)
        return self

    def asset(self, name: str, tensor: str) -> HandMade:
        """Names a file under assets/, whose path the tensor holds when the model is loaded."""
        asset = self._meta_graph.asset_file_def.add(filename=name)
        asset.tensor_info.name = tensor
        return self

    def init(self, op: str) -> HandMade:
        """Names the op that is run when the model is loaded."""
        self._meta_graph.collection_def["saved_model_main_op"].node_list.value.append(op)
        return self

    def write(self, directory: Path | str) -> str:
        """Writes saved_model.pb; returns the directory."""
        Path(directory).mkdir(parents=True)
        Path(directory, "saved_model.pb").write_bytes(self._saved_model.SerializeToString())
        return str(directory)


def half_plus_two(device: str = "") -> HandMade:
    """y = x / 2 + 2, for any shape."""
    made = HandMade(device).node("x", "Placeholder", dtype=FLOAT, shape=[-1, 1])
    made.constant("half", 0.5).constant("two", 2.0)
    made.node("product", "Mul", "x", "half", T=FLOAT).node("y", "AddV2", "product", "two", T=FLOAT)
    return made.signature({"x": (FLOAT, "x:0", [-1, 1])}, {"y": (FLOAT, "y:0", [-1, 1])})
