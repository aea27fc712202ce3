"""Scored rows as TFRecord files of tf.train.Example."""

from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from sluice.models.errors import SluiceError
from sluice.models.reserved import PAYLOAD
from sluice.models.tensors import tfrecord
from sluice.models.tensors.arrays import list_array
from sluice.models.tensors.column_types import is_list
from sluice.transforms.encode.base import OutputSpec, data_bytes, join, parts, select_columns, shown_schema


def example_unsupported(kind: pa.DataType) -> str | None:
    """Returns the part of this shown type that a tf.Example cannot hold, or None.

    A tf.Example has flat lists of int64, float and bytes. uint64 and float64 are refused, because int64 and float do
    not hold all of their values.
    """
    value = kind.value_type if is_list(kind) else kind
    types = pa.types
    if types.is_uint64(value) or types.is_float64(value):
        return str(kind)
    kinds = (types.is_integer, types.is_floating, types.is_boolean, types.is_string, types.is_binary, types.is_null)
    return None if any(is_kind(value) for is_kind in kinds) else str(kind)


class ExampleEncoder:
    """A TFRecord file of serialized tf.Examples.

    Integers and booleans are int64 features; floats are float features; strings and binary are bytes features. A null
    is a feature left out.

    A raw row is the serialized Example of the source followed by an Example of the added columns. Parsers read
    concatenated messages as one and merge their maps, https://protobuf.dev/programming-guides/encoding/#last-one-wins;
    TensorFlow's fast parser, too (tensorflow/core/util/example_proto_fast_parsing.cc, ParseExample).
    """

    def __init__(self, file: BinaryIO, spec: OutputSpec) -> None:
        # The import stays here: it keeps tfx_bsl, which is slow to import, out of jobs that write other formats.
        from tfx_bsl.coders.example_coder import RecordBatchToExamplesEncoder

        self._file = file
        self._raw = spec.raw
        self._encoder: Any = RecordBatchToExamplesEncoder()
        self._schema = shown_schema(spec.schema)
        if spec.raw:
            self._schema = self._schema.append(pa.field(PAYLOAD, pa.binary(), nullable=False))

    def write(self, batch: pa.RecordBatch) -> None:
        for part in parts(select_columns(batch, self._schema)):
            self._file.write(data_bytes(tfrecord.frames(self._examples(part))))

    def close(self) -> None:
        """A file of records has no end."""

    def _examples(self, batch: pa.RecordBatch) -> pa.Array:
        names = batch.schema.names[:-1] if self._raw else batch.schema.names
        features = [_feature(name, batch.column(name)) for name in names]
        examples = pa.array(self._encoder.encode(pa.RecordBatch.from_arrays(features, names)), pa.binary())
        return join([batch.column(PAYLOAD), examples], batch.num_rows, b"") if self._raw else examples


def _feature(name: str, array: pa.Array) -> pa.Array:
    """Returns list<int64 | float32 | binary> [rows], null for null."""
    present = array.is_valid()
    if is_list(array.type):
        lengths = pc.list_value_length(array).fill_null(0).to_numpy()
        values = array.flatten()
        if values.null_count:
            raise SluiceError(
                f"column '{name}': {values.null_count} values inside its lists are null, which a tf.Example cannot "
                "hold; leave the column out with --exclude_columns, or choose another --output_format"
            )
    else:
        lengths = present.to_numpy(zero_copy_only=False)
        values = array.drop_null()
    mask = pc.invert(present) if array.null_count else None
    return list_array(lengths, values.cast(_feature_type(values.type)), mask)


def _feature_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_floating(kind) or pa.types.is_null(kind):
        return pa.float32()
    return pa.binary() if pa.types.is_string(kind) or pa.types.is_binary(kind) else pa.int64()
