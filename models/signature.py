"""The inputs and outputs of a model: named tensors, and the table columns they correspond to."""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence

import ml_dtypes
import numpy as np
import pyarrow as pa

from sluice.models.errors import SignatureError
from sluice.models.protos import CompositeTensor, TensorInfo

DEFAULT_SIGNATURE = "serving_default"

# In TF Serving's REST API a string tensor whose name ends like this is binary, and base64 in JSON.
# https://www.tensorflow.org/tfx/serving/api_rest#encoding_binary_values
BYTES_SUFFIX = "_bytes"

# tensorflow/core/framework/types.proto, DataType.
_DTYPES: Mapping[int, str] = {
    1: "float32",
    2: "float64",
    3: "int32",
    4: "uint8",
    5: "int16",
    6: "int8",
    7: "string",
    9: "int64",
    10: "bool",
    14: "bfloat16",
    17: "uint16",
    19: "float16",
    22: "uint32",
    23: "uint64",
}

# The same, without a column form.
_WITHOUT_FORM: Mapping[int, str] = {
    8: "complex64",
    11: "qint8",
    12: "quint8",
    13: "qint32",
    15: "qint16",
    16: "quint16",
    18: "complex128",
    20: "resource",
    21: "variant",
}
# A number above this one is a reference to a tensor, such as a variable of TensorFlow 1; what is fetched is the tensor.
_REFERENCES = 100
# What these name is a thing of TensorFlow's, such as a table, and no value.
_HANDLES = ("resource", "variant")

# The kind of an output that TF Serving's Predict cannot return: it fetches one tensor for each output.
UNSERVED = "unserved"

# tensorflow/core/protobuf/struct.proto, TypeSpecProto.TypeSpecClass.
_RAGGED = 3

Shape = tuple[int | None, ...]
# What replaces the nulls of a column, before it is converted to the column's dtype.
Default = str | bytes | bool | int | float


@dataclasses.dataclass(frozen=True)
class TensorSpec:
    """One named input or output.

    Attributes:
      name: its key in the signature.
      dtype: NumPy's name, or "string" for bytes of any length, or TensorFlow's name of what has no column form.
      shape: with the batch dimension first; a size is None if unknown; None as a whole: unknown rank.
      tensors: names of its tensors in the graph: one if dense; values and row splits if ragged.
      kind: "dense"; "ragged" (only the first dimension after the batch is ragged); "sparse" (a row is the list of its
        values); "composite", which cannot be served; or UNSERVED.
    """

    name: str
    dtype: str
    shape: Shape | None
    tensors: tuple[str, ...] = ()
    kind: str = "dense"

    @property
    def row_shape(self) -> Shape:
        """The shape of one row: without the batch dimension."""
        return self.shape[1:] if self.shape else ()

    @property
    def is_scalar(self) -> bool:
        """Whether a row holds one value: shape [batch] or [batch, 1]."""
        return self.kind == "dense" and all(size == 1 for size in self.row_shape)

    @property
    def is_handle(self) -> bool:
        """Whether it is no value, but something of TensorFlow's own that a value was computed with."""
        return self.dtype in _HANDLES

    @property
    def numpy_dtype(self) -> np.dtype:
        return numpy_dtype(self.dtype)

    def __str__(self) -> str:
        if self.shape is None:
            return f"{self.dtype} of unknown rank"
        if not self.shape:
            return f"{self.dtype} []"
        kind = "" if self.kind == "dense" else f"{self.kind} "
        return f"{kind}{self.dtype} {shape_text(('batch', *self.row_shape))}"


@dataclasses.dataclass(frozen=True)
class ColumnSpec:
    """An input column of the model: one input, or one feature of the tf.Examples that it parses.

    Attributes:
      shape: of one row; () for a scalar.
      required: whether a null is an error. False for a feature that has a default in the model's parser.
    """

    name: str
    dtype: str
    shape: Shape = ()
    required: bool = True

    @property
    def is_scalar(self) -> bool:
        """Whether a row is one value: shape [] or [1, ...]."""
        return all(size == 1 for size in self.shape)

    @property
    def size(self) -> int | None:
        """How many values a row has; None if some dimension is unknown."""
        return None if None in self.shape else math.prod(size or 0 for size in self.shape)

    @property
    def nested(self) -> bool:
        """Whether a row is nested lists. A shape of one dimension, or of known sizes, is one flat list."""
        return len(self.shape) > 1 and self.size is None

    @property
    def arrow_type(self) -> pa.DataType:
        """The type that readers use for this column. Strings are text unless the name ends with BYTES_SUFFIX."""
        value = arrow_type(self.dtype)
        if self.dtype == "string" and self.name.endswith(BYTES_SUFFIX):
            value = pa.binary()
        if self.is_scalar:
            return value
        for _ in range(len(self.shape) if self.nested else 1):
            value = pa.list_(value)
        return value

    def __str__(self) -> str:
        if self.is_scalar:
            return self.dtype
        return f"{self.dtype}{shape_text(self.shape)}"


def shape_text(shape: Sequence[int | str | None]) -> str:
    """Returns a shape as error messages show it: [2, ?]."""
    return f"[{', '.join('?' if size is None else str(size) for size in shape)}]"


