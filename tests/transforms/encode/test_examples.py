import io
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.models.errors import SluiceError
from sluice.models.protos import message_class
from sluice.models.reserved import PAYLOAD
from sluice.models.tensors.tfrecord import read_records
from sluice.transforms.encode.base import OutputSpec, shown_type
from sluice.transforms.encode.formats import check_output_spec
from tests.support.formats.encode_cases import FEATURES, batches, encode, encode_batch

Example = message_class("tensorflow.Example")


def features(record: bytes) -> dict[str, tuple[str, list[Any]]]:
    """The features that are there: their kind and values."""
    found = Example.FromString(record).features.feature
    kinds = {name: feature.WhichOneof("kind") for name, feature in found.items()}
    return {name: (kind, list(getattr(found[name], kind).value)) for name, kind in kinds.items() if kind}


def rows(data: bytes) -> list[dict[str, tuple[str, list[Any]]]]:
    return [features(record) for _, record in read_records(io.BytesIO(data))]


def expected_feature(value: Any, kind: pa.DataType) -> tuple[str, list[Any]]:
    kind = shown_type(kind)
    listed = value if pa.types.is_list(kind) else [value]
    leaf = kind.value_type if pa.types.is_list(kind) else kind
    if pa.types.is_floating(leaf):
        with np.errstate(over="ignore"):
            return "float_list", [float(np.float32(number)) for number in listed]
    if pa.types.is_integer(leaf) or pa.types.is_boolean(leaf):
        return "int64_list", [int(number) for number in listed]
    return "bytes_list", [item.encode() if isinstance(item, str) else item for item in listed]


def expected_rows(batch: pa.RecordBatch) -> list[dict[str, tuple[str, list[Any]]]]:
    return [
        {
            name: expected_feature(value, batch.schema.field(name).type)
            for name, value in row.items()
            if value is not None
        }
        for row in batch.to_pylist()
    ]


SCALARS = st.sampled_from(list(FEATURES))


@given(batches(types=SCALARS))
def test_tfrecord_reads_back(batch: pa.RecordBatch) -> None:
    check_output_spec(OutputSpec("tfrecord", batch.schema))
    assert repr([sorted(row.items()) for row in rows(encode_batch("tfrecord", batch))]) == repr(
        [sorted(row.items()) for row in expected_rows(batch)]
    )


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        ([[1, 2], [], None, [3]], pa.list_(pa.int64())),
        ([[1.5, 2], [3, 4], None], pa.list_(pa.float16(), 2)),
        ([["a", "b"], [], None], pa.large_list(pa.string())),
        ([[b"a"], [b""], None], pa.list_(pa.binary())),
        ([[True, False], None], pa.list_(pa.bool_())),
        ([None, None], pa.null()),
    ],
    ids=str,
)
def test_lists(cells: list[Any], kind: pa.DataType) -> None:
    whole = pa.RecordBatch.from_arrays([pa.array(cells, kind)], ["x"])
    check_output_spec(OutputSpec("tfrecord", whole.schema))
    for batch in (whole, whole.slice(1)):
        assert rows(encode_batch("tfrecord", batch)) == expected_rows(batch)


def test_a_null_inside_a_list_is_an_error() -> None:
    with pytest.raises(SluiceError, match="column 'x': 1 values inside its lists are null, which"):
        encode_batch("tfrecord", pa.record_batch({"x": [[1, None]]}))


@given(batches(types=SCALARS), batches(types=SCALARS))
def test_raw_rows_hold_the_source_and_the_predictions(source: pa.RecordBatch, added: pa.RecordBatch) -> None:
    count = min(source.num_rows, added.num_rows)
    source, added = source.slice(0, count), added.slice(0, count)
    added = added.rename_columns([f"prediction {name}" for name in added.schema.names])
    payloads = [record for _, record in read_records(io.BytesIO(encode_batch("tfrecord", source)))]
    batch = added.append_column(PAYLOAD, pa.array(payloads, pa.binary()))
    found = rows(encode(OutputSpec("tfrecord", added.schema, raw=True), batch))
    expected = [one | other for one, other in zip(expected_rows(source), expected_rows(added), strict=True)]
    assert repr([sorted(row.items()) for row in found]) == repr([sorted(row.items()) for row in expected])


def test_tensorflow_and_tfx_bsl_parse_raw_rows() -> None:
    import tensorflow as tf
    from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder

    source = pa.record_batch({"a": [1, 2], "s": ["x", "y"]})
    payloads = [record for _, record in read_records(io.BytesIO(encode_batch("tfrecord", source)))]
    batch = pa.record_batch({"p": pa.array([0.25, 0.75], pa.float32()), PAYLOAD: pa.array(payloads, pa.binary())})
    data = encode(OutputSpec("tfrecord", batch.select(["p"]).schema, raw=True), batch)
    records = [record for _, record in read_records(io.BytesIO(data))]
    spec = {name: tf.io.FixedLenFeature([], kind) for name, kind in (("a", "int64"), ("s", "string"), ("p", "float32"))}
    parsed = tf.io.parse_example(records, spec)
    assert {name: tensor.numpy().tolist() for name, tensor in parsed.items()} == {
        "a": [1, 2],
        "s": [b"x", b"y"],
        "p": [0.25, 0.75],
    }
    decoded = ExamplesToRecordBatchDecoder().DecodeBatch(records).to_pydict()
    assert decoded == {"a": [[1], [2]], "s": [[b"x"], [b"y"]], "p": [[0.25], [0.75]]}
