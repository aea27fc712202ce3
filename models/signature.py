"""What a model takes and gives: tensors by name, and the table columns that stand for them."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from sluice.models.errors import SignatureError

DEFAULT_SIGNATURE = "serving_default"

# TF Serving's REST API takes string tensors whose name ends so for binary data, written as base64 in text.
# https://www.tensorflow.org/tfx/serving/api_rest#encoding_binary_values
BYTES_SUFFIX = "_bytes"

# tensorflow/core/framework/types.proto, DataType. Complex, quantized, resource and variant have no column form.
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

# The kind of an output that a SavedModel can give and TF Serving's Predict cannot: it fetches one tensor for each.
UNSERVED = "unserved"

# tensorflow/core/protobuf/struct.proto, TypeSpecProto.TypeSpecClass.
_RAGGED = 3

Shape = tuple[int | None, ...]


@dataclasses.dataclass(frozen=True)
class TensorSpec:
    """One named input or output.

    Attributes:
      name: its key in the signature.
      dtype: NumPy's name, or "string" for bytes of any length, or "unsupported:N" with TensorFlow's DataType number.
      shape: with the batch dimension first; None where a dimension is unknown; None as a whole: unknown rank.
      tensors: names of the graph's tensors that hold it; one if dense; values and row splits if ragged.
      kind: "dense"; "ragged" (one dimension behind the batch, others behind it are fixed), "sparse" (a row is the list
        of its values); "composite", which cannot be served; or UNSERVED.
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
    def numpy_dtype(self) -> np.dtype:
        return numpy_dtype(self.dtype)

    def __str__(self) -> str:
        if self.shape is None:
            return f"{self.dtype} of unknown rank"
        sizes = ["batch", *("?" if size is None else str(size) for size in self.row_shape)]
        kind = "" if self.kind == "dense" else f"{self.kind} "
        return f"{kind}{self.dtype} [{', '.join(sizes)}]" if self.shape else f"{self.dtype} []"


@dataclasses.dataclass(frozen=True)
class ColumnSpec:
    """A column that the model takes: one input, or one feature of the tf.Examples that it parses.

    Attributes:
      shape: of one row; () for a scalar.
      required: a null or missing value is an error (a feature with a default in the model's parser is not required).
    """

    name: str
    dtype: str
    shape: Shape = ()
    required: bool = True

    @property
    def is_scalar(self) -> bool:
        return all(size == 1 for size in self.shape)

    @property
    def nested(self) -> bool:
        """Whether a row is held as nested lists; a shape of one dimension or of known sizes is one flat list."""
        return len(self.shape) > 1 and None in self.shape

    @property
    def arrow_type(self) -> pa.DataType:
        """The type that a reader gives this column. Strings are text unless the name says bytes, as in TF Serving."""
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
        return f"{self.dtype}[{', '.join('?' if size is None else str(size) for size in self.shape)}]"


@dataclasses.dataclass(frozen=True)
class Signature:
    """One signature of a model.

    Attributes:
      features: where the only input takes serialized tf.Examples, the features its parser reads (empty if they could
        not be found in the graph); None for any other signature.
      refusal: why the backend cannot serve it, whatever inputs and outputs are wanted; empty if it can.
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
        """The columns that the model takes."""
        if self.features is not None:
            return self.features
        return tuple(ColumnSpec(spec.name, spec.dtype, spec.row_shape) for spec in self.inputs)

    def with_outputs(self, names: tuple[str, ...]) -> "Signature":
        """Returns the signature with these outputs only; the others are then not computed.

        Raises:
          SignatureError: it has no output of some name.
        """
        have = [spec.name for spec in self.outputs]
        unknown = sorted(set(names) - set(have))
        if unknown:
            raise SignatureError(
                f"signature '{self.name}' has no output {', '.join(unknown)}; it has {', '.join(have)}"
            )
        return dataclasses.replace(self, outputs=tuple(spec for spec in self.outputs if spec.name in names))

    def checked(self) -> "Signature":
        """Returns itself if Sluice can serve it.

        Raises:
          SignatureError: an input or output has no column form, the text names it; or the backend refuses it.
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
            raise SignatureError(f"signature '{self.name}' takes no input, so there is nothing to score")
        if not self.outputs:
            raise SignatureError(f"signature '{self.name}' has no output that is asked for")
        return self


