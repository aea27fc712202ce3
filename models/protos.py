"""Message classes of TF Serving's API and of SavedModel, without TensorFlow.

They are in a descriptor pool of their own, so TensorFlow can be imported in the same process. The descriptors come from
tensorflow-serving-api by tools/make_protos.py.

The classes are made at run time, so type checkers do not know their fields. The Protocols below name the fields that
Sluice reads of the larger ones, as tensorflow/core/framework and tensorflow/core/protobuf declare them.
"""

import functools
import pkgutil
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory


@functools.cache
def _pool(packed: bool) -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    data = pkgutil.get_data("sluice.models", "serving.binpb")  # importlib.resources brings in zip files, and more
    assert data is not None, "the package's loader reads files"
    for file in descriptor_pb2.FileDescriptorSet.FromString(data).file:
        for message in file.message_type if packed else ():
            if message.name == "TensorProto":
                _leave_packed(message)
        pool.Add(file)
    return pool


def _leave_packed(message: descriptor_pb2.DescriptorProto) -> None:
    """Makes each repeated field of numbers one of bytes: on the wire, packed numbers are the same."""
    for field in message.field:
        others = (field.TYPE_BYTES, field.TYPE_STRING, field.TYPE_MESSAGE)
        if field.label == field.LABEL_REPEATED and field.type not in others:
            field.type = field.TYPE_BYTES
            field.ClearField("options")


@functools.cache
def message_class(name: str) -> Any:
    """Returns the class of the message with this full name, e.g. `tensorflow.serving.PredictRequest`.

    Raises:
      KeyError: models/serving.binpb has no such message.
    """
    return message_factory.GetMessageClass(_pool(False).FindMessageTypeByName(name))


@functools.cache
def packed_class(name: str) -> Any:
    """Returns the same, but the TensorProtos in it have their numbers as bytes, packed as on the wire.

    So no object is made for a number. A field has a list of such bytes, for a message may have several runs of numbers.
    Numbers that are not packed, as a writer may leave them, are unknown fields.
    """
    return message_factory.GetMessageClass(_pool(True).FindMessageTypeByName(name))


class Dim(Protocol):
    """`tensorflow.TensorShapeProto.Dim`: a size, -1 if it is not known."""

    size: int


class ShapeProto(Protocol):
    """`tensorflow.TensorShapeProto`."""

    dim: Sequence[Dim]
    unknown_rank: bool


class ConstantProto(Protocol):
    """`tensorflow.TensorProto`: the fields of constants that name features."""

    dtype: int
    tensor_shape: ShapeProto
    string_val: Sequence[bytes]


class AttrList(Protocol):
    """`tensorflow.AttrValue.ListValue`."""

    type: Sequence[int]
    shape: Sequence[ShapeProto]


class FunctionName(Protocol):
    """`tensorflow.NameAttrList`."""

    name: str


class AttrValue(Protocol):
    """`tensorflow.AttrValue`: an attribute of a node; the node's op says which field is set."""

    i: int
    list: AttrList
    tensor: ConstantProto
    func: FunctionName


class NodeDef(Protocol):
    """`tensorflow.NodeDef`: one op of a graph or a function; inputs are names of nodes or arguments."""

    name: str
    op: str
    input: Sequence[str]
    attr: Mapping[str, AttrValue]


class ArgDef(Protocol):
    """`tensorflow.OpDef.ArgDef`."""

    name: str


class OpDef(Protocol):
    """`tensorflow.OpDef`: the name and arguments of a function."""

    name: str
    input_arg: Sequence[ArgDef]


class FunctionDef(Protocol):
    """`tensorflow.FunctionDef`."""

    signature: OpDef
    node_def: Sequence[NodeDef]


class FunctionLibrary(Protocol):
    """`tensorflow.FunctionDefLibrary`."""

    function: Sequence[FunctionDef]


class GraphDef(Protocol):
    """`tensorflow.GraphDef`."""

    node: Sequence[NodeDef]
    library: FunctionLibrary


class CooSparse(Protocol):
    """`tensorflow.TensorInfo.CooSparse`: the names of the three tensors of a SparseTensor."""

    values_tensor_name: str
    indices_tensor_name: str
    dense_shape_tensor_name: str


class TypeSpecProto(Protocol):
    """`tensorflow.TypeSpecProto`."""

    type_spec_class: int


class CompositeTensor(Protocol):
    """`tensorflow.TensorInfo.CompositeTensor`."""

    type_spec: TypeSpecProto
    components: Sequence["TensorInfo"]


class TensorInfo(Protocol):
    """`tensorflow.TensorInfo`: an input or output of a signature. The oneof `encoding` says how it is represented."""

    name: str
    dtype: int
    tensor_shape: ShapeProto
    coo_sparse: CooSparse
    composite_tensor: CompositeTensor

    def WhichOneof(self, oneof_group: str) -> str | None:
        """Returns the name of the field that is set in this oneof."""

    def HasField(self, field_name: str) -> bool:
        """Whether this field is set."""


class SignatureDef(Protocol):
    """`tensorflow.SignatureDef`."""

    method_name: str
    inputs: Mapping[str, TensorInfo]
    outputs: Mapping[str, TensorInfo]


class SignatureDefMap(Protocol):
    """`tensorflow.serving.SignatureDefMap`, and the same field of `tensorflow.MetaGraphDef`."""

    signature_def: Mapping[str, SignatureDef]


class MetaGraphDef(SignatureDefMap, Protocol):
    """`tensorflow.MetaGraphDef`."""

    graph_def: GraphDef