@dataclasses.dataclass(frozen=True)
class Signature:
    """One signature of a model.

    Attributes:
      features: of a signature whose only input is serialized tf.Examples: the features that its parser reads, empty if
        they were not found in the graph. None for any other signature.
      refusal: why the backend cannot serve it at all; empty if it can.
    """

    name: str
    method: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    features: tuple[ColumnSpec, ...] | None = None
    refusal: str = ""

    @property
    def takes_examples(self) -> bool:
        return self.features is not None

    @functools.cached_property
    def columns(self) -> tuple[ColumnSpec, ...]:
        """The input columns of the model."""
        if self.features is not None:
            return self.features
        return tuple(ColumnSpec(spec.name, spec.dtype, spec.row_shape) for spec in self.inputs)

    def with_outputs(self, names: tuple[str, ...]) -> "Signature":
        """Returns the signature with these outputs only; the model does not compute the others.

        Raises:
          SignatureError: the signature lacks one of them.
        """
        have = [spec.name for spec in self.outputs]
        unknown = sorted(set(names) - set(have))
        if unknown:
            raise SignatureError(
                f"signature '{self.name}' has no output {', '.join(unknown)}; it has {', '.join(have)}"
            )
        return dataclasses.replace(self, outputs=tuple(spec for spec in self.outputs if spec.name in names))

    def without_handles(self) -> "Signature":
        """Returns the signature without the outputs that are handles, unless it has no others."""
        values = tuple(spec for spec in self.outputs if not spec.is_handle)
        return dataclasses.replace(self, outputs=values) if 0 < len(values) < len(self.outputs) else self

    def checked(self) -> "Signature":
        """Returns the signature itself if Sluice can serve it.

        Raises:
          SignatureError: an input or output has no column form, or the backend cannot serve it. The text says which.
        """
        if self.refusal:
            raise SignatureError(f"signature '{self.name}': {self.refusal}")
        for spec in self.inputs:
            _check(self, "input", spec)
            if spec.kind != "dense":
                raise SignatureError(
                    f"signature '{self.name}': input '{spec.name}' is {spec.kind}; only dense tensors can be fed. "
                    "Export a signature that takes a dense tensor, or serialized tf.Examples"
                )
        for spec in self.outputs:
            _check(self, "output", spec)
        if not self.inputs:
            raise SignatureError(f"signature '{self.name}' has no input, so there is nothing to score")
        if not self.outputs:
            raise SignatureError(f"signature '{self.name}' has no output of those asked for")
        return self


def _check(signature: Signature, role: str, spec: TensorSpec) -> None:
    remedy = "leave it out with --exclude_columns, or " if role == "output" else ""
    if spec.kind == UNSERVED:
        raise SignatureError(
            f"signature '{signature.name}': output '{spec.name}' is ragged or sparse, and TF Serving returns dense "
            f"tensors only; {remedy}export the model with a dense output"
        )
    if spec.kind == "composite":
        raise SignatureError(
            f"signature '{signature.name}': {role} '{spec.name}' is a composite tensor of {len(spec.tensors)} parts, "
            "which has no column form (a tensor ragged in more than one dimension is one); "
            f"{remedy}export the model with dense tensors, or tensors ragged in one dimension"
        )
    if not has_column_form(spec.dtype):
        raise SignatureError(
            f"signature '{signature.name}': {role} '{spec.name}' is {spec.dtype}, which has no column form; "
            f"{remedy}export the model with one of {', '.join(sorted(_DTYPES.values()))}"
        )
    if spec.shape == ():
        raise SignatureError(
            f"signature '{signature.name}': {role} '{spec.name}' has rank 0, so it has no dimension for the rows; "
            f"{remedy}export the model with a batch dimension first"
        )


def dtype_name(number: int) -> str:
    """Returns the name of a TensorFlow DataType number; a reference has that of the tensor that it refers to."""
    number = number - _REFERENCES if number > _REFERENCES else number
    return _DTYPES.get(number) or _WITHOUT_FORM.get(number, f"DataType {number}")


def has_column_form(dtype: str) -> bool:
    """Whether values of the dtype of this name can be a column."""
    return dtype in _DTYPES.values()


def numpy_dtype(name: str) -> np.dtype:
    """Returns the NumPy dtype of a tensor of this dtype; strings are bytes objects."""
    if name == "string":
        return np.dtype(object)
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def arrow_type(name: str) -> pa.DataType:
    """Returns the Arrow type that readers use for a column of this dtype; float32 for half floats."""
    if name == "string":
        return pa.string()
    if name in ("float16", "bfloat16"):
        return pa.float32()
    return pa.from_numpy_dtype(np.dtype(name))


def tensor_spec(name: str, info: TensorInfo) -> TensorSpec:
    """Returns the spec of the input or output with this name in a signature."""
    encoding = info.WhichOneof("encoding")
    shape: Shape | None = tuple(None if dim.size < 0 else dim.size for dim in info.tensor_shape.dim)
    if info.tensor_shape.unknown_rank or not info.HasField("tensor_shape"):
        shape = None
    dtype = dtype_name(info.dtype)
    if encoding == "coo_sparse":
        sparse = info.coo_sparse
        tensors = (sparse.values_tensor_name, sparse.indices_tensor_name, sparse.dense_shape_tensor_name)
        return TensorSpec(name, dtype, shape, tensors, "sparse")
    if encoding == "composite_tensor":
        return _composite_spec(name, dtype, shape, info.composite_tensor)
    return TensorSpec(name, dtype, shape, (info.name,))


def _composite_spec(name: str, dtype: str, shape: Shape | None, composite: CompositeTensor) -> TensorSpec:
    """Returns the spec of a ragged tensor (its parts: flat values, then row splits, outermost first), or of another."""
    parts = composite.components
    tensors = tuple(part.name for part in parts)
    if composite.type_spec.type_spec_class != _RAGGED or len(parts) != 2:
        return TensorSpec(name, dtype, shape, tensors, "composite")
    values = tensor_spec(name, parts[0])
    return TensorSpec(name, values.dtype, (None, None, *values.row_shape), tensors, "ragged")