def _check(signature: Signature, role: str, spec: TensorSpec) -> None:
    remedy = "leave it out with --exclude_columns, or " if role == "output" else ""
    if spec.kind == UNSERVED:
        raise SignatureError(
            f"signature '{signature.name}': output '{spec.name}' is ragged or sparse, and TF Serving answers with "
            f"dense tensors only; {remedy}export the model with a dense output"
        )
    if spec.kind == "composite":
        raise SignatureError(
            f"signature '{signature.name}': {role} '{spec.name}' is a composite tensor of {len(spec.tensors)} parts, "
            "which has no column form (a tensor ragged in more than one dimension is one); "
            f"{remedy}export the model with dense tensors, or tensors ragged in one dimension"
        )
    if spec.dtype.startswith("unsupported"):
        raise SignatureError(
            f"signature '{signature.name}': {role} '{spec.name}' has TensorFlow's DataType {spec.dtype.split(':')[1]}, "
            f"which has no column form; {remedy}export the model with one of {', '.join(sorted(_DTYPES.values()))}"
        )
    if spec.shape == ():
        raise SignatureError(
            f"signature '{signature.name}': {role} '{spec.name}' has rank 0, so no dimension holds the rows; "
            f"{remedy}export the model with a batch dimension first"
        )


def dtype_name(number: int) -> str:
    """Returns the name of a TensorFlow DataType number; "unsupported:N" if it has no column form."""
    return _DTYPES.get(number, f"unsupported:{number}")


def numpy_dtype(name: str) -> np.dtype:
    """Returns the NumPy dtype of a tensor of this dtype; strings are objects holding bytes."""
    if name == "string":
        return np.dtype(object)
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


def arrow_type(name: str) -> pa.DataType:
    """Returns the Arrow type that a column of this dtype is read as; half floats are read as float32."""
    if name == "string":
        return pa.string()
    if name in ("float16", "bfloat16"):
        return pa.float32()
    return pa.from_numpy_dtype(np.dtype(name))


def tensor_spec(name: str, info: Any) -> TensorSpec:
    """Returns the spec of a `tensorflow.TensorInfo` under this key of a signature."""
    encoding = info.WhichOneof("encoding")
    shape: Shape | None = tuple(None if dim.size < 0 else dim.size for dim in info.tensor_shape.dim)
    if info.tensor_shape.unknown_rank:
        shape = None
    dtype = dtype_name(info.dtype)
    if encoding == "coo_sparse":
        sparse = info.coo_sparse
        tensors = (sparse.values_tensor_name, sparse.indices_tensor_name, sparse.dense_shape_tensor_name)
        return TensorSpec(name, dtype, shape, tensors, "sparse")
    if encoding == "composite_tensor":
        return _composite_spec(name, dtype, shape, info.composite_tensor)
    return TensorSpec(name, dtype, shape, (info.name,))


def _composite_spec(name: str, dtype: str, shape: Shape | None, composite: Any) -> TensorSpec:
    """Only ragged tensors are declared so: their values, flat, then row splits from the outermost to the innermost."""
    parts = composite.components
    tensors = tuple(part.name for part in parts)
    if composite.type_spec.type_spec_class != _RAGGED or len(parts) != 2:
        return TensorSpec(name, dtype, shape, tensors, "composite")
    values = tensor_spec(name, parts[0])
    return TensorSpec(name, values.dtype, (None, None, *values.row_shape), tensors, "ragged")
