"""Serialized tf.Examples to columns, by tfx_bsl's decoder. A model that parses them itself gets them whole."""

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from google.protobuf.message import DecodeError
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder

from sluice.models.protos import message_class
from sluice.models.tensors.arrays import list_array
from sluice.models.wording import message
from sluice.transforms.core.failures import Failure
from sluice.transforms.decode.convert import convert_or_mark
from sluice.transforms.decode.spec import (
    Decoded,
    InputSpec,
    Undecodable,
    decode_isolated,
    finish,
    row_failure,
    without_bad,
)


def decode_examples(records: Sequence[bytes], positions: np.ndarray, spec: InputSpec, origin: str) -> Decoded:
    """Returns the rows of serialized tf.Examples.

    Args:
      positions: int64 [records]: the position of each record in the file.
      origin: the origin of a row up to its position, e.g. "data.tfrecord#byte=".
    """

    def decode(start: int, stop: int) -> Decoded:
        return _decode_together(records[start:stop], positions[start:stop], spec, origin)

    def fail(record: int, reason: str) -> Failure:
        return row_failure(reason, f"{origin}{positions[record]}", records[record])

    return decode_isolated(len(records), decode, fail)


def _decode_together(records: Sequence[bytes], positions: np.ndarray, spec: InputSpec, origin: str) -> Decoded:
    """Returns the rows of records; raises Undecodable if the decoder refuses one of them."""
    columns = _parse(records, tuple((name, kind) for name, kind in spec.columns if name != spec.examples))
    payload = pa.array(records, pa.binary())
    reasons: dict[int, str] = {}
    arrays = []
    for name, kind in spec.columns:
        if name == spec.examples:
            arrays.append(payload)
            continue
        array, misfits, reason = _convert(columns[name], kind)
        text = "feature '{name}': {}"
        found = {row: message(text, reason(row), name=name) for row in np.flatnonzero(misfits).tolist()}
        reasons = found | reasons
        arrays.append(array)
    batch = finish(arrays, spec, origin, positions, payload)
    return without_bad(batch, reasons, origin, positions, records.__getitem__)


def _parse(records: Sequence[bytes], kinds: tuple[tuple[str, pa.DataType], ...]) -> dict[str, pa.Array]:
    if not kinds:
        return {}
    try:
        decoded = _decoder(kinds).DecodeBatch(list(records))
    except Exception as error:  # the C++ side of the decoder raises plain RuntimeError
        raise Undecodable(message("not a tf.Example that fits the columns: {}", _first_line(error))) from error
    return {name: decoded.column(decoded.schema.get_field_index(name)) for name, _ in kinds}


def _decoder(kinds: tuple[tuple[str, pa.DataType], ...]) -> ExamplesToRecordBatchDecoder:
    """Returns a decoder for one batch: a decoder is not thread-safe, and keeps half a batch after an error."""
    schema = schema_pb2.Schema()
    for name, kind in kinds:
        schema.feature.add(name=name, type=_feature_type(kind))
    return ExamplesToRecordBatchDecoder(schema.SerializeToString())


def _feature_type(kind: pa.DataType) -> int:
    while pa.types.is_list(kind):
        kind = kind.value_type
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return schema_pb2.INT
    return schema_pb2.FLOAT if pa.types.is_floating(kind) else schema_pb2.BYTES


_Converted = tuple[pa.Array, np.ndarray, Callable[[int], str]]


def _convert(array: pa.Array, kind: pa.DataType) -> _Converted:
    """Returns large_list<int64 | float32 | large_binary> in the job's type, the misfits (bool [n]), and the reasons."""
    counts = pc.list_value_length(array)
    lengths = np.asarray(counts.fill_null(0) if counts.null_count else counts, np.int64)
    if pa.types.is_list(kind):
        return _lists(array, lengths, kind)
    present = lengths == 1
    if present.all():
        values, misfits, reason = _cast(array.flatten(), kind)
        return values, misfits, lambda _: reason
    bad = lengths > 1
    if bad.any():
        array = pc.if_else(pa.array(~bad), array, pa.scalar(None, array.type))
    # Every row has one value or none: take the flat values to their rows, and nulls to the others.
    values, misfits, reason = _cast(array.flatten(), kind)
    places = np.cumsum(present) - 1
    values = values.take(pa.array(places, mask=~present))
    misfits = np.where(present, misfits[np.minimum(places, len(misfits) - 1)], False) if len(misfits) else present
    several = bad.copy()
    text = "one value is expected, found {count}"
    return values, bad | misfits, lambda row: message(text, count=lengths[row]) if several[row] else reason


def _lists(
    array: pa.Array, lengths: np.ndarray, kind: pa.DataType
) -> tuple[pa.Array, np.ndarray, Callable[[int], str]]:
    leaf = kind.value_type
    values, misfits, reason = _cast(array.flatten(), leaf)
    bad = np.zeros(len(array), bool)
    if misfits.any():
        bad[np.repeat(np.arange(len(array)), lengths)[misfits]] = True
    lists = list_array(lengths, values, array.is_null() if array.null_count else None)
    return lists.cast(kind), bad, lambda _: reason


def _cast(values: pa.Array, kind: pa.DataType) -> tuple[pa.Array, np.ndarray, str]:
    """Returns the values in the type, null where they do not fit, the misfits (bool [n]), and their reason."""
    reason = message("out of the range of {kind}", kind=kind)
    if pa.types.is_string(kind):
        reason = message("not valid UTF-8; name it with the suffix _bytes or declare it BYTES in --input_schema")
    if not len(values):
        return values.cast(kind), np.zeros(0, bool), reason
    cast, misfits = convert_or_mark(values, lambda part: part.cast(kind), kind)
    return cast, np.zeros(len(values), bool) if misfits is None else misfits, reason


def _first_line(error: Exception) -> str:
    return str(error).split("\n")[0]


def example_schema(records: Sequence[bytes]) -> pa.Schema:
    """Returns the features of some tf.Examples: int64, float32 or binary; lists if one record has several values.

    A record that is not a tf.Example is ignored.
    """
    example = message_class("tensorflow.Example")
    kinds: dict[str, pa.DataType] = {}
    for record in records:
        try:
            features = example.FromString(record).features.feature
        except DecodeError:
            continue
        for name, feature in features.items():
            field = feature.WhichOneof("kind")
            if field:
                several = len(getattr(feature, field).value) > 1
                if name not in kinds or several:
                    kinds[name] = pa.list_(_KINDS[field]) if several else _KINDS[field]
    return pa.schema(sorted(kinds.items()))


_KINDS = {"bytes_list": pa.binary(), "int64_list": pa.int64(), "float_list": pa.float32()}
